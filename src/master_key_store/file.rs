//! Master keys in files.

use std::{io::Read as _, os::unix::fs::PermissionsExt as _, path::Path};

use moorage_wire::Secret;

use super::MasterKeyStoreError;

/// Permission bits that a key file must not have: anything for others, writing for its group. A
/// volume with an `fsGroup` is readable by the group, so that is allowed.
const FORBIDDEN_MODE: u32 = 0o037;
/// Larger than any form of a key; bounds what a wrong path makes us read.
const MAX_FILE_BYTES: u64 = 1024;

/// Reads a key, in whatever form, from a file that only its owner and its group can read.
pub(super) fn read_key_file(path: &Path) -> Result<Secret, MasterKeyStoreError> {
    let unreadable = |source| MasterKeyStoreError::File { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    // Of the opened file, so that it is not exchanged between the check and the reading.
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
    if mode & FORBIDDEN_MODE != 0 {
        return Err(MasterKeyStoreError::FileMode { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(MAX_FILE_BYTES).unwrap_or_default());
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(Secret::new(bytes))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::PathBuf};

    use super::*;
    use rstest::rstest;

    const RAW: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn file(directory: &Path, mode: u32) -> PathBuf {
        let path = directory.join("key");
        fs::write(&path, RAW).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[rstest]
    #[case(0o400, true)]
    #[case(0o600, true)]
    #[case(0o440, true)]
    #[case(0o640, true)]
    #[case(0o444, false)]
    #[case(0o644, false)]
    #[case(0o660, false)]
    #[case(0o602, false)]
    fn a_key_file_must_be_closed_to_others(#[case] mode: u32, #[case] taken: bool) {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), mode);
        match read_key_file(&path) {
            Ok(key) => assert!(taken && key.expose() == RAW),
            Err(error) => {
                assert!(!taken, "{error}");
                assert_eq!(error.reason(), "MasterKeyInvalid");
                assert!(error.to_string().contains(&format!("{mode:04o}")), "{error}");
            }
        }
    }

    #[test]
    fn a_mounted_volumes_symlink_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        symlink(file(directory.path(), 0o400), &link).unwrap();
        assert_eq!(read_key_file(&link).unwrap().expose(), RAW);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read_key_file(Path::new("/nowhere/key")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/key"), "{error}");
    }

    #[test]
    fn an_endless_file_is_not_read_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), 0o600);
        fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(read_key_file(&path).unwrap().len(), 1024);
    }
}
