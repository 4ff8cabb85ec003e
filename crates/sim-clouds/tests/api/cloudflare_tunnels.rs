//! Tunnels, their configuration, tokens and accounts.

use base64::Engine as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::lab::{ACCOUNT, Lab, ZONE, base64};

const NONE: Value = Value::Null;

#[tokio::test]
async fn the_run_token_holds_account_tunnel_and_secret() {
    let lab = Lab::start().await;
    let id = lab.tunnel("ada").await;
    let token =
        lab.account(Method::GET, &format!("/cfd_tunnel/{id}/token"), NONE).await.expect(200).json;
    let token = base64::engine::general_purpose::STANDARD
        .decode(token["result"].as_str().unwrap())
        .unwrap();
    let token: Value = serde_json::from_slice(&token).unwrap();
    assert_eq!(token, json!({"a": ACCOUNT, "t": id, "s": base64(&[7; 32])}));
}

#[tokio::test]
async fn a_name_is_unique_among_live_tunnels_and_deletion_is_soft() {
    let lab = Lab::start().await;
    let id = lab.tunnel("ada").await;
    let body = json!({"name": "ada", "config_src": "cloudflare"});
    lab.account(Method::POST, "/cfd_tunnel", body.clone()).await.refused(409, 1013);
    lab.account(Method::DELETE, &format!("/cfd_tunnel/{id}"), NONE).await.expect(200);
    let deleted =
        lab.account(Method::GET, &format!("/cfd_tunnel/{id}"), NONE).await.expect(200).json;
    assert!(deleted["result"]["deleted_at"].is_string());
    lab.account(Method::POST, "/cfd_tunnel", body).await.expect(200);
    let count = async |query: &str| {
        lab.account(Method::GET, &format!("/cfd_tunnel?{query}"), NONE)
            .await
            .expect(200)
            .json["result_info"]["total_count"]
            .clone()
    };
    assert_eq!(count("").await, 2);
    assert_eq!(count("is_deleted=false").await, 1);
    assert_eq!(count("is_deleted=true&name=ada").await, 1);
    lab.account(Method::DELETE, &format!("/cfd_tunnel/{id}"), NONE).await.refused(404, 1003);
}

#[tokio::test]
async fn lists_filter_by_prefix_and_hold_at_most_a_thousand() {
    let lab = Lab::start().await;
    for name in ["a-1", "a-2", "b-1"] {
        lab.tunnel(name).await;
    }
    let list = lab
        .account(Method::GET, "/cfd_tunnel?include_prefix=a-&per_page=1&page=2", NONE)
        .await
        .expect(200)
        .json;
    assert_eq!(list["result"].as_array().map(Vec::len), Some(1));
    assert_eq!(list["result_info"]["total_count"], 2);
    lab.account(Method::GET, "/cfd_tunnel?per_page=1001", NONE).await.expect(400);
}

#[tokio::test]
async fn a_live_tunnel_is_deleted_after_its_connections() {
    let lab = Lab::start().await;
    let clouds = &lab.sim.world().cloudflare;
    let first = lab.tunnel("a").await;
    clouds.register_connection(ACCOUNT, &first, &[7; 32]).expect("let in");
    lab.account(Method::DELETE, &format!("/cfd_tunnel/{first}"), NONE).await.refused(400, 1022);
    lab.account(Method::DELETE, &format!("/cfd_tunnel/{first}/connections"), NONE)
        .await
        .expect(200);
    lab.account(Method::DELETE, &format!("/cfd_tunnel/{first}"), NONE).await.expect(200);
    let second = lab.tunnel("b").await;
    clouds.register_connection(ACCOUNT, &second, &[7; 32]).expect("let in");
    lab.account(Method::DELETE, &format!("/cfd_tunnel/{second}?cascade=true"), NONE)
        .await
        .expect(200);
}

#[tokio::test]
async fn the_number_of_live_tunnels_is_limited() {
    let lab = Lab::start().await;
    lab.put_account(json!({"limits": {"tunnels": 2}})).await;
    let first = lab.tunnel("a").await;
    lab.tunnel("b").await;
    let body = json!({"name": "c", "config_src": "cloudflare"});
    lab.account(Method::POST, "/cfd_tunnel", body.clone()).await.expect(403);
    lab.account(Method::DELETE, &format!("/cfd_tunnel/{first}"), NONE).await.expect(200);
    lab.account(Method::POST, "/cfd_tunnel", body).await.expect(200);
}

#[tokio::test]
async fn a_configuration_gets_a_version_with_every_put() {
    let lab = Lab::start().await;
    let id = lab.tunnel("ada").await;
    let path = format!("/cfd_tunnel/{id}/configurations");
    let rules = json!([{"hostname": "ada.example.com", "service": "http://127.0.0.1:18789"}, {"service": "http_status:404"}]);
    for version in 1..3 {
        let put = lab
            .account(Method::PUT, &path, json!({"config": {"ingress": rules}}))
            .await
            .expect(200)
            .json;
        assert_eq!(put["result"]["version"], version);
    }
    let got = lab.account(Method::GET, &path, NONE).await.expect(200).json;
    // Read back with what was not put.
    let read = json!([
        {"hostname": "ada.example.com", "service": "http://127.0.0.1:18789", "originRequest": {}},
        {"service": "http_status:404", "originRequest": {}},
    ]);
    let config = &got["result"]["config"];
    assert_eq!((&got["result"]["version"], &config["ingress"]), (&json!(2), &read));
    assert_eq!(config["warp-routing"], json!({"enabled": false}));
}

#[rstest::rstest]
#[case::empty(json!([]))]
#[case::no_catch_all(json!([{"hostname": "a.example.com", "service": "http://127.0.0.1:1"}]))]
#[case::path_in_the_last(json!([{"path": "/x", "service": "http_status:404"}]))]
#[case::catch_all_too_early(json!([{"service": "http_status:404"}, {"service": "http_status:404"}]))]
#[case::bad_service(json!([{"service": "gopher://x"}]))]
#[case::service_with_path(json!([{"service": "http://127.0.0.1/x"}]))]
#[case::bad_status(json!([{"service": "http_status:9"}]))]
#[tokio::test]
async fn bad_ingress_rules_are_refused(#[case] rules: Value) {
    let lab = Lab::start().await;
    let id = lab.tunnel("ada").await;
    let path = format!("/cfd_tunnel/{id}/configurations");
    lab.account(Method::PUT, &path, json!({"config": {"ingress": rules}})).await.refused(400, 1056);
    assert_eq!(lab.account(Method::GET, &path, NONE).await.json["result"]["version"], 0);
}

#[tokio::test]
async fn a_short_secret_is_refused() {
    let lab = Lab::start().await;
    let body = json!({"name": "ada", "tunnel_secret": base64(&[1; 31])});
    lab.account(Method::POST, "/cfd_tunnel", body).await.expect(400);
}

#[tokio::test]
async fn tokens_open_their_own_account_and_zone_only() {
    let lab = Lab::start().await;
    lab.admin(Method::PUT, "/admin/cloudflare/accounts/other", json!({"token": "t2"}))
        .await
        .expect(204);
    let base = &lab.sim.endpoints().cloudflare;
    let get = async |path: &str, token: &str| {
        lab.send(Method::GET, &format!("{base}{path}"), token, NONE).await.expect("answers")
    };
    get(&format!("/accounts/{ACCOUNT}/cfd_tunnel"), "t2").await.refused(403, 10000);
    get(&format!("/zones/{ZONE}/dns_records"), "t2").await.refused(403, 10000);
    get("/user/tokens/verify", "t3").await.refused(401, 1000);
    get("/accounts/other/cfd_tunnel", "t3").await.refused(401, 10000);
    assert_eq!(get("/user/tokens/verify", "t2").await.json["result"]["status"], "active");
    assert_eq!(get("/zones", "t2").await.json["result"], json!([]));
    let zones = lab.cloudflare(Method::GET, "/zones?name=example.com", NONE).await.expect(200).json;
    assert_eq!(
        (&zones["result"][0]["id"], &zones["result"][0]["plan"]["id"]),
        (&json!(ZONE), &json!("free"))
    );
}
