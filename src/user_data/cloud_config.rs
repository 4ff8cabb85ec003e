//! The part of cloud-config that is used, as cloud-init 25.1 reads it, and the one text that it
//! becomes: JSON, which is YAML without its surprises.

use serde::Serialize;
use zeroize::Zeroizing;

use crate::api::names::SshPublicKey;

/// The user-data of a server, as cloud-init takes it.
#[derive(Serialize)]
pub(super) struct CloudConfig<'a> {
    pub(super) disable_root: bool,
    pub(super) ssh_pwauth: bool,
    pub(super) ssh_genkeytypes: [&'static str; 1],
    pub(super) bootcmd: [Vec<String>; 2],
    pub(super) groups: Vec<&'static str>,
    pub(super) users: Vec<User<'a>>,
    pub(super) write_files: Vec<WriteFile>,
    pub(super) runcmd: &'static [&'static [&'static str]],
}

/// A user that cloud-init makes.
#[derive(Serialize)]
pub(super) struct User<'a> {
    pub(super) name: &'a str,
    pub(super) gecos: &'static str,
    pub(super) shell: &'static str,
    pub(super) lock_passwd: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) groups: &'static [&'static str],
    #[serde(flatten)]
    pub(super) kind: UserKind<'a>,
}

/// A program's user, or a person's.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum UserKind<'a> {
    /// Runs a service; systemd makes its folder.
    Service {
        system: bool,
        homedir: &'static str,
        no_create_home: bool,
    },
    Person {
        sudo: &'static str,
        ssh_authorized_keys: &'a [SshPublicKey],
    },
}

/// A file that cloud-init writes.
#[derive(Serialize)]
pub(super) struct WriteFile {
    pub(super) path: String,
    owner: &'static str,
    permissions: &'static str,
    /// Written after users and groups were made, for its owner is one of them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    defer: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    #[serde(serialize_with = "as_text")]
    content: Zeroizing<String>,
}

impl WriteFile {
    /// A binary file of root, given in base64.
    pub(super) fn binary(path: impl Into<String>, base64: String) -> Self {
        let encoding = Some("b64");
        Self { encoding, ..Self::value(path, Zeroizing::new(base64)) }
    }

    /// A file of root, readable by all, whose content differs from server to server.
    pub(super) fn value(path: impl Into<String>, content: Zeroizing<String>) -> Self {
        let (owner, permissions, defer) = (ROOT, "0644", false);
        Self { path: path.into(), owner, permissions, defer, encoding: None, content }
    }

    /// A file that one service may read, and nobody else.
    pub(super) fn private(
        path: impl Into<String>,
        owner: &'static str,
        content: Zeroizing<String>,
    ) -> Self {
        let (permissions, defer) = ("0640", true);
        Self { path: path.into(), owner, permissions, defer, encoding: None, content }
    }
}

const ROOT: &str = "root:root";

fn as_text<S: serde::Serializer>(
    text: &Zeroizing<String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// `value` as JSON on one line.
pub(super) fn json<T: Serialize>(value: &T) -> Zeroizing<String> {
    // Strings, numbers, lists and structs only.
    Zeroizing::new(serde_json::to_string(value).expect("user-data is representable in JSON"))
}
