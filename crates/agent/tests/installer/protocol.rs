//! Who may say what to the installer, and what becomes of it.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

use moorage_agent::{
    Disk,
    installer::protocol::{Answer, LONGEST_REQUEST, Reason, Request, Unit},
};
use moorage_wire::{Program, Secret};
use rstest::rstest;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use crate::{order::Release, program::Behaviour, server::Server};

/// The largest order fits: a desired state of 1 MiB in base64.
const _: () = assert!(LONGEST_REQUEST > 4 * 1024 * 1024 / 3 + 1024);

async fn running_server() -> Server {
    let mut server = Server::new();
    server.boot(Disk::default()).await;
    server
}

async fn say(server: &Server, bytes: &[u8]) -> Answer {
    let mut stream = UnixStream::connect(server.layout.installer_socket()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    serde_json::from_slice(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

#[rstest]
#[case::no_json(b"hidden\n")]
#[case::unknown(b"{\"verb\":\"run\",\"command\":\"hidden\"}\n")]
#[case::unknown_unit(b"{\"verb\":\"stop\",\"unit\":\"hidden.service\"}\n")]
#[case::cut_off(b"{\"verb\":\"installed\"}")]
#[tokio::test]
async fn what_is_not_understood_is_refused_and_not_repeated(#[case] bytes: &[u8]) {
    let server = running_server().await;
    match say(&server, bytes).await {
        Answer::Failed { reason: Reason::Refused, message } => {
            assert!(!message.contains("hidden"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_request_of_any_length_is_cut_off_at_the_limit() {
    let server = running_server().await;
    let mut stream = UnixStream::connect(server.layout.installer_socket()).await.unwrap();
    let (mut from, mut to) = stream.split();
    let flood = async {
        let chunk = vec![b' '; 64 * 1024];
        // It stops listening at some point, and this ends.
        while to.write_all(&chunk).await.is_ok() {}
    };
    let hear = async {
        let mut answer = Vec::new();
        // The rest of the flood may break the connection behind the answer.
        let _ = from.read_to_end(&mut answer).await;
        answer
    };
    let (answer, ()) =
        tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(hear, flood) })
            .await
            .expect("it does not read for ever");
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.is_empty() || answer.contains("too long"), "{answer}");
}

#[tokio::test]
async fn a_restart_of_the_agent_is_answered_before_it_happens() {
    let server = running_server().await;
    let client = server.client();
    assert!(!client.status(Unit::Openclaw).await.unwrap().running);
    client.perform(&Request::Start { unit: Unit::Openclaw }).await.unwrap();
    assert!(client.status(Unit::Openclaw).await.unwrap().running);
    client.perform(&Request::Stop { unit: Unit::Openclaw }).await.unwrap();
    client.perform(&Request::Restart { unit: Unit::Cloudflared }).await.unwrap();
    client.perform(&Request::Restart { unit: Unit::Agent }).await.unwrap();
    client.perform(&Request::Reboot).await.unwrap();
    client.perform(&Request::PowerOff).await.unwrap();
    let begin = std::time::Instant::now();
    let expected = [
        "start openclaw.service",
        "stop openclaw.service",
        "restart cloudflared.service",
        "restart moorage-agent.service",
        "Reboot",
        "PowerOff",
    ];
    // The last three happen after their answers, in whatever order.
    loop {
        let mut calls = server.calls();
        calls[3..].sort();
        let mut expected = expected;
        expected[3..].sort_unstable();
        if calls == expected {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(5), "{calls:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_tunnels_token_is_replaced_for_its_group_alone() {
    let server = running_server().await;
    let token = |token: &str| Request::WriteTunnelToken { token: token.to_owned() };
    server.client().perform(&token("bmV3LXRva2Vu")).await.unwrap();
    let path = server.layout.tunnel_token();
    assert_eq!(fs::read_to_string(&path).unwrap(), "bmV3LXRva2Vu\n");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    let refused = server.client().perform(&token("hidden token")).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::Refused));
    assert!(!refused.to_string().contains("hidden"));
}

#[tokio::test]
async fn the_used_enrolment_key_is_erased() {
    let server = running_server().await;
    let path = server.layout.bootstrap();
    let key = "5a".repeat(32);
    let mut document: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    document["enrolmentKey"] = key.clone().into();
    fs::write(&path, document.to_string()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let owner = fs::metadata(&path).unwrap();
    for _ in 0..2 {
        server.client().perform(&Request::EraseEnrolmentKey).await.unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains(&key));
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o640);
        assert_eq!((metadata.uid(), metadata.gid()), (owner.uid(), owner.gid()));
    }
    let (_, order, file) = server.new_agent(Behaviour::Good);
    server.client().update_agent(&order, &file).await.unwrap();
}

#[tokio::test]
async fn an_order_of_somebody_else_is_not_followed() {
    let server = running_server().await;
    let (artifact, file) = server.fetched(&crate::program::program("2.0.0", Behaviour::Good));
    let stranger = moorage_wire::signature::OperatorKey::from_seed(&Secret::from([9; 32]));
    let kind = Program::Agent;
    let order = Release::default().with(kind, artifact).order_by(&stranger);
    let refused = server.client().update_agent(&order, &file).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::BadOrder));
    fs::remove_file(server.layout.bootstrap()).unwrap();
    let refused = server.client().update_agent(&order, &file).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::System));
}

#[tokio::test]
async fn the_socket_is_private_and_confirmation_is_idempotent() {
    let server = running_server().await;
    let socket = fs::metadata(server.layout.installer_socket()).unwrap();
    assert_eq!(socket.mode() & 0o7777, 0o600);
    server.client().confirm_agent().await.unwrap();
}

#[tokio::test]
async fn another_user_is_refused_even_if_the_socket_is_open() {
    let mut server = Server::new();
    let own = server.client_user;
    server.client_user = own + 1;
    server.boot(Disk::default()).await;
    let socket = server.layout.installer_socket();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    if own != 0 {
        let refused = server.client().perform(&Request::Reboot).await.unwrap_err();
        assert!(refused.to_string().contains("not for you"), "{refused}");
    } else if let Some(said) = say_as_nobody(&socket).await {
        assert!(said.contains("not for you"), "{said}");
    }
    assert_eq!(server.calls(), Vec::<String>::new());
}

/// Root is let in everywhere, so another program has to be somebody else.
async fn say_as_nobody(socket: &Path) -> Option<String> {
    const PYTHON: &str = "/usr/bin/python3";
    if !Path::new(PYTHON).exists() {
        moorage_testbed::skip(format!("there is no {PYTHON}"));
        return None;
    }
    let script = "import socket,sys\n\
                  s=socket.socket(socket.AF_UNIX)\n\
                  s.connect(sys.argv[1])\n\
                  try: s.sendall(b'{\"verb\":\"reboot\"}\\n')\n\
                  except BrokenPipeError: pass\n\
                  print(s.recv(1000).decode())";
    let mut command = tokio::process::Command::new(PYTHON);
    let output = command.args(["-c", script]).arg(socket).uid(65534).gid(65534).output().await;
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}
