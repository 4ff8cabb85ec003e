//! What the edge asks of the Cloudflare half.

use moorage_sim_clouds::cloudflare::{RegisterError, TunnelEvent};
use reqwest::Method;
use serde_json::{Value, json};

use crate::lab::{ACCOUNT, Lab, base64};

const NONE: Value = Value::Null;

async fn status(lab: &Lab, tunnel: &str) -> Value {
    lab.account(Method::GET, &format!("/cfd_tunnel/{tunnel}"), NONE).await.json["result"]["status"]
        .clone()
}

#[tokio::test]
async fn the_status_of_a_tunnel_follows_its_connections() {
    let lab = Lab::start().await;
    let clouds = &lab.sim.world().cloudflare;
    let id = lab.tunnel("ada").await;
    assert_eq!(status(&lab, &id).await, "inactive");
    let lease = clouds.register_connection(ACCOUNT, &id, &[7; 32]).expect("let in");
    assert_eq!(status(&lab, &id).await, "healthy");
    let connectors = lab
        .account(Method::GET, &format!("/cfd_tunnel/{id}/connections"), NONE)
        .await
        .expect(200)
        .json;
    assert_eq!(connectors["result"][0]["conns"][0]["id"], lease.id);
    clouds.drop_connection(&lease.id);
    assert_eq!(status(&lab, &id).await, "down");
    clouds.register_connection(ACCOUNT, &id, &[7; 32]).expect("let in again");
    let tunnel = lab.account(Method::GET, &format!("/cfd_tunnel/{id}"), NONE).await.json;
    assert_eq!(
        (&tunnel["result"]["status"], &tunnel["result"]["conns_inactive_at"]),
        (&json!("healthy"), &NONE)
    );
}

#[tokio::test]
async fn only_the_secret_of_a_live_tunnel_is_let_in() {
    let lab = Lab::start().await;
    let clouds = &lab.sim.world().cloudflare;
    let id = lab.tunnel("ada").await;
    assert_eq!(
        clouds.register_connection(ACCOUNT, &id, &[8; 32]),
        Err(RegisterError::Unauthorized)
    );
    assert_eq!(
        clouds.register_connection(ACCOUNT, "nothing", &[7; 32]),
        Err(RegisterError::NotFound)
    );
    assert_eq!(clouds.register_connection("other", &id, &[7; 32]), Err(RegisterError::NotFound));
    lab.account(Method::DELETE, &format!("/cfd_tunnel/{id}"), NONE).await.expect(200);
    assert_eq!(clouds.register_connection(ACCOUNT, &id, &[7; 32]), Err(RegisterError::Deleted));
}

#[tokio::test]
async fn a_rotated_secret_keeps_live_connections() {
    let lab = Lab::start().await;
    let clouds = &lab.sim.world().cloudflare;
    let id = lab.tunnel("ada").await;
    let lease = clouds.register_connection(ACCOUNT, &id, &[7; 32]).expect("let in");
    let mut events = clouds.subscribe();
    let rotate = json!({"tunnel_secret": base64(&[9; 32])});
    lab.account(Method::PATCH, &format!("/cfd_tunnel/{id}"), rotate).await.expect(200);
    assert!(clouds.is_live(&lease.id));
    assert!(events.try_recv().is_err(), "a rotation alone tells the edge nothing");
    assert_eq!(
        clouds.register_connection(ACCOUNT, &id, &[7; 32]),
        Err(RegisterError::Unauthorized)
    );
    lab.account(Method::DELETE, &format!("/cfd_tunnel/{id}/connections"), NONE).await.expect(200);
    assert_eq!(events.try_recv(), Ok(TunnelEvent::ConnectionsClosed(id.clone())));
    assert!(!clouds.is_live(&lease.id));
    clouds.register_connection(ACCOUNT, &id, &[9; 32]).expect("let in");
}

#[tokio::test]
async fn the_edge_hears_of_rules_and_deletions() {
    let lab = Lab::start().await;
    let clouds = &lab.sim.world().cloudflare;
    let id = lab.tunnel("ada").await;
    assert_eq!(clouds.ingress(&id), None);
    let mut events = clouds.subscribe();
    let config = json!({"config": {"ingress": [{"service": "unix:/run/agent.sock"}]}});
    lab.account(Method::PUT, &format!("/cfd_tunnel/{id}/configurations"), config).await.expect(200);
    assert_eq!(events.try_recv(), Ok(TunnelEvent::ConfigChanged(id.clone())));
    let (version, rules) = clouds.ingress(&id).expect("rules");
    assert_eq!((version, rules.ingress[0].service.as_str()), (1, "unix:/run/agent.sock"));
    lab.account(Method::DELETE, &format!("/cfd_tunnel/{id}"), NONE).await.expect(200);
    assert_eq!(events.try_recv(), Ok(TunnelEvent::TunnelDeleted(id.clone())));
    assert_eq!(clouds.ingress(&id), None);
}

#[tokio::test]
async fn a_host_name_leads_to_the_tunnel_of_its_proxied_cname() {
    let lab = Lab::start().await;
    let clouds = &lab.sim.world().cloudflare;
    let id = lab.tunnel("ada").await;
    let record = json!({"type": "CNAME", "name": "ada", "content": format!("{id}.cfargotunnel.com"), "proxied": true});
    let record = lab.dns(Method::POST, "", record).await.expect(200).json["result"]["id"].clone();
    assert_eq!(clouds.route("ADA.example.com"), Some(id.clone()));
    assert_eq!(clouds.route("bob.example.com"), None);
    let path = format!("/{}", record.as_str().unwrap());
    lab.dns(Method::PATCH, &path, json!({"proxied": false})).await.expect(200);
    assert_eq!(clouds.route("ada.example.com"), None);
    lab.dns(Method::PATCH, &path, json!({"proxied": true})).await.expect(200);
    lab.account(Method::DELETE, &format!("/cfd_tunnel/{id}"), NONE).await.expect(200);
    assert_eq!(clouds.route("ada.example.com"), None);
}
