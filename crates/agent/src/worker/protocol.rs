//! What the agent may ask of the worker: one JSON line in, one JSON line out, one request per
//! connection, on a Unix socket that only the agent can open. These are all operations on OpenClaw's
//! files and all uses of its command line; there is none that takes a path or a command, and none that
//! takes a configuration, an integration or a value but under the operator's own signature.
//!
//! No value of a credential travels here, but the key of an older agent once, as base64: a text without
//! escapes is read without intermediate copies, so that every copy can be overwritten.

mod answer;
mod values;

use std::collections::BTreeSet;

use moorage_wire::{CredentialName, Sha256};
use serde::{Deserialize, Serialize};

pub(crate) use self::{
    answer::{Answer, Held, Refusal, Reload, Stale, Validation},
    values::{PairingId, PlaintextKey},
};
use crate::signed::SignedCall;

/// Longest request, in bytes: a desired state of 1 MiB in base64, and what goes with it.
pub(crate) const LONGEST_REQUEST: usize = 1536 * 1024;
/// Longest answer, in bytes.
pub(crate) const LONGEST_ANSWER: usize = 256 * 1024;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    /// Files: done within milliseconds.
    File(FileRequest),
    /// `OpenClaw`'s program, or much data: seconds to minutes.
    Program(ProgramRequest),
}

/// Requests about single files.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    tag = "verb",
    deny_unknown_fields
)]
pub(crate) enum FileRequest {
    /// What are credentials sealed to? Made if there is none. Answered by [`Answer::Certificate`].
    Certificate,
    /// Take over the key that an older agent had. Refused if there is another one.
    AdoptKey {
        /// Its PKCS#8 form, base64.
        key: PlaintextKey,
        /// The PEM of its certificate.
        certificate: String,
    },
    /// Nonces for the operator to sign with. Answered by [`Answer::Nonces`].
    Nonces {
        /// How many; fewer may come.
        count: u64,
    },
    /// A desired state is what the operator wants: keep it.
    PutDocument {
        call: SignedCall,
        /// Earlier documents that may be needed still; all others are dropped.
        keep: BTreeSet<Sha256>,
    },
    /// Which credentials are there? Answered by [`Answer::Secrets`], as are the three that follow.
    SecretNames,
    /// Open a credential and put it where it belongs.
    StoreCredential {
        /// Its name, which is part of what is signed.
        name: CredentialName,
        call: SignedCall,
    },
    /// Erase all values of `secrets.json` but these.
    RetainSecrets {
        names: BTreeSet<CredentialName>,
    },
    RemoveGoogleClient,
    /// What is the live configuration? Answered by [`Answer::Config`].
    ConfigDigest,
    /// Make the configuration of a kept document the live one.
    WriteConfig {
        document: Sha256,
    },
}

/// Requests that run a program or move much data.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    tag = "verb",
    deny_unknown_fields
)]
pub(crate) enum ProgramRequest {
    /// Which version is it? Answered by [`Answer::Version`].
    Version,
    /// Would `OpenClaw` take the configuration of a kept document? Answered by [`Answer::Validation`].
    Validate {
        document: Sha256,
    },
    /// Does the running `OpenClaw` use the live configuration? Answered by [`Answer::Applied`].
    ConfigApplied,
    /// Let the running `OpenClaw` read its secrets again, and see that it did. Answered by
    /// [`Answer::Reloaded`].
    ReloadSecrets,
    /// Back up with `OpenClaw`'s own verified backup, and remove old ones. Answered by
    /// [`Answer::Backup`].
    Backup,
    /// How much room is there? Answered by [`Answer::Room`].
    Room,
    /// Copy the whole state, so that it can be put back. `OpenClaw` must not run.
    TakeSnapshot,
    /// Put the copy back, if there is one. `OpenClaw` must not run.
    RestoreSnapshot,
    DropSnapshot,
    /// Install those integrations of a kept document that are missing. Answered by
    /// [`Answer::Integrations`].
    AddIntegrations {
        document: Sha256,
    },
    /// Remove what [`Self::AddIntegrations`] ever installed and is not in a kept document.
    RemoveIntegrations {
        document: Sha256,
    },
    /// Let these pairing requests in, as far as they wait and the newest document approves them.
    /// Answered by [`Answer::Pairings`].
    ApprovePairings {
        requests: BTreeSet<PairingId>,
    },
    /// `openclaw security audit`. Answered by [`Answer::Audit`].
    Audit,
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::secret_text::SecretText;

    fn adopt(value: &str) -> Request {
        let key = PlaintextKey::new(SecretText::new(value));
        Request::File(FileRequest::AdoptKey { key, certificate: String::new() })
    }

    #[test]
    fn a_key_is_sent_unescaped_and_never_printed() {
        let request = adopt("with \"quotes\"\nand lines");
        let line = serde_json::to_string(&request).unwrap();
        assert!(!line.contains('\\') && !line.contains("quotes"), "{line}");
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
        assert!(!format!("{request:?}").contains("quotes"));
    }

    #[test]
    fn a_value_that_is_not_base64_is_refused_without_repeating_it() {
        let line = r#"{"file":{"verb":"adopt-key","key":"hidden value","certificate":""}}"#;
        let error = serde_json::from_str::<Request>(line).unwrap_err().to_string();
        assert!(!error.contains("hidden"), "{error}");
    }

    #[rstest]
    #[case(r#"{"program":{"verb":"run","command":"id"}}"#)]
    #[case(r#"{"program":{"verb":"validate","config":"{}"}}"#)]
    #[case(r#"{"file":{"verb":"write-config","config":"{}"}}"#)]
    #[case(r#"{"file":{"verb":"set-secret","name":"a","value":"aGlkZGVu"}}"#)]
    #[case(r#"{"program":{"verb":"add-integrations","wanted":[]}}"#)]
    #[case(r#"{"program":{"verb":"approve-pairings","requests":["--all"]}}"#)]
    fn unknown_verbs_paths_and_options_are_refused(#[case] line: &str) {
        assert!(serde_json::from_str::<Request>(line).is_err(), "{line} was taken");
    }
}
