//! What visitors get from the edge alone, and what strangers on the connectors' port do.

use std::os::unix::fs::PermissionsExt as _;

use moorage_sim_clouds::edge::{Edge, EdgeAddresses};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::common::{Lab, TUNNEL};
use crate::connector::Kind;
use crate::origin::Origin;

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
async fn the_name_of_cloudflareds_own_management_leads_nowhere() {
    let origin = Origin::start().await;
    let (lab, _connector) = Lab::tunnelled(Kind::StandIn, &origin.service()).await;
    let name = "management.argotunnel.com";
    lab.registry.add_route(name, TUNNEL);
    let client = lab.client(&[name]);
    let response = client.get(format!("https://{name}/")).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 530);
}

#[tokio::test]
async fn the_authoritys_key_is_for_its_owner_alone() {
    let lab = Lab::start().await;
    let key = std::fs::metadata(lab.folder.path().join("ca-key.pem")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    let certificate = std::fs::read_to_string(lab.edge.ca_file()).unwrap();
    assert!(!certificate.contains("PRIVATE KEY"));
}

#[tokio::test]
async fn an_authority_that_cannot_be_read_is_replaced() {
    let lab = Lab::start().await;
    let key = lab.folder.path().join("ca-key.pem");
    let before = std::fs::read(lab.edge.ca_file()).unwrap();
    lab.edge.shutdown().await;
    std::fs::write(&key, "no key").unwrap();
    let addresses = EdgeAddresses::default();
    let edge = Edge::start(lab.registry, addresses, lab.folder.path()).await.unwrap();
    assert_ne!(std::fs::read(edge.ca_file()).unwrap(), before);
    assert!(std::fs::read_to_string(&key).unwrap().contains("PRIVATE KEY"));
}

#[tokio::test]
async fn garbage_on_the_connectors_port_harms_nobody() {
    let origin = Origin::start().await;
    let (lab, _connector) = Lab::tunnelled(Kind::StandIn, &origin.service()).await;
    let mut stream = tokio::net::TcpStream::connect(lab.edge.connectors()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    // Closed, with or without a reset; before that at most an alert of TLS.
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.len() <= 7, "{rest:?}");
    let client = lab.client(&["ada.example.com"]);
    assert_eq!(client.get("https://ada.example.com/headers").send().await.unwrap().status(), 200);
}
