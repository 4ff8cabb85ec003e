//! The real program, ended and started again.

use std::{os::unix::fs::PermissionsExt as _, path::Path, process::Stdio};

use http::StatusCode;
use http_body_util::Empty;
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use moorage_testbed::{signal, size_in_status};
use rustix::process::Signal;
use tokio::{
    net::UnixStream,
    process::{Child, Command},
};

use crate::world::{World, eventually};

fn serve(world: &World) -> Child {
    Command::new(env!("CARGO_BIN_EXE_moorage-agent"))
        .args(["serve", "--programs", "external", "--root"])
        .arg(world.root())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn healthz(socket: &Path) -> Option<StatusCode> {
    let stream = UnixStream::connect(socket).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let connection = tokio::spawn(connection);
    let request = http::Request::get("/healthz").body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.ok();
    connection.abort();
    answer.map(|answer| answer.status())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_starts_again_and_ends_cleanly() {
    let world = World::new().await;
    let socket = world.layout.agent_socket();
    let mut first = serve(&world);
    eventually("the agent answers", || healthz(&socket)).await;
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660, "cloudflared is in the socket's group, others are not");
    first.kill().await.unwrap();

    let mut second = serve(&world);
    eventually("the agent answers again", || healthz(&socket)).await;
    signal(second.id().unwrap(), Signal::TERM);
    assert!(second.wait().await.unwrap().success());
}

/// Resident memory of a process that is not shared with the file of its program, in KiB.
fn anonymous_memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    size_in_status(&status, "RssAnon").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_flat_under_a_thousand_wrong_tokens() {
    const MOST_GROWTH: u64 = 2048;
    let world = World::new().await;
    let socket = world.layout.agent_socket();
    let agent = serve(&world);
    eventually("the agent answers", || healthz(&socket)).await;
    let knock = async |number: u32| {
        let stream = UnixStream::connect(&socket).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let address = std::net::Ipv4Addr::from(0xc633_6400 + number % 50);
        let request = http::Request::get("/v1/report")
            .header("authorization", format!("Bearer wrong-{number}"))
            .header("cf-connecting-ip", address.to_string());
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let status = sender.send_request(request).await.unwrap().status();
        connection.abort();
        status
    };
    // What is allocated once, whatever comes.
    assert_eq!(knock(0).await, StatusCode::UNAUTHORIZED);
    let before = anonymous_memory(agent.id().unwrap());
    let mut locked_out = 0;
    for number in 0..1000 {
        locked_out += u32::from(knock(number).await == StatusCode::TOO_MANY_REQUESTS);
    }
    assert!(locked_out > 400, "only {locked_out} were locked out");
    let after = anonymous_memory(agent.id().unwrap());
    assert!(after < before + MOST_GROWTH, "{before} KiB became {after} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listen_address_that_is_not_loopback_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_moorage-agent"))
        .args(["serve", "--listen", "tcp:192.0.2.1:8080"])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("loopback"), "{message}");
}
