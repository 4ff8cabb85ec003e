//! Fetching from servers that are slow, gone or lying.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
    routing::get,
};
use futures::stream;
use moorage_agent::artifacts::fetch::{FetchError, Fetcher, Patience};
use moorage_wire::{Sha256, desired::Artifact};
use rstest::rstest;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::rustls::{self, pki_types::PrivatePkcs8KeyDer};

/// How a server behaves. After one answer it is honest, unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Honest,
    /// Breaks the connection after half of what it should send, once.
    Breaks,
    /// Ends the body early, without saying so before, once.
    EndsEarly,
    /// Knows no ranges.
    NoRanges,
    /// Answers a range with another one.
    OtherRange,
    /// Refuses every range.
    Refuses,
    /// Other bytes of the same size, always.
    WrongBytes,
    /// More bytes than pinned, and says so.
    TooLong,
    /// Bytes without end, and without a length.
    Endless,
    /// Says nothing after the headers.
    Stalls,
    Status(u16),
}

#[derive(Debug)]
struct Lines {
    file: Vec<u8>,
    manner: Manner,
    tag: &'static str,
    /// `Range` and `If-Range` of each request.
    asked: Vec<(Option<String>, Option<String>)>,
}

type Shared = Arc<Mutex<Lines>>;

async fn serve(State(server): State<Shared>, headers: HeaderMap) -> Response {
    let mut server = server.lock().unwrap();
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let (range, if_range) = (text("range"), text("if-range"));
    server.asked.push((range.clone(), if_range.clone()));
    let (size, manner) = (server.file.len(), server.manner);
    let answer = Response::builder().header("etag", server.tag);
    let begin = range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
    let begin: Option<usize> = begin.map(|begin| begin.parse().unwrap());
    let is_same = if_range.is_none_or(|tag| tag == server.tag);
    let (status, begin) = match (manner, begin) {
        (Manner::Status(status), _) => (StatusCode::from_u16(status).unwrap(), 0),
        (Manner::Refuses, Some(_)) => (StatusCode::RANGE_NOT_SATISFIABLE, 0),
        (Manner::NoRanges, _) | (_, None) => (StatusCode::OK, 0),
        (_, Some(_)) if !is_same => (StatusCode::OK, 0),
        (Manner::OtherRange, Some(begin)) => (StatusCode::PARTIAL_CONTENT, begin + 1),
        (_, Some(begin)) => (StatusCode::PARTIAL_CONTENT, begin),
    };
    let mut rest = server.file[begin..].to_vec();
    let mut answer = answer.status(status);
    if status == StatusCode::PARTIAL_CONTENT {
        answer = answer.header("content-range", format!("bytes {begin}-{}/{size}", size - 1));
    }
    let half = Bytes::copy_from_slice(&rest[..rest.len() / 2]);
    match manner {
        Manner::Breaks => {
            server.manner = Manner::Honest;
            // Once the first half is on its way.
            let broken = stream::once(async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Err(std::io::Error::other("broken"))
            });
            let first = stream::iter([Ok(half)]);
            let body = Body::from_stream(futures::StreamExt::chain(first, broken));
            answer.header("content-length", rest.len()).body(body).unwrap()
        }
        Manner::EndsEarly => {
            server.manner = Manner::Honest;
            let body = stream::iter([Ok::<_, std::io::Error>(half)]);
            answer.body(Body::from_stream(body)).unwrap()
        }
        Manner::Stalls => {
            server.manner = Manner::Honest;
            let first = stream::iter([Ok::<_, std::io::Error>(half)]);
            let body = futures::StreamExt::chain(first, stream::pending());
            answer.body(Body::from_stream(body)).unwrap()
        }
        Manner::Endless => {
            let chunk = || Ok::<_, std::io::Error>(Bytes::from_static(&[7; 4096]));
            answer.body(Body::from_stream(stream::repeat_with(chunk))).unwrap()
        }
        Manner::WrongBytes => {
            rest.reverse();
            answer.body(rest.into()).unwrap()
        }
        Manner::TooLong => {
            rest.push(0);
            answer.body(rest.into()).unwrap()
        }
        _ => answer.body(rest.into()).unwrap(),
    }
}

struct World {
    server: Shared,
    artifact: Artifact,
    folder: TempDir,
    fetcher: Fetcher,
    _tasks: JoinSet<()>,
}

impl World {
    async fn new(manner: Manner) -> Self {
        let file: Vec<u8> = (0..=250).cycle().take(100_000).collect();
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let artifact = Artifact {
            version: "1".to_owned(),
            url: format!("http://{}/file?token=hidden", listener.local_addr().unwrap()),
            sha256: Sha256::of(&file),
            size: file.len() as u64,
        };
        // What stalls is to be given up soon, and nothing else.
        let stalls = matches!(manner, Manner::Stalls);
        let idle = if stalls { Duration::from_secs(2) } else { Duration::from_secs(10) };
        let server = Lines { file, manner, tag: "\"one\"", asked: Vec::new() };
        let server = Arc::new(Mutex::new(server));
        let router = Router::new().route("/file", get(serve)).with_state(Arc::clone(&server));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        let patience = Patience {
            connect: Duration::from_secs(2),
            idle,
            total: Duration::from_secs(30),
            progress: Duration::from_millis(1),
        };
        let fetcher = Fetcher::new(patience).unwrap();
        Self { server, artifact, folder: tempfile::tempdir().unwrap(), fetcher, _tasks: tasks }
    }

    async fn ensure(&self) -> Result<PathBuf, FetchError> {
        self.fetcher.ensure(&self.artifact, self.folder.path()).await
    }

    async fn succeeds(&self) {
        let file = self.ensure().await.unwrap();
        assert_eq!(file, self.folder.path().join(self.artifact.sha256.to_string()));
        assert_eq!(fs::read(file).unwrap(), self.server.lock().unwrap().file);
        assert_eq!(self.files(), 1, "nothing else is left");
    }

    fn part(&self) -> PathBuf {
        self.folder.path().join(format!("{}.part", self.artifact.sha256))
    }

    fn files(&self) -> usize {
        fs::read_dir(self.folder.path()).unwrap().count()
    }

    fn asked(&self) -> Vec<(Option<String>, Option<String>)> {
        self.server.lock().unwrap().asked.clone()
    }
}

#[tokio::test]
async fn a_file_is_fetched_once() {
    let world = World::new(Manner::Honest).await;
    world.succeeds().await;
    world.succeeds().await;
    assert_eq!(world.asked(), [(None, None)]);
}

#[rstest]
#[case(Manner::Breaks)]
#[case(Manner::EndsEarly)]
#[case(Manner::Stalls)]
#[tokio::test]
async fn an_interrupted_download_goes_on_where_it_was(#[case] manner: Manner) {
    let world = World::new(manner).await;
    let interrupted = world.ensure().await.unwrap_err();
    assert!(interrupted.is_retryable(), "{interrupted}");
    assert!(matches!(interrupted, FetchError::Interrupted { have: 50_000, .. }), "{interrupted}");
    assert!(!interrupted.to_string().contains("hidden"), "{interrupted}");
    world.succeeds().await;
    let range = ("bytes=50000-".to_owned(), "\"one\"".to_owned());
    assert_eq!(world.asked()[1], (Some(range.0), Some(range.1)));
}

#[tokio::test]
async fn parts_of_a_file_that_changed_are_never_joined() {
    let world = World::new(Manner::Breaks).await;
    world.ensure().await.unwrap_err();
    world.server.lock().unwrap().tag = "\"two\"";
    world.succeeds().await;
}

#[rstest]
#[case::wrong_bytes_of_old(vec![1; 50_000], Manner::Honest, false)]
#[case::too_much(vec![1; 200_000], Manner::Honest, true)]
#[case::all_but_wrong(vec![1; 100_000], Manner::Honest, false)]
#[case::no_ranges(vec![1; 50_000], Manner::NoRanges, true)]
#[case::other_range(vec![1; 50_000], Manner::OtherRange, true)]
#[case::refused_range(vec![1; 50_000], Manner::Refuses, true)]
#[tokio::test]
async fn whatever_lies_there_already_does_no_harm(
    #[case] part: Vec<u8>,
    #[case] manner: Manner,
    #[case] at_once: bool,
) {
    let world = World::new(manner).await;
    fs::write(world.part(), part).unwrap();
    if !at_once {
        let wrong = world.ensure().await.unwrap_err();
        assert!(matches!(wrong, FetchError::WrongBytes { what: "SHA-256", .. }), "{wrong}");
        assert_eq!(world.files(), 0, "wrong bytes are deleted");
    }
    world.succeeds().await;
}

#[rstest]
#[case(Manner::WrongBytes)]
#[case(Manner::TooLong)]
#[case(Manner::Endless)]
#[tokio::test]
async fn wrong_bytes_are_reported_as_such_and_deleted(#[case] manner: Manner) {
    let world = World::new(manner).await;
    let wrong = world.ensure().await.unwrap_err();
    assert!(matches!(wrong, FetchError::WrongBytes { .. }), "{wrong}");
    assert!(!wrong.is_retryable() && !wrong.to_string().contains("hidden"), "{wrong}");
    assert_eq!(world.files(), 0);
}

#[tokio::test]
async fn a_damaged_file_is_fetched_again() {
    let world = World::new(Manner::Honest).await;
    fs::write(world.folder.path().join(world.artifact.sha256.to_string()), b"rot").unwrap();
    world.succeeds().await;
}

#[rstest]
#[case(503, true)]
#[case(429, true)]
#[case(404, false)]
#[case(403, false)]
#[tokio::test]
async fn an_answer_without_the_file_says_whether_to_come_again(
    #[case] status: u16,
    #[case] retryable: bool,
) {
    let world = World::new(Manner::Status(status)).await;
    let refused = world.ensure().await.unwrap_err();
    assert!(matches!(refused, FetchError::Status { status: said, .. } if said == status));
    assert_eq!(refused.is_retryable(), retryable);
    assert_eq!(world.files(), 0);
}

#[tokio::test]
async fn a_server_that_is_down_is_worth_another_try() {
    let mut world = World::new(Manner::Honest).await;
    let gone = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    world.artifact.url = format!("http://{}/file", gone.local_addr().unwrap());
    drop(gone);
    let down = world.ensure().await.unwrap_err();
    assert!(matches!(down, FetchError::Interrupted { have: 0, .. }), "{down}");
    assert!(down.is_retryable() && down.to_string().contains("refused"), "{down}");
}

#[tokio::test]
async fn a_download_with_a_clock_at_1970_is_retried() {
    let mut world = World::new(Manner::Honest).await;
    // To a clock at 1970 every certificate is of the future, as this one is to the clock of this machine.
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2300, 1, 1);
    params.not_after = rcgen::date_time_ymd(2301, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    world.artifact.url = format!("https://localhost:{port}/file?token=hidden");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let handshakes = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            acceptor.accept(stream).await.unwrap_err();
        }
    };
    let tries = async {
        for _ in 0..2 {
            let early = world.ensure().await.unwrap_err();
            assert!(matches!(early, FetchError::Interrupted { have: 0, .. }), "{early}");
            assert!(early.is_retryable() && early.to_string().contains("not valid yet"), "{early}");
            assert!(!early.to_string().contains("hidden"), "{early}");
        }
    };
    tokio::select! {
        () = tries => {}
        () = handshakes => {}
    }
    assert_eq!(world.files(), 0);
}

#[tokio::test]
async fn urls_of_other_schemes_are_refused() {
    let mut world = World::new(Manner::Honest).await;
    for url in ["file:///etc/passwd", "ftp://x.example/f", "not a url", ""] {
        url.clone_into(&mut world.artifact.url);
        let refused = world.ensure().await.unwrap_err();
        assert!(matches!(refused, FetchError::Url(_)) && !refused.is_retryable(), "{refused}");
    }
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_a_matter_of_the_disk() {
    let world = World::new(Manner::Honest).await;
    let nowhere = world.folder.path().join("nowhere");
    let failed = world.fetcher.ensure(&world.artifact, &nowhere).await.unwrap_err();
    assert!(matches!(failed, FetchError::Disk { .. }), "{failed}");
}

#[tokio::test]
async fn what_is_not_wanted_any_more_is_cleaned_up() {
    let world = World::new(Manner::Honest).await;
    world.succeeds().await;
    fs::write(world.part(), b"half").unwrap();
    for name in
        ["notes.txt", &format!("{}.part", Sha256::of(b"old")), &Sha256::of(b"x").to_string()]
    {
        fs::write(world.folder.path().join(name), b"old").unwrap();
    }
    Fetcher::clean(world.folder.path(), &[world.artifact.sha256]).await.unwrap();
    assert_eq!(world.files(), 2);
    Fetcher::clean(&world.folder.path().join("nowhere"), &[]).await.unwrap();
}
