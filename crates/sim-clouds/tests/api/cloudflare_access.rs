//! Access: applications, policies, service tokens, and what they decide.

use moorage_sim_clouds::cloudflare::AccessDecision;
use reqwest::Method;
use serde_json::{Value, json};

use crate::lab::{Lab, merged};

const NONE: Value = Value::Null;

struct Guarded {
    lab: Lab,
    token: Value,
    policy: String,
    app: String,
}

/// One application for all management host names, opened by one service token.
async fn guarded() -> Guarded {
    let lab = Lab::start().await;
    let token = lab
        .account(Method::POST, "/access/service_tokens", json!({"name": "op"}))
        .await
        .expect(201)
        .json;
    let token = token["result"].clone();
    let policy = json!({"name": "op", "decision": "non_identity", "include": [{"service_token": {"token_id": token["id"]}}]});
    let policy = lab
        .account(Method::POST, "/access/policies", policy)
        .await
        .expect(201)
        .json["result"]["id"]
        .clone();
    let policy = policy.as_str().expect("an id").to_owned();
    let app = lab
        .account(Method::POST, "/access/apps", app("*-mgmt.example.com", &policy))
        .await
        .expect(201)
        .json;
    let app = app["result"]["id"].as_str().expect("an id").to_owned();
    Guarded { lab, token, policy, app }
}

fn app(uri: &str, policy: &str) -> Value {
    let destinations = json!([{"type": "public", "uri": uri}]);
    json!({"name": "mgmt", "type": "self_hosted", "destinations": destinations, "policies": [policy]})
}

impl Guarded {
    fn check(&self, hostname: &str, secret: Option<&str>) -> AccessDecision {
        let id = secret.and(self.token["client_id"].as_str());
        self.lab.sim.world().cloudflare.access_check(hostname, id, secret)
    }

    fn secret(&self) -> &str {
        self.token["client_secret"].as_str().expect("a secret")
    }
}

#[tokio::test]
async fn a_service_token_opens_every_host_name_of_the_wildcard() {
    let guarded = guarded().await;
    assert_eq!(
        guarded.check("ada-mgmt.example.com", Some(guarded.secret())),
        AccessDecision::Allowed
    );
    assert_eq!(
        guarded.check("BOB-mgmt.example.com", Some(guarded.secret())),
        AccessDecision::Allowed
    );
    assert_eq!(guarded.check("ada-mgmt.example.com", Some("guess")), AccessDecision::Denied);
    assert_eq!(guarded.check("ada-mgmt.example.com", None), AccessDecision::Denied);
    assert_eq!(guarded.check("ada.example.com", None), AccessDecision::NotProtected);
}

#[tokio::test]
async fn an_exact_host_name_decides_before_a_wildcard() {
    let guarded = guarded().await;
    let bypass = json!({"name": "open", "decision": "bypass", "include": [{"everyone": {}}]});
    let open = merged(app("open-mgmt.example.com", ""), json!({"policies": [bypass]}));
    guarded.lab.account(Method::POST, "/access/apps", open).await.expect(201);
    assert_eq!(guarded.check("open-mgmt.example.com", None), AccessDecision::Allowed);
    assert_eq!(guarded.check("ada-mgmt.example.com", None), AccessDecision::Denied);
}

#[tokio::test]
async fn a_policy_for_people_lets_no_service_token_in() {
    let guarded = guarded().await;
    let allow = json!({"name": "op", "decision": "allow", "include": [{"everyone": {}}]});
    let path = format!("/access/policies/{}", guarded.policy);
    guarded.lab.account(Method::PUT, &path, allow).await.expect(200);
    assert_eq!(
        guarded.check("ada-mgmt.example.com", Some(guarded.secret())),
        AccessDecision::Denied
    );
}

#[tokio::test]
async fn a_secret_is_shown_at_create_and_rotate_only() {
    let guarded = guarded().await;
    let id = guarded.token["id"].as_str().unwrap();
    let path = format!("/access/service_tokens/{id}");
    let shown = guarded.lab.account(Method::GET, &path, NONE).await.expect(200).json;
    assert!(shown["result"].get("client_secret").is_none());
    let later = json!({"previous_client_secret_expires_at": "2999-01-01T00:00:00Z"});
    let rotated =
        guarded.lab.account(Method::POST, &format!("{path}/rotate"), later).await.expect(200).json;
    let second = rotated["result"]["client_secret"].as_str().unwrap();
    assert_eq!(
        guarded.check("ada-mgmt.example.com", Some(guarded.secret())),
        AccessDecision::Allowed
    );
    assert_eq!(guarded.check("ada-mgmt.example.com", Some(second)), AccessDecision::Allowed);
    guarded.lab.account(Method::POST, &format!("{path}/rotate"), NONE).await.expect(200);
    assert_eq!(guarded.check("ada-mgmt.example.com", Some(second)), AccessDecision::Denied);
}

#[tokio::test]
async fn an_old_secret_ends_at_the_moment_that_was_given() {
    let guarded = guarded().await;
    let path = format!("/access/service_tokens/{}/rotate", guarded.token["id"].as_str().unwrap());
    let past = json!({"previous_client_secret_expires_at": "2020-01-01T00:00:00Z"});
    guarded.lab.account(Method::POST, &path, past).await.expect(200);
    assert_eq!(
        guarded.check("ada-mgmt.example.com", Some(guarded.secret())),
        AccessDecision::Denied
    );
}

#[tokio::test]
async fn a_policy_in_use_cannot_be_deleted() {
    let guarded = guarded().await;
    let policy = format!("/access/policies/{}", guarded.policy);
    guarded.lab.account(Method::DELETE, &policy, NONE).await.expect(409);
    let path = format!("/access/apps/{}", guarded.app);
    let bare = merged(app("*-mgmt.example.com", ""), json!({"policies": []}));
    guarded.lab.account(Method::PUT, &path, bare).await.expect(200);
    assert_eq!(
        guarded.check("ada-mgmt.example.com", Some(guarded.secret())),
        AccessDecision::Denied
    );
    guarded.lab.account(Method::DELETE, &policy, NONE).await.expect(202);
    guarded.lab.account(Method::DELETE, &path, NONE).await.expect(202);
    assert_eq!(guarded.check("ada-mgmt.example.com", None), AccessDecision::NotProtected);
}

#[tokio::test]
async fn two_wildcards_in_a_label_and_foreign_domains_are_refused() {
    let guarded = guarded().await;
    for uri in ["a*b*c.example.com", "ada.example.org", "ada.example.com:8443"] {
        guarded
            .lab
            .account(Method::POST, "/access/apps", app(uri, &guarded.policy))
            .await
            .expect(400);
    }
}

#[tokio::test]
async fn the_account_limits_hold() {
    let lab = Lab::start().await;
    for number in 0..50 {
        lab.account(Method::POST, "/access/service_tokens", json!({"name": format!("t{number}")}))
            .await
            .expect(201);
    }
    lab.account(Method::POST, "/access/service_tokens", json!({"name": "t50"})).await.expect(403);
    lab.put_account(json!({"limits": {"accessPolicies": 1, "accessApps": 1}})).await;
    let policy = json!({"name": "p", "decision": "bypass", "include": [{"everyone": {}}]});
    let id = lab
        .account(Method::POST, "/access/policies", policy.clone())
        .await
        .expect(201)
        .json["result"]["id"]
        .clone();
    lab.account(Method::POST, "/access/policies", policy).await.expect(403);
    lab.account(Method::POST, "/access/apps", app("a.example.com", id.as_str().unwrap()))
        .await
        .expect(201);
    lab.account(Method::POST, "/access/apps", app("b.example.com", id.as_str().unwrap()))
        .await
        .expect(403);
}
