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
use moorage_sim_clouds::ids::random_bytes;

/// How long the agent may take for one answer, on a busy machine without acceleration; and to be there
/// at all, where somebody waits for what it does.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take to be there where that is the question: early in a boot, it is not.
pub(super) const PRESENCE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer, in bytes: the agent keeps 16 MiB of output.
const ANSWER_LIMIT: u64 = 48 << 20;
/// Pauses between questions whether a program has ended.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(250)];

/// Runs a program and waits for it. `presence` is how long the agent may take to be there.
pub(super) async fn exec(
    socket: &Path,
    presence: Duration,
    request: ExecRequest,
) -> io::Result<ExecAnswer> {
    let (argv, stdin) = limited(request);
    let (program, arguments) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let order = json!({
        "path": program,
        "arg": arguments,
        "input-data": STANDARD.encode(stdin),
        "capture-output": true,
    });
    let started = ask(connect(socket, presence).await?, "guest-exec", order).await?;
    let mut pause = PAUSES[0];
    loop {
        let line = connect(socket, ANSWER_TIMEOUT).await?;
        let status = ask(line, "guest-exec-status", json!({"pid": started["pid"].clone()})).await?;
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
    let mut line = connect(socket, PRESENCE_TIMEOUT).await?;
    send(&mut line, "guest-shutdown", json!({"mode": "reboot"})).await
}

/// One question on a line of its own: the agent serves one at a time, others wait for theirs.
async fn ask(mut line: BufReader<UnixStream>, what: &str, arguments: Value) -> io::Result<Value> {
    send(&mut line, what, arguments).await?;
    let answer = timeout(ANSWER_TIMEOUT, read(&mut line)).await;
    let answer = answer.map_err(|_| io::Error::other("the guest agent does not answer"))??;
    match answer.get("return") {
        Some(value) => Ok(value.clone()),
        None => Err(io::Error::other(format!("guest agent: {}", answer["error"]["desc"]))),
    }
}

/// A line on which nothing of an earlier conversation is left.
async fn connect(socket: &Path, at_most: Duration) -> io::Result<BufReader<UnixStream>> {
    let sync = async {
        let mut line = BufReader::new(UnixStream::connect(socket).await?);
        // Whoever was connected before may not have waited for an answer, which then comes to us.
        let id = u32::from_le_bytes(random_bytes());
        // The byte ends whatever a reader before us may have left half said.
        line.write_all(b"\xff").await?;
        send(&mut line, "guest-sync-delimited", json!({"id": id})).await?;
        loop {
            let mut earlier = Vec::new();
            (&mut line).take(ANSWER_LIMIT).read_until(b'\xff', &mut earlier).await?;
            if read(&mut line).await?["return"] == json!(id) {
                return Ok(line);
            }
        }
    };
    let absent = |_| io::Error::other("the guest agent does not answer (yet)");
    timeout(at_most, sync).await.map_err(absent)?
}

async fn send(line: &mut BufReader<UnixStream>, what: &str, arguments: Value) -> io::Result<()> {
    write_line(line, &json!({"execute": what, "arguments": arguments})).await
}

async fn read(line: &mut BufReader<UnixStream>) -> io::Result<Value> {
    read_line_of(line, ANSWER_LIMIT).await
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// An agent on which a program ends at once by this code, and that says something first that an
    /// earlier client has not waited for.
    async fn agent(listener: UnixListener, late: &[u8], code: i32) -> io::Result<()> {
        loop {
            let mut line = BufReader::new(listener.accept().await?.0);
            line.write_all(late).await?;
            let mut before = Vec::new();
            line.read_until(b'\xff', &mut before).await?;
            while let Ok(asked) = read(&mut line).await {
                let answer = match asked["execute"].as_str() {
                    Some("guest-sync-delimited") => {
                        line.write_all(b"\xff").await?;
                        asked["arguments"]["id"].clone()
                    }
                    Some("guest-exec") => json!({"pid": 5}),
                    _ => json!({"exited": true, "exitcode": code}),
                };
                write_line(&mut line, &json!({"return": answer})).await?;
            }
        }
    }

    #[rstest::rstest]
    #[case::an_answer(b"{\"return\": {\"pid\": 1}}\n")]
    #[case::half_an_answer(b"1}}\n")]
    #[case::that_it_is_there(b"\xff{\"return\": 7}\n\xff{\"return\": 8}\n")]
    #[tokio::test]
    async fn what_an_earlier_client_was_to_hear_is_passed_over(#[case] late: &[u8]) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent");
        let listener = UnixListener::bind(&socket).unwrap();
        let request = ExecRequest::of(vec!["true".to_owned()], None);
        let answer = tokio::select! {
            failed = agent(listener, late, 3) => panic!("{failed:?}"),
            answer = exec(&socket, PRESENCE_TIMEOUT, request) => answer.unwrap(),
        };
        assert_eq!(answer.exit_code, Some(3));
    }
}
