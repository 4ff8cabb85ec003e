//! The admin API.

use reqwest::Method;
use serde_json::{Value, json};

use crate::lab::{ACCOUNT, Lab, server};

const NONE: Value = Value::Null;

#[tokio::test]
async fn the_journal_keeps_every_request_with_its_body() {
    let lab = Lab::start().await;
    let body = server("ada", json!({"user_data": "secret"}));
    lab.hetzner(Method::POST, "/servers", body.clone()).await.expect(201);
    lab.hetzner(Method::GET, "/servers/77?x=y", NONE).await.expect(404);
    lab.account(Method::GET, "/cfd_tunnel", NONE).await.expect(200);
    let all = lab.admin(Method::GET, "/admin/journal", NONE).await.expect(200).json;
    assert_eq!(all.as_array().map(Vec::len), Some(3));
    assert_eq!((&all[0]["body"], &all[0]["status"]), (&body, &json!(201)));
    assert_eq!(
        (&all[1]["path"], &all[1]["query"], &all[1]["status"]),
        (&json!("/servers/77"), &json!("x=y"), &json!(404))
    );
    assert_eq!(all[2]["tenant"], ACCOUNT);
    let some = lab
        .admin(Method::GET, "/admin/journal?since=1&cloud=hetzner&tenant=lab", NONE)
        .await
        .expect(200)
        .json;
    assert_eq!(some.as_array().map(Vec::len), Some(1));
    assert_eq!(some[0]["seq"], 2);
}

#[tokio::test]
async fn counts_are_grouped_by_path_template_and_survive_no_clearing() {
    let lab = Lab::start().await;
    for id in 1..4 {
        lab.hetzner(Method::GET, &format!("/servers/{id}"), NONE).await.expect(404);
    }
    let counts =
        lab.admin(Method::GET, "/admin/journal/counts?cloud=hetzner", NONE).await.expect(200).json;
    assert_eq!(
        counts,
        json!([{"cloud": "hetzner", "tenant": "lab", "method": "GET", "path": "/servers/{id}", "count": 3}])
    );
    lab.admin(Method::DELETE, "/admin/journal", NONE).await.expect(204);
    assert_eq!(lab.admin(Method::GET, "/admin/journal", NONE).await.json, json!([]));
    lab.hetzner(Method::GET, "/servers", NONE).await.expect(200);
    assert_eq!(lab.admin(Method::GET, "/admin/journal", NONE).await.json[0]["seq"], 4);
}

#[tokio::test]
async fn the_state_shows_everything_of_every_tenant() {
    let lab = Lab::start().await;
    lab.server("ada", json!({"user_data": "#cloud-config"})).await;
    let tunnel = lab.tunnel("ada").await;
    let state = lab.admin(Method::GET, "/admin/state", NONE).await.expect(200).json;
    assert_eq!(state["hetzner"]["lab"]["servers"][0]["user_data"], "#cloud-config");
    assert_eq!(state["cloudflare"][ACCOUNT]["tunnels"][0]["id"], tunnel);
    assert_eq!(state["cloudflare"][ACCOUNT]["zones"][0]["name"], "example.com");
}

#[tokio::test]
async fn a_server_can_vanish_with_no_trace() {
    let lab = Lab::start().await;
    let id = lab.server("ada", json!({})).await;
    let path = format!("/admin/hetzner/projects/lab/servers/{id}/vanish");
    lab.admin(Method::POST, &path, NONE).await.expect(204);
    lab.hetzner(Method::GET, &format!("/servers/{id}"), NONE).await.refused(404, "not_found");
    lab.admin(Method::POST, &path, NONE).await.expect(404);
}

#[tokio::test]
async fn a_project_keeps_its_servers_when_its_token_changes() {
    let lab = Lab::start().await;
    lab.server("ada", json!({})).await;
    lab.put_project(json!({"token": "new"})).await;
    lab.hetzner(Method::GET, "/servers", NONE).await.refused(401, "unauthorized");
    let url = format!("{}/servers", lab.sim.endpoints().hetzner);
    let servers = lab.send(Method::GET, &url, "new", NONE).await.expect("answers").expect(200).json;
    assert_eq!(servers["meta"]["pagination"]["total_entries"], 1);
    let taken =
        lab.admin(Method::PUT, "/admin/hetzner/projects/other", json!({"token": "new"})).await;
    assert_eq!(taken.status, 409);
    lab.admin(Method::DELETE, "/admin/hetzner/projects/lab", NONE).await.expect(204);
    lab.send(Method::GET, &url, "new", NONE).await.expect("answers").expect(401);
}
