//! Against a server of the tests that answers wrongly, slowly or not at all.

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, body::Body, response::Response, routing::any};
use http::StatusCode;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::{
    Api, Client, Config,
    api::{ListParams, PostParams, WatchParams},
    runtime::watcher,
};
use rstest::rstest;
use tokio::net::TcpListener;

use super::{CALL_DEADLINE, client_with, told};
use crate::telemetry;

const MARKER: &str = "sk-ant-of-another-tenant";

/// A client of a server that answers every request so. The server ends with the test's runtime.
async fn client_of(router: Router, deadline: Duration) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    client_with(Config::new(url.parse().unwrap()), deadline).unwrap()
}

fn answering(status: StatusCode, body: impl Into<Vec<u8>>) -> Router {
    let body = body.into();
    Router::new().fallback(any(move || {
        let body = Body::from(body.clone());
        async move { Response::builder().status(status).body(body).unwrap() }
    }))
}

fn secrets(client: Client) -> Api<KubeSecret> {
    Api::namespaced(client, "tenants")
}

#[tokio::test]
async fn a_call_that_is_never_answered_is_given_up() {
    let router = Router::new().fallback(any(std::future::pending::<Response>));
    let client = client_of(router, Duration::from_millis(200)).await;
    let began = Instant::now();
    let error = secrets(client.clone()).get("ada-keys").await.unwrap_err();
    assert!(told(&error).contains("did not answer within 200ms"), "{}", told(&error));
    let watched = secrets(client).watch(&WatchParams::default(), "0").await;
    assert!(told(&watched.err().unwrap()).contains("did not answer"));
    assert!(began.elapsed() < CALL_DEADLINE, "the deadline is that of the client");
}

#[tokio::test]
async fn an_answer_that_never_ends_is_given_up_and_a_watch_goes_on() {
    let trickle = || async {
        let first = futures::stream::iter([Ok::<_, std::io::Error>("{\"type\":")]);
        let body = futures::StreamExt::chain(first, futures::stream::pending());
        Response::new(Body::from_stream(body))
    };
    let deadline = Duration::from_millis(200);
    let client = client_of(Router::new().fallback(any(trickle)), deadline).await;
    let error = secrets(client.clone()).list(&ListParams::default()).await.unwrap_err();
    assert!(told(&error).contains("did not answer"), "{}", told(&error));
    let watch = secrets(client).watch(&WatchParams::default(), "0").await.unwrap();
    let mut watch = std::pin::pin!(watch);
    let next = tokio::time::timeout(deadline * 3, futures::StreamExt::next(&mut watch)).await;
    assert!(next.is_err(), "the watch still waits for the rest of the line");
}

#[tokio::test]
async fn a_call_is_made_once() {
    let calls = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&calls);
    let router = Router::new().fallback(any(move || {
        *counted.lock().unwrap() += 1;
        async { (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "3600")], "") }
    }));
    let client = client_of(router, CALL_DEADLINE).await;
    let created = secrets(client).create(&PostParams::default(), &KubeSecret::default()).await;
    assert!(told(&created.unwrap_err()).contains("HTTP 503"));
    assert_eq!(*calls.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_name_that_would_make_another_call_makes_none() {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&calls);
    let router = Router::new().fallback(any(move |uri: http::Uri| {
        seen.lock().unwrap().push(uri.to_string());
        async { "{}" }
    }));
    let client = client_of(router, CALL_DEADLINE).await;
    let long = "a/".repeat(1000);
    let hostile = [
        "?limit=500",
        "?watch=true&timeoutSeconds=3600",
        "../../../moorage-system/secrets/moorage-master-key",
        "%2e%2e/secrets/x",
        "#",
        "a\nb",
        "a\0b",
        "a b",
        "a?watch=true",
        &long,
        "",
    ];
    for name in hostile {
        let got = secrets(client.clone()).get(name).await;
        let error = got.err().unwrap_or_else(|| panic!("{name:?} was read"));
        assert!(name.len() < 5 || !told(&error).contains(name), "{}", told(&error));
    }
    // The type of URIs cuts a fragment off, which leaves a name.
    let _ = secrets(client).get("a#b").await;
    assert_eq!(*calls.lock().unwrap(), ["/api/v1/namespaces/tenants/secrets/a"]);
}

/// What a test logged.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Logs what `work` does to a text.
fn logged(
    subscriber: impl FnOnce(Captured) -> Box<dyn tracing::Subscriber + Send + Sync>,
    work: impl Future<Output = ()>,
) -> String {
    let captured = Captured::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tracing::subscriber::with_default(subscriber(captured.clone()), || runtime.block_on(work));
    let bytes = captured.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

const WRONG_TYPE: &str = r#"{"metadata":{},"items":[{"metadata":"sk-ant-of-another-tenant"}]}"#;

#[test]
fn kube_itself_logs_a_list_that_it_cannot_parse() {
    let all = |captured: Captured| -> Box<dyn tracing::Subscriber + Send + Sync> {
        Box::new(tracing_subscriber::fmt().with_writer(move || captured.clone()).finish())
    };
    let logged = logged(all, async {
        let client = client_of(answering(StatusCode::OK, WRONG_TYPE), CALL_DEADLINE).await;
        secrets(client).list(&ListParams::default()).await.unwrap_err();
    });
    assert!(logged.contains(MARKER), "the next test shows nothing: {logged}");
}

#[rstest]
#[case::value_of_the_wrong_type(StatusCode::OK, WRONG_TYPE)]
#[case::broken(StatusCode::OK, format!(r#"{{"metadata":{{}},"items":[{{"metadata":{{"name":"{MARKER}"}}"#))]
#[case::not_utf8(StatusCode::OK, [MARKER.as_bytes(), &[0xff]].concat())]
#[case::refused_with_a_quotation(StatusCode::UNPROCESSABLE_ENTITY, format!(
    r#"{{"kind":"Status","status":"Failure","code":422,"reason":"Invalid","message":"spec.hostname: Invalid value: \"{MARKER}\"",
    "details":{{"causes":[{{"field":"spec.hostname","message":"Invalid value: \"{MARKER}\"","reason":"FieldValueInvalid"}}]}}}}"#))]
#[case::refused_by_a_proxy(StatusCode::BAD_GATEWAY, format!("<html>{MARKER}</html>"))]
#[case::refused_in_bytes(StatusCode::BAD_REQUEST, [MARKER.as_bytes(), &[0xff]].concat())]
fn no_content_of_an_answer_is_logged(#[case] status: StatusCode, #[case] body: impl Into<Vec<u8>>) {
    let ours = |captured: Captured| -> Box<dyn tracing::Subscriber + Send + Sync> {
        let filter = "trace,kube_client=trace,kube_runtime=trace";
        Box::new(telemetry::json(filter, move || captured.clone()).unwrap())
    };
    let logged = logged(ours, async {
        let client = client_of(answering(status, body), CALL_DEADLINE).await;
        let error = secrets(client.clone()).list(&ListParams::default()).await.unwrap_err();
        tracing::warn!(error = %told(&error), "the list failed");
        let watch = watcher(secrets(client), watcher::Config::default());
        let failed = futures::StreamExt::filter_map(watch, async |event| event.err());
        let error = futures::StreamExt::next(&mut std::pin::pin!(failed)).await.unwrap();
        tracing::warn!(error = %told(&error), "the watch failed");
    });
    assert!(logged.contains("the list failed") && logged.contains("the watch failed"), "{logged}");
    assert!(!logged.contains(MARKER), "{logged}");
}

#[tokio::test]
async fn a_refusal_says_what_is_denied_and_which_field_is_wrong() {
    let denied = r#"{"kind":"Status","status":"Failure","code":403,"reason":"Forbidden","message":"secrets is forbidden: User \"x\" cannot list resource \"secrets\" in API group \"\" in the namespace \"tenants\""}"#;
    let client = client_of(answering(StatusCode::FORBIDDEN, denied), CALL_DEADLINE).await;
    let error = secrets(client).list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.is_forbidden()));
    let expected = "HTTP 403 Forbidden: cannot list resource \"secrets\" in API group \"\" in the namespace \"tenants\"";
    assert_eq!(told(&error), expected);
    let invalid = r#"{"status":"Failure","code":422,"reason":"Invalid","message":"m","details":{"causes":[{"field":"spec.hostname"}]}}"#;
    let client =
        client_of(answering(StatusCode::UNPROCESSABLE_ENTITY, invalid), CALL_DEADLINE).await;
    let error = secrets(client).list(&ListParams::default()).await.unwrap_err();
    assert_eq!(told(&error), "HTTP 422 Invalid: spec.hostname");
}
