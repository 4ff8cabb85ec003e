//! Against the real agent behind plain TLS, and against impostors.

mod edge;

use std::sync::Arc;

use axum::{Router, extract::Request, response::IntoResponse};
use http::{HeaderMap, StatusCode};
use moorage_wire::{
    AgentPublicKey, CredentialType, DesiredState, Epoch, InstallationId, InstanceId, Secret,
    Sha256,
    credential::{Binding, SealedCredential},
    enrolment::AgentIdentity,
    problem::{Problem, ProblemCode},
    sealing::SealingCertificate,
    signature::{AgentKey, AnswerParts, NEXT_NONCE, Peers, claimed_nonce, sign_answer},
};

use self::edge::{Edge, HOST, Server};
use super::*;
use crate::{agent::AccessHeaders, master_key::MasterKey};

const ACCESS_SECRET: &str = "access-secret-of-the-pool";
const NONCE: &str = "00112233445566778899aabbccddeeff";

fn server_keys(epoch: u8) -> ServerKeys {
    let key = Secret::new((0..32).collect());
    let master = MasterKey::new(key, InstallationId::from_bytes([1; 8])).unwrap();
    ServerKeys::derive(&master, InstanceId::from_bytes([2; 16]), Epoch::from_bytes([epoch; 8]))
}

fn route() -> AgentRoute {
    let access = AccessHeaders {
        client_id: "id.access".into(),
        client_secret: Secret::from(ACCESS_SECRET.to_owned()),
    };
    AgentRoute { host: HOST.into(), anchor: None, access: Arc::new(access) }
}

/// Enrols as the operator does: again and again while the agent makes its keys.
async fn enrol(client: &EdgeAgentClient, keys: &ServerKeys) -> AgentIdentity {
    loop {
        match client.enrol(&route(), keys).await {
            Ok(identity) => return identity,
            Err(AgentError::NotReady) => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn sealed(identity: &AgentIdentity, keys: &ServerKeys, value: &str) -> SealedCredential {
    let source_sha256 = Sha256::of(value.as_bytes());
    let binding = Binding::Courier { source_sha256 };
    let kind = CredentialType::ProviderApiKey;
    let label = binding.label(keys.instance, keys.epoch, &"other".parse().unwrap(), kind);
    let certificate = SealingCertificate::parse(&identity.sealing_certificate).unwrap();
    let envelope = certificate.seal(&Secret::from(value.to_owned()), &label).unwrap();
    SealedCredential { r#type: kind, envelope, binding }
}

fn desired() -> Vec<u8> {
    let artifact = serde_json::json!({
        "version": "1", "url": "https://artifacts.invalid/a", "sha256": Sha256::of(b""), "size": 1,
    });
    let document: DesiredState = serde_json::from_value(serde_json::json!({
        "config": {}, "credentials": [], "integrations": [], "approvedPairings": [],
        "artifacts": {
            "release": "1", "openclaw": artifact, "node": artifact,
            "cloudflared": artifact, "agent": artifact,
        },
    }))
    .unwrap();
    document.to_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_works_against_the_real_agent() {
    let keys = server_keys(3);
    let server = Server::start(&keys).await;
    let edge = Edge::start(server.address()).await;
    let client = edge.client();
    let identity = enrol(&client, &keys).await;
    let agent = identity.public_key;

    let before = edge.connections();
    let report = client.report(&route(), &keys, agent).await.unwrap();
    assert_eq!(report.identity, identity);
    assert_eq!(edge.connections(), before + 1, "the nonce of the enrolment was used");

    let again = client.enrol(&route(), &keys).await.unwrap();
    assert_eq!(again, identity, "an enrolled agent shows its stored proof to a signed request");

    let name = "other".parse().unwrap();
    let credential = sealed(&identity, &keys, "some-value-of-a-key");
    let receipt = client.put_credential(&route(), &keys, agent, &name, &credential).await.unwrap();
    assert_eq!(receipt.source_sha256, credential.source_sha256());

    let document = desired();
    client.put_desired(&route(), &keys, agent, document.clone(), None).await.unwrap();
    let refused = client.put_desired(&route(), &keys, agent, document.clone(), None).await;
    let Err(AgentError::Refused(problem)) = refused else { panic!("{refused:?}") };
    assert_eq!(problem.code, ProblemCode::DigestMismatch);
    let has = Sha256::of(&document);
    client.put_desired(&route(), &keys, agent, document, Some(has)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_client_learns_a_nonce_from_one_refusal() {
    let keys = server_keys(3);
    let server = Server::start(&keys).await;
    let edge = Edge::start(server.address()).await;
    let agent = enrol(&edge.client(), &keys).await.public_key;
    let before = edge.connections();
    edge.client().report(&route(), &keys, agent).await.unwrap();
    assert_eq!(edge.connections(), before + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_than_the_one_that_was_made_is_not_believed() {
    let server = Server::start(&server_keys(3)).await;
    let edge = Edge::start(server.address()).await;
    let (own, other) = (server_keys(3), server_keys(4));
    let client = edge.client();
    let identity = enrol(&client, &own).await;
    let disbelieved = client.enrol(&route(), &other).await;
    assert!(is_not_authentic(&disbelieved), "{disbelieved:?}");
    // The first signed call confirms the agent; then a bearer token of another epoch is refused.
    client.report(&route(), &own, identity.public_key).await.unwrap();
    let refused = client.enrol(&route(), &other).await;
    let Err(AgentError::Refused(problem)) = refused else { panic!("{refused:?}") };
    assert_eq!(problem.code, ProblemCode::Unauthorized);
}

fn stranger() -> AgentKey {
    AgentKey::from_seed(&Secret::from([9; 32]))
}

fn agent_key() -> AgentKey {
    AgentKey::from_seed(&Secret::from([8; 32]))
}

/// An agent that signs everything with `key`, and answers `status` and `body`.
fn signing(key: AgentKey, status: StatusCode, body: Vec<u8>) -> Router {
    let keys = server_keys(3);
    let peers = Peers { instance: keys.instance, epoch: keys.epoch, agent: Some(key.public_key()) };
    let key = Arc::new(key);
    Router::new().fallback(move |request: Request| async move {
        let parts = AnswerParts { status: status.as_u16(), next_nonce: NONCE, body: &body };
        let nonce = claimed_nonce(request.headers()).unwrap_or(NONCE);
        let mut headers = sign_answer(&key, &peers, nonce, &parts);
        headers.insert(NEXT_NONCE, NONCE.parse().unwrap());
        (status, headers, body)
    })
}

async fn report(app: Router) -> (Result<Report, AgentError>, usize) {
    let edge = Edge::before(app).await;
    let keys = server_keys(3);
    let report = edge.client().report(&route(), &keys, agent_key().public_key()).await;
    (report, edge.connections())
}

fn is_not_authentic<T>(result: &Result<T, AgentError>) -> bool {
    matches!(result, Err(AgentError::NotAuthentic(_)))
}

#[tokio::test]
async fn an_answer_without_a_signature_is_not_authentic() {
    let app = Router::new().fallback(|| async { axum::Json(serde_json::json!({})) });
    assert!(is_not_authentic(&report(app).await.0));
}

#[tokio::test]
async fn an_answer_that_somebody_else_signed_is_not_authentic() {
    let (foreign, _) = report(signing(stranger(), StatusCode::OK, b"{}".into())).await;
    assert!(is_not_authentic(&foreign), "{foreign:?}");
    let (own, _) = report(signing(agent_key(), StatusCode::OK, b"{}".into())).await;
    assert!(matches!(own, Err(AgentError::Malformed(_))), "the signature holds: {own:?}");
}

#[tokio::test]
async fn a_receipt_for_something_else_is_not_authentic() {
    let keys = server_keys(3);
    let server = (keys.instance, keys.epoch);
    let name: CredentialName = "other".parse().unwrap();
    let (key, _) = moorage_wire::sealing::SealingKey::generate(
        moorage_wire::sealing::KeyStrength::Agent,
        "agent",
        jiff::Timestamp::now(),
        Duration::from_secs(3600),
    )
    .unwrap();
    let pem = key.certificate().pem().to_owned();
    let identity = AgentIdentity::new(
        &keys.enrolment,
        keys.instance,
        keys.epoch,
        agent_key().public_key(),
        pem,
    );
    let credential = sealed(&identity, &keys, "some-value-of-a-key");
    let sign = |source| {
        let what = (name.clone(), credential.r#type);
        let receipt =
            Receipt::sign(&agent_key(), server, what, source, jiff::Timestamp::UNIX_EPOCH);
        serde_json::to_vec(&receipt).unwrap()
    };
    let agent: AgentPublicKey = agent_key().public_key();
    for (source, believed) in [(credential.source_sha256(), true), (Sha256::of(b"else"), false)] {
        let edge = Edge::before(signing(agent_key(), StatusCode::OK, sign(source))).await;
        let put = edge.client().put_credential(&route(), &keys, agent, &name, &credential).await;
        assert_eq!(put.is_ok(), believed, "{put:?}");
        assert_eq!(is_not_authentic(&put), !believed, "{put:?}");
    }
}

#[tokio::test]
async fn a_nonce_that_is_never_good_is_tried_twice_and_no_more() {
    let problem = Problem {
        code: ProblemCode::BadNonce,
        message: "it does not take the nonce".into(),
        receipt: None,
    };
    let body = serde_json::to_vec(&problem).unwrap();
    let app = Router::new().fallback(move || async move {
        let headers = HeaderMap::from_iter([(NEXT_NONCE, NONCE.parse().unwrap())]);
        (StatusCode::UNAUTHORIZED, headers, body).into_response()
    });
    let (refused, connections) = report(app).await;
    assert_eq!(refused, Err(AgentError::Refused(Box::new(problem))));
    assert_eq!(connections, 2);
}

#[tokio::test]
async fn no_error_contains_a_token() {
    let keys = server_keys(3);
    let bearer = keys.bearer.secret().expose_str().unwrap().to_owned();
    // An edge that echoes everything it was sent, as debugging proxies do.
    let echo = Router::new().fallback(|request: Request| async move {
        (StatusCode::BAD_GATEWAY, format!("{:?}", request.headers()))
    });
    let edge = Edge::before(echo).await;
    let agent = agent_key().public_key();
    let errors = [
        edge.client().report(&route(), &keys, agent).await.unwrap_err(),
        edge.client().enrol(&route(), &keys).await.unwrap_err(),
        edge::nowhere().report(&route(), &keys, agent).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, AgentError::Unreachable { .. }), "{error:?}");
        let text = format!("{error:?} {error}");
        assert!(!text.contains(&bearer) && !text.contains(ACCESS_SECRET), "{text}");
    }
}

#[tokio::test]
async fn the_edge_is_dialled_by_the_anchors_address() {
    let app = Router::new().fallback(|request: Request| async move {
        let host = request.headers()[header::HOST].to_str().unwrap().to_owned();
        let id = request.headers()["cf-access-client-id"].to_str().unwrap().to_owned();
        assert_eq!((host.split(':').next().unwrap(), &*id), (HOST, "id.access"));
        StatusCode::FORBIDDEN
    });
    let edge = Edge::before(app).await;
    let dialing = EdgeDialing { address: None, ..edge.dialing() };
    let client = EdgeAgentClient::new(&dialing).unwrap();
    // No resolver knows the host; only the anchor leads to the edge, and the port is in the host.
    let mut route = route();
    route.host = format!("{HOST}:{}", edge.address().port());
    let keys = server_keys(3);
    route.anchor = None;
    let lost = client.enrol(&route, &keys).await;
    assert!(matches!(lost, Err(AgentError::Unreachable { .. })), "{lost:?}");
    route.anchor = Some("127.0.0.1".into());
    assert_eq!(client.enrol(&route, &keys).await, Err(AgentError::AccessDenied));
}

#[tokio::test]
async fn a_certificate_for_another_host_is_not_talked_to() {
    let edge = Edge::before(Router::new().fallback(|| async { StatusCode::FORBIDDEN })).await;
    let mut route = route();
    route.host = "bob-mgmt.pool.invalid".into();
    let refused = edge.client().enrol(&route, &server_keys(3)).await;
    let Err(AgentError::Unreachable { reached: crate::agent::Reached::Nothing, detail: cause }) =
        refused
    else {
        panic!("{refused:?}")
    };
    assert!(cause.contains("certificate"), "{cause}");
}
