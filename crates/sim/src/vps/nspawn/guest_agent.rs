//! Looking into a running virtual machine: QEMU's guest agent, which cloud images bring along, runs
//! programs inside. Its line is a serial one, so it works without any network.

use std::io;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::exec::{ExecAnswer, ExecRequest, limited};
use crate::json_lines::{read_line_of, write_line};

/// How long the agent may take for one answer, on a busy machine without acceleration.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Whether it is there at all is asked for less long: it is not, early in a boot.
const SYNC_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer, in bytes: the agent keeps 16 MiB of output.
const ANSWER_LIMIT: u64 = 48 << 20;
/// Pauses between questions whether a program has ended.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(250)];

/// Runs a program and waits for it.
pub(super) async fn exec(socket: &Path, request: ExecRequest) -> io::Result<ExecAnswer> {
    let (argv, stdin) = limited(request);
    let (program, arguments) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let order = json!({
        "path": program,
        "arg": arguments,
        "input-data": STANDARD.encode(stdin),
        "capture-output": true,
    });
    let started = ask(socket, "guest-exec", order).await?;
    let mut pause = PAUSES[0];
    loop {
        let status =
            ask(socket, "guest-exec-status", json!({"pid": started["pid"].clone()})).await?;
        if status["exited"] == json!(true) {
            return answer(&status);
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES[1]);
    }
}

fn answer(status: &Value) -> io::Result<ExecAnswer> {
    let bytes = |field: &str| match status[field].as_str() {
        Some(text) => STANDARD.decode(text).map_err(io::Error::other),
        None => Ok(Vec::new()),
    };
    Ok(ExecAnswer {
        exit_code: status["exitcode"].as_i64().and_then(|code| i32::try_from(code).ok()),
        stdout: bytes("out-data")?,
        stderr: bytes("err-data")?,
    })
}

/// Asks for an orderly reboot, which nothing answers.
pub(super) async fn reboot(socket: &Path) -> io::Result<()> {
    let mut line = connect(socket).await?;
    send(&mut line, "guest-shutdown", json!({"mode": "reboot"})).await
}

/// One question on a line of its own: the agent serves one at a time, others wait for theirs.
async fn ask(socket: &Path, what: &str, arguments: Value) -> io::Result<Value> {
    let mut line = connect(socket).await?;
    send(&mut line, what, arguments).await?;
    let answer = timeout(ANSWER_TIMEOUT, read(&mut line)).await;
    let answer = answer.map_err(|_| io::Error::other("the guest agent does not answer"))??;
    match answer.get("return") {
        Some(value) => Ok(value.clone()),
        None => Err(io::Error::other(format!("guest agent: {}", answer["error"]["desc"]))),
    }
}

/// A line on which nothing of an earlier conversation is left.
async fn connect(socket: &Path) -> io::Result<BufReader<UnixStream>> {
    let absent = || io::Error::other("the guest agent does not answer (yet)");
    let sync = async {
        let mut line = BufReader::new(UnixStream::connect(socket).await?);
        // The byte ends whatever a reader before us may have left half said.
        line.write_all(b"\xff").await?;
        send(&mut line, "guest-sync-delimited", json!({"id": 7})).await?;
        let mut earlier = Vec::new();
        (&mut line).take(ANSWER_LIMIT).read_until(b'\xff', &mut earlier).await?;
        let answer = read(&mut line).await?;
        if answer["return"] == json!(7) { Ok(line) } else { Err(absent()) }
    };
    timeout(SYNC_TIMEOUT, sync).await.map_err(|_| absent())?
}

async fn send(line: &mut BufReader<UnixStream>, what: &str, arguments: Value) -> io::Result<()> {
    write_line(line, &json!({"execute": what, "arguments": arguments})).await
}

async fn read(line: &mut BufReader<UnixStream>) -> io::Result<Value> {
    read_line_of(line, ANSWER_LIMIT).await
}
