//! Where a file comes from, and getting it: a file of this machine, or an address with a SHA-256.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use moorage_wire::Sha256;
use url::Url;

use super::{
    Progress, ReleaseError,
    digest::{Digest, Digesting},
};

/// Without a byte for so long, a download is given up.
const STALLED: Duration = Duration::from_secs(60);

/// Where a file comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file of this machine, taken as it is.
    File(PathBuf),
    /// Fetched, and used only if it is the pinned one.
    Url {
        /// `http` or `https`.
        url: Url,
        /// What it must be.
        sha256: Sha256,
    },
}

impl FromStr for Source {
    type Err = ReleaseError;

    fn from_str(text: &str) -> Result<Self, ReleaseError> {
        if !text.contains("://") {
            return Ok(Self::File(PathBuf::from(text)));
        }
        let invalid = || ReleaseError::InvalidSource(text.to_owned());
        let mut url: Url = text.parse().map_err(|_| invalid())?;
        let sha256 = url.fragment().and_then(|pin| pin.strip_prefix("sha256="));
        let sha256 = sha256.and_then(|pin| pin.parse().ok()).ok_or_else(invalid)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid());
        }
        url.set_fragment(None);
        Ok(Self::Url { url, sha256 })
    }
}

impl Source {
    /// Makes sure that the file is on this machine: the file itself, or a copy in `cache`.
    pub async fn get(
        &self,
        cache: &Path,
        progress: Progress<'_>,
    ) -> Result<(PathBuf, Digest), ReleaseError> {
        match self {
            Self::File(path) => Ok((path.clone(), Digest::of_file(path)?)),
            Self::Url { url, sha256 } => {
                let path = cache.join(sha256.to_string());
                if path.exists() {
                    let digest = Digest::of_file(&path)?;
                    if digest.sha256 == *sha256 {
                        return Ok((path, digest));
                    }
                    progress(&format!("{} is damaged and fetched again", path.display()));
                }
                let (fetched, digest) = fetch(url, cache, progress).await?;
                // Dropped with its file when it is not the one.
                check(url, *sha256, digest)?;
                fetched
                    .persist(&path)
                    .map_err(|error| ReleaseError::writing(&path)(error.error))?;
                Ok((path, digest))
            }
        }
    }
}

fn check(url: &Url, wanted: Sha256, digest: Digest) -> Result<(), ReleaseError> {
    let found = digest.sha256;
    if found == wanted {
        return Ok(());
    }
    Err(ReleaseError::WrongDigest { from: url.to_string(), wanted, found })
}

/// Fetches without a pin, for whoever makes one.
pub(super) async fn fetch(
    url: &Url,
    cache: &Path,
    progress: Progress<'_>,
) -> Result<(tempfile::NamedTempFile, Digest), ReleaseError> {
    fs::create_dir_all(cache).map_err(ReleaseError::writing(cache))?;
    let file = tempfile::NamedTempFile::new_in(cache).map_err(ReleaseError::writing(cache))?;
    let failed = |error: reqwest::Error| ReleaseError::Fetch {
        url: url.clone(),
        why: error.without_url().to_string(),
    };
    let client = reqwest::Client::builder().read_timeout(STALLED).build().map_err(failed)?;
    let answer = client.get(url.clone()).send().await.map_err(failed)?;
    let mut answer = answer.error_for_status().map_err(failed)?;
    let size = answer.content_length().unwrap_or_default();
    progress(&format!("fetching {url} ({} MB)", size / 1_000_000));
    let mut digesting = Digesting::new(file);
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        digesting.write_all(&chunk).map_err(ReleaseError::writing(cache))?;
    }
    Ok(digesting.finish())
}

/// Copies `from` into `to` by a temporary file beside it, so that `to` is whole or not there.
pub fn copy(from: &Path, to: &Path) -> Result<Digest, ReleaseError> {
    let folder = to.parent().unwrap_or(Path::new("."));
    let mut opened = File::open(from).map_err(ReleaseError::reading(from))?;
    let file = tempfile::NamedTempFile::new_in(folder).map_err(ReleaseError::writing(folder))?;
    let mut digesting = Digesting::new(file);
    std::io::copy(&mut opened, &mut digesting).map_err(ReleaseError::writing(to))?;
    let (file, digest) = digesting.finish();
    // Temporary files are private; these are to be served.
    let mode = fs::Permissions::from_mode(0o644);
    file.as_file().set_permissions(mode).map_err(ReleaseError::writing(to))?;
    file.persist(to).map_err(|error| ReleaseError::writing(to)(error.error))?;
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, routing::get};

    const TEXT: &str = "a program";

    async fn served() -> Url {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/program", listener.local_addr().unwrap());
        let router = Router::new().route("/program", get(|| async { TEXT }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        url.parse().unwrap()
    }

    #[test]
    fn a_source_is_a_file_or_an_address_with_its_digest() {
        assert_eq!("./a".parse::<Source>().unwrap(), Source::File("./a".into()));
        let sha256 = Sha256::of(b"x");
        let url = "https://example.com/a".parse().unwrap();
        let text = format!("https://example.com/a#sha256={sha256}");
        assert_eq!(text.parse::<Source>().unwrap(), Source::Url { url, sha256 });
        let bare =
            ["https://example.com/a", "https://example.com/a#sha256=00", "ftp://e.com/a#sha256="];
        for text in bare {
            assert!(text.parse::<Source>().unwrap_err().to_string().contains("#sha256="), "{text}");
        }
    }

    #[tokio::test]
    async fn a_pinned_file_is_fetched_once() {
        let cache = tempfile::tempdir().unwrap();
        let source = Source::Url { url: served().await, sha256: Sha256::of(TEXT.as_bytes()) };
        let (path, digest) = source.get(cache.path(), &|_| ()).await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), TEXT);
        assert_eq!(digest.size, TEXT.len() as u64);
        let silent = |line: &str| panic!("fetched again: {line}");
        assert_eq!(source.get(cache.path(), &silent).await.unwrap(), (path, digest));
    }

    #[tokio::test]
    async fn a_file_with_a_wrong_checksum_is_refused_and_not_kept() {
        let cache = tempfile::tempdir().unwrap();
        let url = served().await;
        let source = Source::Url { url: url.clone(), sha256: Sha256::of(b"another") };
        let refused = source.get(cache.path(), &|_| ()).await.unwrap_err();
        let ReleaseError::WrongDigest { from, found, .. } = refused else { panic!("{refused}") };
        assert_eq!((from, found), (url.to_string(), Sha256::of(TEXT.as_bytes())));
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_damaged_copy_is_fetched_again() {
        let cache = tempfile::tempdir().unwrap();
        let sha256 = Sha256::of(TEXT.as_bytes());
        fs::write(cache.path().join(sha256.to_string()), "half").unwrap();
        let source = Source::Url { url: served().await, sha256 };
        let (path, _) = source.get(cache.path(), &|_| ()).await.unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), TEXT);
    }
}
