//! The edge and the connector, from a visitor's TLS connection to an origin and back.

use std::sync::Arc;

use crate::common::{Lab, TUNNEL, eventually, rules};
use axum::extract::ws::WebSocketUpgrade;
use axum::routing::{any, get, post};
use futures::{SinkExt as _, StreamExt as _};
use http::HeaderMap;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio_tungstenite::tungstenite::Message;

/// An origin that shows the headers it got, echoes bodies and `WebSocket` messages, and sets two cookies.
async fn origin() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let echo = async |upgrade: WebSocketUpgrade| {
        upgrade.on_upgrade(async |mut socket| {
            while let Some(Ok(message)) = socket.recv().await {
                if socket.send(message).await.is_err() {
                    break;
                }
            }
        })
    };
    let headers = async |headers: HeaderMap| {
        let text = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            format!("{name}: {}\n", value.to_str().unwrap())
        };
        let body: String = headers.iter().map(text).collect();
        (
            [("set-cookie", "a=1"), ("x-origin", "yes")],
            axum::response::AppendHeaders([("set-cookie", "b=2")]),
            body,
        )
    };
    let router = axum::Router::new()
        .route("/headers", get(headers))
        .route("/body", post(async |body: axum::body::Bytes| body))
        .route("/ws", any(echo));
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// A lab whose tunnel is up and leads `ada.example.com` to an origin.
async fn tunnelled() -> (Lab, crate::common::Connector) {
    let lab = Lab::start().await;
    lab.registry.set_rules(TUNNEL, rules(&[("ada.example.com", &origin().await)]));
    lab.registry.add_route("ada.example.com", TUNNEL);
    let connector = lab.connector(&lab.token("token", b"first"));
    lab.connections(1).await;
    (lab, connector)
}

#[tokio::test]
async fn a_hostname_leads_through_its_tunnel_to_the_origin_of_its_rule() {
    let (lab, connector) = tunnelled().await;
    let client = lab.client(&["ada.example.com"]);
    let response = client
        .get("https://ada.example.com/headers?q=1")
        .header("cf-connecting-ip", "6.6.6.6")
        .header("cf-cloudflared-proxy-connection-upgrade", "update-configuration")
        .header("cf-access-client-secret", "hush")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert_eq!(response.headers()["x-origin"], "yes");
    assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
    assert!(response.headers().contains_key("cf-ray"));
    let seen = response.text().await.unwrap();
    for expected in [
        "host: ada.example.com\n",
        "cf-connecting-ip: 127.0.0.1\n",
        "x-forwarded-proto: https\n",
        "x-forwarded-for: 127.0.0.1\n",
        "cf-ray: ",
    ] {
        assert!(seen.contains(expected), "{expected:?} is not in {seen}");
    }
    assert!(
        !seen.contains("6.6.6.6") && !seen.contains("hush") && !seen.contains("cf-cloudflared"),
        "{seen}"
    );
    let ready = connector.ready(200).await;
    assert_eq!(ready["readyConnections"], 1);
    lab.edge.shutdown().await;
}

#[tokio::test]
async fn a_large_body_passes_both_ways() {
    let (lab, _connector) = tunnelled().await;
    let body = vec![7_u8; 1_500_000];
    let client = lab.client(&["ada.example.com"]);
    let response =
        client.post("https://ada.example.com/body").body(body.clone()).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.unwrap() == body, "the body came back changed");
}

#[tokio::test]
async fn names_that_lead_nowhere_say_so() {
    let lab = Lab::start().await;
    lab.registry.add_route("ada.example.com", TUNNEL);
    let client = lab.client(&["ada.example.com", "nobody.example.com"]);
    for (name, error) in [("nobody", "1016"), ("ada", "1033")] {
        let response = client.get(format!("https://{name}.example.com/")).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 530);
        assert!(response.text().await.unwrap().contains(error));
    }
}

#[tokio::test]
async fn new_rules_reach_a_connected_tunnel() {
    let (lab, _connector) = tunnelled().await;
    let client = lab.client(&["ada.example.com"]);
    lab.registry.set_rules(TUNNEL, rules(&[("ada.example.com", "http_status:418")]));
    eventually("the new rule", async || {
        let response = client.get("https://ada.example.com/").send().await.ok()?;
        (response.status() == 418).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_origin_that_is_down_is_a_bad_gateway() {
    let (lab, _connector) = tunnelled().await;
    let nobody = format!("http://{}", crate::common::free_address());
    lab.registry.set_rules(TUNNEL, rules(&[("ada.example.com", &nobody)]));
    let client = lab.client(&["ada.example.com"]);
    eventually("502", async || {
        let response = client.get("https://ada.example.com/headers").send().await.ok()?;
        (response.status() == 502).then_some(())
    })
    .await;
}

#[tokio::test]
async fn access_lets_only_the_service_token_through() {
    let (lab, _connector) = tunnelled().await;
    lab.registry.protect("ada.example.com", "id", "secret");
    let client = lab.client(&["ada.example.com"]);
    let visit = async |id: &str, secret: &str| {
        let request = client
            .get("https://ada.example.com/headers")
            .header("CF-Access-Client-Id", id)
            .header("CF-Access-Client-Secret", secret);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(client.get("https://ada.example.com/headers").send().await.unwrap().status(), 403);
    assert_eq!(visit("id", "wrong").await.0, 403);
    let (status, seen) = visit("id", "secret").await;
    assert_eq!(status, 200);
    assert!(!seen.contains("cf-access-client"), "{seen}");
}

#[tokio::test]
async fn a_rotated_token_keeps_its_connection_until_connections_are_closed() {
    let (lab, old) = tunnelled().await;
    let client = lab.client(&["ada.example.com"]);
    let works = async || {
        client.get("https://ada.example.com/headers").send().await.unwrap().status() == 200
    };
    lab.registry.rotate(TUNNEL, b"second");
    assert!(works().await, "the rotation cut the live connection");
    assert_eq!(lab.edge.connections_of(TUNNEL), 1);

    lab.registry.close_connections(TUNNEL);
    lab.connections(0).await;
    old.ready(503).await;
    assert!(!works().await);

    let _new = lab.connector(&lab.token("new-token", b"second"));
    lab.connections(1).await;
    assert!(works().await);
    // The old connector has been trying all the time.
    old.ready(503).await;
}

#[tokio::test]
async fn a_refused_connector_comes_up_when_its_token_becomes_right() {
    let lab = Lab::start().await;
    let connector = lab.connector(&lab.token("token", b"later"));
    connector.ready(503).await;
    lab.registry.rotate(TUNNEL, b"later");
    connector.ready(200).await;
}

#[tokio::test]
async fn a_connector_of_an_unknown_tunnel_gives_up() {
    let lab = Lab::start().await;
    lab.registry.delete_tunnel(TUNNEL);
    let mut connector = lab.connector(&lab.token("token", b"first"));
    let status =
        tokio::time::timeout(std::time::Duration::from_secs(30), connector.child.wait()).await;
    assert_eq!(status.expect("it goes on").unwrap().code(), Some(1));
}

#[tokio::test]
async fn a_connector_reconnects_after_the_edge_closed_its_connection() {
    let (lab, connector) = tunnelled().await;
    let before = connector.ready(200).await;
    lab.registry.close_connections(TUNNEL);
    connector.ready(200).await;
    let client = lab.client(&["ada.example.com"]);
    eventually("the tunnel again", async || {
        let response = client.get("https://ada.example.com/headers").send().await.ok()?;
        (response.status() == 200).then_some(())
    })
    .await;
    assert_eq!(connector.ready(200).await["connectorId"], before["connectorId"]);
}

#[tokio::test]
async fn a_stopped_connector_ends_well_and_leaves_no_connection() {
    let (lab, mut connector) = tunnelled().await;
    let process = i32::try_from(connector.child.id().unwrap()).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(process).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert!(connector.child.wait().await.unwrap().success());
    lab.connections(0).await;
}

#[tokio::test]
async fn a_websocket_passes_through_edge_and_connector() {
    let (lab, _connector) = tunnelled().await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(lab.edge.ca_file()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = tokio::net::TcpStream::connect(lab.edge.visitors()).await.unwrap();
    let name = ServerName::try_from("ada.example.com").unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    let (mut socket, response) =
        tokio_tungstenite::client_async("wss://ada.example.com/ws", tls).await.unwrap();
    assert_eq!(response.status(), 101);
    for size in [1, 100, 100_000] {
        let sent = Message::text("x".repeat(size));
        socket.send(sent.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), sent);
    }
    // Cutting the tunnel cuts what runs in it.
    lab.registry.close_connections(TUNNEL);
    let end = tokio::time::timeout(std::time::Duration::from_secs(10), socket.next())
        .await
        .expect("still open");
    assert!(!matches!(end, Some(Ok(Message::Text(_) | Message::Binary(_)))));
}

#[tokio::test]
async fn garbage_on_the_connectors_port_harms_nobody() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (lab, _connector) = tunnelled().await;
    let mut stream = tokio::net::TcpStream::connect(lab.edge.connectors()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    // Closed, with or without a reset.
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    let client = lab.client(&["ada.example.com"]);
    assert_eq!(client.get("https://ada.example.com/headers").send().await.unwrap().status(), 200);
}
