use std::sync::Mutex;

use http::Method;
use rstest::rstest;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::cloud::budget::{BudgetPlan, Limit, Priority};
use crate::cloud::error::{Classification, Outcome};
use crate::cloud::test_server::{self, Recorded, Reply, TOKEN, TestServer};

static PLAIN: Dialect = Dialect {
    cloud: Cloud::Hetzner,
    refusal: |refused| {
        let kind = match refused.status.as_u16() {
            429 => ErrorKind::RateLimited { retry_after: refused.pause },
            500..=599 => ErrorKind::Transient { maybe_applied: refused.write },
            _ => ErrorKind::InvalidInput { fields: Vec::new() },
        };
        (kind, String::from_utf8_lossy(refused.body).into_owned())
    },
    remaining: |headers| headers.get("left")?.to_str().ok()?.parse().ok(),
};

fn get() -> Request {
    Request::new("read_it", Method::GET, [&"things"], Priority::Normal)
}

fn post() -> Request {
    Request::new("write_it", Method::POST, [&"things"], Priority::Normal)
        .json(&json!({"name": "ada"}))
}

fn transport(server: &TestServer) -> Transport {
    Transport::new(&PLAIN, server.config(BudgetPlan::hetzner())).unwrap()
}

async fn error(transport: &Transport, request: Request) -> CloudError {
    transport.send(request).await.err().expect("the call must fail")
}

#[tokio::test]
async fn a_request_carries_token_path_query_and_body() {
    let server = TestServer::start(|_| Reply::json(200, json!({}))).await;
    let request = Request::new("op", Method::PUT, [&"a/b", &"c d"], Priority::Normal)
        .query("selector", "k=v,k2 in (x)")
        .json(&json!({"name": "ada"}));
    transport(&server).send(request).await.unwrap();

    let requests = server.requests();
    let [Recorded { method, target, authorization, body }] = requests.as_slice() else {
        panic!("one request expected: {requests:?}")
    };
    assert_eq!(method, Method::PUT);
    assert_eq!(target, "/v1/a%2Fb/c%20d?selector=k%3Dv%2Ck2+in+%28x%29");
    assert_eq!(authorization, &format!("Bearer {TOKEN}"));
    assert_eq!(body, &json!({"name": "ada"}));
}

#[tokio::test]
async fn a_read_is_repeated_twice_at_most() {
    let server = TestServer::start(|_| Reply::Text(503, "busy".into())).await;
    let error = error(&transport(&server), get()).await;
    assert_eq!(error.kind, ErrorKind::Transient { maybe_applied: false });
    assert_eq!(error.classify(), Classification::Retry);
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_read_that_recovers_succeeds() {
    let failures = Mutex::new(2);
    let server = TestServer::start(move |_| {
        let mut failures = failures.lock().unwrap();
        if *failures == 0 {
            return Reply::json(200, json!({"ok": true}));
        }
        *failures -= 1;
        Reply::Text(502, String::new())
    })
    .await;
    let answer = transport(&server).send(get()).await.unwrap();
    assert_eq!(answer.parse::<serde_json::Value>().unwrap(), json!({"ok": true}));
}

#[rstest]
#[case(Method::POST)]
#[case(Method::PUT)]
#[case(Method::PATCH)]
#[case(Method::DELETE)]
#[tokio::test]
async fn a_write_is_never_repeated(#[case] method: Method) {
    let server = TestServer::start(|_| Reply::Text(503, "busy".into())).await;
    let request = Request::new("write_it", method, [&"things"], Priority::Normal);
    let error = error(&transport(&server), request).await;
    assert_eq!(error.classify(), Classification::Confirm);
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(server.requests().len(), 1);
}

#[rstest]
#[case::a_read(get(), false)]
#[case::a_write(post(), true)]
#[tokio::test]
async fn a_silent_cloud_meets_the_deadline(#[case] request: Request, #[case] maybe_applied: bool) {
    let server = TestServer::start(|_| Reply::Hang).await;
    let mut config = server.config(BudgetPlan::hetzner());
    config.limits.call = Duration::from_secs(2);
    let transport = Transport::new(&PLAIN, config).unwrap();
    let started = Instant::now();
    let error = error(&transport, request).await;
    assert_eq!(error.kind, ErrorKind::Timeout { maybe_applied });
    assert!(started.elapsed() < Duration::from_secs(15));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_connection_lost_after_a_write_leaves_its_outcome_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let connections = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 1024];
        assert!(stream.read(&mut buffer).await.unwrap() > 0);
        drop(stream);
        // A second connection would be a retry behind the client's back.
        tokio::time::timeout(Duration::from_millis(300), listener.accept()).await.is_err()
    });
    let transport =
        Transport::new(&PLAIN, test_server::config(url, BudgetPlan::hetzner())).unwrap();
    let error = error(&transport, post()).await;
    assert_eq!(error.kind, ErrorKind::Transient { maybe_applied: true });
    assert!(connections.await.unwrap(), "the write was sent once");
}

#[tokio::test]
async fn a_write_that_found_no_server_was_not_applied() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let transport =
        Transport::new(&PLAIN, test_server::config(url, BudgetPlan::hetzner())).unwrap();
    let error = error(&transport, post()).await;
    assert_eq!(error.kind, ErrorKind::Transient { maybe_applied: false });
    assert_eq!(error.classify(), Classification::Retry);
}

#[tokio::test]
async fn an_answer_beyond_the_cap_is_refused() {
    let server = TestServer::start(|_| Reply::Text(200, "x".repeat(2_000))).await;
    let mut config = server.config(BudgetPlan::hetzner());
    config.limits.response_bytes = 1_999;
    let transport = Transport::new(&PLAIN, config).unwrap();
    assert_eq!(error(&transport, get()).await.kind, ErrorKind::Malformed { maybe_applied: false });
    assert_eq!(error(&transport, post()).await.kind, ErrorKind::Malformed { maybe_applied: true });
}

#[tokio::test]
async fn an_unreadable_answer_is_not_quoted() {
    #[derive(Debug, serde::Deserialize)]
    struct Thing {
        #[serde(rename = "id")]
        _id: u64,
    }
    let server = TestServer::start(|_| Reply::json(200, json!({"id": "hunter2"}))).await;
    let answer = transport(&server).send(post()).await.unwrap();
    let error = answer.parse::<Thing>().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Malformed { maybe_applied: true });
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = TestServer::start(|_| Reply::json(200, json!({}))).await;
    let location = elsewhere.config(BudgetPlan::hetzner()).base_url.to_string();
    let server = TestServer::start(move |_| {
        Reply::Json(302, json!({}), vec![("location", location.clone())])
    })
    .await;
    assert!(transport(&server).send(get()).await.is_err());
    assert!(elsewhere.requests().is_empty(), "the token went elsewhere");
}

#[derive(Default)]
struct Log(Mutex<Vec<(&'static str, StatusClass)>>);

impl CallObserver for Log {
    fn call(&self, _: Cloud, operation: &'static str, class: StatusClass, _: Duration) {
        self.0.lock().unwrap().push((operation, class));
    }
}

#[tokio::test]
async fn what_the_cloud_says_is_left_binds_the_next_call() {
    let server =
        TestServer::start(|_| Reply::Json(200, json!({}), vec![("left", "0".to_owned())])).await;
    let log = Arc::new(Log::default());
    let mut config = server.config(BudgetPlan {
        limit: Limit::Bucket { capacity: 100, refill_every: Duration::from_secs(60) },
        ..BudgetPlan::hetzner()
    });
    config.observer = Arc::clone(&log) as Arc<dyn CallObserver>;
    let transport = Transport::new(&PLAIN, config).unwrap();

    transport.send(get()).await.unwrap();
    let refused = error(&transport, get()).await;
    assert!(
        matches!(refused.kind, ErrorKind::BudgetExhausted { wait } if wait > Duration::from_secs(50))
    );
    assert_eq!(server.requests().len(), 1, "the second was not sent");
    let seen = log.0.lock().unwrap().clone();
    assert_eq!(seen, [("read_it", StatusClass::Success), ("read_it", StatusClass::OverBudget)]);
}

#[rstest]
#[case::with_a_time(vec![("retry-after", "77".to_owned())], 77)]
#[case::without(vec![], 300)]
#[case::unreadable(vec![("retry-after", "soon".to_owned())], 300)]
#[case::absurd(vec![("retry-after", "99999999".to_owned())], 3600)]
#[tokio::test]
async fn a_429_stops_every_further_call(
    #[case] headers: Vec<(&'static str, String)>,
    #[case] seconds: u64,
) {
    let server = TestServer::start(move |_| Reply::Json(429, json!({}), headers.clone())).await;
    let config = server.config(BudgetPlan::cloudflare());
    let transport = Transport::new(&PLAIN, config).unwrap();
    let first = error(&transport, get()).await;
    assert_eq!(first.kind, ErrorKind::RateLimited { retry_after: Duration::from_secs(seconds) });
    let second = error(&transport, get()).await;
    assert!(matches!(second.kind, ErrorKind::BudgetExhausted { .. }));
    assert_eq!(server.requests().len(), 1);
}

#[rstest]
#[case("http://api.hetzner.cloud/v1")]
#[case("ftp://127.0.0.1/v1")]
#[case("https://user:pass@api.hetzner.cloud/v1")]
#[case("https://api.hetzner.cloud/v1?x=y")]
fn a_base_url_that_could_leak_the_token_is_refused(#[case] url: &str) {
    let config = test_server::config(url.parse().unwrap(), BudgetPlan::hetzner());
    assert!(Transport::new(&PLAIN, config).is_err());
}

/// Serves `{}` over TLS on 127.0.0.1; returns the URL and the PEM of its certificate authority.
async fn tls_server() -> (Url, Vec<u8>) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let private_key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private_key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut buffer = [0; 1024];
                let _ = stream.read(&mut buffer).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    (url, ca_pem.into_bytes())
}

#[tokio::test]
async fn an_extra_root_is_trusted_and_a_stranger_is_not() {
    let (url, ca) = tls_server().await;
    let mut config = test_server::config(url.clone(), BudgetPlan::hetzner());
    config.extra_root_certificates = Some(ca);
    let trusting = Transport::new(&PLAIN, config).unwrap();
    trusting.send(post()).await.unwrap();

    let config = test_server::config(url, BudgetPlan::hetzner());
    let strict = Transport::new(&PLAIN, config).unwrap();
    let error = error(&strict, post()).await;
    assert_eq!(error.kind, ErrorKind::Transient { maybe_applied: false });
    assert!(error.message().contains("certificate"), "{error}");
}

#[test]
fn certificates_that_are_none_are_refused() {
    let mut config =
        test_server::config("https://api.hetzner.cloud/v1".parse().unwrap(), BudgetPlan::hetzner());
    config.extra_root_certificates =
        Some(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec());
    assert!(Transport::new(&PLAIN, config).is_err());
}
