//! The artifact server: shows a folder, with ranges and entity tags as downloads that are resumed
//! need them, and can be made to fail in the ways in which such servers fail.

use std::io::{self, SeekFrom};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use moorage_sim_clouds::listener::LostResponse;

/// How much is read and sent at once, in bytes.
const CHUNK: u64 = 64 * 1024;
/// How many requests are remembered.
const MEMORY: usize = 10_000;

/// What goes wrong, and for which file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::vps::nspawn) struct Fault {
    /// The URL path; every file when left out.
    path: Option<String>,
    #[serde(rename = "fault")]
    kind: FaultKind,
    /// How often it strikes; always when left out.
    times: Option<u32>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
enum FaultKind {
    /// The connection is closed without an answer.
    Down,
    /// An answer with this status.
    Status { status: u16 },
    /// The right number of bytes, but the last of each piece is another.
    WrongBytes,
    /// So many bytes a second.
    Slow { bytes_per_second: u64 },
    /// The connection breaks after so many bytes of each answer.
    Cut { after: u64 },
}

/// A request that the artifact server answered.
#[derive(Debug, Clone, Serialize)]
pub(in crate::vps::nspawn) struct Fetch {
    from: SocketAddr,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<String>,
    status: u16,
}

/// The folder, the faults, and what was asked for.
#[derive(Debug, Default)]
pub(in crate::vps::nspawn) struct Artifacts {
    folder: Option<PathBuf>,
    faults: Mutex<Vec<Fault>>,
    fetches: Mutex<Vec<Fetch>>,
}

impl Artifacts {
    pub(super) fn of(folder: Option<PathBuf>) -> Self {
        Self { folder, ..Self::default() }
    }

    /// Replaces all faults, or those of one path.
    pub(in crate::vps::nspawn) fn set_faults(&self, of: Option<&str>, faults: Vec<Fault>) {
        let mut all = self.faults.lock();
        all.retain(|fault| of.is_some() && fault.path.as_deref() != of);
        all.extend(faults);
    }

    /// What was asked for, oldest first.
    pub(in crate::vps::nspawn) fn fetches(&self) -> Vec<Fetch> {
        self.fetches.lock().clone()
    }

    fn strike(&self, path: &str) -> Option<FaultKind> {
        let mut faults = self.faults.lock();
        let strikes = |fault: &Fault| {
            fault.times != Some(0) && fault.path.as_deref().is_none_or(|only| only == path)
        };
        let fault = faults.iter_mut().find(|fault| strikes(fault))?;
        fault.times = fault.times.map(|times| times - 1);
        Some(fault.kind)
    }

    fn note(&self, fetch: Fetch) {
        let mut fetches = self.fetches.lock();
        if fetches.len() < MEMORY {
            fetches.push(fetch);
        }
    }
}

pub(super) fn router(artifacts: Arc<Artifacts>) -> Router {
    Router::new().fallback(get).with_state(artifacts)
}

async fn get(
    State(artifacts): State<Arc<Artifacts>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (request, _) = request.into_parts();
    let path = request.uri.path().to_owned();
    let fault = artifacts.strike(&path);
    let response = match (fault, &request.method) {
        (Some(FaultKind::Down), _) => {
            let mut response = StatusCode::SERVICE_UNAVAILABLE.into_response();
            response.extensions_mut().insert(LostResponse);
            response
        }
        (Some(FaultKind::Status { status }), _) => {
            StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE).into_response()
        }
        (fault, &(Method::GET | Method::HEAD)) => {
            let file = artifacts.folder.as_deref().and_then(|folder| locate(folder, &path));
            match file {
                Some(file) => send(&file, &request, fault).await,
                None => StatusCode::NOT_FOUND.into_response(),
            }
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    };
    let range = request.headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let range = range.map(str::to_owned);
    artifacts.note(Fetch { from, path, range, status: response.status().as_u16() });
    response
}

/// The file that a path means. Names are taken as they stand, without percent-decoding.
fn locate(folder: &Path, path: &str) -> Option<PathBuf> {
    let relative = Path::new(path.strip_prefix('/')?);
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    (plain && !path.ends_with('/')).then(|| folder.join(relative))
}

async fn send(path: &Path, request: &Parts, fault: Option<FaultKind>) -> Response {
    match open(path).await {
        Ok((file, size, tag)) => answer(file, size, &tag, request, fault).await,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            StatusCode::NOT_FOUND.into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn open(path: &Path) -> io::Result<(File, u64, String)> {
    let file = File::open(path).await?;
    let metadata = file.metadata().await?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let tag =
        format!("\"{:x}-{:x}-{:x}\"", metadata.len(), metadata.mtime(), metadata.mtime_nsec());
    Ok((file, metadata.len(), tag))
}

async fn answer(
    mut file: File,
    size: u64,
    tag: &str,
    request: &Parts,
    fault: Option<FaultKind>,
) -> Response {
    let headers = &request.headers;
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known == tag) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    let (status, start, end) = match range(headers, size, tag) {
        Wanted::All => (StatusCode::OK, 0, size),
        Wanted::Part { start, end } => (StatusCode::PARTIAL_CONTENT, start, end),
        Wanted::Nothing => {
            let range = format!("bytes */{size}");
            return (StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, range)])
                .into_response();
        }
    };
    if let Err(error) = file.seek(SeekFrom::Start(start)).await {
        return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
    }
    let body = if request.method == Method::HEAD {
        Body::empty()
    } else {
        Body::from_stream(pieces(file, end - start, fault))
    };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, (end - start).into());
    if let Ok(tag) = tag.parse() {
        headers.insert(header::ETAG, tag);
    }
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(range) = format!("bytes {start}-{}/{size}", end - 1).parse()
    {
        headers.insert(header::CONTENT_RANGE, range);
    }
    response
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    /// From `start` to before `end`.
    Part {
        start: u64,
        end: u64,
    },
    Nothing,
}

/// The part that a request asks for. Several ranges at once may be ignored, and are.
fn range(headers: &HeaderMap, size: u64, tag: &str) -> Wanted {
    if headers.get(header::IF_RANGE).is_some_and(|known| known != tag) {
        return Wanted::All;
    }
    let text = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let Some((first, last)) =
        text.and_then(|text| text.strip_prefix("bytes=")).and_then(|text| text.split_once('-'))
    else {
        return Wanted::All;
    };
    let (start, end) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(start), Ok(last)) if last >= start => (start, size.min(last.saturating_add(1))),
        (Ok(start), Err(_)) if last.is_empty() => (start, size),
        (Err(_), Ok(length)) if first.is_empty() => (size.saturating_sub(length), size),
        _ => return Wanted::All,
    };
    if start < end { Wanted::Part { start, end } } else { Wanted::Nothing }
}

/// What is left to send of a file.
struct Sending {
    file: File,
    left: u64,
    sent: u64,
    fault: Option<FaultKind>,
}

fn pieces(
    file: File,
    left: u64,
    fault: Option<FaultKind>,
) -> impl futures::Stream<Item = io::Result<Bytes>> {
    let sending = Sending { file, left, sent: 0, fault };
    futures::stream::try_unfold(sending, async |mut sending| {
        Ok(sending.next().await?.map(|piece| (piece, sending)))
    })
}

impl Sending {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut length = self.left.min(CHUNK);
        match self.fault {
            Some(FaultKind::Cut { after }) => {
                length = length.min(after.saturating_sub(self.sent));
                if length == 0 && self.left > 0 {
                    // An error drops what the connection holds back, headers included; it is
                    // written out whenever the body has nothing at once.
                    tokio::task::yield_now().await;
                    return Err(io::Error::other("cut on purpose"));
                }
            }
            Some(FaultKind::Slow { bytes_per_second }) if self.left > 0 => {
                // A piece for each tenth of a second.
                length = length.min((bytes_per_second / 10).max(1));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            _ => {}
        }
        if length == 0 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let mut piece = vec![0; length];
        self.file.read_exact(&mut piece).await?;
        if let (Some(FaultKind::WrongBytes), Some(last)) = (self.fault, piece.last_mut()) {
            *last ^= 0xff;
        }
        self.left -= length as u64;
        self.sent += length as u64;
        Ok(Some(piece.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt as _, StreamExt as _};
    use rstest::rstest;

    #[rstest]
    #[case::none(&[], Wanted::All)]
    #[case::rest(&[("range", "bytes=40-")], Wanted::Part { start: 40, end: 100 })]
    #[case::middle(&[("range", "bytes=40-49")], Wanted::Part { start: 40, end: 50 })]
    #[case::beyond(&[("range", "bytes=40-400")], Wanted::Part { start: 40, end: 100 })]
    #[case::suffix(&[("range", "bytes=-10")], Wanted::Part { start: 90, end: 100 })]
    #[case::past_the_end(&[("range", "bytes=100-")], Wanted::Nothing)]
    #[case::several(&[("range", "bytes=0-1,5-6")], Wanted::All)]
    #[case::backwards(&[("range", "bytes=9-1")], Wanted::All)]
    #[case::same_file(&[("range", "bytes=40-"), ("if-range", "\"t\"")], Wanted::Part { start: 40, end: 100 })]
    #[case::other_file(&[("range", "bytes=40-"), ("if-range", "\"u\"")], Wanted::All)]
    fn a_range_is_what_the_client_lacks(
        #[case] headers: &[(&'static str, &'static str)],
        #[case] wanted: Wanted,
    ) {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect();
        assert_eq!(range(&headers, 100, "\"t\""), wanted);
    }

    #[tokio::test]
    async fn what_was_sent_before_a_cut_still_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, [7; 100]).unwrap();
        let cut = Some(FaultKind::Cut { after: 40 });
        let mut pieces = Box::pin(pieces(File::open(&path).await.unwrap(), 100, cut));
        assert_eq!(pieces.next().await.unwrap().unwrap().len(), 40);
        assert!(pieces.next().now_or_never().is_none(), "the server had no turn to send");
        assert!(pieces.next().await.unwrap().is_err());
    }

    #[rstest]
    #[case("/a/b.tar.gz", Some("/srv/a/b.tar.gz"))]
    #[case("/../etc/passwd", None)]
    #[case("//etc/passwd", None)]
    #[case("/a/", None)]
    fn no_path_leaves_the_folder(#[case] path: &str, #[case] file: Option<&str>) {
        assert_eq!(locate(Path::new("/srv"), path).as_deref(), file.map(Path::new));
    }
}
