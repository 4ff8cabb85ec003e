//! Firewalls.

use std::sync::Arc;
use std::time::Duration;

use moorage_sim_clouds::{NoBackend, Timings};
use reqwest::Method;
use serde_json::{Value, json};

use crate::lab::{Lab, TIMINGS, eventually};

const NONE: Value = Value::Null;

async fn firewall(lab: &Lab, body: Value) -> u64 {
    let reply = lab.hetzner(Method::POST, "/firewalls", body).await.expect(201);
    reply.json["firewall"]["id"].as_u64().expect("an id")
}

#[tokio::test]
async fn a_firewall_is_in_use_for_a_while_after_its_server_is_gone() {
    let timings = Timings { firewall_release: Duration::from_secs(3), ..TIMINGS };
    let lab = Lab::start_timed(Arc::new(NoBackend), timings).await;
    let wall = firewall(&lab, json!({"name": "deny", "rules": []})).await;
    let id = lab.server("ada", json!({"firewalls": [{"firewall": wall}]})).await;
    let server = lab.hetzner(Method::GET, &format!("/servers/{id}"), NONE).await.json;
    assert_eq!(server["server"]["public_net"]["firewalls"][0]["status"], "applied");
    let path = format!("/firewalls/{wall}");
    lab.hetzner(Method::DELETE, &path, NONE).await.refused(422, "resource_in_use");
    lab.hetzner(Method::DELETE, &format!("/servers/{id}"), NONE).await.expect(200);
    lab.server_is_gone(id).await;
    lab.hetzner(Method::DELETE, &path, NONE).await.refused(422, "resource_in_use");
    eventually(async || lab.hetzner(Method::DELETE, &path, NONE).await.status == 204).await;
}

#[tokio::test]
async fn a_selector_covers_servers_with_a_delay() {
    let lab = Lab::start_unhurried().await;
    let id = lab.server("ada", json!({"labels": {"pool": "a"}})).await;
    let apply = json!([{"type": "label_selector", "label_selector": {"selector": "pool=a"}}]);
    let wall = firewall(&lab, json!({"name": "deny", "apply_to": apply})).await;
    let status = async || {
        let server = lab.hetzner(Method::GET, &format!("/servers/{id}"), NONE).await.json;
        server["server"]["public_net"]["firewalls"][0]["status"].clone()
    };
    assert_eq!(status().await, "pending");
    eventually(async || status().await == "applied").await;
    let shown = lab.hetzner(Method::GET, &format!("/firewalls/{wall}"), NONE).await.json;
    assert_eq!(shown["firewall"]["applied_to"][0]["applied_to_resources"][0]["server"]["id"], id);
    lab.hetzner(Method::DELETE, &format!("/firewalls/{wall}"), NONE)
        .await
        .refused(422, "resource_in_use");
    let remove = json!({"remove_from": apply});
    lab.hetzner(Method::POST, &format!("/firewalls/{wall}/actions/remove_from_resources"), remove)
        .await
        .expect(201);
    eventually(async || {
        lab.hetzner(Method::DELETE, &format!("/firewalls/{wall}"), NONE).await.status == 204
    })
    .await;
}

#[tokio::test]
async fn at_most_fifty_rules_and_five_firewalls() {
    let lab = Lab::start().await;
    let wall = firewall(&lab, json!({"name": "w0"})).await;
    let rule =
        json!({"direction": "in", "protocol": "tcp", "port": "22", "source_ips": ["192.0.2.0/24"]});
    let set = async |count: usize| {
        let body = json!({"rules": vec![rule.clone(); count]});
        lab.hetzner(Method::POST, &format!("/firewalls/{wall}/actions/set_rules"), body).await
    };
    set(51).await.refused(422, "invalid_input");
    set(50).await.expect(201);
    let mut walls = vec![json!({"firewall": wall})];
    for number in 1..6 {
        walls
            .push(json!({"firewall": firewall(&lab, json!({"name": format!("w{number}")})).await}));
    }
    let body = crate::lab::server("ada", json!({"firewalls": walls}));
    lab.hetzner(Method::POST, "/servers", body).await.refused(422, "invalid_input");
    lab.server("ada", json!({"firewalls": walls[..5]})).await;
}

#[rstest::rstest]
#[case::no_port(json!({"direction": "in", "protocol": "tcp", "source_ips": ["0.0.0.0/0"]}))]
#[case::port_of_icmp(json!({"direction": "in", "protocol": "icmp", "port": "1", "source_ips": ["0.0.0.0/0"]}))]
#[case::no_address(json!({"direction": "in", "protocol": "tcp", "port": "22"}))]
#[case::bad_address(json!({"direction": "in", "protocol": "tcp", "port": "22", "source_ips": ["10.0.0.0"]}))]
#[case::bad_port(json!({"direction": "in", "protocol": "tcp", "port": "70000", "source_ips": ["::/0"]}))]
#[case::unknown_field(json!({"direction": "in", "protocol": "icmp", "source_ips": ["::/0"], "action": "drop"}))]
#[tokio::test]
async fn a_bad_rule_is_refused(#[case] rule: Value) {
    let lab = Lab::start().await;
    let reply =
        lab.hetzner(Method::POST, "/firewalls", json!({"name": "w", "rules": [rule]})).await;
    reply.refused(422, "invalid_input");
}
