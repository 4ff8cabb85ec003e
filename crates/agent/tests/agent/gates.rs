use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, header::RETRY_AFTER};
use moorage_wire::{
    CredentialType, Epoch, Secret, Sha256, path,
    problem::ProblemCode,
    signature::{OperatorKey, Peers, RequestParts},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    logs::LOGS,
    operator::{BEARER, Operator, desired, header},
    world::World,
};

const REPORT: RequestParts<'static> =
    RequestParts { method: "GET", path: path::REPORT, query: "", if_match: None, body: b"" };

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_bearer_is_refused_alike_and_gets_no_nonce() {
    let world = World::new().await;
    let (_agent, operator) = world.enrolled().await;
    let mut refusals = Vec::new();
    for authorization in [None, Some("Bearer wrong"), Some("Bearer "), Some("Basic YTpi")] {
        for target in [path::REPORT, path::ENROLMENT, "/v1/nothing"] {
            let headers = authorization.map(|value| header("authorization", value));
            let client = format!("192.0.2.{}", refusals.len());
            let headers: HeaderMap =
                headers.into_iter().chain([header("cf-connecting-ip", &client)]).collect();
            let reply = operator.send(Method::GET, target, &headers, b"").await.unwrap();
            assert_eq!(reply.nonce(), None);
            refusals.push((reply.status, reply.body));
        }
    }
    assert!(refusals.iter().all(|refusal| *refusal == refusals[0]), "{refusals:?}");
    assert_eq!(refusals[0].0, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_failures_lock_an_address_out_but_no_valid_token() {
    let world = World::new().await;
    let (_agent, mut operator) = world.enrolled().await;
    let wrong = |client: &str| {
        HeaderMap::from_iter([
            header("authorization", "Bearer wrong"),
            header("cf-connecting-ip", client),
        ])
    };
    let mut last = None;
    for _ in 0..11 {
        let headers = wrong("192.0.2.1");
        last = Some(operator.send(Method::GET, path::REPORT, &headers, b"").await.unwrap());
    }
    let last = last.unwrap();
    assert_eq!(last.problem(), ProblemCode::TooManyRequests);
    let wait: u64 = last.headers[RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");

    let other = operator.send(Method::GET, path::REPORT, &wrong("192.0.2.2"), b"").await.unwrap();
    assert_eq!(other.problem(), ProblemCode::Unauthorized);
    let nonce = operator.nonce().await.unwrap();
    let mut headers = operator.sign(&nonce, &REPORT);
    headers.extend([header("cf-connecting-ip", "192.0.2.1")]);
    let valid = operator.send(Method::GET, path::REPORT, &headers, b"").await.unwrap();
    assert_eq!(valid.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_request_is_refused_with_a_fresh_nonce() {
    let world = World::new().await;
    let (_agent, mut operator) = world.enrolled().await;
    let nonce = operator.nonce().await.unwrap();
    let headers = operator.sign(&nonce, &REPORT);
    let first = operator.send(Method::GET, path::REPORT, &headers, b"").await.unwrap();
    assert_eq!(first.status, StatusCode::OK);
    let replay = operator.send(Method::GET, path::REPORT, &headers, b"").await.unwrap();
    assert_eq!(replay.status, StatusCode::UNAUTHORIZED);
    assert_eq!(replay.problem(), ProblemCode::BadNonce);
    let headers = operator.sign(&replay.nonce().unwrap(), &REPORT);
    let again = operator.send(Method::GET, path::REPORT, &headers, b"").await.unwrap();
    assert_eq!(again.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_nonce_or_signature_is_refused_with_a_fresh_nonce() {
    let world = World::new().await;
    let (_agent, operator) = world.enrolled().await;
    for headers in [operator.sign(&"a".repeat(32), &REPORT), Operator::bearer()] {
        let reply = operator.send(Method::GET, path::REPORT, &headers, b"").await.unwrap();
        assert_eq!(reply.problem(), ProblemCode::BadNonce);
        assert!(reply.nonce().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_signature_is_refused_and_changes_nothing() {
    let world = World::new().await;
    let (_agent, mut operator) = world.enrolled().await;
    let body = desired(json!({}), &[]).to_bytes();
    let put = RequestParts {
        method: "PUT",
        path: path::DESIRED,
        query: "",
        if_match: Some("\"none\""),
        body: &body,
    };
    let nonce = operator.nonce().await.unwrap();
    let peers = operator.peers;
    operator.key = OperatorKey::from_seed(&Secret::from([8; 32]));
    let by_stranger = operator.sign(&nonce, &put);
    operator.key = OperatorKey::from_seed(&Secret::from([7; 32]));
    operator.peers = Peers { epoch: Epoch::from_bytes([9; 8]), ..peers };
    let for_another_epoch = operator.sign(&nonce, &put);
    operator.peers = Peers { agent: None, ..peers };
    let for_no_agent = operator.sign(&nonce, &put);
    operator.peers = peers;
    let of_another_body = operator.sign(&nonce, &RequestParts { body: b"{}", ..put });
    for headers in [by_stranger, for_another_epoch, for_no_agent, of_another_body] {
        let reply = operator.send(Method::PUT, path::DESIRED, &headers, &body).await.unwrap();
        assert_eq!(reply.problem(), ProblemCode::BadSignature);
    }
    assert_eq!(operator.report().await.desired.digest, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_first_call_does_not_confirm_the_agent() {
    let world = World::new().await;
    let agent = world.start().await;
    let mut operator = Operator::of(&agent);
    operator.key = OperatorKey::from_seed(&Secret::from([8; 32]));
    crate::world::eventually("the forged call is refused", || async {
        let headers = operator.sign(&"a".repeat(32), &REPORT);
        let reply = operator.send(Method::GET, path::REPORT, &headers, b"").await.unwrap();
        (reply.problem() == ProblemCode::BadSignature).then_some(())
    })
    .await;
    assert!(!world.layout.enrolled().exists());
    operator.key = OperatorKey::from_seed(&Secret::from([7; 32]));
    operator.enrol().await;
    assert!(world.layout.enrolled().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_beyond_the_limit_and_unknown_calls_are_refused() {
    let world = World::new().await;
    let (_agent, mut operator) = world.enrolled().await;
    let large = vec![b' '; 1024 * 1024 + 1];
    let headers = Operator::bearer();
    let reply = operator.send(Method::PUT, path::DESIRED, &headers, &large).await.unwrap();
    assert_eq!(reply.problem(), ProblemCode::BodyTooLarge);
    let reply = operator.call(Method::GET, "/v1/nothing", None, b"").await;
    assert_eq!(reply.problem(), ProblemCode::NotFound);
    let reply = operator.call(Method::PUT, "/v1/credentials/Not-A-Name", None, b"").await;
    assert_eq!(reply.problem(), ProblemCode::NotFound);
    let reply =
        operator.call(Method::PUT, "/v1/credentials/name", None, b"{\"a\": \"sk-ant-x\"}").await;
    assert_eq!(reply.problem(), ProblemCode::InvalidBody);
    assert!(!String::from_utf8_lossy(&reply.body).contains("sk-ant"));
    let sealed = operator.seal("name", CredentialType::GatewayToken, "gateway-token");
    let body = serde_json::to_vec(&sealed).unwrap();
    let reply = operator.call(Method::PUT, "/v1/credentials/name", None, &body).await;
    assert_eq!(reply.problem(), ProblemCode::InvalidBody);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_stop_in_the_middle_are_dropped() {
    let mut world = World::new().await;
    world.settings.timing.read_timeout = Duration::from_secs(3);
    let (agent, _operator) = world.enrolled().await;
    let authorization = format!("Authorization: Bearer {BEARER}\r\n");
    let head = format!("PUT {} HTTP/1.1\r\nHost: a\r\n{authorization}", path::DESIRED);
    let half_a_body = format!("{head}Content-Length: 100\r\n\r\n{{");
    for (sent, status) in [(head, None), (half_a_body, Some("HTTP/1.1 408"))] {
        let mut stream = TcpStream::connect(agent.address().unwrap()).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // Ends when the agent closes the connection.
        let limit = Duration::from_secs(30);
        let ended = tokio::time::timeout(limit, stream.read_to_string(&mut answer)).await;
        ended.expect("the agent keeps the connection").unwrap();
        assert!(status.is_none_or(|status| answer.starts_with(status)), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_in_the_audit_log_by_digest() {
    let world = World::new().await;
    let (_agent, mut operator) = world.enrolled().await;
    let sealed = operator.seal("audited", CredentialType::ProviderApiKey, "audit-hidden-value");
    let body = serde_json::to_vec(&sealed).unwrap();
    let reply = operator.call(Method::PUT, "/v1/credentials/audited", None, &body).await;
    assert_eq!(reply.status, StatusCode::OK);
    let line = format!(
        "audit: instance={} method=PUT path=\"/v1/credentials/audited\" outcome=200 sha256={}",
        operator.peers.instance,
        Sha256::of(&body)
    );
    assert!(LOGS.contains(&line), "no such line: {line}");
    assert!(!LOGS.contains("audit-hidden-value"));
}
