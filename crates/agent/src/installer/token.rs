//! The token that cloudflared runs with.

use std::path::Path;

use thiserror::Error;

use crate::{
    disk::{Disk, DiskError},
    secret_text::SecretText,
};

/// Longest token, in bytes.
const LONGEST: usize = 4096;

/// A token that is not written. It is not repeated.
#[derive(Debug, Error)]
pub enum TokenError {
    /// It is something else.
    #[error("the token is not one line of base64")]
    Form,
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Replaces the token at `path`, atomically and durably: readable for its owner only, or for `group`
/// as well.
pub fn write(disk: &Disk, path: &Path, token: &str, group: Option<u32>) -> Result<(), TokenError> {
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    if token.is_empty() || token.len() > LONGEST || !token.bytes().all(base64) {
        return Err(TokenError::Form);
    }
    let line = zeroize::Zeroizing::new(format!("{token}\n"));
    match group {
        Some(group) => disk.write_for_group(path, line.as_bytes(), group)?,
        None => disk.write(path, line.as_bytes())?,
    }
    Ok(())
}

/// The token at `path`, if there is one.
pub(crate) fn read(disk: &Disk, path: &Path) -> Result<Option<SecretText>, DiskError> {
    let Some(bytes) = disk.read(path)? else { return Ok(None) };
    let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
    Ok((!text.is_empty()).then(|| SecretText::new(text)))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _};

    use super::*;

    #[test]
    fn a_token_replaces_the_one_before_and_keeps_others_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tunnel-token");
        let own_group = fs::metadata(folder.path()).unwrap().gid();
        for (token, group, mode) in [("b25l", None, 0o600), ("dHdv", Some(own_group), 0o640)] {
            write(&Disk::default(), &path, token, group).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{token}\n"));
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
            assert_eq!(read(&Disk::default(), &path).unwrap(), Some(SecretText::new(token)));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        fs::write(&path, "\n").unwrap();
        assert_eq!(read(&Disk::default(), &path).unwrap(), None);
    }

    #[test]
    fn what_is_no_token_is_neither_written_nor_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tunnel-token");
        let long = "A".repeat(LONGEST + 1);
        for wrong in ["", "hidden token", "hidden\ntoken", "hidden\0", "hídden", &long] {
            let refused = write(&Disk::default(), &path, wrong, None).unwrap_err();
            assert!(matches!(refused, TokenError::Form), "{wrong:?}");
            assert!(!refused.to_string().contains("hidden"));
        }
        assert!(!path.exists());
    }
}
