//! cloudflared on a server, or what stands in for it, connected to the simulated edge.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use moorage_testbed::{Cloudflared, or_skip, wait_until};
use serde_json::json;

use crate::stage::{ACCOUNT, PATIENCE, Stage, ZONE};

const HOST: &str = "ada.example.com";

/// What stands in for the project's own user-data: the program from the artifact server, a unit, the token.
fn user_data(token: &str) -> String {
    let unit = "[Service]\nExecStart=/opt/cloudflared tunnel --metrics 127.0.0.1:20241 run\n\
                Environment=TUNNEL_TOKEN_FILE=/etc/tunnel-token\nDynamicUser=yes\n\
                Restart=always\n";
    let page = "python3 -m http.server --bind 127.0.0.1 18789 --directory /etc/moorage-lab";
    let web = format!("[Service]\nExecStart={page}\n");
    let config = json!({
        "write_files": [
            {"path": "/etc/tunnel-token", "content": token, "permissions": "0644"},
            {"path": "/etc/systemd/system/cloudflared.service", "content": unit},
            {"path": "/etc/systemd/system/web.service", "content": web},
        ],
        "runcmd": [
            ["curl", "-sSf", "-o", "/opt/cloudflared", "http://artifacts.moorage.test/cloudflared"],
            ["chmod", "755", "/opt/cloudflared"],
            ["systemctl", "start", "--no-block", "web.service", "cloudflared.service"],
        ],
    });
    format!("#cloud-config\n{config}\n")
}

pub(crate) async fn cloudflared_carries_visitors_to_a_server(stage: Arc<Stage>) {
    if or_skip(Cloudflared::from_env()).is_none() {
        return;
    }
    let secret = vec![7_u8; 32];
    let tunnels = format!("/accounts/{ACCOUNT}/cfd_tunnel");
    let tunnel = json!({"name": "ada", "config_src": "cloudflare", "tunnel_secret": STANDARD.encode(&secret)});
    let tunnel = stage.cloudflare(Method::POST, &tunnels, tunnel).await;
    let tunnel = tunnel["result"]["id"].as_str().unwrap().to_owned();
    let rules = json!({"config": {"ingress": [
        {"hostname": HOST, "service": "http://127.0.0.1:18789"},
        {"service": "http_status:404"},
    ]}});
    stage.cloudflare(Method::PUT, &format!("{tunnels}/{tunnel}/configurations"), rules).await;
    let record = json!({"type": "CNAME", "name": HOST, "content": format!("{tunnel}.cfargotunnel.com"), "proxied": true, "ttl": 1});
    stage.cloudflare(Method::POST, &format!("/zones/{ZONE}/dns_records"), record).await;

    let token = json!({"a": ACCOUNT, "t": tunnel, "s": STANDARD.encode(&secret)}).to_string();
    let server = stage.booted("tunnel", &user_data(&STANDARD.encode(token))).await;
    let endpoints = stage.simulator.endpoints();
    let authority = std::fs::read(&endpoints.edge_ca).unwrap();
    let visitor = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&authority).unwrap()])
        .no_proxy()
        .resolve(HOST, endpoints.edge)
        .build()
        .unwrap();
    let visited = wait_until("the server through the tunnel", PATIENCE, || async {
        let answer = visitor.get(format!("https://{HOST}/edge-ca.pem")).send().await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status() != 200 {
            return Err(answer.status().to_string());
        }
        answer.bytes().await.map_err(|error| error.to_string())
    });
    match visited.await {
        Ok(page) => assert_eq!(page, authority),
        Err(late) => {
            panic!("{late}\n{}", server.journal(Some("cloudflared.service")).await.unwrap())
        }
    }
    // It is that program that answered, and no other.
    let ready = ["curl", "-s", "http://127.0.0.1:20241/ready"];
    let ready = server.exec(&ready).await.unwrap();
    assert!(ready.contains("\"readyConnections\""), "{ready}");
    stage.delete(&server).await;
}
