//! From a visitor's TLS connection through edge and connector to an origin and back, with each kind of
//! connector.

use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use http::Method;
use rstest::rstest;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::common::{Lab, TUNNEL, eventually, rules};
use crate::connector::Kind;
use crate::origin::{self, Origin};

/// How long something may take that happens at once.
const SOON: Duration = Duration::from_secs(10);

#[rstest]
#[case::cloudflared(Kind::Cloudflared)]
#[case::stand_in(Kind::StandIn)]
#[tokio::test]
async fn a_hostname_leads_through_the_tunnel_to_its_origin(#[case] kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let origin = Origin::start().await;
    let (lab, connector) = Lab::tunnelled(kind, &origin.service()).await;
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
        "cf-connecting-ip: 203.0.113.1\n",
        "x-forwarded-proto: https\n",
        "x-forwarded-for: 203.0.113.1\n",
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

#[rstest]
#[case::cloudflared(Kind::Cloudflared)]
#[case::stand_in(Kind::StandIn)]
#[tokio::test]
async fn each_hostname_leads_to_its_service_and_the_rest_nowhere(#[case] kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let origin = Origin::start().await;
    let (lab, _connector) = Lab::tunnelled(kind, &origin.service()).await;
    let socket = origin::on_socket(&lab.folder.path().join("agent.sock"));
    let service = origin.service();
    lab.registry.set_rules(
        TUNNEL,
        rules(&[("ada.example.com", service.as_str()), ("ada-mgmt.example.com", socket.as_str())]),
    );
    let names = ["ada.example.com", "ada-mgmt.example.com", "eve.example.com"];
    for name in names {
        lab.registry.add_route(name, TUNNEL);
    }
    let client = lab.client(&names);
    let visit =
        async |name: &str| client.get(format!("https://{name}/headers")).send().await.unwrap();
    let managed = eventually("the new rules", async || {
        Some(visit("ada-mgmt.example.com").await).filter(|response| response.status() == 200)
    })
    .await;
    assert_eq!(managed.headers()["x-socket"], "yes");
    let seen = managed.text().await.unwrap();
    assert!(seen.contains("host: ada-mgmt.example.com\n"), "{seen}");
    assert!(seen.contains("cf-connecting-ip: 203.0.113.1\n"), "{seen}");
    let dashboard = visit("ada.example.com").await;
    assert_eq!(dashboard.status(), 200);
    assert!(!dashboard.headers().contains_key("x-socket"));
    assert_eq!(visit("eve.example.com").await.status(), 404);
}

#[rstest]
#[case::cloudflared(Kind::Cloudflared)]
#[case::stand_in(Kind::StandIn)]
#[tokio::test]
async fn a_large_body_passes_both_ways(#[case] kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let origin = Origin::start().await;
    let (lab, _connector) = Lab::tunnelled(kind, &origin.service()).await;
    let body = vec![7_u8; 8_000_000];
    let client = lab.client(&["ada.example.com"]);
    let response =
        client.post("https://ada.example.com/body").body(body.clone()).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.unwrap() == body, "the body came back changed");
}

#[rstest]
#[case::cloudflared(Kind::Cloudflared)]
#[case::stand_in(Kind::StandIn)]
#[tokio::test]
async fn methods_statuses_and_missing_bodies_arrive_as_they_are(#[case] kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let origin = Origin::start().await;
    let (lab, _connector) = Lab::tunnelled(kind, &origin.service()).await;
    let client = lab.client(&["ada.example.com"]);
    let cases = [
        (Method::GET, 404, "", "0 bytes"),
        (Method::POST, 201, "abc", "3 bytes"),
        (Method::PUT, 500, "", "0 bytes"),
        (Method::PATCH, 302, "ab", "2 bytes"),
        (Method::DELETE, 204, "", ""),
        (Method::HEAD, 200, "", ""),
        (Method::GET, 304, "", ""),
    ];
    for (method, status, sent, expected) in cases {
        let url = format!("https://ada.example.com/status/{status}");
        let response = client.request(method.clone(), url).body(sent).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{method}");
        let headers = response.headers();
        assert_eq!(headers["x-method"], method.as_str());
        assert_eq!(headers["location"], "/elsewhere");
        if method == Method::HEAD {
            assert_eq!(headers["content-length"], "7");
        }
        assert_eq!(response.text().await.unwrap(), expected, "{method} {status}");
    }
}

#[rstest]
#[case::cloudflared(Kind::Cloudflared)]
#[case::stand_in(Kind::StandIn)]
#[tokio::test]
async fn new_rules_reach_a_connected_tunnel(#[case] kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let origin = Origin::start().await;
    let (lab, _connector) = Lab::tunnelled(kind, &origin.service()).await;
    let client = lab.client(&["ada.example.com"]);
    lab.registry.set_rules(TUNNEL, rules(&[("ada.example.com", "http_status:418")]));
    eventually("the new rule", async || {
        let response = client.get("https://ada.example.com/").send().await.ok()?;
        (response.status() == 418).then_some(())
    })
    .await;
}

#[rstest]
#[case::cloudflared(Kind::Cloudflared)]
#[case::stand_in(Kind::StandIn)]
#[tokio::test]
async fn an_origin_that_is_down_is_a_bad_gateway(#[case] kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let nobody = format!("http://{}", moorage_testbed::free_address().unwrap());
    let (lab, _connector) = Lab::tunnelled(kind, &nobody).await;
    let client = lab.client(&["ada.example.com"]);
    let response = client.get("https://ada.example.com/headers").send().await.unwrap();
    assert_eq!(response.status(), 502);
}

#[rstest]
#[case::cloudflared(Kind::Cloudflared)]
#[case::stand_in(Kind::StandIn)]
#[tokio::test]
async fn access_lets_only_the_service_token_through(#[case] kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let origin = Origin::start().await;
    let (lab, _connector) = Lab::tunnelled(kind, &origin.service()).await;
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

#[rstest]
#[case::cloudflared(Kind::Cloudflared)]
#[case::stand_in(Kind::StandIn)]
#[tokio::test]
async fn each_event_of_a_stream_arrives_before_the_next_is_sent(#[case] kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let origin = Origin::start().await;
    let (lab, _connector) = Lab::tunnelled(kind, &origin.service()).await;
    let client = lab.client(&["ada.example.com"]);
    let mut response = client.get("https://ada.example.com/events").send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    for number in 0..3 {
        let event = tokio::time::timeout(SOON, response.chunk()).await.expect("held back");
        assert_eq!(event.unwrap().unwrap(), format!("data: {number}\n\n"));
        origin.gate.release.notify_one();
    }
    // A visitor who goes ends the stream at the origin.
    drop(response);
    tokio::time::timeout(SOON, origin.gate.abandoned.notified()).await.expect("it goes on");
}

#[rstest]
#[case::cloudflared(Kind::Cloudflared)]
#[case::stand_in(Kind::StandIn)]
#[tokio::test]
async fn a_visitor_who_leaves_ends_the_request_at_the_origin(#[case] kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let origin = Origin::start().await;
    let (lab, _connector) = Lab::tunnelled(kind, &origin.service()).await;
    let client = lab.client(&["ada.example.com"]);
    let visit = tokio::spawn(client.get("https://ada.example.com/held").send());
    tokio::time::timeout(SOON, origin.gate.arrived.notified()).await.expect("no request");
    visit.abort();
    tokio::time::timeout(SOON, origin.gate.abandoned.notified()).await.expect("it goes on");
}

#[rstest]
#[case::cloudflared(Kind::Cloudflared)]
#[case::stand_in(Kind::StandIn)]
#[tokio::test]
async fn a_websocket_passes_through_edge_and_connector(#[case] kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let origin = Origin::start().await;
    let (lab, _connector) = Lab::tunnelled(kind, &origin.service()).await;
    let mut socket = websocket(&lab).await;
    for size in [1, 100, 100_000] {
        let sent = Message::text("x".repeat(size));
        socket.send(sent.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), sent);
    }
    // Cutting the tunnel cuts what runs in it.
    lab.registry.close_connections(TUNNEL);
    let end = tokio::time::timeout(SOON, socket.next()).await.expect("still open");
    assert!(!matches!(end, Some(Ok(Message::Text(_) | Message::Binary(_)))));
}

async fn websocket(lab: &Lab) -> WebSocketStream<impl AsyncRead + AsyncWrite + Unpin + use<>> {
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
    let (socket, response) =
        tokio_tungstenite::client_async("wss://ada.example.com/ws", tls).await.unwrap();
    assert_eq!(response.status(), 101);
    socket
}
