//! Pages, selectors, the catalogue, and who sees what.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::lab::Lab;

const NONE: Value = Value::Null;

#[tokio::test]
async fn pages_hold_25_by_default_and_50_at_most() {
    let lab = Lab::start().await;
    for number in 0..60 {
        lab.server(&format!("s{number}"), json!({})).await;
    }
    let page = async |query: &str| {
        lab.hetzner(Method::GET, &format!("/servers?{query}"), NONE).await.expect(200).json
    };
    let count = |json: &Value| json["servers"].as_array().map(Vec::len);
    assert_eq!(count(&page("").await), Some(25));
    let first = page("per_page=999").await;
    assert_eq!(count(&first), Some(50));
    assert_eq!(first["meta"]["pagination"]["per_page"], 50);
    assert_eq!(first["meta"]["pagination"]["next_page"], 2);
    let last = page("per_page=50&page=2").await;
    assert_eq!(count(&last), Some(10));
    assert_eq!(last["meta"]["pagination"]["next_page"], NONE);
    lab.hetzner(Method::GET, "/servers?page=0", NONE).await.refused(422, "invalid_input");
}

#[tokio::test]
async fn a_deletion_between_two_pages_hides_a_server_from_both() {
    let lab = Lab::start().await;
    let mut ids = Vec::new();
    for number in 0..4 {
        ids.push(lab.server(&format!("s{number}"), json!({})).await);
    }
    let page = async |number: u32| {
        let json = lab
            .hetzner(Method::GET, &format!("/servers?per_page=2&page={number}"), NONE)
            .await
            .json;
        let servers = json["servers"].as_array().expect("a list").clone();
        servers.iter().map(|server| server["id"].as_u64().expect("an id")).collect::<BTreeSet<_>>()
    };
    let first = page(1).await;
    lab.hetzner(Method::DELETE, &format!("/servers/{}", ids[0]), NONE).await.expect(200);
    lab.server_is_gone(ids[0]).await;
    let second = page(2).await;
    assert!(!first.contains(&ids[2]) && !second.contains(&ids[2]), "{first:?} {second:?}");
}

#[tokio::test]
async fn labels_are_replaced_as_a_whole_and_select() {
    let lab = Lab::start().await;
    let id = lab.server("ada", json!({"labels": {"pool": "a", "old": "x"}})).await;
    lab.server("bob", json!({"labels": {"pool": "b"}})).await;
    lab.hetzner(Method::PUT, &format!("/servers/{id}"), json!({"labels": {"pool": "a"}}))
        .await
        .expect(200);
    for (selector, expected) in [
        ("pool", 2),
        ("pool%3Da", 1),
        ("pool%20in%20(a,b)", 2),
        ("pool!%3Da", 1),
        ("old", 0),
        ("!old", 2),
    ] {
        let json = lab
            .hetzner(Method::GET, &format!("/servers?label_selector={selector}"), NONE)
            .await
            .expect(200)
            .json;
        assert_eq!(json["meta"]["pagination"]["total_entries"], expected, "{selector}");
    }
    lab.hetzner(Method::GET, "/servers?label_selector=a%20b", NONE)
        .await
        .refused(422, "invalid_input");
}

#[tokio::test]
async fn actions_are_read_by_their_ids_only() {
    let lab = Lab::start().await;
    let id = lab.server("ada", json!({})).await;
    lab.hetzner(Method::GET, "/actions", NONE).await.refused(410, "deprecated_api_endpoint");
    let actions =
        lab.hetzner(Method::GET, &format!("/servers/{id}/actions"), NONE).await.expect(200).json;
    assert_eq!(actions["actions"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn the_catalogue_shows_stock_and_deprecation_and_no_datacenters() {
    let lab = Lab::start().await;
    let types = lab.hetzner(Method::GET, "/server_types?name=cx23", NONE).await.expect(200).json;
    assert_eq!(types["server_types"][0]["locations"][0]["available"], true);
    let old = lab.hetzner(Method::GET, "/server_types?name=cpx11", NONE).await.expect(200).json;
    assert!(old["server_types"][0]["deprecation"]["unavailable_after"].is_string());
    lab.hetzner(Method::GET, "/datacenters", NONE).await.refused(410, "deprecated_api_endpoint");
    let images = lab
        .hetzner(Method::GET, "/images?name=debian-13&architecture=arm", NONE)
        .await
        .expect(200)
        .json;
    assert_eq!(images["meta"]["pagination"]["total_entries"], 1);
    assert_eq!(
        lab.hetzner(Method::GET, "/locations", NONE).await.expect(200).json["locations"]
            .as_array()
            .map(Vec::len),
        Some(6)
    );
}

#[tokio::test]
async fn projects_do_not_see_each_other() {
    let lab = Lab::start().await;
    let id = lab.server("ada", json!({})).await;
    lab.admin(Method::PUT, "/admin/hetzner/projects/other", json!({"token": "t2"}))
        .await
        .expect(204);
    let url = format!("{}/servers/{id}", lab.sim.endpoints().hetzner);
    lab.send(Method::GET, &url, "t2", NONE).await.expect("answers").refused(404, "not_found");
    lab.send(Method::GET, &url, "t3", NONE).await.expect("answers").refused(401, "unauthorized");
}

#[tokio::test]
async fn a_deprecated_image_is_shown_to_those_who_ask_for_it() {
    let lab = Lab::start().await;
    let images = async |query: &str| {
        let path = format!("/images?name=debian-11{query}");
        lab.hetzner(Method::GET, &path, NONE).await.expect(200).json["images"].clone()
    };
    assert_eq!(images("").await, json!([]));
    assert!(images("&include_deprecated=true").await[0]["deprecated"].is_string());
}

#[tokio::test]
async fn a_token_may_be_for_reading_alone() {
    let lab = Lab::start().await;
    lab.put_project(json!({"readOnly": true})).await;
    lab.hetzner(Method::GET, "/servers", NONE).await.expect(200);
    let firewall = json!({"name": "f"});
    lab.hetzner(Method::POST, "/firewalls", firewall).await.refused(403, "token_readonly");
}
