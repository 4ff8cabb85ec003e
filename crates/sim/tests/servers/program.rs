//! `moorage-sim serve` as a whole: what is made through the APIs of the clouds runs, is reached through
//! the edge, and goes again.

use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use moorage_sim_servers::connector::VERSION;
use moorage_testbed::children_of;
use rstest::rstest;
use serde_json::{Value, json};

use crate::common::{agent_stand_in, eventually, gone, plain_client, user_data, user_data_with};
use crate::connector::{Connector, Kind};
use crate::origin::Origin;

/// The whole program, and how to call its clouds.
struct Program {
    child: tokio::process::Child,
    endpoints: Value,
    client: reqwest::Client,
    folder: tempfile::TempDir,
}

impl Program {
    /// With servers as processes.
    async fn start() -> Self {
        Self::start_with(&["--backend", "process", "--action-ms", "1", "--boot-delay-ms", "1"])
            .await
    }

    async fn start_with(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("ready.json");
        let child = tokio::process::Command::new(crate::common::SIM)
            .arg("serve")
            .args(options)
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

    /// Makes a tunnel for `name`, which leads to `service`, and gives its path in the API and its token.
    async fn create_tunnel(&self, name: &str, service: &str) -> (String, String) {
        let tunnel = json!({"name": "ada", "config_src": "cloudflare", "tunnel_secret": STANDARD.encode([7; 32])});
        let tunnels = "/accounts/acc/cfd_tunnel";
        let made = self.call("cloudflare", Method::POST, tunnels, tunnel).await;
        let id = made["result"]["id"].as_str().unwrap();
        let path = format!("{tunnels}/{id}");
        let ingress = json!({"config": {"ingress": [
            {"hostname": name, "service": service},
            {"service": "http_status:404"},
        ]}});
        self.call("cloudflare", Method::PUT, &format!("{path}/configurations"), ingress).await;
        let record = json!({
            "type": "CNAME", "name": name, "content": format!("{id}.cfargotunnel.com"),
            "proxied": true, "ttl": 1,
        });
        let records = format!("/zones/{ZONE}/dns_records");
        self.call("cloudflare", Method::POST, &records, record).await;
        (path, made["result"]["token"].as_str().unwrap().to_owned())
    }

    /// Replaces the tunnel's secret and gives the new token.
    async fn rotate(&self, tunnel: &str) -> String {
        let patch = json!({"tunnel_secret": STANDARD.encode([8_u8; 32])});
        self.call("cloudflare", Method::PATCH, tunnel, patch).await;
        let token =
            self.call("cloudflare", Method::GET, &format!("{tunnel}/token"), json!({})).await;
        token["result"].as_str().unwrap().to_owned()
    }

    async fn close_connections(&self, tunnel: &str) {
        let connections = format!("{tunnel}/connections");
        self.call("cloudflare", Method::DELETE, &connections, json!({})).await;
    }

    async fn connections(&self, tunnel: &str) -> Value {
        let path = format!("{tunnel}/connections");
        self.call("cloudflare", Method::GET, &path, json!({})).await["result"].clone()
    }

    /// A client that reaches `name` through the edge.
    fn visitor(&self, name: &str) -> reqwest::Client {
        let pem = std::fs::read(self.endpoints["edgeCa"].as_str().unwrap()).unwrap();
        let edge = self.endpoints["edge"].as_str().unwrap().parse().unwrap();
        reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()])
            .no_proxy()
            .resolve(name, edge)
            .build()
            .unwrap()
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
    let name = "ada-mgmt.example.com";
    let (tunnel, token) = program.create_tunnel(name, "unix:/run/moorage/agent.sock").await;
    let server = program.create_server(&user_data_with(&token)).await;
    let visitor = program.visitor(name);
    let visit = async || {
        let response = visitor.get(format!("https://{name}/healthz")).send().await.ok()?;
        Some(response.status().as_u16())
    };
    eventually("the agent", async || (visit().await == Some(200)).then_some(())).await;

    // A new secret alone cuts nothing; closing the connections does, and the old token stays out.
    program.rotate(&tunnel).await;
    assert_eq!(visit().await, Some(200));
    program.close_connections(&tunnel).await;
    eventually("the cut", async || (visit().await == Some(530)).then_some(())).await;

    let processes = program.two_children().await;
    program.call("hetzner", Method::DELETE, &format!("/servers/{server}"), json!({})).await;
    gone(&processes).await;
    let folder = program.folder.path().join("state/servers").join(server.to_string());
    eventually("the folder's removal", async || (!folder.exists()).then_some(())).await;
    program.call("cloudflare", Method::DELETE, &tunnel, json!({})).await;
}

#[rstest]
#[case::cloudflared(Kind::Cloudflared)]
#[case::stand_in(Kind::StandIn)]
#[tokio::test]
async fn a_secret_rotated_through_the_api_cuts_the_old_token_off(#[case] kind: Kind) {
    if !kind.is_here() {
        return;
    }
    // Connectors may come by any address.
    let program = Program::start_with(&["--listen-connectors", "127.0.0.2:0"]).await;
    let edge = program.endpoints["connectorEdge"].as_str().unwrap().parse().unwrap();
    let ca_file = program.endpoints["edgeCa"].as_str().unwrap();
    let connect = |file: &str, token: &str| {
        let path = program.folder.path().join(file);
        std::fs::write(&path, token).unwrap();
        Connector::start(kind, edge, ca_file.as_ref(), &path)
    };
    let name = "ada.example.com";
    let (tunnel, token) = program.create_tunnel(name, &Origin::start().await.service()).await;
    let old = connect("old", &token);
    let ready = old.ready(200).await;
    let listed = program.connections(&tunnel).await;
    assert_eq!(listed[0]["id"], ready["connectorId"]);
    assert_eq!(listed[0]["arch"].as_str().unwrap().split('_').next(), Some("linux"));
    assert_eq!(listed[0]["version"] == VERSION, kind == Kind::StandIn, "{listed}");
    assert_eq!(listed[0]["conns"].as_array().unwrap().len(), 1);

    let visitor = program.visitor(name);
    let visit = async || {
        visitor.get(format!("https://{name}/headers")).send().await.unwrap().status().as_u16()
    };
    assert_eq!(visit().await, 200);
    let token = program.rotate(&tunnel).await;
    assert_eq!(visit().await, 200);
    program.close_connections(&tunnel).await;
    old.ready(503).await;
    eventually("the cut", async || (visit().await == 530).then_some(())).await;
    let new = connect("new", &token);
    let ready = new.ready(200).await;
    assert_eq!(visit().await, 200);
    let listed = program.connections(&tunnel).await;
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["id"], ready["connectorId"]);
    old.ready(503).await;
}

#[tokio::test]
async fn a_simulator_that_is_killed_leaves_no_process() {
    let mut program = Program::start().await;
    program.create_server(&user_data(b"any")).await;
    let processes = program.two_children().await;
    program.child.kill().await.unwrap();
    gone(&processes).await;
}
