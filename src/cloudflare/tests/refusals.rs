use std::time::Duration;

use rstest::rstest;
use serde_json::json;

use super::*;
use crate::cloud::{Classification, Conflict, ErrorKind, Outcome};

const PAUSED: ErrorKind = ErrorKind::RateLimited { retry_after: Duration::from_secs(300) };
const UNKNOWN: ErrorKind = ErrorKind::Transient { maybe_applied: true };

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
    let error = client(&server).dns_batch(&zone(), &batch()).await.unwrap_err();
    assert_eq!(error.kind, expected);
    for shown in [format!("{error}"), format!("{error:?}"), format!("{error:#?}")] {
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
    let error = client(&server).dns_batch(&zone(), &batch()).await.unwrap_err();
    assert_eq!((error.outcome(), error.blames_the_request()), (outcome, halve));
}

#[tokio::test]
async fn a_limit_of_the_account_is_told_from_a_missing_permission() {
    let body = json!({"success": false, "errors": [{"code": 12130, "message": "Limit of 50 service tokens reached"}]});
    let server = TestServer::start(move |_| Reply::json(403, body.clone())).await;
    let error = client(&server).create_service_token("pool", "8760h").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::QuotaExceeded);
}

#[tokio::test]
async fn a_revoked_token_is_told_from_a_missing_permission() {
    let body =
        json!({"success": false, "errors": [{"code": 9109, "message": "Invalid access token"}]});
    let server = TestServer::start(move |_| Reply::json(403, body.clone())).await;
    let error = client(&server).get_zone(Priority::Normal, &zone()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unauthorized);
}

#[tokio::test]
async fn a_wrong_path_is_not_taken_for_a_missing_object() {
    let server = TestServer::start(|_| Reply::json(404, refusal(7003))).await;
    let error = client(&server).get_tunnel(Priority::Normal, &tunnel_id()).await.unwrap_err();
    assert_eq!(error.classify(), Classification::Terminal);
    let server = TestServer::start(|_| Reply::Text(404, "<html>nginx</html>".into())).await;
    let error = client(&server).delete_tunnel(&tunnel_id()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Malformed { maybe_applied: true });
}

#[tokio::test]
async fn a_refusal_under_a_200_is_no_success() {
    let server = TestServer::start(|_| Reply::json(200, refusal(1003))).await;
    let error = client(&server).get_zone(Priority::Normal, &zone()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Malformed { maybe_applied: false });
    assert!(!format!("{error}{error:?}").contains(TOKEN));
    let error = client(&server).delete_tunnel(&tunnel_id()).await.unwrap_err();
    assert_eq!(error.classify(), Classification::Confirm);
    assert!(!format!("{error}{error:?}").contains(TOKEN));
}

#[tokio::test]
async fn no_zero_trust_is_no_missing_permission() {
    let answer = |code: i64, message: &str| json!({"success": false, "errors": [{"code": code, "message": message}], "result": null});
    for (status, code, message, expected) in [
        (403, 9999, "access.api.error.not_enabled", ErrorKind::NotEnabled),
        (400, 9999, "access.api.error.not_enabled", ErrorKind::NotEnabled),
        (403, 9999, "something else", ErrorKind::Forbidden { read_only: false }),
    ] {
        let body = answer(code, message);
        let server = TestServer::start(move |_| Reply::json(status, body.clone())).await;
        let error = client(&server).dns_batch(&zone(), &batch()).await.unwrap_err();
        assert_eq!(error.kind, expected, "{status} {message}");
    }
}
