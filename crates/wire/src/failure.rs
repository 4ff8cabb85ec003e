//! What failed on a server, as fields: the operator decides and words its messages by them. No text in
//! them decides anything.

use serde::{Deserialize, Serialize};

use crate::{plain_text::PlainText, program::Component};

/// What failed, where and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// What it happened to; absent if to the server as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Component>,
    /// Of an integration, its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration: Option<PlainText<128>>,
    /// Whether another version of the program was on trial, rather than another configuration.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub update: bool,
    /// What was being done.
    pub stage: Stage,
    /// What the operator decides by.
    pub code: FailureCode,
    /// For people: what the code leaves open, such as an exit status. No figure in it changes from one
    /// attempt to the next, and no value of a credential is in it.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub detail: PlainText,
}

impl Failure {
    /// A failure of the server as a whole, without details.
    pub fn new(stage: Stage, code: FailureCode) -> Self {
        let detail = PlainText::default();
        Self { program: None, integration: None, update: false, stage, code, detail }
    }

    /// The same, of a program.
    #[must_use]
    pub fn of(self, program: impl Into<Component>) -> Self {
        Self { program: Some(program.into()), ..self }
    }

    /// The same, of an integration.
    #[must_use]
    pub fn of_integration(self, name: &str) -> Self {
        let integration = Some(PlainText::new(name));
        Self { program: Some(Component::Integration), integration, ..self }
    }

    /// The same, while another version was on trial.
    #[must_use]
    pub fn in_update(self) -> Self {
        Self { update: true, ..self }
    }

    /// The same, with what the code leaves open.
    #[must_use]
    pub fn with_detail(self, detail: &str) -> Self {
        Self { detail: PlainText::new(detail), ..self }
    }
}

/// What was being done when something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Getting ready: free space, backup, a copy of the data.
    Preparation,
    /// Fetching an artifact from the URL of the release.
    Download,
    /// Comparing an artifact with what the release pins.
    Verification,
    /// Unpacking an artifact that was verified.
    Unpacking,
    /// Installing what was unpacked.
    Installation,
    /// Checking or writing a configuration.
    Configuration,
    /// Starting a process, until it answers on its socket.
    Start,
    /// Waiting until a process that was started works.
    Health,
    /// Waiting for a call of the operator after an update of the agent.
    Confirmation,
    /// Having a running process take up a new secret or token.
    Reload,
    /// Another operation on OpenClaw: its command line, or its files.
    Operation,
    /// Reading or writing the agent's own files.
    Storage,
    /// A stage of a newer agent.
    #[serde(other)]
    Unknown,
}

/// What went wrong. New codes are read as [`FailureCode::Unknown`] by older operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureCode {
    /// The server with the artifact cannot be reached, or the connection broke.
    Unreachable,
    /// That server answers with a status other than success; the detail is the status.
    HttpStatus,
    /// The release's URL cannot be used.
    InvalidUrl,
    /// The size or the digest is not the pinned one.
    WrongBytes,
    /// The bytes are the pinned ones, and they are no usable artifact.
    BadArtifact,
    /// The release does not pin all of an integration, so it is not installed.
    NotPinned,
    /// OpenClaw rejects the configuration.
    ConfigRejected,
    /// A process ended, repeatedly or for good.
    ProcessEnded,
    /// A process did not work before the deadline.
    DeadlineExceeded,
    /// No call of the operator reached a new agent before the deadline.
    NotConfirmed,
    /// Power cuts or restarts interrupted a trial too often.
    Interrupted,
    /// The same version failed before and was rolled back.
    FailedBefore,
    /// The disk is full, or has too little free space.
    NoSpace,
    /// Something else has to be done or to work first.
    Deferred,
    /// A command failed or gave no readable answer.
    CommandFailed,
    /// A part of the agent (its worker or installer) does not answer or refuses.
    ServiceFailed,
    /// The operating system refused.
    System,
    /// A running process did not take up a new secret or token.
    NotTakenUp,
    /// A code of a newer agent.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Program;

    #[test]
    fn a_failure_is_written_with_only_what_it_has() {
        let failure = Failure::new(Stage::Health, FailureCode::DeadlineExceeded)
            .of(Program::Cloudflared)
            .in_update()
            .with_detail("60 s");
        let text = r#"{"program":"cloudflared","update":true,"stage":"health","code":"deadline-exceeded","detail":"60 s"}"#;
        assert_eq!(serde_json::to_string(&failure).unwrap(), text);
        assert_eq!(serde_json::from_str::<Failure>(text).unwrap(), failure);
        let text = r#"{"stage":"preparation","code":"no-space"}"#;
        let failure = Failure::new(Stage::Preparation, FailureCode::NoSpace);
        assert_eq!(serde_json::to_string(&failure).unwrap(), text);
        assert_eq!(serde_json::from_str::<Failure>(text).unwrap(), failure);
    }

    #[test]
    fn words_of_a_newer_agent_are_read_as_unknown() {
        let text = r#"{"program":"kernel","stage":"boot","code":"on-fire","since":"1970"}"#;
        let failure: Failure = serde_json::from_str(text).unwrap();
        let unknown = Failure::new(Stage::Unknown, FailureCode::Unknown).of(Component::Unknown);
        assert_eq!(failure, unknown);
    }
}
