//! Which instance names which pool and release: the little that pools and releases need to know of
//! instances, kept without the rest of them.

use std::{collections::HashMap, sync::Arc};

use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt as _, watcher},
};
use moorage_wire::InstanceId;
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::{
    api::{
        OpenClawInstance,
        annotation::Rebuild,
        guarded::{self, Fields},
        instance::{EarlierIdentity, FirstBoot},
    },
    api_server::{PAGE_SIZE, told},
    instance::observed::Disappearance,
    master_key::MasterKeyId,
};

/// Shorter than the idle timeout of common load balancers.
const WATCH_TIMEOUT_SECONDS: u32 = 200;
/// The longest name that an object can have.
const LONGEST_NAME: usize = 253;

/// How everything is watched.
pub(super) fn watch_config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_TIMEOUT_SECONDS).page_size(PAGE_SIZE)
}

/// An instance, cut down to what it refers to. Every field is optional, so that an instance that
/// cannot be read as a whole still counts.
#[derive(Resource, Clone, Debug)]
#[resource(inherit = OpenClawInstance)]
pub(super) struct ReferringInstance {
    metadata: ObjectMeta,
    spec: ReferringSpec,
    made: Made,
}

#[derive(Clone, Debug, Default)]
struct ReferringSpec {
    pool: String,
    release: Option<String>,
}

impl<'de> Deserialize<'de> for ReferringInstance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Parts {
            metadata: Option<Box<RawValue>>,
            spec: Option<Box<RawValue>>,
            status: Option<Box<RawValue>>,
        }
        let parts = Parts::deserialize(deserializer)?;
        let all = guarded::metadata(&Fields::of(parts.metadata.as_deref()));
        let held = all.finalizers.iter().flatten().any(|held| held == crate::api::FINALIZER);
        let metadata = ObjectMeta {
            name: all.name,
            namespace: all.namespace,
            resource_version: all.resource_version,
            ..ObjectMeta::default()
        };
        let deleting = all.deletion_timestamp.is_some();
        let rebuild = all.annotations.as_ref().map(Rebuild::of).unwrap_or_default();
        let spec = Fields::of(parts.spec.as_deref());
        let suspended = spec.get("suspend").unwrap_or_default();
        let spec = ReferringSpec {
            pool: named(&spec, "pool").unwrap_or_default(),
            release: named(&spec, "release"),
        };
        let status = Fields::of(parts.status.as_deref());
        let server: Option<Box<RawValue>> = status.get("server");
        let told: Option<Vec<serde::de::IgnoredAny>> = status.get("conditions");
        let earlier: Option<EarlierIdentity> = status.get("earlierIdentity");
        let (namespace, name) = (&metadata.namespace, &metadata.name);
        let place = || Some((namespace.as_deref()?, name.as_deref()?));
        let earlier =
            earlier.zip(place()).and_then(|(id, (namespace, name))| id.of(namespace, name));
        let in_server = Fields::of(server.as_deref());
        let tunnel: Option<Box<RawValue>> = status.get("tunnel");
        let server_id: Option<u64> = in_server.get("id");
        let given_up = in_server.get("firstBoot") == Some(FirstBoot::GivenUp);
        let expected = server_id
            .filter(|id| !given_up && Disappearance::counts(*id, deleting, suspended, rebuild));
        let made = Made {
            held,
            in_status: server.is_some(),
            untold: held && server.is_none() && told.is_none_or(|told| told.is_empty()),
            master_key: in_server
                .get("masterKeyId")
                .filter(|id: &String| id.parse::<MasterKeyId>().is_ok()),
            earlier_id: earlier,
            server: server_id,
            expected_server: expected,
            tunnel: Fields::of(tunnel.as_deref()).get("id"),
        };
        Ok(Self { metadata, spec, made })
    }
}

/// A name as it stands in a spec. What is too long for one names nothing, and is not kept.
fn named(spec: &Fields<'_>, field: &str) -> Option<String> {
    spec.get(field).filter(|name: &String| name.len() <= LONGEST_NAME)
}

/// What may have been made for an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    /// Whether it has our finalizer, which whoever may edit the object can write.
    pub held: bool,
    /// Whether its status names a server. Only the operator writes that.
    pub in_status: bool,
    /// Whether it has our finalizer and its status says nothing at all: that may have been lost.
    pub untold: bool,
    /// The master key that is recorded for its server.
    pub master_key: Option<String>,
    /// The id that its things in the clouds have from before ids were computed.
    pub earlier_id: Option<InstanceId>,
    /// The server in its status.
    pub server: Option<u64>,
    /// The same, unless its absence would say nothing of the pool's project.
    pub expected_server: Option<u64>,
    /// The tunnel in its status.
    pub tunnel: Option<String>,
}

/// What an instance names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub pool: String,
    /// Its release; the pool's default if `None`.
    pub release: Option<String>,
    /// What may have been made for it.
    pub made: Made,
}

/// All instances and what they name.
#[derive(Debug)]
pub struct References {
    state: Mutex<State>,
    complete: watch::Sender<bool>,
}

/// Namespace and name of an instance.
pub type Name = (String, String);

type ByInstance = HashMap<Name, Reference>;

#[derive(Debug, Default)]
struct State {
    current: ByInstance,
    /// What a list that is still being read has brought.
    listed: ByInstance,
}

impl References {
    fn new() -> Self {
        Self { state: Mutex::default(), complete: watch::Sender::new(false) }
    }

    /// Waits until every instance was seen once; before that, a count would be too low.
    pub async fn complete(&self) {
        // The sender lives as long as `self`, so there is no error to handle.
        let _ = self.complete.subscribe().wait_for(|complete| *complete).await;
    }

    /// How many instances' references are as asked.
    pub fn count(&self, wanted: impl Fn(&Name, &Reference) -> bool) -> u32 {
        let count = self
            .state
            .lock()
            .current
            .iter()
            .filter(|(name, reference)| wanted(name, reference))
            .count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Shows all references, with the namespace and name of each instance.
    pub fn each(&self, mut look: impl FnMut(&(String, String), &Reference)) {
        self.state.lock().current.iter().for_each(|(place, reference)| look(place, reference));
    }

    /// Takes in one event and returns the references that one instance more or less has now.
    fn take(&self, event: watcher::Event<ReferringInstance>) -> Vec<Reference> {
        let mut state = self.state.lock();
        match event {
            watcher::Event::Init => state.listed.clear(),
            watcher::Event::InitApply(instance) => {
                let (key, reference) = instance.into_entry();
                state.listed.insert(key, reference);
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut state.listed);
                let old = std::mem::replace(&mut state.current, listed);
                let new = &state.current;
                let gone = old.iter().filter(|(key, value)| new.get(*key) != Some(*value));
                let come = new.iter().filter(|(key, value)| old.get(*key) != Some(*value));
                let changed = gone.chain(come).map(|(_, value)| value.clone()).collect();
                self.complete.send_replace(true);
                return changed;
            }
            watcher::Event::Apply(instance) => {
                let (key, reference) = instance.into_entry();
                let old = state.current.insert(key, reference.clone());
                if old.as_ref() == Some(&reference) {
                    return Vec::new();
                }
                return old.into_iter().chain([reference]).collect();
            }
            watcher::Event::Delete(instance) => {
                let (key, _) = instance.into_entry();
                return state.current.remove(&key).into_iter().collect();
            }
        }
        Vec::new()
    }
}

impl ReferringInstance {
    fn into_entry(self) -> ((String, String), Reference) {
        let ObjectMeta { name, namespace, .. } = self.metadata;
        let key = (namespace.unwrap_or_default(), name.unwrap_or_default());
        let Self { spec, made, .. } = self;
        let reference = Reference { pool: spec.pool, release: spec.release, made };
        (key, reference)
    }
}

/// Watches all instances. The stream yields what gained or lost an instance; someone has to poll it.
pub fn watch(client: Client) -> (Arc<References>, impl Stream<Item = Reference> + Send) {
    let references = Arc::new(References::new());
    let config = watch_config();
    let taker = Arc::clone(&references);
    let changes = watcher(Api::<ReferringInstance>::all(client), config)
        .default_backoff()
        .flat_map(move |event| {
            let changed = match event {
                Ok(event) => taker.take(event),
                Err(error) => {
                    tracing::warn!(error = told(&error), "watching instances failed; trying again");
                    Vec::new()
                }
            };
            stream::iter(changed)
        });
    (references, changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::annotation;
    use serde_json::json;
    use watcher::Event;

    fn instance(name: &str, pool: &str, release: Option<&str>) -> ReferringInstance {
        ReferringInstance {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            spec: ReferringSpec { pool: pool.to_owned(), release: release.map(str::to_owned) },
            made: Made::default(),
        }
    }

    fn in_pool(references: &References, pool: &str) -> u32 {
        references.count(|_, reference| reference.pool == pool)
    }

    #[test]
    fn counts_follow_the_events_and_only_changes_are_told() {
        let references = References::new();
        assert_eq!(references.take(Event::Init), []);
        assert_eq!(references.take(Event::InitApply(instance("ada", "eu", None))), []);
        assert_eq!(references.take(Event::InitDone).len(), 1);
        assert!(*references.complete.borrow());
        assert_eq!(references.take(Event::Apply(instance("ada", "eu", None))), []);
        assert_eq!(references.take(Event::Apply(instance("bob", "eu", Some("r")))).len(), 1);
        assert_eq!(in_pool(&references, "eu"), 2);
        assert_eq!(references.take(Event::Apply(instance("bob", "eu", None))).len(), 2);
        assert_eq!(references.take(Event::Delete(instance("bob", "eu", None))).len(), 1);
        assert_eq!(in_pool(&references, "eu"), 1);
    }

    #[test]
    fn what_its_tenant_took_away_is_not_expected_to_be_there() {
        let expected = |metadata: serde_json::Value, suspend: bool| {
            let all = json!({
                "metadata": metadata,
                "spec": {"pool": "eu", "suspend": suspend},
                "status": {"server": {"id": 4711}},
            });
            let read: ReferringInstance = serde_json::from_value(all).unwrap();
            assert_eq!(read.made.server, Some(4711));
            read.made.expected_server
        };
        assert_eq!(expected(json!({"name": "ada"}), false), Some(4711));
        assert_eq!(expected(json!({"name": "ada"}), true), None);
        let rebuild = |id: &str| json!({"name": "ada", "annotations": {annotation::REBUILD: id}});
        assert_eq!(expected(rebuild("4711"), false), None);
        assert_eq!(expected(rebuild("4712"), false), Some(4711));
        // Nothing else replaces the server for this, so it is missed.
        assert_eq!(expected(rebuild("+4711"), false), Some(4711));
        let going = json!({
            "name": "ada", "deletionTimestamp": "2026-11-30T12:00:00Z", "finalizers": ["x.example/hold"],
        });
        assert_eq!(expected(going, false), None);
    }

    #[test]
    fn the_next_list_tells_what_vanished_unwatched() {
        let references = References::new();
        for event in [Event::Init, Event::InitApply(instance("ada", "eu", None)), Event::InitDone] {
            references.take(event);
        }
        references.take(Event::Init);
        assert_eq!(in_pool(&references, "eu"), 1, "the old state counts until the list is whole");
        assert_eq!(references.take(Event::InitDone).len(), 1);
        assert_eq!(in_pool(&references, "eu"), 0);
    }
}
