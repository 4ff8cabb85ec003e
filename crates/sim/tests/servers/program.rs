//! `moorage-sim serve` as a whole: what is made through the APIs of the clouds runs, is reached through
//! the edge, and goes again.

use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use moorage_sim::edge::handshake::{RunToken, TunnelSecret};
use serde_json::{Value, json};

use crate::common::{
    agent_stand_in, eventually, gone, plain_client, runs, user_data, user_data_with,
};

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
