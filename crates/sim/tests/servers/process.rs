//! The process backend: servers boot from user-data, are supervised, and leave nothing behind.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{Lab, TUNNEL, eventually, plain_client, rules, run_token, runs};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use moorage_sim::edge::handshake::{RunToken, TunnelSecret};
use moorage_sim::vps::{ProcessBackend, ProcessOptions, Unit};
use moorage_sim::{PowerAction, ServerBoot, VpsBackend as _};
use rustix::process::{Pid, Signal, kill_process};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

struct Host {
    lab: Lab,
    backend: Arc<ProcessBackend>,
}

/// Ids of their own keep the addresses of tests apart, although the backend would cope.
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

/// The simulator's program under the name of the agent's stand-in.
fn agent_stand_in(folder: &tempfile::TempDir) -> PathBuf {
    let path = folder.path().join("agent-stand-in");
    std::os::unix::fs::symlink(crate::common::SIM, &path).unwrap();
    path
}

fn boot(user_data: &str) -> ServerBoot {
    ServerBoot { id: SERVER, name: "ada".into(), user_data: user_data.into() }
}

fn user_data(secret: &[u8]) -> String {
    user_data_with(&run_token(secret))
}

fn user_data_with(token: &str) -> String {
    let files = json!({"write_files": [
        {"path": "/etc/moorage/bootstrap.json", "permissions": "0600", "owner": "root:root", "content": "{}"},
        {"path": "/etc/moorage/tunnel-token", "permissions": "0600", "content": token},
    ]});
    format!("#cloud-config\n{files}\n")
}

async fn healthy(address: Ipv4Addr) {
    let url = format!("http://{address}:7443/healthz");
    let client = plain_client();
    eventually("the agent's stand-in", async || client.get(&url).send().await.ok()).await;
}

async fn gone(processes: &[u32]) {
    eventually("the end of the processes", async || {
        (!processes.iter().any(|process| runs(*process))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_server_boots_from_its_user_data_and_is_reached_through_its_tunnel() {
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
    kill(first, Signal::KILL);
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
async fn the_installer_writes_the_tunnel_token_and_restarts_cloudflared() {
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
async fn openclaw_runs_when_the_installer_is_asked_and_not_with_a_broken_configuration() {
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
async fn the_dashboard_is_reached_through_the_tunnel_with_the_gateway_token() {
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

/// The whole program, and how to call its clouds.
struct Program {
    child: tokio::process::Child,
    endpoints: Value,
    client: reqwest::Client,
    folder: tempfile::TempDir,
}

impl Program {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("ready.json");
        let child = tokio::process::Command::new(crate::common::SIM)
            .args(["serve", "--backend", "process", "--action-ms", "1", "--boot-delay-ms", "1"])
            .arg("--ready-file")
            .arg(&ready)
            .arg("--state-dir")
            .arg(folder.path().join("state"))
            .arg("--agent-bin")
            .arg(agent_stand_in(&folder))
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let endpoints = eventually("the ready file", async || {
            serde_json::from_slice::<Value>(&std::fs::read(&ready).ok()?).ok()
        })
        .await;
        let program = Self { child, endpoints, client: plain_client(), folder };
        let project = json!({"token": "token"});
        program.call("admin", Method::PUT, "/admin/hetzner/projects/demo", project).await;
        let account = json!({"token": "token", "zones": [{"id": ZONE, "name": "example.com"}]});
        program.call("admin", Method::PUT, "/admin/cloudflare/accounts/acc", account).await;
        program
    }

    /// Calls one of the APIs, which must do it.
    async fn call(&self, api: &str, method: Method, path: &str, body: Value) -> Value {
        let url = format!("{}{path}", self.endpoints[api].as_str().unwrap());
        let request = self.client.request(method, &url).bearer_auth("token").json(&body);
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "{url}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    async fn create_server(&self, user_data: &str) -> u64 {
        let server = json!({"name": "ada", "server_type": "cx33", "image": "debian-13", "user_data": user_data});
        let created = self.call("hetzner", Method::POST, "/servers", server).await;
        created["server"]["id"].as_u64().unwrap()
    }

    /// Agent and connector.
    async fn two_children(&self) -> Vec<u32> {
        let parent = self.child.id().unwrap();
        eventually("agent and connector", async || {
            Some(children_of(parent)).filter(|children| children.len() == 2)
        })
        .await
    }
}

const ZONE: &str = "0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn what_the_apis_make_works_as_one_and_goes_as_one() {
    let program = Program::start().await;
    let secret = [7_u8; 32];
    let tunnels = "/accounts/acc/cfd_tunnel";
    let tunnel = json!({"name": "ada", "config_src": "cloudflare", "tunnel_secret": STANDARD.encode(secret)});
    let tunnel = program.call("cloudflare", Method::POST, tunnels, tunnel).await;
    let tunnel = tunnel["result"]["id"].as_str().unwrap().to_owned();
    let ingress = json!({"config": {"ingress": [
        {"hostname": "ada-mgmt.example.com", "service": "unix:/run/moorage/agent.sock"},
        {"service": "http_status:404"},
    ]}});
    let of_tunnel = format!("{tunnels}/{tunnel}");
    program.call("cloudflare", Method::PUT, &format!("{of_tunnel}/configurations"), ingress).await;
    let record = json!({
        "type": "CNAME", "name": "ada-mgmt.example.com", "content": format!("{tunnel}.cfargotunnel.com"),
        "proxied": true, "ttl": 1,
    });
    program.call("cloudflare", Method::POST, &format!("/zones/{ZONE}/dns_records"), record).await;
    let token = RunToken { account: "acc".into(), tunnel, secret: TunnelSecret(secret.to_vec()) };
    let server = program.create_server(&user_data_with(&token.encode())).await;

    let pem = std::fs::read(program.endpoints["edgeCa"].as_str().unwrap()).unwrap();
    let edge = program.endpoints["edge"].as_str().unwrap().parse().unwrap();
    let visitor = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()])
        .no_proxy()
        .resolve("ada-mgmt.example.com", edge)
        .build()
        .unwrap();
    let visit = async || {
        let response = visitor.get("https://ada-mgmt.example.com/healthz").send().await.ok()?;
        Some(response.status().as_u16())
    };
    eventually("the agent", async || (visit().await == Some(200)).then_some(())).await;

    // A new secret alone cuts nothing; closing the connections does, and the old token stays out.
    let patch = json!({"tunnel_secret": STANDARD.encode([8_u8; 32])});
    program.call("cloudflare", Method::PATCH, &of_tunnel, patch).await;
    assert_eq!(visit().await, Some(200));
    let connections = format!("{of_tunnel}/connections");
    program.call("cloudflare", Method::DELETE, &connections, json!({})).await;
    eventually("the cut", async || (visit().await == Some(530)).then_some(())).await;

    let processes = program.two_children().await;
    program.call("hetzner", Method::DELETE, &format!("/servers/{server}"), json!({})).await;
    gone(&processes).await;
    let folder = program.folder.path().join("state/servers").join(server.to_string());
    eventually("the folder's removal", async || (!folder.exists()).then_some(())).await;
    program.call("cloudflare", Method::DELETE, &of_tunnel, json!({})).await;
}

#[tokio::test]
async fn a_simulator_that_is_killed_leaves_no_process() {
    let mut program = Program::start().await;
    program.create_server(&user_data(b"any")).await;
    let processes = program.two_children().await;
    program.child.kill().await.unwrap();
    gone(&processes).await;
}

fn kill(process: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(process).unwrap()).unwrap(), signal).unwrap();
}

fn children_of(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|process| {
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            let after_name = stat
                .rsplit_once(')')
                .map(|(_, rest)| rest.split_whitespace().nth(1).map(str::to_owned));
            after_name.flatten().and_then(|ppid| ppid.parse().ok()) == Some(parent)
                && runs(*process)
        })
        .collect()
}
