//! The program: its ready file, its end, and its help.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::common::{SIM, eventually};

fn spawn(ready: &Path) -> Child {
    Command::new(SIM)
        .args(["serve", "--ready-file"])
        .arg(ready)
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("starts")
}

#[tokio::test]
async fn it_prints_its_addresses_and_ends_cleanly_on_sigterm() {
    let dir = tempfile::tempdir().expect("a directory");
    let ready = dir.path().join("ready.json");
    let mut program = spawn(&ready);
    eventually("the ready file", async || ready.exists().then_some(())).await;
    let endpoints: Value =
        serde_json::from_slice(&std::fs::read(&ready).expect("readable")).expect("JSON");
    assert!(endpoints["hetzner"].as_str().unwrap().ends_with("/v1"));
    assert!(endpoints["cloudflare"].as_str().unwrap().ends_with("/client/v4"));
    let health = reqwest::get(format!("{}/healthz", endpoints["admin"].as_str().unwrap()))
        .await
        .expect("answers");
    assert_eq!(health.status(), 200);
    moorage_testbed::signal(program.id().expect("runs"), rustix::process::Signal::TERM);
    assert!(program.wait().await.expect("ends").success());
    assert!(!ready.exists());
}

#[tokio::test]
async fn help_names_every_flag() {
    let help = Command::new(SIM).args(["serve", "--help"]).output().await.expect("runs");
    let help = String::from_utf8(help.stdout).expect("text");
    for flag in [
        "--listen-hetzner",
        "--listen-cloudflare",
        "--listen-admin",
        "--backend",
        "--ready-file",
        "--rate-limit-scale",
    ] {
        assert!(help.contains(flag), "{flag}");
    }
}
