//! What an instance should be: its spec with everything that it refers to, checked once. All that
//! comes after this trusts it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use moorage_wire::{
    CredentialName, Epoch, InstallationId, InstanceId,
    desired::{Artifacts, Integration},
};
use serde_json::{Map, Value};

use crate::{
    api::{
        OpenClawInstanceStatus,
        annotation::{Mark, Rebuild},
        instance::DeletionPolicy,
        pool::{ConnectorProtocol, SshSpec},
        release::Architecture,
    },
    cloudflare::{AccountId, TunnelId},
    credentials::{bundle::InstanceRef, refusal::Refusal, secret_source::CredentialRequest},
    hetzner::{self, FirewallId, ServerId},
    master_key::{GatewayGeneration, GatewayLife},
    names::{self, ServerIdentity},
    ownership::{self, Owner, Recorded},
};

/// What one instance should be.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub subject: Subject,
    /// The pool's Cloudflare account.
    pub account: AccountId,
    /// Server type and location, in the order in which they are tried; never empty.
    pub placements: Vec<Placement>,
    /// The pool's firewall, which stands before the server all its life.
    pub firewall: FirewallId,
    /// The image that the server boots.
    pub image: String,
    /// Whether it gets a public IPv4 address.
    pub ipv4: bool,
    /// The pool's SSH fallback.
    pub ssh: Option<SshSpec>,
    /// How its connector reaches Cloudflare.
    pub connector_protocol: ConnectorProtocol,
    /// The customer's configuration, checked.
    pub config: Map<String, Value>,
    pub release: Release,
    /// The customer's credentials that can be understood.
    pub credentials: Vec<CredentialRequest>,
    pub credential_refusals: Vec<Refusal>,
    pub approved_pairings: BTreeSet<String>,
    /// Which of the dashboard's tokens is the present one.
    pub gateway_generation: GatewayGeneration,
    /// The Secret for the dashboard's URL and token.
    pub dashboard_secret: Option<String>,
    /// Value of the annotation `moorage.dev/retry`.
    pub retry: Option<Mark>,
    /// The server that is to be replaced on purpose.
    pub rebuild: Rebuild,
}

/// Who an instance is: what stays the same for its whole life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub namespace: String,
    pub name: String,
    /// Kubernetes' id of the object.
    pub uid: String,
    /// When the object was made.
    pub created: Timestamp,
    /// Its id: computed, or the one that a version before this one drew for it.
    pub instance: InstanceId,
    pub installation: InstallationId,
    pub pool: String,
    /// First label of its host name.
    pub hostname: String,
    pub domain: String,
    /// What becomes of it in the end.
    pub deletion_policy: DeletionPolicy,
}

impl Subject {
    /// What it asks with which objects are its own.
    pub fn owner(&self, status: &OpenClawInstanceStatus) -> Owner {
        let server = status.server.as_ref().and_then(|server| server.id).map(ServerId);
        let tunnel = status.tunnel.as_ref().and_then(|tunnel| TunnelId::parse(&tunnel.id).ok());
        Owner {
            installation: self.installation,
            instance: self.instance,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            hostname: self.hostname.clone(),
            domain: self.domain.clone(),
            recorded: Recorded { server, tunnel },
        }
    }

    /// Whether it keeps an id that a version before this one drew at random.
    pub fn has_earlier_id(&self) -> bool {
        self.instance != ownership::instance_id(self.installation, &self.namespace, &self.name)
    }

    /// What its gateway token is bound to while the server of `epoch` is its own.
    pub fn gateway_life(&self, epoch: Epoch) -> GatewayLife {
        if self.has_earlier_id() { GatewayLife::Instance } else { GatewayLife::Server(epoch) }
    }

    pub fn tunnel_name(&self) -> String {
        names::tunnel(self.installation, self.instance)
    }

    /// The comment on its DNS records.
    pub fn record_comment(&self) -> String {
        names::record_comment(self.installation, self.instance, &self.namespace, &self.name)
    }

    /// The comment on DNS records that it leaves behind.
    pub fn retained_comment(&self) -> String {
        names::retained_comment(self.installation, self.instance, &self.namespace, &self.name)
    }

    /// What reading its credentials takes.
    pub fn reference(&self) -> InstanceRef<'_> {
        InstanceRef { namespace: &self.namespace, name: &self.name, created: self.created }
    }

    /// The host name of the dashboard.
    pub fn dashboard_host(&self) -> String {
        let [dashboard, _] = self.hosts();
        dashboard
    }

    /// The host name of the management API.
    pub fn management_host(&self) -> String {
        let [_, management] = self.hosts();
        management
    }

    /// Those of the dashboard and of the management API.
    pub fn hosts(&self) -> [String; 2] {
        names::hosts(&self.hostname, &self.domain)
    }

    /// The labels of its server in the life called `epoch`.
    pub fn server_identity(&self, epoch: Epoch) -> ServerIdentity<'_> {
        ServerIdentity {
            installation: self.installation,
            instance: self.instance,
            epoch,
            namespace: &self.namespace,
            name: &self.name,
            pool: &self.pool,
        }
    }
}

/// One try at making a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Such as `cx33`.
    pub server_type: String,
    /// Such as `fsn1`.
    pub location: String,
    /// What is known of it before it is tried.
    pub prospect: Prospect,
}

/// What is known of a place before a server is asked for there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prospect {
    /// Nothing speaks against it.
    Open,
    /// It was out of stock when the catalogue was read: tried after all others.
    SoldOut,
    /// Hetzner does not have such a type, or does not sell it there.
    NotOffered,
    /// Its processor does not run the release.
    WrongArchitecture,
}

/// A release with what the instance may take from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    pub name: String,
    pub artifacts: Artifacts,
    /// What all of them run on.
    pub architecture: Architecture,
    /// The integrations that the instance asks for, at their approved versions.
    pub integrations: Vec<Integration>,
}

impl Release {
    /// An integration that a server without it would not install.
    pub fn barred(&self) -> Option<&Integration> {
        self.integrations.iter().find(|one| one.is_barred())
    }

    /// Whether a processor runs its programs.
    pub fn runs_on(&self, processor: &hetzner::Architecture) -> bool {
        let needed = match self.architecture {
            Architecture::X86 => hetzner::Architecture::X86,
            Architecture::Arm => hetzner::Architecture::Arm,
        };
        *processor == needed
    }
}

impl Wanted {
    /// Where a server can be made, in the order of the tries.
    pub fn usable_placements(&self) -> impl Iterator<Item = &Placement> {
        let with =
            |prospect| self.placements.iter().filter(move |place| place.prospect == prospect);
        with(Prospect::Open).chain(with(Prospect::SoldOut))
    }

    /// The names of the customer's credentials.
    pub fn credential_names(&self) -> impl Iterator<Item = &CredentialName> {
        self.credentials.iter().map(|request| &request.name)
    }
}

/// All combinations of types and locations, in the order of preference: the first type in all of its
/// locations, then the next.
pub fn placements(
    types: &[String],
    locations: &[String],
    prospect: impl Fn(&str, &str) -> Prospect,
) -> Vec<Placement> {
    let pair = |server_type: &String, location: &String| Placement {
        server_type: server_type.clone(),
        location: location.clone(),
        prospect: prospect(server_type, location),
    };
    types.iter().flat_map(|kind| locations.iter().map(move |place| pair(kind, place))).collect()
}

/// Narrows the pool's list to the wishes, in the order of the wishes; all of it without wishes.
///
/// # Errors
/// With the wishes that the pool does not offer.
pub fn narrow<T>(offered: &[T], wishes: &[T]) -> Result<Vec<String>, Vec<String>>
where
    T: PartialEq + ToString,
{
    let texts = |list: &[T]| list.iter().map(ToString::to_string).collect();
    if wishes.is_empty() {
        return Ok(texts(offered));
    }
    let unknown = wishes.iter().filter(|wish| !offered.contains(wish));
    let unknown: Vec<_> = unknown.map(ToString::to_string).collect();
    if unknown.is_empty() { Ok(texts(wishes)) } else { Err(unknown) }
}
