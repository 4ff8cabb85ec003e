//! Faults.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::lab::{CLOUDFLARE_TOKEN, Lab, TOKEN, eventually, server};

const NONE: Value = Value::Null;

#[rstest::rstest]
#[case(401, "unauthorized")]
#[case(403, "resource_limit_exceeded")]
#[case(404, "not_found")]
#[case(409, "conflict")]
#[case(412, "resource_unavailable")]
#[case(423, "locked")]
#[case(429, "rate_limit_exceeded")]
#[case(500, "server_error")]
#[case(503, "unavailable")]
#[tokio::test]
async fn hetzner_answers_any_status_in_its_own_envelope(#[case] status: u16, #[case] code: &str) {
    let lab = Lab::start().await;
    lab.fault(json!({"cloud": "hetzner", "tenant": "lab", "kind": "status", "status": status}))
        .await;
    let reply = lab.hetzner(Method::GET, "/servers", NONE).await;
    reply.refused(status, code);
    assert_eq!(reply.json["error"]["message"].as_str().unwrap().contains(TOKEN), status == 429);
    lab.hetzner(Method::GET, "/servers", NONE).await.expect(200);
}

#[rstest::rstest]
#[case(401, 10000)]
#[case(403, 10000)]
#[case(429, 10100)]
#[case(500, 10001)]
#[tokio::test]
async fn cloudflare_answers_any_status_in_its_own_envelope(#[case] status: u16, #[case] code: u64) {
    let lab = Lab::start().await;
    lab.fault(json!({"cloud": "cloudflare", "kind": "status", "status": status, "retryAfter": 7}))
        .await;
    let reply = lab.account(Method::GET, "/cfd_tunnel", NONE).await;
    reply.refused(status, code);
    assert_eq!(reply.headers["retry-after"], "7");
    lab.account(Method::GET, "/cfd_tunnel", NONE).await.expect(200);
}

#[tokio::test]
async fn a_held_request_is_done_when_it_is_let_go() {
    let lab = Lab::start().await;
    let hold = json!({"cloud": "hetzner", "method": "POST", "path": "/servers", "kind": "hold"});
    let fault = lab.admin(Method::POST, "/admin/faults", hold).await.expect(201).json;
    let names = async || {
        let servers = lab.hetzner(Method::GET, "/servers", NONE).await.expect(200).json;
        servers["servers"].as_array().unwrap().len()
    };
    let make = lab.hetzner(Method::POST, "/servers", server("ada", json!({})));
    let let_go = async {
        let waits = async || {
            let journal = lab.admin(Method::GET, "/admin/journal?cloud=hetzner", NONE).await.json;
            let posts = journal.as_array().unwrap().iter();
            posts.filter(|entry| entry["method"] == "POST").any(|entry| entry["status"].is_null())
        };
        eventually(waits).await;
        assert_eq!(names().await, 0);
        let fault = format!("/admin/faults/{}", fault["id"]);
        lab.admin(Method::DELETE, &fault, NONE).await;
    };
    let (reply, ()) = tokio::join!(make, let_go);
    reply.expect(201);
    assert_eq!(names().await, 1);
}

#[tokio::test]
async fn a_lost_response_leaves_its_effect_behind() {
    let lab = Lab::start().await;
    lab.fault(json!({"cloud": "hetzner", "method": "POST", "pathPrefix": "/servers", "kind": "response-lost"})).await;
    lab.hetzner(Method::GET, "/servers", NONE).await.expect(200);
    assert!(lab.try_hetzner(Method::POST, "/servers", server("ada", json!({}))).await.is_err());
    let servers = lab.hetzner(Method::GET, "/servers?name=ada", NONE).await.expect(200).json;
    assert_eq!(servers["meta"]["pagination"]["total_entries"], 1);
    let journal = lab.admin(Method::GET, "/admin/journal?cloud=hetzner", NONE).await.json;
    assert_eq!((&journal[1]["status"], &journal[1]["lost"]), (&json!(201), &json!(true)));
}

#[tokio::test]
async fn an_answer_can_hide_the_firewalls_that_are_there() {
    let lab = Lab::start().await;
    let rules = json!({"name": "wall", "rules": []});
    let firewall = lab.hetzner(Method::POST, "/firewalls", rules).await.expect(201).json;
    let id = &firewall["firewall"]["id"];
    lab.fault(json!({"cloud": "hetzner", "pathPrefix": "/servers", "kind": "firewall-unseen"}))
        .await;
    let ada = server("ada", json!({"firewalls": [{"firewall": id}]}));
    let made = lab.hetzner(Method::POST, "/servers", ada).await.expect(201).json;
    assert_eq!(made["server"]["public_net"]["firewalls"], json!([]));
    let path = format!("/servers/{}", made["server"]["id"]);
    let seen = lab.hetzner(Method::GET, &path, NONE).await.expect(200).json;
    assert_eq!(seen["server"]["public_net"]["firewalls"][0]["id"], *id);
}

#[tokio::test]
async fn a_server_can_stay_off_until_it_is_powered_on() {
    let lab = Lab::start().await;
    lab.fault(json!({"cloud": "hetzner", "kind": "stays-off"})).await;
    let made = lab.hetzner(Method::POST, "/servers", server("ada", json!({}))).await.expect(201);
    let path = format!("/servers/{}", made.json["server"]["id"]);
    let is = async |status: &str| {
        lab.hetzner(Method::GET, &path, NONE).await.json["server"]["status"] == status
    };
    eventually(async || is("off").await).await;
    lab.hetzner(Method::POST, &format!("{path}/actions/poweron"), json!({})).await.expect(201);
    eventually(async || is("running").await).await;
}

#[tokio::test]
async fn a_server_can_stay_initializing_and_only_be_deleted() {
    let lab = Lab::start().await;
    lab.fault(json!({"cloud": "hetzner", "kind": "stays-initializing"})).await;
    let made = lab.hetzner(Method::POST, "/servers", server("ada", json!({}))).await.expect(201);
    let path = format!("/servers/{}", made.json["server"]["id"]);
    let poweron = format!("{path}/actions/poweron");
    lab.hetzner(Method::POST, &poweron, json!({})).await.refused(423, "locked");
    let seen = lab.hetzner(Method::GET, &path, NONE).await.expect(200).json;
    assert_eq!(seen["server"]["status"], "initializing");
    lab.hetzner(Method::DELETE, &path, NONE).await.expect(200);
}

#[tokio::test]
async fn a_delay_delays_and_a_hang_never_answers() {
    let lab = Lab::start().await;
    lab.fault(json!({"cloud": "hetzner", "kind": "delay", "ms": 300})).await;
    let begin = Instant::now();
    lab.hetzner(Method::GET, "/servers", NONE).await.expect(200);
    assert!(begin.elapsed() >= Duration::from_millis(300));
    lab.fault(json!({"cloud": "hetzner", "kind": "hang"})).await;
    let hanging = lab.hetzner(Method::POST, "/servers", server("ada", json!({})));
    tokio::pin!(hanging);
    let struck =
        eventually(async || lab.admin(Method::GET, "/admin/faults", NONE).await.json == json!([]));
    tokio::select! {
        biased;
        reply = &mut hanging => panic!("{reply:?}"),
        () = struck => {}
    }
    assert!(tokio::time::timeout(Duration::from_millis(500), hanging).await.is_err());
    let servers = lab.hetzner(Method::GET, "/servers", NONE).await.expect(200).json;
    assert_eq!(servers["meta"]["pagination"]["total_entries"], 0);
}

#[tokio::test]
async fn a_hanging_request_does_not_keep_the_simulator_from_ending() {
    let lab = Lab::start().await;
    lab.fault(json!({"cloud": "hetzner", "kind": "hang"})).await;
    let request = reqwest::Client::new().get(format!("{}/servers", lab.sim.endpoints().hetzner));
    let hanging = tokio::spawn(request.bearer_auth(TOKEN).send());
    eventually(async || lab.admin(Method::GET, "/admin/faults", NONE).await.json == json!([]))
        .await;
    tokio::time::timeout(Duration::from_secs(30), lab.sim.shutdown()).await.expect("ends");
    assert!(hanging.await.expect("no panic").is_err());
}

#[tokio::test]
async fn a_malformed_body_stops_in_the_middle() {
    let lab = Lab::start().await;
    lab.fault(json!({"cloud": "cloudflare", "kind": "malformed-body"})).await;
    let reply = lab.account(Method::GET, "/cfd_tunnel", NONE).await.expect(200);
    assert!(reply.json.is_string(), "{:#}", reply.json);
}

#[tokio::test]
async fn an_action_can_end_in_error_and_the_server_never_boots() {
    let lab = Lab::start().await;
    lab.fault(json!({"cloud": "hetzner", "kind": "action-error", "code": "server_error", "message": "host died"})).await;
    // Reading does not use the fault up.
    lab.hetzner(Method::GET, "/servers", NONE).await.expect(200);
    let reply = lab.hetzner(Method::POST, "/servers", server("ada", json!({}))).await.expect(201);
    let path = format!("/actions/{}", reply.json["action"]["id"]);
    eventually(async || {
        lab.hetzner(Method::GET, &path, NONE).await.json["action"]["status"] == "error"
    })
    .await;
    let action = lab.hetzner(Method::GET, &path, NONE).await.json;
    assert_eq!(action["action"]["error"], json!({"code": "server_error", "message": "host died"}));
    lab.server_is(reply.json["server"]["id"].as_u64().unwrap(), "off").await;
}

#[tokio::test]
async fn a_deletion_whose_action_fails_deletes_nothing() {
    let lab = Lab::start().await;
    let id = lab.server("ada", json!({})).await;
    lab.fault(json!({"cloud": "hetzner", "method": "DELETE", "kind": "action-error"})).await;
    let reply = lab.hetzner(Method::DELETE, &format!("/servers/{id}"), NONE).await.expect(200);
    let path = format!("/actions/{}", reply.json["action"]["id"]);
    eventually(async || {
        lab.hetzner(Method::GET, &path, NONE).await.json["action"]["status"] == "error"
    })
    .await;
    lab.server_is(id, "running").await;
}

#[tokio::test]
async fn a_sold_out_type_shows_in_the_catalogue() {
    let lab = Lab::start().await;
    let id = lab
        .fault(json!({"cloud": "hetzner", "kind": "out-of-stock", "serverType": "cx23", "location": "fsn1", "times": null}))
        .await;
    let create = async |name: &str, location: &str| {
        lab.hetzner(Method::POST, "/servers", server(name, json!({"location": location}))).await
    };
    create("a", "fsn1").await.refused(412, "resource_unavailable");
    create("a", "fsn1").await.refused(412, "resource_unavailable");
    create("a", "nbg1").await.expect(201);
    let types = lab.hetzner(Method::GET, "/server_types?name=cx23", NONE).await.json;
    let available =
        |index: usize| types["server_types"][0]["locations"][index]["available"].clone();
    assert_eq!((available(0), available(1)), (json!(false), json!(true)));
    lab.admin(Method::DELETE, &format!("/admin/faults/{id}"), NONE).await.expect(204);
    create("b", "fsn1").await.expect(201);
}

#[tokio::test]
async fn statuses_can_have_values_that_no_client_knows() {
    let lab = Lab::start().await;
    lab.server("ada", json!({})).await;
    lab.fault(json!({"cloud": "hetzner", "kind": "unknown-enum"})).await;
    let servers = lab.hetzner(Method::GET, "/servers", NONE).await.expect(200).json;
    assert_eq!(servers["servers"][0]["status"], "quantum");
    lab.tunnel("t").await;
    lab.fault(json!({"cloud": "cloudflare", "kind": "unknown-enum", "value": "sleepy"})).await;
    let tunnels = lab.account(Method::GET, "/cfd_tunnel", NONE).await.expect(200).json;
    assert_eq!(tunnels["result"][0]["status"], "sleepy");
}

#[tokio::test]
async fn a_fault_strikes_as_often_as_it_says_and_only_where_it_says() {
    let lab = Lab::start().await;
    lab.admin(Method::PUT, "/admin/hetzner/projects/other", json!({"token": "t2"}))
        .await
        .expect(204);
    lab.fault(json!({"cloud": "hetzner", "tenant": "lab", "path": "/servers/*", "kind": "status", "status": 503, "times": 2})).await;
    let url = format!("{}/servers/1", lab.sim.endpoints().hetzner);
    lab.send(Method::GET, &url, "t2", NONE).await.expect("answers").expect(404);
    lab.hetzner(Method::GET, "/servers", NONE).await.expect(200);
    lab.hetzner(Method::GET, "/servers/1", NONE).await.expect(503);
    lab.hetzner(Method::GET, "/servers/1", NONE).await.expect(503);
    lab.hetzner(Method::GET, "/servers/1", NONE).await.expect(404);
    assert_eq!(lab.admin(Method::GET, "/admin/faults", NONE).await.json, json!([]));
    let url = format!("{}/user/tokens/verify", lab.sim.endpoints().cloudflare);
    lab.send(Method::GET, &url, CLOUDFLARE_TOKEN, NONE).await.expect("answers").expect(200);
}

#[rstest::rstest]
#[case(json!({"cloud": "hetzner", "kind": "explode"}))]
#[case(json!({"cloud": "hetzner", "kind": "status", "status": 500, "tims": 3}))]
#[case(json!({"cloud": "azure", "kind": "hang"}))]
#[tokio::test]
async fn a_misspelt_fault_is_refused(#[case] fault: Value) {
    let lab = Lab::start().await;
    lab.admin(Method::POST, "/admin/faults", fault).await.expect(422);
}
