//! The program itself.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use moorage_agent::{
    Disk, Layout,
    installer::{client::InstallerClient, protocol::Unit},
};
use moorage_testbed::signal;
use moorage_wire::bootstrap::Operator;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::order::bootstrap;

fn program(arguments: &[&str], root: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moorage-agent"));
    command
        .args(arguments)
        .arg("--root")
        .arg(root)
        .args(["--bus", "unix:path=/nonexistent/bus"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn start(root: &Path, more: &[&str]) -> Child {
    let own = fs::metadata(root).unwrap();
    let (user, group) = (own.uid().to_string(), own.gid().to_string());
    let mut command = program(&["installer", "--client", &user, "--token-group", &group], root);
    command.args(["--trial-user", "65534"]).args(more).spawn().unwrap()
}

async fn end(child: Child) -> (Output, String) {
    let output = timeout(Duration::from_secs(20), child.wait_with_output()).await;
    let output = output.expect("it ends").unwrap();
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    (output, said)
}

#[tokio::test]
async fn the_program_answers_logs_and_ends_on_a_signal() {
    let folder = TempDir::new().unwrap();
    let layout = Layout::new(folder.path().to_owned());
    let socket = format!("unix:{}", layout.installer_socket().display());
    Disk::default().create_folder(layout.bootstrap().parent().unwrap()).unwrap();
    Disk::default().write_json(&layout.bootstrap(), &bootstrap()).unwrap();
    let child = start(folder.path(), &["--listen", &socket]);
    let client = InstallerClient::new(layout.installer_socket());
    let deadline = Instant::now() + Duration::from_secs(20);
    let inventory = loop {
        match client.inventory().await {
            Ok(inventory) => break inventory,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(inventory.artifacts, []);
    let operator: Option<Operator> = Disk::default().read_json(&layout.operator()).unwrap();
    assert_eq!(operator, Some(bootstrap().operator()), "the worker learns who its operator is");
    let no_bus = client.status(Unit::Openclaw).await.unwrap_err().to_string();
    assert!(no_bus.contains("systemd cannot be asked to tell about openclaw.service"), "{no_bus}");
    signal(child.id().unwrap(), Signal::TERM);
    let (output, said) = end(child).await;
    assert!(output.status.success(), "{said}");
    assert!(said.contains("audit") && said.contains("openclaw.service"), "{said}");
}

#[tokio::test]
async fn without_a_socket_of_systemds_it_says_what_is_missing() {
    let folder = TempDir::new().unwrap();
    let (output, said) = end(start(folder.path(), &[])).await;
    assert!(!output.status.success() && said.contains("LISTEN_FDS"), "{said}");
    let (output, said) = end(start(folder.path(), &["--listen", "tcp:127.0.0.1:1"])).await;
    assert!(!output.status.success() && said.contains("Unix socket only"), "{said}");
    let unknown = ["--client", "no-such-user-at-all"];
    let child = program(&["installer"], folder.path()).args(unknown).spawn().unwrap();
    let (output, said) = end(child).await;
    assert!(!output.status.success() && said.contains("no-such-user-at-all"), "{said}");
}

#[tokio::test]
async fn a_roll_back_with_nothing_to_roll_back_succeeds_and_says_so() {
    let folder = TempDir::new().unwrap();
    let child = program(&["roll-back"], folder.path()).spawn().unwrap();
    let (output, said) = end(child).await;
    assert!(output.status.success(), "{said}");
    assert!(said.contains("no update of the agent is under way"), "{said}");
}
