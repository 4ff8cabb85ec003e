use std::time::Duration;

use http::Method;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::cloud::test_server::{Recorded, Reply, TOKEN, TestServer};
use crate::cloud::{BudgetPlan, Classification, Conflict, ErrorKind, InvalidField, SecretText};

/// Through the port, as the executor has it.
fn client(server: &TestServer) -> Box<dyn HetznerApi> {
    Box::new(HetznerClient::new(server.config(BudgetPlan::hetzner())).unwrap())
}

fn server_json(id: u64) -> Value {
    json!({
        "id": id, "name": format!("moorage-{id}"), "status": "running", "created": "2026-09-01T10:00:00+00:00",
        "labels": {"moorage.dev/instance": "ada"}, "server_type": {"name": "cx33", "id": 1},
        "location": {"name": "fsn1"}, "locked": false, "protection": {"delete": false, "rebuild": false},
        "public_net": {
            "ipv4": {"id": 7, "ip": "192.0.2.1", "blocked": false}, "ipv6": null,
            "firewalls": [{"id": 3, "status": "applied"}]
        },
        "a_field_of_the_future": {"deep": [1]}
    })
}

fn refusal(status: u16, code: &str) -> Value {
    let _ = status;
    json!({"error": {"code": code, "message": format!("because of {TOKEN}"), "details": null}})
}

fn wanted() -> CreateServer {
    CreateServer {
        name: "moorage-ada".into(),
        server_type: "cx33".into(),
        image: "debian-13".into(),
        location: Some("fsn1".into()),
        labels: Labels::from([("moorage.dev/epoch".to_owned(), "9f2c".to_owned())]),
        ssh_keys: vec![],
        user_data: SecretText::new("#cloud-config".into()),
        firewalls: vec![FirewallId(3)],
        enable_ipv4: true,
        enable_ipv6: false,
    }
}

fn query(recorded: &Recorded, name: &str) -> Option<String> {
    let url = url::Url::parse(&format!("http://x{}", recorded.target)).unwrap();
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

const RATE_LIMITED: ErrorKind = ErrorKind::RateLimited { retry_after: Duration::from_secs(1) };
const UNKNOWN: ErrorKind = ErrorKind::Transient { maybe_applied: true };

#[rstest]
#[case(401, "unauthorized", ErrorKind::Unauthorized)]
#[case(401, "token_readonly", ErrorKind::Forbidden { read_only: true })]
#[case(403, "forbidden", ErrorKind::Forbidden { read_only: false })]
#[case(403, "resource_limit_exceeded", ErrorKind::QuotaExceeded)]
#[case(403, "primary_ip_limit", ErrorKind::QuotaExceeded)]
#[case(412, "server_location_disabled", ErrorKind::OutOfStock)]
#[case(503, "maintenance", ErrorKind::Maintenance)]
#[case(404, "not_found", ErrorKind::NotFound)]
#[case(404, "a_code_of_the_future", ErrorKind::InvalidInput { fields: vec![] })]
#[case(409, "uniqueness_error", ErrorKind::Conflict(Conflict::NameTaken))]
#[case(409, "conflict", ErrorKind::Conflict(Conflict::Concurrent))]
#[case(410, "deprecated_api_endpoint", ErrorKind::Gone)]
#[case(412, "resource_unavailable", ErrorKind::OutOfStock)]
#[case(412, "placement_error", ErrorKind::OutOfStock)]
#[case(422, "resource_in_use", ErrorKind::ResourceInUse)]
#[case(422, "invalid_input", ErrorKind::InvalidInput { fields: vec![] })]
#[case(422, "service_error", UNKNOWN)]
#[case(422, "firewall_already_applied", ErrorKind::Conflict(Conflict::AlreadyDone))]
#[case(423, "locked", ErrorKind::Locked)]
#[case(423, "protected", ErrorKind::Protected)]
#[case(429, "rate_limit_exceeded", RATE_LIMITED)]
#[case(500, "server_error", UNKNOWN)]
#[case(502, "bad_gateway", UNKNOWN)]
#[case(504, "timeout", UNKNOWN)]
#[tokio::test]
async fn every_refusal_becomes_its_kind_and_never_shows_the_token(
    #[case] status: u16,
    #[case] code: &'static str,
    #[case] expected: ErrorKind,
) {
    let server = TestServer::start(move |_| Reply::json(status, refusal(status, code))).await;
    let error = client(&server).create_server(&wanted()).await.unwrap_err();
    assert_eq!(error.kind, expected);
    assert_eq!(error.operation, "create_server");
    assert!(error.message().contains("because of [redacted]"), "{error}");
    for shown in [format!("{error}"), format!("{error:?}"), format!("{error:#?}")] {
        assert!(!shown.contains(TOKEN), "{shown}");
    }
    assert_eq!(server.requests().len(), 1, "a write is sent once");
}

#[tokio::test]
async fn a_firewall_that_is_applied_already_is_applied() {
    let refused = refusal(422, "firewall_already_applied");
    let server = TestServer::start(move |_| Reply::json(422, refused.clone())).await;
    let applied = client(&server).apply_firewall(FirewallId(3), ServerId(1)).await;
    assert_eq!(applied, Ok(Vec::new()));
}

#[tokio::test]
async fn a_limit_that_is_reached_is_named() {
    let body = json!({"error": {"code": "resource_limit_exceeded", "message": "limit reached", "details": {
        "limits": [{"name": "primary_ip_limit"}]
    }}});
    let server = TestServer::start(move |_| Reply::json(403, body.clone())).await;
    let error = client(&server).create_server(&wanted()).await.unwrap_err();
    let said = "403 resource_limit_exceeded: limit reached (primary_ip_limit)";
    assert_eq!((error.kind.clone(), error.message()), (ErrorKind::QuotaExceeded, said));
}

#[tokio::test]
async fn refused_fields_are_named_without_the_token() {
    let body = json!({"error": {"code": "invalid_input", "message": "invalid", "details": {
        "fields": [{"name": "server_type", "messages": [format!("unknown {TOKEN}"), "x".repeat(900)]}]
    }}});
    let server = TestServer::start(move |_| Reply::json(422, body.clone())).await;
    let error = client(&server).create_server(&wanted()).await.unwrap_err();
    let ErrorKind::InvalidInput { fields } = &error.kind else { panic!("{error:?}") };
    let [InvalidField { name, messages }] = fields.as_slice() else { panic!("{error:?}") };
    assert_eq!((name.as_str(), messages[0].as_str()), ("server_type", "unknown [redacted]"));
    assert!(messages[1].len() <= 300);
    assert!(!format!("{error}{error:?}").contains(TOKEN));
}

#[tokio::test]
async fn only_the_apis_own_404_means_gone() {
    let answers = |body: Reply| {
        let body = std::sync::Mutex::new(Some(body));
        TestServer::start(move |_| body.lock().unwrap().take().expect("one request"))
    };
    let server = answers(Reply::json(404, refusal(404, "not_found"))).await;
    assert_eq!(client(&server).get_server(Priority::Normal, ServerId(1)).await, Ok(None));
    let server = answers(Reply::json(404, refusal(404, "not_found"))).await;
    assert_eq!(client(&server).delete_server(ServerId(1)).await, Ok(Deletion::AlreadyGone));

    let server = answers(Reply::Text(404, "<html>no such page</html>".into())).await;
    let error = client(&server).get_server(Priority::Normal, ServerId(1)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Malformed { maybe_applied: false });
    let server = answers(Reply::json(401, refusal(401, "unauthorized"))).await;
    let error = client(&server).delete_server(ServerId(1)).await.unwrap_err();
    assert_eq!(error.classify(), Classification::Terminal);
}

#[rstest]
#[case::next_page_given(json!({"pagination": {"page": 1, "per_page": 50, "next_page": 2, "last_page": 2, "total_entries": 51}}))]
#[case::only_last_page(json!({"pagination": {"page": 1, "per_page": 50, "next_page": null, "last_page": 2, "total_entries": null}}))]
#[case::all_null(json!({"pagination": {"page": 1, "per_page": 50, "next_page": null, "last_page": null, "total_entries": null}}))]
#[case::pagination_null(json!({"pagination": null}))]
#[case::meta_null(Value::Null)]
#[tokio::test]
async fn every_page_is_read_whatever_the_pagination_leaves_out(#[case] meta: Value) {
    let server = TestServer::start(move |request| {
        let page = query(request, "page").unwrap();
        // The second page repeats an entry, as pages do when something is made in between.
        let (ids, meta) = match page.as_str() {
            "1" => (1..=50, meta.clone()),
            _ => (50..=51, json!({"pagination": {"next_page": null, "last_page": null}})),
        };
        Reply::json(200, json!({"servers": ids.map(server_json).collect::<Vec<_>>(), "meta": meta}))
    })
    .await;
    let selector = LabelSelector::all_of([("moorage.dev/installation", "i1"), ("x", "y")]);
    let servers = client(&server).list_servers(Priority::Sweep, &selector).await.unwrap();
    assert_eq!(
        servers.iter().map(|server| server.id.0).collect::<Vec<_>>(),
        (1..=51).collect::<Vec<_>>()
    );
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(query(&requests[0], "per_page").unwrap(), "50");
    assert_eq!(query(&requests[0], "label_selector").unwrap(), "moorage.dev/installation=i1,x=y");
}

#[tokio::test]
async fn pages_that_go_round_in_circles_are_an_error() {
    let server = TestServer::start(|_| {
        Reply::json(200, json!({"servers": [], "meta": {"pagination": {"next_page": 1}}}))
    })
    .await;
    let error = client(&server)
        .list_servers(Priority::Sweep, &LabelSelector::all_of([]))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Malformed { maybe_applied: false });
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn values_of_the_future_and_missing_parts_are_tolerated() {
    let mut future = server_json(1);
    future["status"] = json!("hibernating");
    future["public_net"]["firewalls"][0]["status"] = json!("evaluating");
    future.as_object_mut().unwrap().remove("location");
    let server =
        TestServer::start(move |_| Reply::json(200, json!({"server": future.clone()}))).await;
    let server = client(&server).get_server(Priority::Normal, ServerId(1)).await.unwrap().unwrap();
    assert_eq!(server.status, ServerStatus::Unknown("hibernating".into()));
    assert_eq!(server.public_net.firewalls[0].status, FirewallStatus::Unknown("evaluating".into()));
    assert_eq!(server.location, None);
    assert_eq!(server.public_net.ipv4.unwrap().ip.to_string(), "192.0.2.1");
}

#[tokio::test]
async fn a_server_is_ordered_with_its_firewall() {
    let action = json!({"id": 9, "command": "create_server", "status": "running", "progress": 0,
        "started": "2026-09-01T10:00:00+00:00", "finished": null, "resources": [], "error": null});
    let server = TestServer::start(move |_| {
        let body = json!({"server": server_json(4711), "action": action.clone(), "next_actions": [action.clone()],
            "root_password": "YItygq1v3GYjjMomLaKc"});
        Reply::json(201, body)
    })
    .await;
    let created = client(&server).create_server(&wanted()).await.unwrap();
    assert_eq!((created.server.id, created.action.id), (ServerId(4711), ActionId(9)));
    assert_eq!(created.action.status, ActionStatus::Running);
    assert!(!format!("{created:?}").contains("YItygq1v3GYjjMomLaKc"));

    let requests = server.requests();
    assert_eq!(requests[0].method, Method::POST);
    assert_eq!(requests[0].target, "/v1/servers");
    let expected = json!({
        "name": "moorage-ada", "server_type": "cx33", "image": "debian-13", "location": "fsn1",
        "labels": {"moorage.dev/epoch": "9f2c"}, "user_data": "#cloud-config",
        "firewalls": [{"firewall": 3}], "public_net": {"enable_ipv4": true, "enable_ipv6": false},
        "start_after_create": true
    });
    assert_eq!(requests[0].body, expected);
}

#[tokio::test]
async fn user_data_that_is_too_long_is_not_sent() {
    let server = TestServer::start(|_| Reply::Hang).await;
    let too_long =
        CreateServer { user_data: SecretText::new("x".repeat(MAX_USER_DATA + 1)), ..wanted() };
    let error = client(&server).create_server(&too_long).await.unwrap_err();
    assert_eq!(error.classify(), Classification::Terminal);
    assert!(error.to_string().contains("user_data"), "{error}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_name_is_matched_exactly() {
    let server = TestServer::start(|_| {
        Reply::json(200, json!({"servers": [server_json(1), server_json(2)]}))
    })
    .await;
    let client = client(&server);
    let found = client.find_server_by_name(Priority::Delete, "moorage-2").await.unwrap();
    assert_eq!(found.unwrap().id, ServerId(2));
    assert_eq!(client.find_server_by_name(Priority::Delete, "moorage-3").await, Ok(None));
    assert_eq!(query(&server.requests()[1], "name").unwrap(), "moorage-3");
}

#[tokio::test]
async fn firewalls_are_made_ruled_and_deleted() {
    let rule = FirewallRule {
        direction: Direction::In,
        protocol: Protocol::Tcp,
        port: Some("22".into()),
        source_ips: vec!["192.0.2.0/24".into()],
        destination_ips: vec![],
        description: None,
    };
    let rule_json = json!({"direction": "in", "protocol": "tcp", "port": "22",
        "source_ips": ["192.0.2.0/24"], "destination_ips": []});
    let answered = json!({"id": 3, "name": "pool", "labels": {}, "rules": [rule_json],
        "applied_to": [{"type": "server", "server": {"id": 4711}}]});
    let server = TestServer::start(move |request| {
        match (request.method.as_str(), request.target.as_str()) {
            ("POST", "/v1/firewalls") => {
                Reply::json(201, json!({"firewall": answered.clone(), "actions": []}))
            }
            ("POST", "/v1/firewalls/3/actions/set_rules") => {
                Reply::json(201, json!({"actions": []}))
            }
            ("DELETE", "/v1/firewalls/3") => Reply::Text(204, String::new()),
            other => panic!("unexpected {other:?}"),
        }
    })
    .await;
    let client = client(&server);
    let wanted =
        CreateFirewall { name: "pool".into(), labels: Labels::new(), rules: vec![rule.clone()] };
    let made = client.create_firewall(&wanted).await.unwrap();
    assert_eq!(
        made.rules,
        std::slice::from_ref(&rule),
        "what was sent compares equal to what came back"
    );
    assert_eq!(client.set_firewall_rules(made.id, &[]).await, Ok(vec![]));
    assert_eq!(client.delete_firewall(made.id).await, Ok(Deletion::Accepted(())));
    assert_eq!(
        server.requests()[0].body,
        json!({"name": "pool", "labels": {}, "rules": [rule_json]})
    );
}

#[tokio::test]
async fn the_catalogue_says_what_is_in_stock() {
    let server = TestServer::start(|_| {
        Reply::json(200, json!({"server_types": [{
            "id": 1, "name": "cx33", "architecture": "riscv", "cores": 4, "memory": 8.0, "disk": 80,
            "locations": [
                {"id": 1, "name": "fsn1", "available": false, "recommended": false, "deprecation": null},
                {"id": 2, "name": "nbg1", "deprecation": {"announced": "2026-01-01T00:00:00Z", "unavailable_after": "2026-06-01T00:00:00Z"}}
            ], "deprecation": null, "prices": []
        }], "meta": {"pagination": {"next_page": null, "last_page": 1}}}))
    })
    .await;
    let types = client(&server).server_types(Priority::Sweep).await.unwrap();
    assert_eq!(types[0].architecture, Architecture::Unknown("riscv".into()));
    assert_eq!(types[0].locations[0].available, Some(false));
    assert_eq!(types[0].locations[1].available, None);
    assert!(types[0].locations[1].deprecation.is_some());
}

#[tokio::test]
async fn a_failed_action_tells_why_without_secrets() {
    let server = TestServer::start(|_| {
        Reply::json(200, json!({"actions": [{"id": 9, "command": "create_server", "status": "error", "progress": 100,
            "error": {"code": "action_failed", "message": format!("failed for {TOKEN}")}}]}))
    })
    .await;
    let actions = client(&server).failed_actions(Priority::Normal, ServerId(7)).await.unwrap();
    let [action] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!(action.status, ActionStatus::Error);
    assert_eq!(action.error.as_ref().unwrap().message, "failed for [redacted]");
    let asked = &server.requests()[0];
    assert!(asked.target.starts_with("/v1/servers/7/actions?status=error"), "{}", asked.target);
}

#[tokio::test]
async fn a_server_is_powered_on_by_its_action() {
    let action = json!({"id": 9, "command": "start_server", "status": "running", "progress": 0});
    let server = TestServer::start(move |_| Reply::json(201, json!({"action": action}))).await;
    let begun = client(&server).power_on(ServerId(7)).await.unwrap();
    assert_eq!(begun.command, "start_server");
    let asked = &server.requests()[0];
    assert_eq!(
        (asked.method.as_str(), asked.target.as_str()),
        ("POST", "/v1/servers/7/actions/poweron")
    );
}

#[tokio::test]
async fn labels_are_replaced_and_keys_are_managed() {
    let server =
        TestServer::start(|request| match (request.method.as_str(), request.target.as_str()) {
            ("PUT", "/v1/servers/1") => Reply::json(200, json!({"server": server_json(1)})),
            ("GET", _) => Reply::json(
                200,
                json!({"ssh_keys": [{"id": 5, "name": "k", "public_key": "ssh-ed25519 A"}]}),
            ),
            ("POST", "/v1/ssh_keys") => Reply::json(
                201,
                json!({"ssh_key": {"id": 5, "name": "k", "public_key": "ssh-ed25519 A"}}),
            ),
            ("DELETE", "/v1/ssh_keys/5") => Reply::Text(204, String::new()),
            other => panic!("unexpected {other:?}"),
        })
        .await;
    let client = client(&server);
    let labels = Labels::from([("a".to_owned(), "b".to_owned())]);
    client.update_server_labels(ServerId(1), &labels).await.unwrap();
    assert_eq!(server.requests()[0].body, json!({"labels": {"a": "b"}}));
    let keys =
        client.list_ssh_keys(Priority::Normal, &LabelSelector::all_of([("a", "b")])).await.unwrap();
    let key = CreateSshKey { name: "k".into(), public_key: "ssh-ed25519 A".into(), labels };
    assert_eq!(client.create_ssh_key(&key).await.unwrap(), keys[0]);
    assert_eq!(client.delete_ssh_key(SshKeyId(5)).await, Ok(Deletion::Accepted(())));
}

#[tokio::test]
async fn the_remaining_calls_that_hetzner_names_reach_the_budget() {
    let server = TestServer::start(|_| {
        Reply::Json(
            200,
            json!({"server": server_json(1)}),
            vec![("RateLimit-Remaining", "100".into())],
        )
    })
    .await;
    let config = server.config(BudgetPlan::hetzner());
    let budget = std::sync::Arc::clone(&config.budget);
    let client = HetznerClient::new(config).unwrap();
    client.get_server(Priority::Normal, ServerId(1)).await.unwrap();
    assert!(budget.left().calls <= 101, "{:?}", budget.left());
    let error = client.get_server(Priority::Normal, ServerId(1)).await.unwrap_err();
    assert!(
        matches!(error.kind, ErrorKind::BudgetExhausted { .. }),
        "the rest is the reserve: {error}"
    );
    client.get_server(Priority::Delete, ServerId(1)).await.unwrap();
}
