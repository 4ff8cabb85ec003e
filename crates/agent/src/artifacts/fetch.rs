//! Fetching a pinned artifact, as the agent's own unprivileged user. A download is resumed where it was
//! interrupted; a file has its final name only when its size and SHA-256 are the pinned
//! ones. The caller decides when to retry.

mod error;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use moorage_wire::{Sha256, desired::Artifact};
use reqwest::{
    Client, Response, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, RANGE},
};
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncSeekExt as _, AsyncWriteExt as _},
    time::timeout,
};

pub use self::error::FetchError;
use super::intake;

/// How patient a download is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// Between two pieces of the body, and for the headers.
    pub idle: Duration,
    /// For one call of [`Fetcher::ensure`]; what came by then is kept for the next.
    pub total: Duration,
    /// Between two lines of progress in the log.
    pub progress: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            idle: Duration::from_secs(30),
            total: Duration::from_secs(1800),
            progress: Duration::from_secs(10),
        }
    }
}

/// Fetches artifacts. Making one loads the system's certificates; it is not meant to be kept.
pub struct Fetcher {
    client: Client,
    patience: Patience,
}

impl Fetcher {
    /// A fetcher that trusts the system's certificate authorities and uses the environment's proxies.
    pub fn new(patience: Patience) -> Result<Self, FetchError> {
        let client = Client::builder()
            .connect_timeout(patience.connect)
            .read_timeout(patience.idle)
            .user_agent(concat!("moorage-agent/", env!("CARGO_PKG_VERSION")))
            .referer(false)
            .build()
            .map_err(|_| FetchError::Url("the TLS settings of this machine are unusable"))?;
        Ok(Self { client, patience })
    }

    /// The file with the bytes of `artifact` in `folder`, fetched unless it is there. One call per
    /// artifact at a time.
    pub async fn ensure(&self, artifact: &Artifact, folder: &Path) -> Result<PathBuf, FetchError> {
        let files = Files::of(folder, artifact.sha256);
        if digest_of(&files.done).await? == Some((artifact.sha256, artifact.size)) {
            return Ok(files.done);
        }
        // It is damaged, or somebody else wrote it.
        remove(&files.done).await?;
        let url = shown(&artifact.url)?;
        let download = Download { fetcher: self, artifact, files: &files, url: &url };
        match timeout(self.patience.total, download.run()).await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(download.interrupted("it takes too long").await),
        }
        Ok(files.done)
    }

    /// Removes everything from `folder` that does not belong to one of `keep`.
    pub async fn clean(folder: &Path, keep: &[Sha256]) -> Result<(), FetchError> {
        let failed = disk("list", folder);
        let mut entries = match tokio::fs::read_dir(folder).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(failed)?,
        };
        while let Some(entry) = entries.next_entry().await.map_err(disk("list", folder))? {
            let name = entry.file_name();
            let digest = name.to_str().and_then(|name| name.split('.').next()?.parse().ok());
            if !digest.is_some_and(|digest| keep.contains(&digest)) {
                remove(&entry.path()).await?;
            }
        }
        Ok(())
    }
}

/// The files of one download.
struct Files {
    done: PathBuf,
    part: PathBuf,
    /// The entity tag of what `part` is a part of.
    tag: PathBuf,
}

impl Files {
    fn of(folder: &Path, sha256: Sha256) -> Self {
        let at = |ending: &str| folder.join(format!("{sha256}{ending}"));
        Self { done: at(""), part: at(".part"), tag: at(".etag") }
    }
}

struct Download<'a> {
    fetcher: &'a Fetcher,
    artifact: &'a Artifact,
    files: &'a Files,
    url: &'a str,
}

/// What to do with an answer.
enum Plan {
    /// Its body begins at this byte of the file.
    From(u64),
    /// It is of no use; ask for the whole file.
    Restart,
}

impl Download<'_> {
    async fn run(&self) -> Result<(), FetchError> {
        let mut have = self.have().await?;
        if have > self.artifact.size {
            self.discard().await?;
            have = 0;
        }
        if have < self.artifact.size || have == 0 {
            let mut answer = self.ask(have).await?;
            let mut plan = self.plan(&answer, have)?;
            if matches!(plan, Plan::Restart) && have > 0 {
                self.discard().await?;
                answer = self.ask(0).await?;
                plan = self.plan(&answer, 0)?;
            }
            match plan {
                Plan::From(begin) => self.receive(answer, begin).await?,
                Plan::Restart => return Err(self.wrong("the range that it sends")),
            }
        }
        self.accept().await
    }

    /// Asks for the file from byte `have` on.
    async fn ask(&self, have: u64) -> Result<Response, FetchError> {
        let mut request = self.fetcher.client.get(&self.artifact.url);
        // A compressed body has other ranges than the file.
        request = request.header(ACCEPT_ENCODING, "identity");
        if have > 0 {
            request = request.header(RANGE, format!("bytes={have}-"));
            if let Ok(tag) = tokio::fs::read_to_string(&self.files.tag).await {
                request = request.header(IF_RANGE, tag);
            }
        }
        match timeout(self.fetcher.patience.idle, request.send()).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.interrupted(&cause(&error)).await),
            Err(_) => Err(self.interrupted("it does not answer in time").await),
        }
    }

    fn plan(&self, answer: &Response, have: u64) -> Result<Plan, FetchError> {
        let size = self.artifact.size;
        match answer.status() {
            StatusCode::OK => match answer.content_length() {
                Some(length) if length != size => Err(self.wrong("the size")),
                _ => Ok(Plan::From(0)),
            },
            StatusCode::PARTIAL_CONTENT => match content_range(answer.headers()) {
                Some((begin, total))
                    if begin == have && total.is_none_or(|total| total == size) =>
                {
                    Ok(Plan::From(have))
                }
                _ => Ok(Plan::Restart),
            },
            StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => Ok(Plan::Restart),
            status => Err(FetchError::Status { url: self.url.to_owned(), status: status.as_u16() }),
        }
    }

    async fn receive(&self, mut answer: Response, begin: u64) -> Result<(), FetchError> {
        let (part, size) = (&self.files.part, self.artifact.size);
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(part).await;
        let mut file = opened.map_err(disk("open", part))?;
        file.set_len(begin).await.map_err(disk("cut", part))?;
        file.seek(io::SeekFrom::End(0)).await.map_err(disk("seek in", part))?;
        self.keep_tag(answer.headers()).await?;
        let (mut have, mut told) = (begin, Instant::now());
        loop {
            let chunk = match answer.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => {
                    self.flush(&mut file).await?;
                    return Err(self.interrupted(&cause(&error)).await);
                }
            };
            have += chunk.len() as u64;
            if have > size {
                self.discard().await?;
                return Err(self.wrong("the size"));
            }
            if let Err(error) = file.write_all(&chunk).await {
                return Err(self.cannot_write(error).await);
            }
            if told.elapsed() >= self.fetcher.patience.progress {
                told = Instant::now();
                tracing::info!(url = self.url, have, size, "fetching");
            }
        }
        self.flush(&mut file).await?;
        if have < size { Err(self.interrupted("it ended early").await) } else { Ok(()) }
    }

    async fn flush(&self, file: &mut File) -> Result<(), FetchError> {
        match file.flush().await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.cannot_write(error).await),
        }
    }

    /// A full disk is not kept full.
    async fn cannot_write(&self, source: io::Error) -> FetchError {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            && let Err(error) = self.discard().await
        {
            tracing::warn!(%error, "the disk is full, and stays so");
        }
        disk("write", &self.files.part)(source)
    }

    /// Remembers what a range is of, so that parts of two files are never joined.
    async fn keep_tag(&self, headers: &HeaderMap) -> Result<(), FetchError> {
        let tag = headers.get(ETAG).and_then(|tag| tag.to_str().ok());
        // A weak tag is no proof for `If-Range` (RFC 9110, section 13.1.5).
        match tag.filter(|tag| tag.starts_with('"') && tag.len() <= 256) {
            Some(tag) => {
                let written = tokio::fs::write(&self.files.tag, tag).await;
                written.map_err(disk("write", &self.files.tag))
            }
            None => remove(&self.files.tag).await,
        }
    }

    /// Gives a complete file its name, if it is the right one.
    async fn accept(&self) -> Result<(), FetchError> {
        let Files { done, part, tag } = self.files;
        if digest_of(part).await? != Some((self.artifact.sha256, self.artifact.size)) {
            self.discard().await?;
            return Err(self.wrong("SHA-256"));
        }
        let file = File::open(part).await.map_err(disk("open", part))?;
        file.sync_all().await.map_err(disk("sync", part))?;
        tokio::fs::rename(part, done).await.map_err(disk("rename", part))?;
        tracing::info!(url = self.url, size = self.artifact.size, "fetched");
        remove(tag).await
    }

    async fn have(&self) -> Result<u64, FetchError> {
        match tokio::fs::metadata(&self.files.part).await {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(disk("look at", &self.files.part)(error)),
        }
    }

    async fn discard(&self) -> Result<(), FetchError> {
        remove(&self.files.part).await?;
        remove(&self.files.tag).await
    }

    fn wrong(&self, what: &'static str) -> FetchError {
        FetchError::WrongBytes { url: self.url.to_owned(), what }
    }

    async fn interrupted(&self, cause: &str) -> FetchError {
        let have = self.have().await.unwrap_or(0);
        FetchError::Interrupted { url: self.url.to_owned(), have, cause: cause.to_owned() }
    }
}

/// The first byte and the total of `Content-Range: bytes 5-9/10`; the total may be unknown.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (range, total) = text.split_once('/')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((range.split_once('-')?.0.parse().ok()?, total))
}

/// The deepest cause says most. It may name addresses, never a URL: those may carry secrets.
fn cause(error: &reqwest::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    if deepest.is::<reqwest::Error>() {
        let what = if error.is_timeout() { "it takes too long" } else { "the connection failed" };
        return what.to_owned();
    }
    deepest.to_string()
}

/// A URL as it may stand in logs and reports.
fn shown(url: &str) -> Result<String, FetchError> {
    let parsed = reqwest::Url::parse(url).map_err(|_| FetchError::Url("it is no URL"))?;
    if !matches!(parsed.scheme(), "https" | "http") {
        return Err(FetchError::Url("its scheme is neither https nor http"));
    }
    let host = parsed.host_str().ok_or(FetchError::Url("it names no host"))?;
    let port = parsed.port().map_or(String::new(), |port| format!(":{port}"));
    Ok(format!("{}://{host}{port}{}", parsed.scheme(), parsed.path()))
}

async fn digest_of(path: &Path) -> Result<Option<(Sha256, u64)>, FetchError> {
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let mut file = match fs::File::open(&owned) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        intake::digest(&mut file).map(Some)
    });
    read.await.map_err(io::Error::other).and_then(|read| read).map_err(disk("read", path))
}

async fn remove(path: &Path) -> Result<(), FetchError> {
    match tokio::fs::remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk("remove", path)(error)),
        _ => Ok(()),
    }
}

fn disk(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FetchError {
    move |source| FetchError::Disk { action, path: path.to_owned(), source }
}
