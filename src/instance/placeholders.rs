//! Things that are not made yet, as they will look once they are: for forecasts, for what is known of
//! the world from records alone, and for tests. Nothing is encrypted or verified with what stands in.

use moorage_wire::{
    CredentialName, CredentialType, Epoch, Program, Receipt, Report, Sha256,
    desired::Artifacts,
    enrolment::AgentIdentity,
    report::{
        CloudflaredHealth, ConvergenceState, DesiredProgress, Details, InstalledProgram, Machine,
        OpenClawHealth, OpenClawState,
    },
};

use super::{
    Wanted,
    observed::{AgentKeys, AgentState, AgentView, OwnTokens},
};
use crate::{
    cloudflare::{DnsRecord, NewDnsRecord, RecordId, Tunnel, TunnelId},
    credentials::secret_source::SecretVersion,
    hetzner::{
        AppliedFirewall, FirewallId, FirewallStatus, KnownType, Named, Protection, PublicNet,
        Server, ServerId, ServerStatus as Power,
    },
    names,
};

/// The id that a tunnel has here until it is made.
pub(super) const NEW_TUNNEL: &str = "00000000-0000-0000-0000-000000000000";

/// The version of a Secret that was not read from a cluster.
pub fn version() -> SecretVersion {
    SecretVersion { uid: String::new(), resource_version: String::new() }
}

/// Digests that stand for tokens which only the operator can derive.
pub fn tokens(epoch: Epoch) -> OwnTokens {
    let of = |what: &str| Sha256::of(format!("{what} {epoch}").as_bytes());
    OwnTokens { gateway: of("gateway"), tunnel: of("tunnel") }
}

/// A receipt as the planner sees it: its signature was checked, or never will be, so it has none.
pub fn receipt(
    (instance_id, epoch): (moorage_wire::InstanceId, Epoch),
    credential: CredentialName,
    kind: CredentialType,
    source_sha256: Sha256,
    stored_at: jiff::Timestamp,
) -> Receipt {
    Receipt {
        instance_id,
        epoch,
        credential,
        r#type: kind,
        source_sha256,
        stored_at,
        signature: String::new(),
    }
}

/// An agent that was just enrolled and has nothing yet.
pub fn enrolled(
    wanted: &Wanted,
    epoch: Epoch,
    keys: &AgentKeys,
    at: jiff::Timestamp,
) -> AgentState {
    let identity = AgentIdentity {
        instance_id: wanted.subject.instance,
        epoch,
        public_key: keys.public_key,
        sealing_certificate: keys.certificate.pem().to_owned(),
        proof: Sha256::of(&[]),
        tunnel_certificate: None,
    };
    let first = Sha256::of(b"the token of user-data");
    let report = Report {
        identity,
        agent_version: wanted.release.artifacts.agent.version.as_str().into(),
        desired: DesiredProgress {
            digest: None,
            state: ConvergenceState::Waiting,
            failed: Vec::new(),
        },
        receipts: Vec::new(),
        consumed: Vec::new(),
        openclaw: OpenClawHealth {
            state: OpenClawState::Stopped,
            version: None,
            message: None,
            failure: None,
        },
        cloudflared: CloudflaredHealth {
            connected: true,
            active_token_sha256: Some(first),
            token_sha256: vec![first],
        },
        machine: Machine {
            disk_free_bytes: 0,
            memory_available_bytes: 0,
            reboot_pending: false,
            setup_done: true,
        },
        details: Details {
            // What user-data brings.
            programs: installed(&wanted.release.artifacts, &[Program::Cloudflared, Program::Agent]),
            ..Details::default()
        },
    };
    let keys = keys.clone();
    let view = AgentView { keys, report, at, stale: false, same_versions_before: false };
    AgentState::Reported(Box::new(view))
}

/// These programs of a release, in use.
pub fn installed(artifacts: &Artifacts, programs: &[Program]) -> Vec<InstalledProgram> {
    let one = |program: &Program| {
        let artifact = program.pinned(artifacts);
        let (kind, version) = ((*program).into(), Some(artifact.version.as_str().into()));
        InstalledProgram { kind, sha256: artifact.sha256, version, active: true }
    };
    programs.iter().map(one).collect()
}

/// A firewall that protects a server.
pub(super) fn applied(id: FirewallId) -> AppliedFirewall {
    AppliedFirewall { id, status: FirewallStatus::Applied }
}

/// A server of this life at the first placement.
pub fn new_server(wanted: &Wanted, epoch: Option<Epoch>) -> Server {
    let place = wanted.usable_placements().next();
    let subject = &wanted.subject;
    Server {
        id: ServerId(u64::MAX),
        name: names::server(&subject.hostname, subject.instance),
        status: Power::Running,
        created: subject.created,
        labels: epoch.map(|epoch| subject.server_identity(epoch).labels()).unwrap_or_default(),
        server_type: KnownType {
            name: place.map(|place| place.server_type.clone()).unwrap_or_default(),
            architecture: None,
        },
        location: place.map(|place| Named { name: place.location.clone() }),
        public_net: PublicNet { firewalls: vec![applied(wanted.firewall)], ..PublicNet::default() },
        locked: false,
        rescue_enabled: false,
        protection: Protection::default(),
    }
}

/// A tunnel with the right name. Its id is not known before it is made.
///
/// # Panics
/// Never: the id that stands in for it is one.
pub fn new_tunnel(wanted: &Wanted) -> Tunnel {
    let subject = &wanted.subject;
    Tunnel {
        id: TunnelId::parse(NEW_TUNNEL).expect("the nil UUID is a UUID"),
        name: subject.tunnel_name(),
        status: None,
        created_at: None,
        deleted_at: None,
    }
}

/// The record that a new one becomes.
///
/// # Panics
/// If the name is not a host name.
pub fn new_record(post: &NewDnsRecord) -> DnsRecord {
    let id: String =
        post.name.chars().map(|letter| if letter == '.' { '-' } else { letter }).take(64).collect();
    DnsRecord {
        id: RecordId::parse(id).expect("a host name without dots is letters, digits and -"),
        name: post.name.clone(),
        record_type: post.record_type.clone(),
        content: Some(post.content.clone()),
        proxied: Some(post.proxied),
        comment: Some(post.comment.clone()),
        created_on: None,
    }
}
