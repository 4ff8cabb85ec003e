//! Users and groups of this machine by name, from `/etc/passwd` and `/etc/group`. The C library would
//! load other libraries for that, which a static program cannot.

use std::{fs, io, path::Path};

use thiserror::Error;

/// An account that is not there.
#[derive(Debug, Error)]
pub enum AccountError {
    /// The list cannot be read.
    #[error("cannot read {file}: {source}")]
    Unreadable {
        /// `/etc/passwd` or `/etc/group`.
        file: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// It is not in the list.
    #[error("there is no `{name}` in {file}")]
    Unknown {
        /// Name of the user or group.
        name: String,
        /// `/etc/passwd` or `/etc/group`.
        file: &'static str,
    },
}

/// A local user, as in passwd(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// Numeric user id.
    pub uid: u32,
    /// The id of the user's own group.
    pub gid: u32,
}

/// Looks a user up by name, or takes `uid` or `uid:gid` as they are.
pub fn user(name: &str) -> Result<User, AccountError> {
    const FILE: &str = "/etc/passwd";
    let (uid, gid) = name.split_once(':').unwrap_or((name, name));
    if let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) {
        return Ok(User { uid, gid });
    }
    let list = read(FILE)?;
    let found = line_of(&list, name).and_then(|fields| {
        Some(User { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
    });
    found.ok_or_else(|| AccountError::Unknown { name: name.to_owned(), file: FILE })
}

/// Looks a group's id up by name, or takes a number as it is.
pub fn group(name: &str) -> Result<u32, AccountError> {
    const FILE: &str = "/etc/group";
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    let list = read(FILE)?;
    let found = line_of(&list, name).and_then(|fields| fields.get(2)?.parse().ok());
    found.ok_or_else(|| AccountError::Unknown { name: name.to_owned(), file: FILE })
}

fn read(file: &'static str) -> Result<String, AccountError> {
    fs::read_to_string(Path::new(file)).map_err(|source| AccountError::Unreadable { file, source })
}

fn line_of<'a>(list: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let mut lines = list.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.find(|fields| fields.first() == Some(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_name_and_by_number() {
        assert_eq!(user("root").unwrap(), User { uid: 0, gid: 0 });
        assert_eq!(user("1000").unwrap(), User { uid: 1000, gid: 1000 });
        assert_eq!(user("1000:7").unwrap(), User { uid: 1000, gid: 7 });
        assert_eq!(group("root").unwrap(), 0);
        assert_eq!(group("42").unwrap(), 42);
        let unknown = user("nobody-of-this-name").unwrap_err().to_string();
        assert_eq!(unknown, "there is no `nobody-of-this-name` in /etc/passwd");
        assert!(group("").is_err());
    }
}
