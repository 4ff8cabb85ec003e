//! The model world: what the API server, both clouds and the servers hold. The ports in `hetzner`,
//! `cloudflare`, `cluster` and `agents` read and write it, and what must always hold is checked at every
//! write (`invariants`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use moorage_wire::{
    CredentialName, Epoch, InstallationId, InstanceId, Receipt, Secret, Sha256,
    report::{Consumed, ConvergenceState},
};
use parking_lot::{Mutex, MutexGuard};

use super::dice::Dice;
use crate::{
    api::{FINALIZER, OpenClawInstance},
    cloudflare::{DnsRecord, Tunnel, TunnelConfiguration},
    hetzner::{Action, Server, ServerStatus},
    master_key::MasterKey,
    master_keys::{KeyPlace, MasterKeys},
};

/// Namespace and name.
pub(super) type Key = (String, String);

pub(super) const INSTALLATION: InstallationId = InstallationId::from_bytes([0xbb; 8]);
pub(super) const DOMAIN: &str = "example.com";
pub(super) const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";

/// The key that everything is derived from.
pub(super) static MASTER_KEYS: LazyLock<MasterKeys> = LazyLock::new(|| {
    let bytes: [u8; 32] = std::array::from_fn(|index| u8::try_from(index).unwrap_or_default());
    let key = MasterKey::new(Secret::from(bytes), INSTALLATION).expect("no byte is repeated");
    MasterKeys::only(key, KeyPlace::File)
});

/// How unreliable the world is, each in so many of a thousand calls.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    /// A call fails and has no effect.
    pub(super) refused: u64,
    /// A call has its effect, and the answer is lost.
    pub(super) unanswered: u64,
    /// The operator dies, before or after the effect of a call.
    pub(super) death: u64,
    /// A list lacks one object that is there.
    pub(super) incomplete: u64,
}

/// How much happens in a life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Calls of all processes to all ports.
    pub(super) calls: u64,
    /// Calls that failed, or whose answer was lost.
    pub(super) faults: u64,
    /// Passes over an instance.
    pub(super) passes: u64,
    /// Processes that died in the middle of something.
    pub(super) deaths: u64,
    /// Things that people did.
    pub(super) deeds: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.faults += other.faults;
        self.passes += other.passes;
        self.deaths += other.deaths;
        self.deeds += other.deeds;
    }
}

/// A server and the agent on it.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) server: Server,
    /// For whom it was made, whatever its labels say; nobody if a person made it.
    pub(super) owner: Option<Key>,
    pub(super) instance: InstanceId,
    pub(super) epoch: Epoch,
    pub(super) tunnel: String,
    /// The tunnel's tokens that it holds, by their digests: the newest last.
    pub(super) tokens: Vec<Sha256>,
    pub(super) desired: Option<Sha256>,
    pub(super) progress: ConvergenceState,
    pub(super) converged_once: bool,
    pub(super) stored: BTreeMap<CredentialName, Receipt>,
    pub(super) consumed: Vec<Consumed>,
    pub(super) silent: bool,
    /// What it is for ever instead of running; one that is off runs when it is powered on.
    pub(super) stuck: Option<ServerStatus>,
}

/// A tunnel at Cloudflare.
#[derive(Debug)]
pub(super) struct TunnelThere {
    pub(super) tunnel: Tunnel,
    pub(super) owner: Option<Key>,
    /// The digest of the token that opens it.
    pub(super) token: Sha256,
    pub(super) configuration: Option<TunnelConfiguration>,
    /// The server whose connection is open.
    pub(super) connected: Option<u64>,
}

/// A DNS record.
#[derive(Debug)]
pub(super) struct RecordThere {
    pub(super) record: DnsRecord,
    pub(super) owner: Option<Key>,
}

/// A Secret of a tenant's namespace.
#[derive(Debug, Clone)]
pub(super) struct SecretThere {
    pub(super) uid: String,
    pub(super) version: u64,
    pub(super) created: Timestamp,
    pub(super) kind: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) data: BTreeMap<String, Vec<u8>>,
    /// The UID of the instance that controls it.
    pub(super) controller: Option<String>,
}

/// A resolver before name servers to which a record comes some time after it was made. Of a name that they
/// did not have it says for half an hour that there is none.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    denied: BTreeMap<String, Timestamp>,
}

impl Resolver {
    const DELAY: SignedDuration = SignedDuration::from_secs(90);
    const MEMORY: SignedDuration = SignedDuration::from_mins(30);

    /// Whether a name resolves of which a record was made then, if there is one.
    fn finds(&mut self, name: &str, made: Option<Timestamp>, now: Timestamp) -> bool {
        if self.denied.get(name).is_some_and(|since| now < *since + Self::MEMORY) {
            return false;
        }
        let there = made.is_some_and(|made| now >= made + Self::DELAY);
        if !there {
            self.denied.insert(name.to_owned(), now);
        }
        there
    }
}

/// Everything there is.
pub(super) struct State {
    pub(super) dice: Dice,
    pub(super) now: Timestamp,
    /// Numbers objects and their versions.
    pub(super) counter: u64,
    pub(super) instances: BTreeMap<Key, OpenClawInstance>,
    pub(super) secrets: BTreeMap<Key, SecretThere>,
    pub(super) servers: BTreeMap<u64, Machine>,
    pub(super) tunnels: BTreeMap<String, TunnelThere>,
    pub(super) records: BTreeMap<String, RecordThere>,
    /// For whom each ciphertext is.
    pub(super) sealed_for: BTreeMap<Sha256, Key>,
    /// The ciphertexts that ever came to an instance's server.
    pub(super) stored: BTreeSet<(Key, Sha256)>,
    /// Instances whose finalizer a tenant took away: what stays of them is nobody's fault.
    pub(super) forced: BTreeSet<Key>,
    /// Instances whose status was lost once.
    pub(super) forgotten: BTreeSet<Key>,
    /// Instances that our finalizer held once. What else goes, the watch tells of.
    pub(super) held: BTreeSet<Key>,
    /// Servers that a person asked to replace.
    pub(super) to_rebuild: BTreeSet<u64>,
    pub(super) faults: Faults,
    pub(super) counts: Counts,
    /// Writes that changed something, of the operator alone.
    pub(super) writes: u64,
    /// Writes of an instance's status among them.
    pub(super) status_writes: u64,
    /// Events that were published.
    pub(super) events: u64,
    /// What the servers are for ever that are made from now on, instead of running.
    pub(super) stuck: Option<ServerStatus>,
    /// Hetzner's word on each server that it failed to make, if it has one.
    pub(super) failed_actions: Vec<Action>,
    /// What the operator's resolver says of names, if it is one that may not know them yet.
    pub(super) resolver: Option<Resolver>,
    /// Whether the operator asks for names as soon as there are records of them.
    pub(super) hasty: bool,
    /// Whether all servers say something else each time they are asked.
    pub(super) lying: bool,
    pub(super) violation: Option<String>,
    pub(super) log: Option<Vec<String>>,
}

pub(super) struct World(Mutex<State>);

impl World {
    pub(super) fn new(dice: Dice, log: bool) -> Self {
        Self(Mutex::new(State {
            dice,
            now: Timestamp::constant(1_790_000_000, 0),
            counter: 100,
            instances: BTreeMap::new(),
            secrets: BTreeMap::new(),
            servers: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            records: BTreeMap::new(),
            sealed_for: BTreeMap::new(),
            stored: BTreeSet::new(),
            forced: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            held: BTreeSet::new(),
            to_rebuild: BTreeSet::new(),
            faults: Faults::default(),
            counts: Counts::default(),
            writes: 0,
            status_writes: 0,
            events: 0,
            stuck: None,
            failed_actions: Vec::new(),
            resolver: None,
            hasty: false,
            lying: false,
            violation: None,
            log: log.then(Vec::new),
        }))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl State {
    pub(super) fn number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    pub(super) fn say(&mut self, text: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(text());
        }
    }

    pub(super) fn violated(&mut self, what: String) {
        self.say(|| format!("VIOLATED: {what}"));
        self.violation.get_or_insert(what);
    }

    /// The instance under this name that lives now.
    pub(super) fn instance(&self, key: &Key) -> Option<&OpenClawInstance> {
        self.instances.get(key)
    }

    /// Stores an object under its next version.
    pub(super) fn store(&mut self, key: &Key, mut instance: OpenClawInstance) {
        instance.metadata.resource_version = Some(self.number().to_string());
        self.instances.insert(key.clone(), instance);
    }

    /// Changes an object, which has its next version then.
    pub(super) fn change(
        &mut self,
        key: &Key,
        change: impl FnOnce(&mut OpenClawInstance),
    ) -> Option<&OpenClawInstance> {
        let version = self.number();
        let instance = self.instances.get_mut(key)?;
        change(instance);
        instance.metadata.resource_version = Some(version.to_string());
        Some(instance)
    }

    /// An object is gone, and what it controls goes with it.
    pub(super) fn remove_instance(&mut self, key: &Key) {
        let uid = self.instances.remove(key).and_then(|instance| instance.uid());
        self.secrets.retain(|_, secret| uid.is_none() || secret.controller != uid);
    }

    /// Deletes as Kubernetes does: at once if nothing holds it.
    pub(super) fn delete_instance(&mut self, key: &Key) {
        let Some(instance) = self.instances.get(key) else { return };
        let now = self.now;
        if instance.finalizers().is_empty() {
            self.remove_instance(key);
        } else if instance.metadata.deletion_timestamp.is_none() {
            self.change(key, |instance| instance.metadata.deletion_timestamp = Some(Time(now)));
        }
    }

    /// Whether the operator finds an address by this name.
    pub(super) fn resolves(&mut self, name: &str) -> bool {
        let record = self.records.values().find(|there| there.record.name == name);
        let made = record.and_then(|there| there.record.created_on);
        let now = self.now;
        self.resolver.as_mut().is_none_or(|resolver| resolver.finds(name, made, now))
    }

    /// Whether our finalizer holds an instance.
    pub(super) fn is_held(&self, key: &Key) -> bool {
        self.instance(key)
            .is_some_and(|instance| instance.finalizers().iter().any(|held| held == FINALIZER))
    }

    /// Time passes: servers boot and go, agents converge, connectors come with their tokens.
    pub(super) fn pass_time(&mut self, time: Duration) {
        self.now += time;
        let gone = |machine: &Machine| machine.server.status == ServerStatus::Deleting;
        self.servers.retain(|_, machine| !gone(machine));
        for (id, machine) in &mut self.servers {
            machine.server.status = machine.stuck.clone().unwrap_or(ServerStatus::Running);
            if machine.stuck.is_some() {
                continue;
            }
            if machine.progress == ConvergenceState::Converging {
                machine.progress = ConvergenceState::Converged;
                machine.converged_once = true;
            }
            let Some(tunnel) = self.tunnels.get_mut(&machine.tunnel) else { continue };
            if machine.tokens.contains(&tunnel.token) {
                tunnel.connected = Some(*id);
            }
            // The old token is erased once the new one works.
            if machine.tokens.last() == Some(&tunnel.token) {
                machine.tokens = vec![tunnel.token];
            }
        }
    }
}

impl State {
    /// A list is no transaction: now and then it lacks something that is there.
    pub(super) fn perhaps_incomplete<T>(&mut self, mut listed: Vec<T>) -> Vec<T> {
        if !listed.is_empty() && self.dice.per_mille(self.faults.incomplete) {
            let lacking = self.dice.within(0..listed.len() as u64);
            listed.remove(usize::try_from(lacking).unwrap_or_default());
        }
        listed
    }
}
