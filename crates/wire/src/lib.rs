//! What the Moorage operator and its agents say to each other: identities, messages, the sealed
//! envelope and the signatures. Pure and synchronous; no IO, no HTTP client or server, nothing that
//! only one of the two sides needs.

pub mod bootstrap;
mod bounded;
pub mod credential;
pub mod desired;
pub mod digest;
pub mod enrolment;
pub mod envelope;
pub mod failure;
mod framing;
pub mod handover;
pub mod identity;
pub mod lower_hex;
pub mod plain_text;
pub mod problem;
pub mod program;
pub mod receipt;
pub mod report;
pub mod sealing;
pub mod secret;
pub mod signature;
mod white_space;

pub use credential::{CredentialName, CredentialType};
pub use desired::DesiredState;
pub use digest::Sha256;
pub use failure::Failure;
pub use identity::{AgentPublicKey, Epoch, InstallationId, InstanceId, OperatorPublicKey};
pub use plain_text::PlainText;
pub use program::Program;
pub use receipt::Receipt;
pub use report::Report;
pub use secret::Secret;

/// Paths of the agent's API, in one place for both sides.
pub mod path {
    /// Open: answers `ok` and nothing else.
    pub const HEALTHZ: &str = "/healthz";
    /// Open until the first signed call, then signed: the agent's keys and their proof.
    pub const ENROLMENT: &str = "/v1/enrolment";
    /// Signed: what the agent has and how it is.
    pub const REPORT: &str = "/v1/report";
    /// Signed: the whole desired state.
    pub const DESIRED: &str = "/v1/desired";
    /// Signed. PUT: the next key that the agent obeys. DELETE: the key that signs this call stays alone.
    pub const HANDOVER: &str = "/v1/handover";
    /// Signed, followed by `/{name}`: one sealed value.
    pub const CREDENTIALS: &str = "/v1/credentials";
}
