//! Instances that go without asking: they never had anything in a cloud, so nothing held them. Their
//! sealed Secrets go here. Those of an instance that was made and deleted while no operator looked are
//! found when one begins.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kube::{ResourceExt as _, runtime::watcher};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::GuardedInstance;
use crate::cluster::{ClusterApi, ClusterError, InstanceKey};

/// How long a Secret that was there before the operator began may be without its instance: the two
/// may have been applied together just now.
const GRACE: Duration = Duration::from_secs(60);

/// Tries against somebody who writes to the same Secrets.
const TRIES: usize = 5;

/// Namespace and name.
type Key = (String, String);

/// Who went, and when that was seen: what is made after it is for the next life of the name.
type Departed = (Key, Timestamp);

/// Sees which instances go.
pub(super) struct Departures {
    seen: Mutex<Seen>,
    gone: mpsc::UnboundedSender<Departed>,
}

#[derive(Default)]
struct Seen {
    known: HashSet<Key>,
    /// What the lists that are still being read have brought, and how many of them.
    listed: HashSet<Key>,
}

impl Departures {
    /// Nothing was seen yet. What goes comes out of the channel.
    pub(super) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Departed>) {
        let (gone, departed) = mpsc::unbounded_channel();
        (Arc::new(Self { seen: Mutex::default(), gone }), departed)
    }

    /// Takes in one event of the watch over `namespace`, or over all if there is none.
    pub(super) fn take(
        &self,
        namespace: Option<&str>,
        event: &Result<watcher::Event<GuardedInstance>, watcher::Error>,
    ) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = |key: &Key| namespace.is_none_or(|namespace| key.0 == namespace);
        match event {
            Ok(watcher::Event::Init) => seen.listed.retain(|key| !watched(key)),
            Ok(watcher::Event::InitApply(instance)) => drop(seen.listed.insert(key(instance))),
            Ok(watcher::Event::InitDone) => {
                let Seen { known, listed } = &mut *seen;
                for key in known.iter().filter(|key| watched(key) && !listed.contains(*key)) {
                    self.tell(key.clone());
                }
                known.retain(|key| !watched(key));
                known.extend(listed.iter().filter(|key| watched(key)).cloned());
                listed.retain(|key| !watched(key));
            }
            Ok(watcher::Event::Apply(instance)) => drop(seen.known.insert(key(instance))),
            Ok(watcher::Event::Delete(instance)) => {
                let key = key(instance);
                seen.known.remove(&key);
                self.tell(key);
            }
            // The watch itself tells of it and begins anew.
            Err(_) => {}
        }
    }

    fn tell(&self, key: Key) {
        // Nobody listens any more when the operator ends.
        let _ = self.gone.send((key, Timestamp::now()));
    }
}

fn key(instance: &GuardedInstance) -> Key {
    (instance.namespace().unwrap_or_default(), instance.name_any())
}

/// Deletes the Secrets of whoever goes, until `shutdown`. Call it when all instances are known.
pub(super) async fn bury(
    cluster: Arc<dyn ClusterApi>,
    mut departed: mpsc::UnboundedReceiver<Departed>,
    namespaces: Vec<String>,
    shutdown: CancellationToken,
) {
    let left = left_behind(cluster.as_ref(), &namespaces);
    let first = shutdown.run_until_cancelled(async {
        let begun = Timestamp::now();
        let left = left.await;
        tokio::time::sleep(GRACE).await;
        for key in left {
            clear(cluster.as_ref(), &key, begun).await;
        }
    });
    let then = shutdown.run_until_cancelled(async {
        while let Some((key, at)) = departed.recv().await {
            clear(cluster.as_ref(), &key, at).await;
        }
    });
    tokio::join!(first, then);
}

/// The instances that sealed Secrets are bound to and that are not there.
async fn left_behind(cluster: &dyn ClusterApi, namespaces: &[String]) -> HashSet<Key> {
    let bound = match cluster.instances_of_secrets(namespaces).await {
        Ok(bound) => bound,
        Err(error) => {
            tracing::warn!(%error, "the sealed Secrets could not be listed");
            return HashSet::new();
        }
    };
    let mut left = HashSet::new();
    for key in bound {
        let named = InstanceKey { namespace: &key.0, name: &key.1 };
        if matches!(cluster.instance_exists(named).await, Ok(false)) {
            left.insert(key);
        }
    }
    left
}

/// Deletes the Secrets of an instance that is not there, of those that were made before `until`.
async fn clear(cluster: &dyn ClusterApi, key: &Key, until: Timestamp) {
    let named = InstanceKey { namespace: &key.0, name: &key.1 };
    for _ in 0..TRIES {
        match try_to_clear(cluster, named, until).await {
            Ok(()) => return,
            // Somebody wrote to one of them meanwhile.
            Err(ClusterError::Changed) => {}
            Err(error) => {
                let (namespace, instance) = key;
                tracing::warn!(%error, namespace, instance, "the Secrets of an instance stay behind");
                return;
            }
        }
    }
}

async fn try_to_clear(
    cluster: &dyn ClusterApi,
    named: InstanceKey<'_>,
    until: Timestamp,
) -> Result<(), ClusterError> {
    if cluster.instance_exists(named).await? {
        return Ok(());
    }
    // In this order: a Secret that comes after the second look at the instance is not among these.
    let mut secrets = cluster.bound_secrets(named).await?;
    secrets.retain(|secret| secret.created <= until);
    if secrets.is_empty() || cluster.instance_exists(named).await? {
        return Ok(());
    }
    for secret in secrets {
        cluster.delete_secret(named.namespace, &secret.name, &secret.version).await?;
        tracing::info!(
            namespace = named.namespace,
            secret = secret.name,
            "deleted a Secret whose instance is gone"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn instance(namespace: &str, name: &str) -> GuardedInstance {
        let document = json!({
            "apiVersion": "moorage.dev/v1alpha1", "kind": "OpenClawInstance",
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"pool": "eu-1", "hostname": name},
        });
        GuardedInstance::read(&document.to_string())
    }

    fn told(departed: &mut mpsc::UnboundedReceiver<Departed>) -> Vec<String> {
        std::iter::from_fn(|| departed.try_recv().ok()).map(|((_, name), _)| name).collect()
    }

    #[test]
    fn who_is_deleted_is_told_and_who_is_missing_from_a_new_list_is_too() {
        use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
        let (departures, mut departed) = Departures::new();
        let take = |event| departures.take(None, &Ok(event));
        take(Init);
        take(InitApply(instance("tenants", "ada")));
        take(InitApply(instance("tenants", "bob")));
        take(InitDone);
        take(Apply(instance("tenants", "eve")));
        assert_eq!(told(&mut departed), <[&str; 0]>::default());
        take(Delete(instance("tenants", "ada")));
        assert_eq!(told(&mut departed), ["ada"]);
        take(Init);
        take(InitApply(instance("tenants", "eve")));
        take(InitDone);
        assert_eq!(told(&mut departed), ["bob"]);
    }

    #[test]
    fn a_new_list_of_one_namespace_says_nothing_of_another() {
        use watcher::Event::{Init, InitApply, InitDone};
        let (departures, mut departed) = Departures::new();
        for (namespace, name) in [("a", "ada"), ("b", "bob")] {
            departures.take(Some(namespace), &Ok(Init));
            departures.take(Some(namespace), &Ok(InitApply(instance(namespace, name))));
            departures.take(Some(namespace), &Ok(InitDone));
        }
        departures.take(Some("a"), &Ok(Init));
        departures.take(Some("a"), &Ok(InitDone));
        assert_eq!(told(&mut departed), ["ada"]);
    }
}
