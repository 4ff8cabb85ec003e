//! What was seen of an instance: the clouds by the sweep, the agent by its report, the Secrets by
//! name, and what was written to the status before.

use std::collections::BTreeMap;

use jiff::Timestamp;
use moorage_wire::{
    AgentPublicKey, CredentialName, Epoch, Receipt, Report, Sha256, sealing::SealingCertificate,
};

use super::{Wanted, handover::OperatorKeys, rotation::Repetitions};
use crate::{
    agent::AgentError,
    api::{OpenClawInstanceStatus, annotation::Rebuild},
    cloudflare::{DnsRecord, Tunnel},
    credentials::{
        bundle::{Bundle, HandedIn, read_inline, read_secret},
        refusal::Refusal,
        secret_source::{SecretVersion, SecretView},
    },
    hetzner::{Action, Server, ServerId},
};

/// What was seen of an instance in this pass.
#[derive(Debug, Default)]
pub struct Observed {
    /// The status as it stands in the cluster; ids in it are trusted as far as they are confirmed.
    pub status: OpenClawInstanceStatus,
    /// The tunnel with this instance's name.
    pub tunnel: Option<Tunnel>,
    /// DNS records at the instance's host names, all of them ours: foreign ones were refused before.
    pub records: Vec<DnsRecord>,
    /// DNS records of ours at other host names: of an earlier instance of the name, whose finalizer was
    /// taken away.
    pub stray_records: Vec<DnsRecord>,
    pub server: ServerState,
    /// Servers that have the instance's labels and are not its server.
    pub copies: Vec<ServerId>,
    /// What Hetzner last failed to do with the server, where it is late and that was asked.
    pub failed_action: Option<Action>,
    /// The life of the server: from the status, or from the server's labels if the status was lost.
    pub epoch: Option<Epoch>,
    /// An epoch for the next server, should one be made.
    pub fresh_epoch: Option<Epoch>,
    /// What this process knows of the tunnel.
    pub tunnel_memory: TunnelMemory,
    pub agent: AgentState,
    /// The Secrets that hold values for this instance.
    pub bundles: Vec<Bundle>,
    /// Values handed in, in Secrets and inline, by credential.
    pub handed_in: BTreeMap<CredentialName, Result<HandedIn, Refusal>>,
    /// Values that the agent refused in this pass, with its words.
    pub agent_refused: BTreeMap<CredentialName, String>,
    /// Digests of Moorage's own tokens for this server; known as soon as there is an epoch.
    pub own_tokens: Option<OwnTokens>,
    /// The id of the master key that the server obeys: recorded, or found out by asking. Nothing before
    /// there is a server, and while it cannot be found out.
    pub master_key_id: Option<String>,
    pub newest_master_key_id: Option<String>,
    /// The operator's keys that belong to the master keys; known as soon as there is an epoch.
    pub operator_keys: Option<OperatorKeys>,
    pub dashboard_secret: DashboardState,
    /// The Secret that the status names and the spec does not, if it is there and ours.
    pub former_dashboard: Option<SecretVersion>,
    /// Whether a person accepts that this many missing servers are recreated.
    pub accepted_loss: bool,
    /// How many servers of the pool are missing, and how many it should have.
    pub disappearance: Disappearance,
    pub now: Timestamp,
}

impl Observed {
    /// Takes in what a Secret of the instance's namespace holds for it; `None` if there is none.
    pub fn take_secret(&mut self, wanted: &Wanted, secret: &str, view: Option<&SecretView>) {
        let bundle = read_secret(wanted.subject.reference(), secret, view, &wanted.credentials);
        self.handed_in.extend(bundle.values.clone());
        self.bundles.push(bundle);
    }

    /// Whether so much is missing at once that nothing may be replaced or recreated: no person has accepted
    /// the loss.
    pub fn is_mass_loss(&self) -> bool {
        self.disappearance.is_mass() && !self.accepted_loss
    }

    /// Takes in the values that stand in the spec itself.
    pub fn take_inline(&mut self, wanted: &Wanted) {
        for request in &wanted.credentials {
            if let Some(value) = read_inline(wanted.subject.reference(), request) {
                self.handed_in.insert(request.name.clone(), value);
            }
        }
    }
}

/// Whether the server is there, as the sweeps and the status have it.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum ServerState {
    /// None was ever made in this epoch.
    #[default]
    None,
    Present(Box<Server>),
    /// It was there, the sweep does not show it, and a look by id confirms that it is gone.
    Gone,
}

impl ServerState {
    /// The server, if it is there.
    pub fn present(&self) -> Option<&Server> {
        match self {
            Self::Present(server) => Some(server),
            Self::None | Self::Gone => None,
        }
    }
}

/// SHA-256 of the tokens that Moorage derives for a server: what their receipts name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnTokens {
    pub gateway: Sha256,
    /// The tunnel token that replaces the one from user-data.
    pub tunnel: Sha256,
}

/// What this process did to the tunnel. A process that does not know does it again: each is
/// idempotent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TunnelMemory {
    /// The epoch whose bootstrap secret the tunnel was given.
    pub bootstrapped: Option<Epoch>,
    /// Digest of the ingress rules that were put or compared, and when.
    pub rules: Option<(Sha256, Timestamp)>,
    /// When the rotated token was made the only valid one; nothing while that is under way.
    pub rotated: Option<Timestamp>,
    /// How often that was repeated.
    pub repetitions: Repetitions,
}

/// How many servers of a pool are missing at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Disappearance {
    /// Servers in statuses that the sweep does not show.
    pub missing: usize,
    /// Servers in statuses.
    pub total: usize,
}

impl Disappearance {
    /// Whether the absence of an instance's server says something of the project. What is being deleted
    /// or was replaced by its own tenant does not, nor does what nobody looks after meanwhile.
    pub fn counts(server: u64, deleting: bool, suspended: bool, rebuild: Rebuild) -> bool {
        !deleting && !suspended && !rebuild.asks_for(server)
    }

    /// More than 3 and more than 10 %: rather a wrong token or an accident than single losses.
    pub fn is_mass(self) -> bool {
        self.missing > 3 && self.missing * 10 > self.total
    }
}

/// What is known of the agent.
#[derive(Debug, Default)]
pub enum AgentState {
    #[default]
    NotAsked,
    /// It was asked and gave nothing.
    Silent(AgentError),
    /// It is enrolled and reported.
    Reported(Box<AgentView>),
}

/// An enrolled agent and its last report.
#[derive(Debug, Clone)]
pub struct AgentView {
    pub keys: AgentKeys,
    pub report: Report,
    /// When it was given.
    pub at: Timestamp,
    /// Whether the agent was silent since, for a moment so short that it is not worth a word.
    pub stale: bool,
    /// Whether the report before it, of the same server, named the same versions.
    pub same_versions_before: bool,
}

/// The keys of an enrolled agent.
#[derive(Debug, Clone)]
pub struct AgentKeys {
    /// Verifies its answers and receipts.
    pub public_key: AgentPublicKey,
    /// What values for it are sealed to.
    pub certificate: SealingCertificate,
}

impl AgentState {
    /// The agent, if it reported.
    pub fn view(&self) -> Option<&AgentView> {
        match self {
            Self::Reported(view) => Some(view),
            Self::NotAsked | Self::Silent(_) => None,
        }
    }
}

impl AgentView {
    /// Whether both reports name the same versions of the agent and of OpenClaw.
    pub fn has_versions_of(&self, other: &Report) -> bool {
        let versions =
            |report: &Report| (report.agent_version.clone(), report.openclaw.version.clone());
        versions(&self.report) == versions(other)
    }

    /// The receipt for what is stored under `name` now.
    pub fn receipt(&self, name: &CredentialName) -> Option<&Receipt> {
        self.report.receipts.iter().find(|receipt| receipt.credential == *name)
    }

    /// What the tunnel's token is sealed to: the agent's own certificate, by its signature. An older agent
    /// has none, and opens everything with one key.
    pub fn tunnel_certificate(&self) -> Result<SealingCertificate, AgentError> {
        let own = self.report.identity.tunnel_certificate_of(&self.keys.public_key);
        let not_authentic = |error: &dyn std::fmt::Display| {
            AgentError::NotAuthentic(format!("its certificate for the tunnel's token: {error}"))
        };
        match own.map_err(|error| not_authentic(&error))? {
            Some(pem) => SealingCertificate::parse(pem).map_err(|error| not_authentic(&error)),
            None => Ok(self.keys.certificate.clone()),
        }
    }

    /// Whether this ciphertext was ever consumed.
    pub fn consumed(&self, name: &CredentialName, source: &Sha256) -> bool {
        let same = |known: &&moorage_wire::report::Consumed| {
            known.credential == *name && known.source_sha256 == *source
        };
        self.report.consumed.iter().any(|known| same(&known))
    }
}

/// The Secret that a customer asked the dashboard's token to be put into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DashboardState {
    /// None was asked for.
    #[default]
    NotWanted,
    /// It is not there.
    Absent,
    /// It is ours and holds what it should; the exact object.
    Current(SecretVersion),
    /// It is ours and holds something else; the exact object.
    Stale(SecretVersion),
    /// It is somebody else's.
    Foreign,
}

#[cfg(test)]
mod tests {
    use moorage_wire::{Secret, signature::AgentKey};

    use super::*;
    use crate::{
        credentials::test_keys,
        instance::{
            fixtures::{FIRST_EPOCH, agent_keys, now, wanted},
            placeholders::enrolled,
        },
    };

    #[test]
    fn the_tunnels_token_goes_to_the_agents_own_certificate() {
        let state = enrolled(&wanted(), FIRST_EPOCH, &agent_keys(), now());
        let view = state.view().unwrap().clone();
        let sealing = view.keys.certificate.fingerprint();
        let older = view.tunnel_certificate().unwrap();
        assert_eq!(older.fingerprint(), sealing, "an older agent has one key for everything");

        let own = test_keys::key(2).certificate().pem().to_owned();
        let signed_by = |seed: u8| {
            let key = AgentKey::from_seed(&Secret::from([seed; 32]));
            let mut view = view.clone();
            let identity = view.report.identity.clone();
            view.report.identity = identity.with_tunnel_certificate(&key, own.clone());
            view
        };
        let certificate = signed_by(5).tunnel_certificate().unwrap();
        assert_eq!(certificate.fingerprint(), test_keys::key(2).certificate().fingerprint());
        let forged = signed_by(6).tunnel_certificate();
        assert!(matches!(forged, Err(AgentError::NotAuthentic(_))), "{forged:?}");
    }
}
