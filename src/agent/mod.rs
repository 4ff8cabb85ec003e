//! The operator's side of the agent's API: the port that the reconciler speaks to, and in `client`
//! the real one over the Cloudflare edge.

pub mod client;

use std::sync::Arc;

use async_trait::async_trait;
use moorage_wire::{
    AgentPublicKey, CredentialName, Epoch, InstanceId, Receipt, Report, Secret, Sha256,
    credential::SealedCredential,
    enrolment::{AgentIdentity, EnrolmentKey},
    handover::HandOver,
    problem::Problem,
    signature::OperatorKey,
};
use thiserror::Error;

use crate::master_key::{BearerToken, MasterKey};

/// What Cloudflare Access asks for before it lets a request through to a management host name.
#[derive(Debug)]
pub struct AccessHeaders {
    /// `CF-Access-Client-Id`.
    pub client_id: String,
    /// `CF-Access-Client-Secret`.
    pub client_secret: Secret,
}

/// How an agent is reached.
#[derive(Debug, Clone)]
pub struct AgentRoute {
    /// Its management host name: `Host`, SNI, and what the certificate must be for.
    pub host: String,
    /// A name of the same zone that is known to resolve: the edge is dialled by its address, so that
    /// no negative answer for a new name is ever cached. `None` to look `host` itself up.
    pub anchor: Option<String>,
    /// The pool's service token.
    pub access: Arc<AccessHeaders>,
}

/// The operator's keys for one server, derived from the master key.
pub struct ServerKeys {
    pub instance: InstanceId,
    /// The epoch of its server.
    pub epoch: Epoch,
    pub operator: Arc<OperatorKey>,
    /// Passes the first gate.
    pub bearer: Arc<BearerToken>,
    /// Verifies the agent's keys.
    pub enrolment: Arc<EnrolmentKey>,
}

impl ServerKeys {
    pub fn derive(master: &MasterKey, instance: InstanceId, epoch: Epoch) -> Self {
        Self {
            instance,
            epoch,
            operator: Arc::new(master.operator_key(instance, epoch)),
            bearer: Arc::new(master.bearer_token(instance, epoch)),
            enrolment: Arc::new(master.enrolment_key(instance, epoch)),
        }
    }
}

/// Calls to one agent. Nothing is repeated blindly: a request that may have arrived is an error, and
/// the reconciler looks again.
#[async_trait]
pub trait AgentApi: Send + Sync {
    /// Whether the names of routes are looked up, so that it matters since when they are known.
    fn looks_names_up(&self) -> bool {
        true
    }

    /// Learns the agent's keys and checks their proof. Works before enrolment (fresh challenge) and
    /// after it (signed request, stored proof), so that a lost status heals.
    async fn enrol(
        &self,
        route: &AgentRoute,
        keys: &ServerKeys,
    ) -> Result<AgentIdentity, AgentError>;

    /// What the agent has and how it is.
    async fn report(
        &self,
        route: &AgentRoute,
        keys: &ServerKeys,
        agent: AgentPublicKey,
    ) -> Result<Report, AgentError>;

    /// Replaces the desired state, if the agent still has the document `replaces`.
    async fn put_desired(
        &self,
        route: &AgentRoute,
        keys: &ServerKeys,
        agent: AgentPublicKey,
        document: Vec<u8>,
        replaces: Option<Sha256>,
    ) -> Result<(), AgentError>;

    /// Hands over one sealed value. The receipt's signature is verified.
    async fn put_credential(
        &self,
        route: &AgentRoute,
        keys: &ServerKeys,
        agent: AgentPublicKey,
        name: &CredentialName,
        sealed: &SealedCredential,
    ) -> Result<Receipt, AgentError>;

    /// Tells the agent the next key that it obeys, beside the one in force.
    async fn begin_hand_over(
        &self,
        route: &AgentRoute,
        keys: &ServerKeys,
        agent: AgentPublicKey,
        word: &HandOver,
    ) -> Result<(), AgentError>;

    /// Has the agent obey these keys alone.
    async fn end_hand_over(
        &self,
        route: &AgentRoute,
        keys: &ServerKeys,
        agent: AgentPublicKey,
    ) -> Result<(), AgentError>;
}

/// How far a call came that no agent answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// No connection to the edge: the name does not resolve, or TCP or TLS failed.
    Nothing,
    /// The edge, to whose tunnel no cloudflared is connected (530).
    Edge,
    /// cloudflared, which does not reach the agent (502, 503).
    Connector,
    /// Somewhere in between: an answer that tells no more, or none in time.
    Somewhere,
}

impl AgentError {
    /// No answer, and no word of how far the call came.
    pub fn unreachable(detail: impl Into<String>) -> Self {
        Self::Unreachable { reached: Reached::Somewhere, detail: detail.into() }
    }
}

/// Why a call to an agent gave nothing.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum AgentError {
    /// No answer: the name does not resolve, the tunnel is down, the server still boots. Passing.
    #[error("the agent does not answer: {detail}")]
    Unreachable {
        /// How far the call came.
        reached: Reached,
        /// What was met there, for the log.
        detail: String,
    },
    /// The edge takes the operator for a bot: a challenge (`cf-mitigated`), or a page with code 1010 or
    /// 1020.
    #[error("Cloudflare's bot protection or WAF stops the operator's call")]
    Challenged,
    /// The edge refuses our service token (403 of Cloudflare Access).
    #[error("Cloudflare Access refuses the operator's service token")]
    AccessDenied,
    /// The agent's keys are not ready yet (503).
    #[error("the agent is still making its keys")]
    NotReady,
    /// Its answer is not signed by the enrolled agent, or its proof is wrong.
    #[error("the answer is not of the agent of this server: {0}")]
    NotAuthentic(String),
    /// The agent refuses (a status of 4xx with a problem document that is signed or of gate one).
    #[error("the agent refuses: {}", .0.message)]
    Refused(Box<Problem>),
    /// An answer that cannot be read.
    #[error("the agent's answer cannot be read: {0}")]
    Malformed(String),
}
