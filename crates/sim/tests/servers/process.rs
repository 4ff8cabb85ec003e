//! The process backend: servers boot from user-data, are supervised, and leave nothing behind.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use moorage_sim_clouds::{PowerAction, ServerBoot, VpsBackend as _};
use moorage_sim_servers::vps::{ProcessBackend, ProcessOptions, Unit};
use moorage_testbed::{runs, signal};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::common::{
    Lab, TUNNEL, agent_stand_in, eventually, gone, plain_client, rules, run_token, user_data,
};

struct Host {
    lab: Lab,
    backend: Arc<ProcessBackend>,
}

/// The same in all tests, which run side by side: each backend finds an address of its own.
const SERVER: u64 = 4711;

impl Host {
    async fn start() -> Self {
        let lab = Lab::start().await;
        let agent_bin = agent_stand_in(&lab.folder);
        let backend = ProcessBackend::new(ProcessOptions {
            state_dir: lab.folder.path().join("state"),
            sim_bin: crate::common::SIM.into(),
            agent_bin,
            connector_edge: lab.edge.connectors(),
            edge_ca: lab.edge.ca_file().to_owned(),
            boot_delay: Duration::from_millis(1),
        });
        Self { lab, backend: Arc::new(backend.unwrap()) }
    }

    /// A server with agent and connector, and its address.
    async fn booted() -> (Self, Ipv4Addr) {
        let host = Self::start().await;
        host.backend.create(boot(&user_data(b"first"))).await.unwrap();
        let address = host.backend.address(SERVER).unwrap();
        host.runs(Unit::Agent).await;
        healthy(address).await;
        (host, address)
    }

    async fn runs(&self, unit: Unit) -> u32 {
        eventually("a unit", async || {
            self.backend
                .processes(SERVER)
                .into_iter()
                .find(|(running, _)| *running == unit)
                .map(|(_, process)| process)
        })
        .await
    }

    fn root(&self) -> PathBuf {
        self.backend.root(SERVER).unwrap()
    }

    async fn installer(&self, request: Value) -> Value {
        let socket = self.root().join("run/moorage/installer.sock");
        let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
        let mut stream = BufReader::new(stream);
        stream.write_all(format!("{request}\n").as_bytes()).await.unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn processes(&self) -> Vec<u32> {
        self.backend.processes(SERVER).into_iter().map(|(_, process)| process).collect()
    }
}

fn boot(user_data: &str) -> ServerBoot {
    ServerBoot {
        id: SERVER,
        name: "ada".into(),
        user_data: user_data.into(),
        ipv4: None,
        ipv6: None,
    }
}

async fn healthy(address: Ipv4Addr) {
    let url = format!("http://{address}:7443/healthz");
    let client = plain_client();
    eventually("the agent's stand-in", async || client.get(&url).send().await.ok()).await;
}

#[tokio::test]
async fn a_server_boots_and_is_reached_through_its_tunnel() {
    let (host, address) = Host::booted().await;
    assert_eq!(address.octets()[0], 127);
    let token = host.root().join("etc/moorage/tunnel-token");
    assert_eq!(std::fs::metadata(token).unwrap().permissions().mode() & 0o777, 0o600);
    host.lab
        .registry
        .set_rules(TUNNEL, rules(&[("ada-mgmt.example.com", "unix:/run/moorage/agent.sock")]));
    host.lab.registry.add_route("ada-mgmt.example.com", TUNNEL);
    host.lab.connections(1).await;
    let client = host.lab.client(&["ada-mgmt.example.com"]);
    eventually("the agent through the tunnel", async || {
        let response = client.get("https://ada-mgmt.example.com/healthz").send().await.ok()?;
        (response.status() == 200).then_some(())
    })
    .await;
    host.backend.shutdown().await;
}

#[tokio::test]
async fn a_deleted_server_leaves_no_process_and_no_file() {
    let (host, address) = Host::booted().await;
    host.runs(Unit::Cloudflared).await;
    let (processes, root) = (host.processes(), host.root());
    assert_eq!(processes.len(), 2);
    assert!(processes.iter().all(|process| runs(*process)));
    host.backend.delete(SERVER).await.unwrap();
    assert!(!processes.iter().any(|process| runs(*process)));
    assert!(!root.exists());
    host.lab.connections(0).await;
    std::net::TcpListener::bind((address, 7443)).expect("the address is free again");
    host.backend.delete(SERVER).await.expect("a second deletion is fine");
}

#[tokio::test]
async fn a_unit_that_dies_is_started_again() {
    let (host, address) = Host::booted().await;
    let first = host.runs(Unit::Agent).await;
    signal(first, Signal::KILL);
    eventually("another process", async || {
        let now = host.runs(Unit::Agent).await;
        (now != first).then_some(())
    })
    .await;
    healthy(address).await;
    let status = host.installer(json!({"verb": "status", "unit": "agent"})).await;
    assert_eq!(status, json!({"result": "status", "running": true, "starts": 2}));
    host.backend.shutdown().await;
}

#[tokio::test]
async fn power_off_ends_everything_and_power_on_keeps_the_disk() {
    for off in [PowerAction::Off, PowerAction::Shutdown] {
        let (host, address) = Host::booted().await;
        let processes = host.processes();
        std::fs::write(host.root().join("etc/moorage/kept"), "kept").unwrap();
        host.backend.power(SERVER, off).await.unwrap();
        gone(&processes).await;
        assert!(host.processes().is_empty());
        host.backend.power(SERVER, PowerAction::On).await.unwrap();
        healthy(address).await;
        assert!(host.root().join("etc/moorage/kept").exists());
        host.backend.shutdown().await;
    }
}

#[tokio::test]
async fn a_rebuild_empties_the_disk_and_applies_the_new_user_data() {
    let (host, address) = Host::booted().await;
    std::fs::write(host.root().join("etc/moorage/kept"), "kept").unwrap();
    host.backend.rebuild(boot(&user_data(b"second"))).await.unwrap();
    healthy(address).await;
    assert!(!host.root().join("etc/moorage/kept").exists());
    let token = std::fs::read_to_string(host.root().join("etc/moorage/tunnel-token")).unwrap();
    assert_eq!(token, run_token(b"second"));
    host.backend.shutdown().await;
}

#[tokio::test]
async fn a_server_with_wrong_user_data_boots_and_says_what_is_wrong() {
    let host = Host::start().await;
    host.backend.create(boot("#!/bin/sh\n")).await.unwrap();
    let log = host.root().join("var/log/cloud-init.log");
    let text = eventually("the log", async || {
        std::fs::read_to_string(&log).ok().filter(|text| !text.is_empty())
    })
    .await;
    assert!(text.contains("not applied"), "{text}");
    assert!(host.processes().is_empty());
    host.backend.shutdown().await;
}

#[tokio::test]
async fn the_installer_writes_the_tunnel_token() {
    let (host, _) = Host::booted().await;
    host.lab.connections(1).await;
    host.lab.registry.rotate(TUNNEL, b"second");
    host.lab.registry.close_connections(TUNNEL);
    let token = run_token(b"second");
    assert_eq!(
        host.installer(json!({"verb": "write-tunnel-token", "token": token})).await,
        json!({"result": "done"})
    );
    let file = host.root().join("etc/moorage/tunnel-token");
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim_end(), token);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        host.installer(json!({"verb": "restart", "unit": "cloudflared"})).await,
        json!({"result": "done"})
    );
    host.lab.connections(1).await;
    for wrong in [
        json!({"verb": "write-tunnel-token", "token": "a b"}),
        json!({"verb": "run", "command": "id"}),
    ] {
        assert_eq!(host.installer(wrong).await["result"], "failed");
    }
    host.backend.shutdown().await;
}

#[tokio::test]
async fn openclaw_does_not_start_with_a_broken_configuration() {
    let (host, address) = Host::booted().await;
    let status = async || host.installer(json!({"verb": "status", "unit": "openclaw"})).await;
    assert_eq!(status().await, json!({"result": "status", "running": false, "starts": 0}));
    let config = host.root().join("var/lib/openclaw/.openclaw/openclaw.json");
    std::fs::write(&config, "{}").unwrap();
    host.installer(json!({"verb": "start", "unit": "openclaw"})).await;
    // Exit code 78: not started again.
    eventually("its end", async || (status().await["running"] == false).then_some(())).await;
    std::fs::write(
        &config,
        json!({"gateway": {"mode": "local", "auth": {"mode": "none"}}}).to_string(),
    )
    .unwrap();
    assert_eq!(
        host.installer(json!({"verb": "start", "unit": "openclaw"})).await,
        json!({"result": "done"})
    );
    let url = format!("http://{address}:18789/startupz");
    let client = plain_client();
    eventually("the gateway", async || {
        client.get(&url).send().await.ok().filter(|response| response.status() == 200)
    })
    .await;
    assert_eq!(status().await, json!({"result": "status", "running": true, "starts": 2}));
    assert_eq!(
        host.installer(json!({"verb": "stop", "unit": "openclaw"})).await,
        json!({"result": "done"})
    );
    assert_eq!(status().await["running"], false);
    host.backend.shutdown().await;
}

#[tokio::test]
async fn the_dashboard_opens_through_the_tunnel_with_its_token() {
    let (host, _) = Host::booted().await;
    let config = json!({
        "gateway": {"mode": "local", "trustedProxies": ["127.0.0.1"], "auth": {"mode": "token", "token": "gateway-token"}},
    });
    let file = host.root().join("var/lib/openclaw/.openclaw/openclaw.json");
    std::fs::write(file, config.to_string()).unwrap();
    host.installer(json!({"verb": "start", "unit": "openclaw"})).await;
    host.lab.registry.set_rules(TUNNEL, rules(&[("ada.example.com", "http://127.0.0.1:18789")]));
    host.lab.registry.add_route("ada.example.com", TUNNEL);
    let client = host.lab.client(&["ada.example.com"]);
    let visit = async |token: &str| {
        let url = "https://ada.example.com/api/whoami";
        Some(client.get(url).bearer_auth(token).send().await.ok()?.status().as_u16())
    };
    eventually("the dashboard", async || (visit("gateway-token").await == Some(200)).then_some(()))
        .await;
    assert_eq!(visit("wrong").await, Some(401));
    host.backend.shutdown().await;
}
