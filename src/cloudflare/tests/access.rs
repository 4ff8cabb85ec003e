use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn a_list_without_pages_is_read_once_more_at_most() {
    let server = TestServer::start(|_| {
        let tokens =
            (0..100).map(|n| json!({"id": uuid(n), "name": "pool", "client_id": "c.access"}));
        ok(tokens.collect::<Vec<Value>>())
    })
    .await;
    let tokens = client(&server).list_service_tokens(Priority::Normal).await.unwrap();
    assert_eq!(tokens.len(), 100);
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn access_is_set_up_from_token_policy_and_application() {
    const ID: &str = "699d9864-2c56-4d2e-855e-9661899b7252";
    let server = TestServer::start(|request| {
        let token = json!({"id": ID, "name": "pool", "client_id": "88bf3b6d.access", "client_secret": "shown-once",
            "expires_at": "2027-09-01T10:00:00Z", "duration": "8760h"});
        let policy = json!({"id": ID, "name": "pool", "decision": "a_decision_of_the_future",
            "include": [{"service_token": {"token_id": ID}}, {"geo": {"country_code": "DE"}}]});
        let app = json!({"id": ID, "name": "pool", "type": "self_hosted", "aud": "aud1",
            "destinations": [{"type": "public", "uri": "*.example.com"}], "policies": [{"id": ID, "precedence": 1}]});
        match (request.method.as_str(), request.target.split('?').next().unwrap().trim_start_matches("/v1/accounts/acc1/access/")) {
            ("POST", path) if path.starts_with("service_tokens") => ok(token),
            ("POST" | "PUT", path) if path.starts_with("policies") => ok(policy),
            ("GET", "apps") => ok(json!([app, {"id": ID, "type": "warp", "policies": null}])),
            (_, path) if path.starts_with("apps") => ok(app),
            ("DELETE", _) => Reply::json(404, refusal(12345)),
            other => panic!("unexpected {other:?}"),
        }
    })
    .await;
    let client = client(&server);
    let issued = client.create_service_token("pool", "8760h").await.unwrap();
    assert_eq!(issued.client_secret.expose_secret(), "shown-once");
    assert!(!format!("{issued:?}").contains("shown-once"));
    let expires = "2026-09-01T10:00:00Z".parse().unwrap();
    client.rotate_service_token(&issued.token.id, Some(expires)).await.unwrap();
    let spec = AccessPolicySpec {
        name: "pool".into(),
        decision: Decision::NonIdentity,
        include: vec![AccessRule::service_token(issued.token.id.clone())],
    };
    let policy = client.create_access_policy(&spec).await.unwrap();
    assert_eq!(policy.include[0], spec.include[0]);
    assert!(matches!(policy.include[1], AccessRule::Other(_)));
    let app = AccessAppSpec {
        name: "pool".into(),
        destinations: vec![AccessDestination::public("*.example.com")],
        policies: vec![policy.id.clone()],
    };
    let made = client.create_access_app(&app).await.unwrap();
    assert_eq!(made.policy_ids().collect::<Vec<_>>(), [&policy.id]);
    assert_eq!(made.destinations.as_ref(), Some(&app.destinations));
    client.update_access_app(&made.id, &app).await.unwrap();
    assert_eq!(
        client.list_access_apps(Priority::Normal).await.unwrap().len(),
        1,
        "both have one id"
    );
    assert_eq!(client.delete_service_token(&issued.token.id).await, Ok(Deletion::AlreadyGone));
    assert_eq!(client.delete_access_policy(&policy.id).await, Ok(Deletion::AlreadyGone));

    let requests = server.requests();
    assert_eq!(requests[1].target, format!("/v1/accounts/acc1/access/service_tokens/{ID}/rotate"));
    assert_eq!(
        requests[1].body,
        json!({"previous_client_secret_expires_at": "2026-09-01T10:00:00Z"})
    );
    assert_eq!(
        requests[2].body,
        json!({"name": "pool", "decision": "non_identity", "include": [{"service_token": {"token_id": ID}}]})
    );
    assert_eq!(
        requests[3].body,
        json!({"name": "pool", "type": "self_hosted", "domain": "*.example.com",
            "destinations": [{"type": "public", "uri": "*.example.com"}],
            "policies": [{"id": ID, "precedence": 1}],
            "app_launcher_visible": false, "service_auth_401_redirect": true})
    );
}
