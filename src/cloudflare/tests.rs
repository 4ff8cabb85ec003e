use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::cloud::test_server::{Recorded, Reply, TOKEN, TestServer};
use crate::cloud::{BudgetPlan, Classification, Conflict, ErrorKind, Outcome};

const TUNNEL: &str = "6ff42ae2-765d-4adf-8112-31c55c1551ef";
const OTHER: &str = "0d4a6bb1-0000-4adf-8112-31c55c1551ef";
const RECORD: &str = "023e105f4ecef8ad9ca31a8372d0c353";

fn client(server: &TestServer) -> CloudflareClient {
    let account = AccountId::parse("acc1").unwrap();
    CloudflareClient::new(server.config(BudgetPlan::cloudflare()), account).unwrap()
}

fn tunnel_id() -> TunnelId {
    TunnelId::parse(TUNNEL).unwrap()
}

fn zone() -> ZoneId {
    ZoneId::parse("zone1").unwrap()
}

fn ok(result: impl Into<Value>) -> Reply {
    Reply::json(
        200,
        json!({"success": true, "errors": [], "messages": [], "result": result.into()}),
    )
}

fn refusal(code: i64) -> Value {
    json!({"success": false, "errors": [{"code": code, "message": format!("no, {TOKEN}")}], "result": null})
}

fn tunnel_json(id: &str, name: &str) -> Value {
    json!({"id": id, "name": name, "status": "healthy", "created_at": "2026-09-01T10:00:00.123456Z",
        "deleted_at": null, "connections": [], "a_field_of_the_future": 1})
}

fn record_json(name: &str) -> Value {
    json!({"id": RECORD, "name": name, "type": "CNAME", "content": "x.cfargotunnel.com", "proxied": true,
        "ttl": 1, "comment": "moorage i1 a1", "tags": []})
}

fn query(recorded: &Recorded, name: &str) -> Option<String> {
    let url = url::Url::parse(&format!("http://x{}", recorded.target)).unwrap();
    url.query_pairs()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

fn batch() -> DnsBatch {
    DnsBatch {
        deletes: vec![RecordId::parse(RECORD).unwrap()],
        patches: vec![DnsPatch {
            id: RecordId::parse(RECORD).unwrap(),
            content: Some(tunnel_id().dns_target()),
            proxied: None,
            comment: None,
        }],
        posts: vec![NewDnsRecord::tunnel_cname(
            "ada.example.com",
            &tunnel_id(),
            "moorage i1 a1",
        )],
    }
}

const PAUSED: ErrorKind = ErrorKind::RateLimited {
    retry_after: Duration::from_secs(300),
};
const UNKNOWN: ErrorKind = ErrorKind::Transient {
    maybe_applied: true,
};

#[rstest]
#[case(400, 81053, ErrorKind::Conflict(Conflict::HostExists))]
#[case(400, 81057, ErrorKind::Conflict(Conflict::RecordExists))]
#[case(409, 81058, ErrorKind::Conflict(Conflict::RecordExists))]
#[case(400, 81044, ErrorKind::NotFound)]
#[case(400, 81045, ErrorKind::QuotaExceeded)]
#[case(409, 1013, ErrorKind::Conflict(Conflict::NameTaken))]
#[case(400, 1022, ErrorKind::ResourceInUse)]
#[case(401, 10000, ErrorKind::Unauthorized)]
#[case(400, 10000, ErrorKind::Unauthorized)]
#[case(403, 10000, ErrorKind::Forbidden { read_only: false })]
#[case(403, 9109, ErrorKind::Forbidden { read_only: false })]
#[case(400, 6003, ErrorKind::Unauthorized)]
#[case(403, 1234, ErrorKind::Forbidden { read_only: false })]
#[case(404, 1234, ErrorKind::NotFound)]
#[case(410, 1234, ErrorKind::Gone)]
#[case(429, 10100, PAUSED)]
#[case(429, 81053, PAUSED)]
#[case(500, 81053, UNKNOWN)]
#[case(520, 0, UNKNOWN)]
#[tokio::test]
async fn every_refusal_becomes_its_kind_and_never_shows_the_token(
    #[case] status: u16,
    #[case] code: i64,
    #[case] expected: ErrorKind,
) {
    let server = TestServer::start(move |_| Reply::json(status, refusal(code))).await;
    let error = client(&server)
        .dns_batch(&zone(), &batch())
        .await
        .unwrap_err();
    assert_eq!(error.kind, expected);
    for shown in [
        format!("{error}"),
        format!("{error:?}"),
        format!("{error:#?}"),
    ] {
        assert!(!shown.contains(TOKEN), "{shown}");
    }
    assert_eq!(server.requests().len(), 1, "a write is sent once");
}

#[rstest]
#[case(400, 81053, Outcome::NotApplied, true)]
#[case(400, 9005, Outcome::NotApplied, true)]
#[case(401, 10000, Outcome::NotApplied, false)]
#[case(429, 10100, Outcome::NotApplied, false)]
#[case(502, 0, Outcome::Unknown, false)]
#[tokio::test]
async fn a_refused_batch_says_whether_halving_it_helps(
    #[case] status: u16,
    #[case] code: i64,
    #[case] outcome: Outcome,
    #[case] halve: bool,
) {
    let server = TestServer::start(move |_| Reply::json(status, refusal(code))).await;
    let error = client(&server)
        .dns_batch(&zone(), &batch())
        .await
        .unwrap_err();
    assert_eq!(
        (error.outcome(), error.blames_the_request()),
        (outcome, halve)
    );
}

#[tokio::test]
async fn a_limit_of_the_account_is_told_from_a_missing_permission() {
    let body = json!({"success": false, "errors": [{"code": 12130, "message": "Limit of 50 service tokens reached"}]});
    let server = TestServer::start(move |_| Reply::json(403, body.clone())).await;
    let error = client(&server)
        .create_service_token("pool", "8760h")
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::QuotaExceeded);
}

#[tokio::test]
async fn a_revoked_token_is_told_from_a_missing_permission() {
    let body =
        json!({"success": false, "errors": [{"code": 9109, "message": "Invalid access token"}]});
    let server = TestServer::start(move |_| Reply::json(403, body.clone())).await;
    let error = client(&server)
        .get_zone(Priority::Normal, &zone())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unauthorized);
}

#[tokio::test]
async fn a_wrong_path_is_not_taken_for_a_missing_object() {
    let server = TestServer::start(|_| Reply::json(404, refusal(7003))).await;
    let error = client(&server)
        .get_tunnel(Priority::Normal, &tunnel_id())
        .await
        .unwrap_err();
    assert_eq!(error.classify(), Classification::Terminal);
    let server = TestServer::start(|_| Reply::Text(404, "<html>nginx</html>".into())).await;
    let error = client(&server)
        .delete_tunnel(&tunnel_id())
        .await
        .unwrap_err();
    assert_eq!(
        error.kind,
        ErrorKind::Malformed {
            maybe_applied: true
        }
    );
}

#[tokio::test]
async fn a_refusal_under_a_200_is_no_success() {
    let server = TestServer::start(|_| Reply::json(200, refusal(1003))).await;
    let error = client(&server)
        .get_zone(Priority::Normal, &zone())
        .await
        .unwrap_err();
    assert_eq!(
        error.kind,
        ErrorKind::Malformed {
            maybe_applied: false
        }
    );
    assert!(!error.to_string().contains(TOKEN));
}

#[tokio::test]
async fn a_tunnel_is_made_with_a_secret_of_ones_own() {
    let server = TestServer::start(|_| ok(tunnel_json(TUNNEL, "moorage-ada"))).await;
    let secret = TunnelSecret::new([1; 32]);
    let tunnel = client(&server)
        .create_tunnel(&CreateTunnel {
            name: "moorage-ada",
            secret: &secret,
        })
        .await
        .unwrap();
    assert_eq!(
        (tunnel.id, tunnel.status),
        (tunnel_id(), Some(TunnelStatus::Healthy))
    );
    let requests = server.requests();
    assert_eq!(requests[0].target, "/v1/accounts/acc1/cfd_tunnel");
    let encoded = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    assert_eq!(
        requests[0].body,
        json!({"name": "moorage-ada", "config_src": "cloudflare", "tunnel_secret": encoded})
    );
}

#[tokio::test]
async fn rotation_sends_nothing_but_the_secret() {
    let server = TestServer::start(|_| ok(tunnel_json(TUNNEL, "moorage-ada"))).await;
    client(&server)
        .rotate_tunnel_secret(&tunnel_id(), &TunnelSecret::new([1; 32]))
        .await
        .unwrap();
    let requests = server.requests();
    assert_eq!(requests[0].method, http::Method::PATCH);
    assert_eq!(
        requests[0]
            .body
            .as_object()
            .unwrap()
            .keys()
            .collect::<Vec<_>>(),
        ["tunnel_secret"]
    );
}

#[tokio::test]
async fn deleted_tunnels_do_not_exist() {
    let mut deleted = tunnel_json(TUNNEL, "moorage-ada");
    deleted["deleted_at"] = json!("2026-09-02T10:00:00Z");
    let single = deleted.clone();
    let server = TestServer::start(move |request| {
        let one = request.target.contains(TUNNEL);
        ok(if one {
            single.clone()
        } else {
            json!([deleted, tunnel_json(OTHER, "moorage-bob")])
        })
    })
    .await;
    let client = client(&server);
    assert_eq!(
        client.get_tunnel(Priority::Delete, &tunnel_id()).await,
        Ok(None)
    );
    assert_eq!(
        client
            .find_tunnel_by_name(Priority::Delete, "moorage-ada")
            .await,
        Ok(None)
    );
    let live = client
        .list_tunnels(Priority::Sweep, "moorage-")
        .await
        .unwrap();
    assert_eq!(live.len(), 1);
    let requests = server.requests();
    assert_eq!(query(&requests[1], "is_deleted").unwrap(), "false");
    assert_eq!(query(&requests[1], "name").unwrap(), "moorage-ada");
    assert_eq!(query(&requests[2], "include_prefix").unwrap(), "moorage-");
    assert_eq!(query(&requests[2], "per_page").unwrap(), "1000");
}

fn uuid(number: usize) -> String {
    format!("{number:08x}-765d-4adf-8112-31c55c1551ef")
}

#[rstest]
#[case::total_given(2, json!({"page": 1, "per_page": 2, "count": 2, "total_count": 3}))]
#[case::smaller_pages_than_asked(2, json!({"per_page": 2}))]
#[case::everything_null(1000, json!({"page": null, "per_page": null, "count": null, "total_count": null}))]
#[case::no_info(1000, Value::Null)]
#[tokio::test]
async fn every_page_is_read_whatever_the_result_info_leaves_out(
    #[case] first: usize,
    #[case] info: Value,
) {
    let server = TestServer::start(move |request| {
        // The second page repeats an entry, as pages do when something is made in between.
        let (range, info) = match query(request, "page").unwrap().as_str() {
            "1" => (0..first, info.clone()),
            _ => (first - 1..first + 1, json!({"total_count": first + 1})),
        };
        let tunnels: Vec<Value> = range
            .map(|number| tunnel_json(&uuid(number), "moorage-x"))
            .collect();
        Reply::json(
            200,
            json!({"success": true, "result": tunnels, "result_info": info}),
        )
    })
    .await;
    let tunnels = client(&server)
        .list_tunnels(Priority::Sweep, "moorage-")
        .await
        .unwrap();
    assert_eq!(tunnels.len(), first + 1);
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_list_without_pages_is_read_once_more_at_most() {
    let server = TestServer::start(|_| {
        let tokens =
            (0..100).map(|n| json!({"id": uuid(n), "name": "pool", "client_id": "c.access"}));
        ok(tokens.collect::<Vec<Value>>())
    })
    .await;
    let tokens = client(&server)
        .list_service_tokens(Priority::Normal)
        .await
        .unwrap();
    assert_eq!(tokens.len(), 100);
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn an_empty_list_may_be_null() {
    let server = TestServer::start(|_| ok(Value::Null)).await;
    assert_eq!(
        client(&server)
            .list_tunnels(Priority::Sweep, "moorage-")
            .await,
        Ok(vec![])
    );
}

#[tokio::test]
async fn routes_are_put_whole_and_read_back_equal() {
    let configuration = TunnelConfiguration {
        ingress: vec![
            IngressRule {
                hostname: Some("ada.example.com".into()),
                path: None,
                service: "http://127.0.0.1:18789".into(),
                origin_request: Some(OriginRequest::from_iter([(
                    "connectTimeout".to_owned(),
                    json!(10),
                )])),
            },
            IngressRule {
                hostname: None,
                path: None,
                service: "http_status:404".into(),
                origin_request: None,
            },
        ],
        other: serde_json::Map::new(),
    };
    let server = TestServer::start(|request| {
        let config = request.body.get("config").cloned().unwrap_or(Value::Null);
        ok(json!({"tunnel_id": TUNNEL, "version": 4, "config": config, "source": "cloudflare"}))
    })
    .await;
    let client = client(&server);
    let put = client
        .put_tunnel_configuration(&tunnel_id(), &configuration)
        .await
        .unwrap();
    assert_eq!(
        (put.version, put.config.as_ref()),
        (Some(4), Some(&configuration))
    );
    let expected = json!({"config": {"ingress": [
        {"hostname": "ada.example.com", "service": "http://127.0.0.1:18789", "originRequest": {"connectTimeout": 10}},
        {"service": "http_status:404"}
    ]}});
    assert_eq!(server.requests()[0].body, expected);
    let read = client
        .get_tunnel_configuration(Priority::Normal, &tunnel_id())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(read.config, None, "none was put yet");
}

#[tokio::test]
async fn a_dns_batch_is_one_request_with_a_typed_result() {
    let server = TestServer::start(|_| {
        ok(json!({"deletes": null, "patches": [], "puts": null, "posts": [record_json("ada.example.com")]}))
    })
    .await;
    let client = client(&server);
    let result = client.dns_batch(&zone(), &batch()).await.unwrap();
    assert_eq!(result.posts[0].id.as_str(), RECORD);
    assert_eq!(
        client.dns_batch(&zone(), &DnsBatch::default()).await,
        Ok(DnsBatchResult::default())
    );
    let requests = server.requests();
    assert_eq!(requests.len(), 1, "an empty batch needs no request");
    assert_eq!(requests[0].target, "/v1/zones/zone1/dns_records/batch");
    let target = format!("{TUNNEL}.cfargotunnel.com");
    let expected = json!({
        "deletes": [{"id": RECORD}],
        "patches": [{"id": RECORD, "content": target}],
        "posts": [{"name": "ada.example.com", "type": "CNAME", "content": target, "proxied": true, "ttl": 1,
            "comment": "moorage i1 a1"}]
    });
    assert_eq!(requests[0].body, expected);
}

#[tokio::test]
async fn records_are_found_by_comment_and_by_name() {
    let mut odd = record_json("ada.example.com");
    odd["type"] = json!("HTTPS");
    odd["content"] = Value::Null;
    odd["comment"] = Value::Null;
    let server = TestServer::start(move |_| ok(json!([odd]))).await;
    let client = client(&server);
    let records = client
        .find_dns_records_by_name(Priority::Normal, &zone(), "ada.example.com")
        .await
        .unwrap();
    assert_eq!(records[0].record_type, RecordType::Unknown("HTTPS".into()));
    client
        .list_dns_records(Priority::Sweep, &zone(), "moorage i1 ")
        .await
        .unwrap();
    let requests = server.requests();
    assert_eq!(query(&requests[0], "name").unwrap(), "ada.example.com");
    assert_eq!(
        query(&requests[1], "comment.startswith").unwrap(),
        "moorage i1 "
    );
    assert_eq!(query(&requests[1], "per_page").unwrap(), "5000");
}

#[tokio::test]
async fn deletions_pass_when_only_the_reserve_is_left() {
    let server = TestServer::start(|request| {
        let result = if request.method == http::Method::POST {
            json!({})
        } else {
            tunnel_json(TUNNEL, "moorage-ada")
        };
        let body = json!({"success": true, "result": result});
        Reply::Json(
            200,
            body,
            vec![("Ratelimit", "\"default\";r=20;t=100".into())],
        )
    })
    .await;
    let client = client(&server);
    client
        .get_tunnel(Priority::Normal, &tunnel_id())
        .await
        .unwrap();
    let error = client.dns_batch(&zone(), &batch()).await.unwrap_err();
    assert!(
        matches!(error.kind, ErrorKind::BudgetExhausted { .. }),
        "{error}"
    );
    let only_deletes = DnsBatch {
        deletes: batch().deletes,
        ..DnsBatch::default()
    };
    client.dns_batch(&zone(), &only_deletes).await.unwrap();
    client.delete_tunnel(&tunnel_id()).await.unwrap();
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
    client
        .rotate_service_token(&issued.token.id, Some(expires))
        .await
        .unwrap();
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
        client
            .list_access_apps(Priority::Normal)
            .await
            .unwrap()
            .len(),
        1,
        "both have one id"
    );
    assert_eq!(
        client.delete_service_token(&issued.token.id).await,
        Ok(Deletion::AlreadyGone)
    );
    assert_eq!(
        client.delete_access_policy(&policy.id).await,
        Ok(Deletion::AlreadyGone)
    );

    let requests = server.requests();
    assert_eq!(
        requests[1].target,
        format!("/v1/accounts/acc1/access/service_tokens/{ID}/rotate")
    );
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

#[tokio::test]
async fn a_zone_names_its_account() {
    let server = TestServer::start(|_| {
        ok(json!({"id": "zone1", "name": "example.com", "status": "purged", "account": {"id": "acc1", "name": "x"}}))
    })
    .await;
    let found = client(&server)
        .get_zone(Priority::Normal, &zone())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.account.id.as_str(), "acc1");
    assert_eq!(found.status, Some(ZoneStatus::Unknown("purged".into())));
}
