//! Servers and their actions.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};

use crate::lab::{Lab, Recorder, eventually, server};

const NONE: Value = Value::Null;

#[tokio::test]
async fn a_server_goes_from_initializing_over_starting_to_running() {
    let lab = Lab::start_unhurried().await;
    let reply = lab.hetzner(Method::POST, "/servers", server("ada", json!({}))).await.expect(201);
    assert_eq!(reply.json["server"]["status"], "initializing");
    assert_eq!(reply.json["action"]["command"], "create_server");
    assert_eq!(reply.json["action"]["status"], "running");
    assert!(reply.json["server"].get("datacenter").is_none());
    let id = reply.json["server"]["id"].as_u64().expect("an id");
    lab.server_is(id, "starting").await;
    lab.server_is(id, "running").await;
    let action = &reply.json["action"]["id"];
    let action = lab.hetzner(Method::GET, &format!("/actions?id={action}"), NONE).await.expect(200);
    assert_eq!(action.json["actions"][0]["status"], "success");
    assert_eq!(action.json["actions"][0]["progress"], 100);
}

#[tokio::test]
async fn a_root_password_is_answered_only_without_ssh_keys() {
    let lab = Lab::start().await;
    let reply = lab.hetzner(Method::POST, "/servers", server("a", json!({}))).await.expect(201);
    assert!(reply.json["root_password"].is_string());
    let key = format!("ssh-ed25519 {} lab", crate::lab::base64(&[1; 51]));
    let body = json!({"name": "lab", "public_key": key});
    lab.hetzner(Method::POST, "/ssh_keys", body.clone()).await.expect(201);
    lab.hetzner(Method::POST, "/ssh_keys", body).await.refused(409, "uniqueness_error");
    let reply = lab
        .hetzner(Method::POST, "/servers", server("b", json!({"ssh_keys": ["lab"]})))
        .await
        .expect(201);
    assert_eq!(reply.json["root_password"], NONE);
}

#[tokio::test]
async fn a_name_is_taken_until_its_server_is_gone() {
    let lab = Lab::start_unhurried().await;
    let id = lab.server("ada", json!({})).await;
    lab.hetzner(Method::POST, "/servers", server("ada", json!({})))
        .await
        .refused(409, "uniqueness_error");
    lab.hetzner(Method::DELETE, &format!("/servers/{id}"), NONE).await.expect(200);
    lab.hetzner(Method::POST, "/servers", server("ada", json!({})))
        .await
        .refused(409, "uniqueness_error");
    lab.server_is_gone(id).await;
    lab.server("ada", json!({})).await;
}

#[tokio::test]
async fn a_servers_primary_ips_go_with_it() {
    let lab = Lab::start().await;
    let id = lab.server("ada", json!({})).await;
    let ips = lab.hetzner(Method::GET, "/primary_ips", NONE).await.json["primary_ips"].clone();
    assert_eq!(ips.as_array().map(Vec::len), Some(2));
    let kept = &ips[0]["id"];
    lab.hetzner(Method::PUT, &format!("/primary_ips/{kept}"), json!({"auto_delete": false}))
        .await
        .expect(200);
    lab.hetzner(Method::DELETE, &format!("/servers/{id}"), NONE).await.expect(200);
    lab.server_is_gone(id).await;
    let left = lab.hetzner(Method::GET, "/primary_ips", NONE).await.json["primary_ips"].clone();
    assert_eq!(left.as_array().map(Vec::len), Some(1));
    assert_eq!(left[0]["assignee_id"], NONE);
}

#[rstest::rstest]
#[case::unknown_field(json!({"datacenter": "fsn1-dc14"}), "datacenter")]
#[case::bad_name(json!({"name": "not_a_host"}), "name")]
#[case::wrong_type(json!({"labels": {"-x": "y"}}), "labels")]
#[case::long_user_data(json!({"user_data": "x".repeat(32 * 1024 + 1)}), "user_data")]
#[case::unknown_server_type(json!({"server_type": "cx11"}), "server_type")]
#[case::deprecated_server_type(json!({"server_type": "cpx11"}), "server_type")]
#[case::wrong_location(json!({"location": "ash"}), "location")]
#[case::unknown_image(json!({"image": "windows-11"}), "image")]
#[case::unknown_firewall(json!({"firewalls": [{"firewall": 99}]}), "firewalls")]
#[case::unknown_key(json!({"ssh_keys": ["nobody"]}), "ssh_keys")]
#[tokio::test]
async fn a_bad_request_is_refused_with_the_field_at_fault(
    #[case] change: Value,
    #[case] field: &str,
) {
    let lab = Lab::start().await;
    let reply = lab.hetzner(Method::POST, "/servers", server("ada", change)).await;
    reply.refused(422, "invalid_input");
    assert_eq!(reply.json["error"]["details"]["fields"][0]["name"], field);
    let servers = lab.hetzner(Method::GET, "/servers", NONE).await.expect(200);
    assert_eq!(servers.json["meta"]["pagination"]["total_entries"], 0);
}

#[tokio::test]
async fn user_data_of_exactly_32_kib_is_taken() {
    let lab = Lab::start().await;
    lab.server("ada", json!({"user_data": "x".repeat(32 * 1024)})).await;
}

#[tokio::test]
async fn the_quota_is_a_403() {
    let lab = Lab::start().await;
    lab.put_project(json!({"serverQuota": 1})).await;
    lab.server("a", json!({})).await;
    lab.hetzner(Method::POST, "/servers", server("b", json!({})))
        .await
        .refused(403, "resource_limit_exceeded");
}

#[tokio::test]
async fn the_buttons_of_a_server_reach_the_backend() {
    let recorder = Arc::new(Recorder::default());
    let lab = Lab::start_with(Arc::clone(&recorder) as _).await;
    let id = lab.server("ada", json!({"user_data": "#cloud-config"})).await;
    lab.server_is(id, "running").await;
    let press = async |command: &str, body: Value, status: &str| {
        let path = format!("/servers/{id}/actions/{command}");
        eventually(async || lab.hetzner(Method::POST, &path, body.clone()).await.status == 201)
            .await;
        lab.server_is(id, status).await;
    };
    press("poweroff", NONE, "off").await;
    press("poweron", NONE, "running").await;
    press("reset", NONE, "running").await;
    press("shutdown", NONE, "off").await;
    press("rebuild", json!({"image": "debian-12", "user_data": "new"}), "running").await;
    lab.hetzner(Method::DELETE, &format!("/servers/{id}"), NONE).await.expect(200);
    lab.sim.shutdown().await;
    let expected = [
        "create ada #cloud-config",
        "power Off",
        "power On",
        "power Reset",
        "power Shutdown",
        "rebuild ada new",
        "delete",
        "shutdown",
    ];
    assert_eq!(recorder.calls(), expected);
}

#[tokio::test]
async fn an_action_fails_when_the_backend_does() {
    let lab = Lab::start_with(Arc::new(Recorder { refuses: true, ..Recorder::default() })).await;
    let reply = lab.hetzner(Method::POST, "/servers", server("ada", json!({}))).await.expect(201);
    let action = reply.json["action"]["id"].clone();
    eventually(async || {
        let action =
            lab.hetzner(Method::GET, &format!("/actions/{action}"), NONE).await.json["action"]
                .clone();
        action["status"] == "error"
            && action["error"]["message"] == "the server backend failed: no room"
    })
    .await;
}

#[tokio::test]
async fn a_server_is_locked_while_an_action_runs() {
    let lab = Lab::start().await;
    let id = lab.server("ada", json!({})).await;
    let reboot = format!("/servers/{id}/actions/reboot");
    // On a busy machine an action may have ended before the next one is asked for.
    eventually(async || {
        let reply = lab.hetzner(Method::POST, &reboot, NONE).await;
        let taken = reply.status == 201;
        if !taken {
            reply.refused(423, "locked");
        }
        !taken
    })
    .await;
    eventually(async || lab.hetzner(Method::POST, &reboot, NONE).await.status == 201).await;
}

#[tokio::test]
async fn a_protected_server_can_neither_be_deleted_nor_rebuilt() {
    let lab = Lab::start().await;
    let id = lab.server("ada", json!({})).await;
    lab.server_is(id, "running").await;
    let protect = json!({"delete": true, "rebuild": true});
    lab.hetzner(Method::POST, &format!("/servers/{id}/actions/change_protection"), protect)
        .await
        .expect(201);
    lab.hetzner(Method::DELETE, &format!("/servers/{id}"), NONE).await.refused(423, "protected");
    let rebuild = json!({"image": "debian-13"});
    lab.hetzner(Method::POST, &format!("/servers/{id}/actions/rebuild"), rebuild)
        .await
        .refused(423, "protected");
}

#[tokio::test]
async fn a_server_must_be_off_to_change_its_type() {
    let lab = Lab::start().await;
    let id = lab.server("ada", json!({})).await;
    lab.server_is(id, "running").await;
    let path = format!("/servers/{id}/actions/change_type");
    let body = json!({"server_type": "cx33", "upgrade_disk": true});
    lab.hetzner(Method::POST, &path, body.clone()).await.refused(422, "server_not_stopped");
    lab.hetzner(Method::POST, &format!("/servers/{id}/actions/poweroff"), NONE).await.expect(201);
    lab.server_is(id, "off").await;
    lab.hetzner(Method::POST, &path, body).await.expect(201);
    let server =
        lab.hetzner(Method::GET, &format!("/servers/{id}"), NONE).await.json["server"].clone();
    assert_eq!(server["server_type"]["name"], "cx33");
    assert_eq!(server["primary_disk_size"], 80);
}
