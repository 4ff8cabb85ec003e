//! What the agent may ask of the worker: one JSON line in, one JSON line out, one request per
//! connection, on a Unix socket that only the agent can open. These are all operations on OpenClaw's
//! files and all uses of its command line; there is none that takes a path or a command, and none that
//! takes a configuration, an integration or a value but under the operator's own signature.
//!
//! No value of a credential travels here, but the key of an older agent once, as base64: a text without
//! escapes is read without intermediate copies, so that every copy can be overwritten.

use std::{collections::BTreeSet, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use moorage_wire::{CredentialName, Failure, Secret, Sha256};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

use crate::{secret_text::SecretText, signed::SignedCall};

/// Longest request, in bytes: a desired state of 1 MiB in base64, and what goes with it.
pub(crate) const LONGEST_REQUEST: usize = 1536 * 1024;
/// Longest answer, in bytes.
pub(crate) const LONGEST_ANSWER: usize = 256 * 1024;

/// A request.
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
        key: SealedText,
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
        /// The signed call.
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
        /// The signed call.
        call: SignedCall,
    },
    /// Erase all values of `secrets.json` but these.
    RetainSecrets {
        /// What stays.
        names: BTreeSet<CredentialName>,
    },
    /// Remove that file.
    RemoveGoogleClient,
    /// What is the live configuration? Answered by [`Answer::Config`].
    ConfigDigest,
    /// Make the configuration of a kept document the live one.
    WriteConfig {
        /// Which document.
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
        /// Which document.
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
    /// Remove the copy.
    DropSnapshot,
    /// Install those integrations of a kept document that are missing. Answered by
    /// [`Answer::Integrations`].
    AddIntegrations {
        /// Which document.
        document: Sha256,
    },
    /// Remove what [`Self::AddIntegrations`] ever installed and is not in a kept document.
    RemoveIntegrations {
        /// Which document.
        document: Sha256,
    },
    /// Let these pairing requests in, as far as they wait and the newest document approves them.
    /// Answered by [`Answer::Pairings`].
    ApprovePairings {
        /// Their ids.
        requests: BTreeSet<PairingId>,
    },
    /// `openclaw security audit`. Answered by [`Answer::Audit`].
    Audit,
}

/// An answer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", tag = "result")]
pub(crate) enum Answer {
    /// Done.
    Done,
    /// What credentials are sealed to.
    Certificate {
        /// PEM.
        certificate: String,
    },
    /// Nonces, in the order in which they are to be given.
    Nonces {
        /// Hexadecimal.
        nonces: Vec<String>,
    },
    /// Not done, and nothing has changed: it is not the operator's word, or it is not good.
    Refused {
        /// For the agent.
        reason: Refusal,
        /// For people; never holds a value.
        message: String,
    },
    /// The credentials that are there.
    Secrets(Held),
    /// The digest of the live configuration, if there is one.
    Config {
        /// Over its bytes.
        sha256: Option<Sha256>,
    },
    /// What `OpenClaw` says of itself.
    Version {
        /// As it says it.
        version: String,
    },
    /// What `OpenClaw` thinks of a configuration.
    Validation(Validation),
    /// Whether the running `OpenClaw` uses the live configuration.
    Applied {
        /// Whether it does.
        applied: bool,
    },
    /// What became of a reload.
    Reloaded(Reload),
    /// A verified backup was made.
    Backup {
        /// Its size in bytes.
        bytes: u64,
    },
    /// The file system of `OpenClaw`'s state.
    Room {
        /// Bytes free.
        free: u64,
        /// Bytes that the state takes.
        used: u64,
    },
    /// All of them are installed.
    Integrations {
        /// The ids under which the configuration knows the plugins.
        plugins: BTreeSet<String>,
    },
    /// What became of pairing requests.
    Pairings {
        /// Those that were let in just now.
        approved: BTreeSet<PairingId>,
        /// Those that OpenClaw does not let in. The others do not wait.
        refused: BTreeSet<PairingId>,
    },
    /// How many findings an audit had.
    Audit {
        /// Critical ones.
        critical: u64,
        /// Warnings.
        warn: u64,
    },
    /// Not done.
    Failed {
        /// For the journal and the report; never holds a value.
        message: String,
        /// As fields; absent from older workers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
}

/// Why the worker refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Refusal {
    /// The signature is not the operator's, or for another server, call or body.
    Signature,
    /// The operator signed with a nonce that is none of the worker's last ones, or a later call was
    /// taken: it has to be signed anew.
    Stale,
    /// It is not known who the operator is.
    Unprepared,
    /// Such a document is not kept.
    UnknownDocument,
    /// What is signed is not what the call takes.
    Invalid,
    /// The value is sealed to another key, or for another name or server.
    CannotUnseal,
    /// The value is not of the format of its type.
    InvalidFormat,
    /// There is another key already.
    OtherKey,
}

/// Which credentials are on the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Held {
    /// The names in `secrets.json`.
    pub(crate) names: BTreeSet<CredentialName>,
    /// Whether there is the file of a Google OAuth client.
    pub(crate) google_client: bool,
}

/// What `OpenClaw` thinks of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub(crate) enum Validation {
    /// It takes it.
    Valid,
    /// It rejects it, at this path if it names one.
    Invalid {
        /// Dotted, cleaned; `None` if it names none.
        path: Option<String>,
    },
}

/// What became of a reload of secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub(crate) enum Reload {
    /// `OpenClaw` uses what is on disk; if its gateway has a token, it was seen to.
    Done,
    /// Only a start helps.
    RestartNeeded {
        /// What its gateway was seen to do.
        because: Stale,
    },
}

/// What a gateway does that has not read its new token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stale {
    /// It refuses the new token.
    RefusesNew,
    /// It still takes the old one.
    TakesOld,
}

/// Secret text on its way to the worker.
#[derive(PartialEq, Eq)]
pub(crate) struct SealedText(SecretText);

impl SealedText {
    pub(crate) fn new(text: SecretText) -> Self {
        Self(text)
    }

    pub(crate) fn into_inner(self) -> SecretText {
        self.0
    }
}

impl fmt::Debug for SealedText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Serialize for SealedText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(BASE64.encode(self.0.expose())))
    }
}

impl<'de> Deserialize<'de> for SealedText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = SealedText;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a value in base64")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<SealedText, E> {
                let value = BASE64.decode(text).map(Secret::new).ok();
                let text = value.as_ref().and_then(Secret::expose_str).map(SecretText::new);
                // Not `invalid_value`: that would repeat it.
                text.map(SealedText).ok_or_else(|| E::custom("the value is not text in base64"))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// The id of a pairing request: what may stand on a command line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub(crate) struct PairingId(String);

impl PairingId {
    /// Takes 1 to 64 letters, digits, `-` and `_`, not beginning with `-`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let valid =
            (1..=64).contains(&text.len()) && !text.starts_with('-') && text.bytes().all(allowed);
        valid.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for PairingId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("no id of a pairing request"))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn adopt(value: &str) -> Request {
        let key = SealedText::new(SecretText::new(value));
        Request::File(FileRequest::AdoptKey { key, certificate: String::new() })
    }

    #[test]
    fn a_value_survives_its_journey_and_is_neither_escaped_nor_printed() {
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

    #[rstest]
    #[case("0b4c1f2e-6a0f-4d4e-9d7e-0a1b2c3d4e5f", true)]
    #[case("a_B-9", true)]
    #[case("--latest", false)]
    #[case("", false)]
    #[case("a b", false)]
    #[case("a\u{e9}", false)]
    #[case(&"a".repeat(65), false)]
    fn a_pairing_id_is_a_short_plain_word(#[case] text: &str, #[case] taken: bool) {
        assert_eq!(PairingId::parse(text).is_some(), taken);
    }
}
