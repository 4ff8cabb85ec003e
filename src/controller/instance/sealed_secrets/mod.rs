//! The sealed Secrets whose instance goes, or never comes. Those of an instance that went without
//! asking, because nothing held it, are deleted here; what proves that it went is in `evidence`.
//! What waits for an instance that has not come is kept, and told after a while.

mod evidence;
mod mirror;
mod replay;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{ObjectReference, Secret as KubeSecret};
use kube::{core::PartialObjectMeta, runtime::watcher};
use parking_lot::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use super::GuardedInstance;
use crate::{
    api::conditions::Reason,
    cluster::{ClusterApi, ClusterError, InstanceKey},
    controller::{
        backoff::{Backoff, random},
        context::Context,
        events,
        turns::{Name, Turns},
    },
    credentials::secret_source::SecretVersion,
};
use evidence::{Act, Acts, Evidence, Mark, Proof};

/// How often it is looked whether something is to be done: a look at memory.
const LOOK: Duration = Duration::from_secs(1);
/// Pieces of work at the same time.
const AT_THE_SAME_TIME: usize = 4;
/// Events and lines of the log about one namespace, for as long as the operator runs.
const TOLD_PER_NAMESPACE: u32 = 10;

/// What the watches over instances and Secrets have shown.
#[derive(Default)]
pub(super) struct SealedSecrets(Mutex<Evidence>);

impl SealedSecrets {
    /// Takes in one event of the watch over the instances of `namespace`, or over all if there is none.
    pub(super) fn take_instance(
        &self,
        namespace: Option<&str>,
        event: &Result<watcher::Event<GuardedInstance>, watcher::Error>,
    ) {
        // The watch itself tells of an error, and starts again.
        if let Ok(event) = event {
            self.evidence().take_instance(namespace, event, Instant::now());
        }
    }

    /// Takes in one event of the watch over the bound Secrets of `namespace`.
    pub(super) fn take_secret(
        &self,
        namespace: Option<&str>,
        event: &Result<watcher::Event<PartialObjectMeta<KubeSecret>>, watcher::Error>,
    ) {
        if let Ok(event) = event {
            self.evidence().take_secret(namespace, event);
        }
    }

    fn evidence(&self) -> MutexGuard<'_, Evidence> {
        self.0.lock()
    }
}

/// Does what is to be done until `shutdown`. `since` is the version of the cluster up to which another
/// process looked after it.
pub(super) async fn keep(
    ctx: Arc<Context>,
    cluster: Arc<dyn ClusterApi>,
    secrets: Arc<SealedSecrets>,
    namespaces: Vec<String>,
    since: Option<String>,
    shutdown: CancellationToken,
) {
    let watches = namespaces.len().max(1);
    let past = replay::departures(&ctx.client, &namespaces, since, |name, version| {
        secrets.evidence().departed(name, version, Instant::now());
    });
    let keeper = Keeper {
        ctx: &ctx,
        cluster: cluster.as_ref(),
        secrets: &secrets,
        queue: Turns::default(),
        busy: Mutex::default(),
        paused: Mutex::default(),
        backoff: Backoff::default(),
        events: Mutex::default(),
    };
    let workers = (0..AT_THE_SAME_TIME).map(|_| keeper.work());
    let all =
        futures::future::join3(past, keeper.look(watches), futures::future::join_all(workers));
    let _ = shutdown.run_until_cancelled(all).await;
}

struct Keeper<'a> {
    ctx: &'a Context,
    cluster: &'a dyn ClusterApi,
    secrets: &'a SealedSecrets,
    queue: Turns<Acts>,
    busy: Mutex<HashSet<Name>>,
    /// The instances whose Secrets could not be written to, and until when they are left alone.
    paused: Mutex<HashMap<Name, Instant>>,
    backoff: Backoff<Name>,
    /// How many Events were published, by namespace.
    events: Mutex<HashMap<String, u32>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

impl Keeper<'_> {
    /// Queues what is to be done, again and again.
    async fn look(&self, watches: usize) {
        let mut interval = tokio::time::interval(LOOK);
        loop {
            interval.tick().await;
            let (due, waiting) = {
                let mut evidence = self.secrets.evidence();
                // An instance that was not listed yet is not gone.
                if !evidence.instances.is_complete(watches) {
                    continue;
                }
                evidence.due(Instant::now(), self.ctx.clock.now())
            };
            self.ctx.metrics.set_waiting_secrets(waiting);
            let now = Instant::now();
            locked(&self.paused).retain(|_, until| now < *until);
            for (name, acts) in due {
                if !locked(&self.busy).contains(&name) && !locked(&self.paused).contains_key(&name)
                {
                    self.queue.put(name, acts);
                }
            }
        }
    }

    async fn work(&self) {
        loop {
            let (name, acts) = self.queue.take().await;
            if !locked(&self.busy).insert(name.clone()) {
                // Another one is at it; the next look finds what it leaves.
                continue;
            }
            match self.act(&name, acts).await {
                Ok(()) => self.backoff.reset(&name),
                // Somebody wrote to one of them meanwhile.
                Err(ClusterError::Changed) => {}
                Err(error) => {
                    let (namespace, instance) = &name;
                    tracing::warn!(%error, namespace, instance, "the sealed Secrets of an instance cannot be looked after");
                    let pause = self.backoff.next(&name, random());
                    locked(&self.paused).insert(name.clone(), Instant::now() + pause);
                }
            }
            locked(&self.busy).remove(&name);
        }
    }

    async fn act(&self, (namespace, instance): &Name, acts: Acts) -> Result<(), ClusterError> {
        let key = InstanceKey { namespace, name: instance };
        // After the Secrets were seen: one that is there now was there with them.
        let exists = self.cluster.instance_exists(key).await?;
        for (secret, version, act) in acts {
            let Some(view) = self.cluster.secret(namespace, &secret).await? else { continue };
            if view.version() != Some(&version) {
                // The watch brings what it is now.
                continue;
            }
            if !view.is_sealed_for(instance) {
                self.secrets.evidence().is_foreign(&version.uid);
                continue;
            }
            match act {
                Act::Mark if exists => {
                    let mark = view.mark().filter(|_| !view.is_marked());
                    let version = match mark {
                        Some(mark) => {
                            self.cluster.mark_secret(namespace, &secret, &version, &mark).await?
                        }
                        None => version,
                    };
                    self.secrets.evidence().looked_at_mark(version, Mark::Settled);
                }
                Act::Delete(Proof::Mark) if !view.is_marked() => {
                    self.secrets.evidence().looked_at_mark(version, Mark::Untrue);
                }
                // The instance may have come again while those before this one were deleted.
                Act::Delete(_) if self.cluster.instance_exists(key).await? => return Ok(()),
                Act::Delete(_) => {
                    self.cluster.delete_secret(namespace, &secret, &version).await?;
                    tracing::debug!(namespace, secret, "deleted a Secret whose instance is gone");
                }
                Act::Tell if !exists => self.tell(namespace, instance, &secret, version).await,
                // It came or went just now.
                Act::Mark | Act::Tell => {}
            }
        }
        Ok(())
    }

    /// Says once that a Secret has been waiting for its instance for long.
    async fn tell(&self, namespace: &str, instance: &str, secret: &str, version: SecretVersion) {
        self.secrets.evidence().was_told(&version.uid);
        let so_far = {
            let mut events = locked(&self.events);
            let so_far = events.entry(namespace.to_owned()).or_default();
            *so_far += 1;
            *so_far
        };
        if so_far > TOLD_PER_NAMESPACE {
            return;
        }
        tracing::warn!(namespace, secret, instance, "a sealed Secret is waiting for its instance");
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Secret".to_owned()),
            name: Some(secret.to_owned()),
            namespace: Some(namespace.to_owned()),
            uid: Some(version.uid),
            resource_version: Some(version.resource_version),
            ..ObjectReference::default()
        };
        let note = format!(
            "There is no OpenClawInstance {instance} in this namespace, so nothing of this Secret was delivered. Create the instance, correct the label moorage.dev/instance, or delete the Secret"
        );
        events::tell(self.ctx, &about, Reason::InstanceMissing, note).await;
    }
}
