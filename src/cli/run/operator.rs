//! The life of the operator: it stands by, leads, and ends. What keeps it from its work is said at
//! `/readyz` and in the log and tried again, for a process that crashes and restarts says less.

use std::{fmt::Display, sync::Arc, time::Duration};

use aws_lc_rs::rand;
use kube::{Client, Config, runtime::events::Recorder};
use tokio::{
    sync::{Notify, RwLock},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{RunError, Settings, census::ClusterCensus, standby};
use crate::{
    agent::{AgentApi, client::EdgeAgentClient},
    api_server::{self, told},
    clock::{Clock as _, SystemClock},
    controller::pool_runtime::Pools,
    controller::{
        self,
        admissions::Admissions,
        context::{Context, reporter},
    },
    credentials::{
        key_ring::KeyRing,
        key_ring_store::{KeyRingStore, KeyRingStoreError},
    },
    http::{Readiness, Shown},
    leader::{Candidate, LeaseTiming},
    master_key_store::{MasterKeyStore, MasterKeyStoreError},
    master_keys::{CurrentKeys, MasterKeys, SealingKeyUse},
    randomness::SystemRandomness,
};

/// For passes under way when the operator is told to end.
const STOP_GRACE: Duration = Duration::from_secs(3);
const SHORTEST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Stands by, leads, and ends with `shutdown` or the loss of leadership.
pub(super) async fn operate(
    settings: Settings,
    shown: &Shown,
    shutdown: &CancellationToken,
) -> Result<(), RunError> {
    // Before anything else, so that what is wrong on the command line ends the process at once.
    let agents: Arc<dyn AgentApi> = Arc::new(EdgeAgentClient::new(&settings.edge)?);
    let config = Config::infer().await?;
    let client = api_server::client(config.clone());
    let client = client.map_err(|error| RunError::Client(Box::new(error)))?;
    let leader = if settings.leader_elect {
        let mut candidate = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            candidate = find_lease(&settings, &config, &shown.readiness) => candidate,
        };
        let published = &shown.certificate;
        let told_to_end = tokio::select! {
            () = shutdown.cancelled() => true,
            () = candidate.elected() => false,
            never = standby::publish_certificate(&settings, &client, published) => match never {},
        };
        if told_to_end {
            candidate.release().await;
            return Ok(());
        }
        tracing::info!("leading");
        shown.readiness.not_ready("leading, but the keys are not read yet");
        Some(candidate)
    } else {
        None
    };
    let since = leader.as_ref().and_then(Candidate::led_before);
    let lost = async {
        match &leader {
            Some(leader) => leader.lost().await,
            None => std::future::pending().await,
        }
    };
    let stopping = async {
        shutdown.cancelled().await;
        sleep(STOP_GRACE).await;
    };
    tokio::select! {
        lost = lost => return Err(lost.into()),
        () = lead(settings, client, agents, shown, since, shutdown) => {}
        () = stopping => tracing::warn!("some passes did not end in time"),
    }
    if let Some(leader) = leader {
        leader.release().await;
    }
    Ok(())
}

async fn find_lease(settings: &Settings, config: &Config, readiness: &Readiness) -> Candidate {
    let identity = identity();
    let candidate = retry_until_ok("Lease", readiness, || {
        let timing = LeaseTiming::default();
        Candidate::new(config.clone(), &settings.namespace, identity.clone(), timing)
    })
    .await;
    tracing::info!(identity, "standing by");
    readiness.ready();
    candidate
}

/// Unlike any other process's, restarts of this container included.
fn identity() -> String {
    let pod = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME"));
    let mut bytes = [0; 4];
    // Without randomness the name of the Pod still differs from those of the others.
    let _ = rand::fill(&mut bytes);
    format!("{}-{:08x}", pod.as_deref().unwrap_or("moorage"), u32::from_be_bytes(bytes))
}

/// Reads the keys and runs the controllers until `shutdown`. `since` is the version of the cluster up to
/// which another process ran them.
async fn lead(
    settings: Settings,
    client: Client,
    agents: Arc<dyn AgentApi>,
    shown: &Shown,
    since: Option<String>,
    shutdown: &CancellationToken,
) {
    let context = tokio::select! {
        () = shutdown.cancelled() => return,
        context = prepare(&settings, client, agents, shown) => Arc::new(context),
    };
    shown.certificate.follow(Arc::clone(&context));
    shown.readiness.not_ready("the controllers have not read the cluster yet");
    let readiness = shown.readiness.clone();
    let keys = MasterKeyStore::new(
        context.client.clone(),
        &settings.namespace,
        settings.master_key.clone(),
    );
    let (controllers, shutdown) = (settings.controllers, shutdown.clone());
    let run = controller::run(context, controllers, keys, readiness, since, shutdown);
    Box::pin(run).await;
}

async fn prepare(
    settings: &Settings,
    client: Client,
    agents: Arc<dyn AgentApi>,
    shown: &Shown,
) -> Context {
    let store =
        MasterKeyStore::new(client.clone(), &settings.namespace, settings.master_key.clone());
    let census = ClusterCensus::new(client.clone(), settings.controllers.watch_namespaces.clone());
    let master_keys = retry_until_ok("master key", &shown.readiness, || async {
        let error = match store.load_or_create(&census).await {
            Ok(key) => return Ok(key),
            Err(error) => error,
        };
        if matches!(error, MasterKeyStoreError::MasterKeyMissing { .. })
            && let Err(error) = census.tell_that_the_key_is_missing(&error.to_string()).await
        {
            tracing::warn!(
                error = told(&error),
                "the instances could not be told that the master key is missing"
            );
        }
        Err(explain(&error))
    })
    .await;
    let rings = KeyRingStore::new(client.clone(), &settings.namespace);
    let key_ring =
        retry_until_ok("key ring", &shown.readiness, || read_ring(&rings, &master_keys)).await;
    let admissions = Admissions::new(Arc::new(SystemClock), master_keys.installation());
    Context {
        events: Box::new(Recorder::new(client.clone(), reporter())),
        client,
        namespace: settings.namespace.clone(),
        master_keys: CurrentKeys::new(master_keys),
        sealing_key_use: SealingKeyUse::default(),
        look_at_keys: Notify::new(),
        look_at_sealing_keys: Notify::new(),
        key_ring: RwLock::new(Arc::new(key_ring)),
        pools: Pools::default(),
        admissions,
        agents,
        instances: std::sync::OnceLock::new(),
        metrics: Arc::clone(&shown.metrics),
        clock: Arc::new(SystemClock),
        randomness: Arc::new(SystemRandomness),
        intervals: settings.intervals.clone(),
    }
}

/// What is in the way of the master key, with the commonest cause of all spelled out.
fn explain(error: &MasterKeyStoreError) -> String {
    let remedy = match error {
        MasterKeyStoreError::Kube { source, .. } => match &**source {
            kube::Error::Api(status) if status.code == 404 => {
                "; are the custom resource definitions installed?"
            }
            kube::Error::Api(status) if status.code == 403 => {
                "; does the operator's ClusterRole allow it?"
            }
            _ => "",
        },
        _ => "",
    };
    format!("{error}{remedy}")
}

/// The ring, with a key to serve.
async fn read_ring(store: &KeyRingStore, keys: &MasterKeys) -> Result<KeyRing, KeyRingStoreError> {
    let wrapping = keys.wrapping_keys();
    let ring = store.load(&wrapping).await?;
    if ring.certificate().is_some() {
        return Ok(ring);
    }
    tracing::info!("making the first sealing key");
    let made = store.generate(&wrapping[0], SystemClock.now()).await?;
    Ok(ring.with(made))
}

/// Tries until it works, ever more rarely, and says each time what is in the way.
async fn retry_until_ok<T, E, F>(what: &str, readiness: &Readiness, attempt: impl FnMut() -> F) -> T
where
    E: Display,
    F: Future<Output = Result<T, E>>,
{
    retry_until_ok_from(SHORTEST_RETRY, what, readiness, attempt).await
}

async fn retry_until_ok_from<T, E, F>(
    mut pause: Duration,
    what: &str,
    readiness: &Readiness,
    mut attempt: impl FnMut() -> F,
) -> T
where
    E: Display,
    F: Future<Output = Result<T, E>>,
{
    loop {
        let error = match timeout(LONGEST_RETRY, attempt()).await {
            Ok(Ok(done)) => return done,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the API server does not answer in time".to_owned(),
        };
        tracing::error!(what, error, retry_seconds = pause.as_secs(), "cannot work yet");
        readiness.not_ready(format!("{what}: {error}"));
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_RETRY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_fails_is_tried_again_and_shown_until_it_works() {
        let readiness = Readiness::default();
        let mut left = 3;
        let value = retry_until_ok_from(Duration::from_millis(1), "master key", &readiness, || {
            left -= 1;
            let (shown, missing) = (readiness.get(), left > 0);
            async move { if missing { Err("restore it from a backup") } else { Ok(shown) } }
        })
        .await;
        assert_eq!(value, Err("master key: restore it from a backup".to_owned()));
    }

    #[test]
    fn two_processes_of_one_pod_have_different_identities() {
        assert_ne!(identity(), identity());
    }
}
