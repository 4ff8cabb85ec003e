//! What is kept of a pool between passes: its clients, inventory and DNS queue for as long as its
//! tokens stay the same, the task that sweeps, and what the last pass came to.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::{Api, Client};
use moorage_wire::InstallationId;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    api::{HostingPoolSpec, conditions::reason, pool::TokenSecretRef},
    cloud::{ApiToken, ClientConfig, Cloud, ConfigError},
    cloudflare::{AccountId, CloudflareApi, CloudflareClient, ZoneId},
    controller::backoff::{Backoff, random},
    dns::DnsQueue,
    hetzner::{HetznerApi, HetznerClient},
    inventory::Inventory,
    pool::Blocked,
};

use super::{
    PoolSettings, SLOWLY,
    apply::Outcome,
    plan::{Again, ParsedSpec, SweepState, Trouble},
};

/// A token as it was read.
pub(super) struct ReadToken {
    token: ApiToken,
    /// UID and resource version of its Secret, and the key in it.
    version: String,
}

/// Reads the two tokens, from one Secret or from two.
pub(super) async fn read_tokens(
    client: &Client,
    namespace: &str,
    spec: &HostingPoolSpec,
) -> Result<Result<[ReadToken; 2], Trouble>, kube::Error> {
    let secrets: Api<KubeSecret> = Api::namespaced(client.clone(), namespace);
    let mut tokens = Vec::new();
    let references = [
        (Cloud::Hetzner, &spec.hetzner.token_secret_ref),
        (Cloud::Cloudflare, &spec.cloudflare.token_secret_ref),
    ];
    for (cloud, reference) in references {
        let secret = secrets.get_opt(&reference.name).await?;
        match parse_token(secret, reference) {
            Ok(token) => tokens.push(token),
            Err(problem) => return Ok(Err(token_missing(cloud, namespace, reference, &problem))),
        }
    }
    let mut tokens = tokens.into_iter();
    let pair = tokens.next().zip(tokens.next()).map(|(first, second)| [first, second]);
    Ok(Ok(pair.expect("one token was pushed for each of the two clouds")))
}

fn parse_token(
    secret: Option<KubeSecret>,
    reference: &TokenSecretRef,
) -> Result<ReadToken, String> {
    let secret = secret.ok_or("there is no such Secret")?;
    let bytes = secret.data.and_then(|mut data| data.remove(&reference.key));
    let bytes = bytes.ok_or("the Secret has no such key")?;
    let token = ApiToken::parse(bytes.0).map_err(|error| error.to_string())?;
    let part = |text: Option<String>| text.unwrap_or_default();
    let version = format!(
        "{}/{}/{}",
        part(secret.metadata.uid),
        part(secret.metadata.resource_version),
        reference.key
    );
    Ok(ReadToken { token, version })
}

fn token_missing(
    cloud: Cloud,
    namespace: &str,
    reference: &TokenSecretRef,
    problem: &str,
) -> Trouble {
    let (name, key) = (&reference.name, &reference.key);
    Trouble::terminal(Blocked {
        reason: reason::TOKEN_SECRET_MISSING,
        message: format!(
            "The API token of {cloud} should be in Secret {namespace}/{name} under key {key}: {problem}. Put it there."
        ),
    })
}

/// What a session was built from. Another one needs other clients.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    uid: String,
    tokens: [String; 2],
    groups: [String; 2],
    account: AccountId,
    zone: ZoneId,
}

/// What a pass depended on. While it is the same, the pass need not be repeated before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inputs {
    pub(super) generation: Option<i64>,
    pub(super) retry: Option<String>,
    pub(super) reconcile_at: Option<String>,
    pub(super) has_instances: bool,
    pub(super) token_stored: bool,
    pub(super) deleting: bool,
}

/// What the last pass came to.
#[derive(Clone)]
pub(super) struct Remembered {
    pub(super) inputs: Inputs,
    pub(super) outcome: Outcome,
    /// `None`: until the inputs change.
    pub(super) until: Option<Instant>,
    /// Passes since the last thorough one.
    pub(super) glances: u32,
}

/// A pool whose tokens could be read.
pub(super) struct Session {
    origin: Origin,
    pub(super) hetzner: Arc<dyn HetznerApi>,
    pub(super) cloudflare: Arc<dyn CloudflareApi>,
    pub(super) inventory: Arc<Inventory>,
    pub(super) dns: Arc<DnsQueue>,
    sweep: watch::Receiver<SweepState>,
    now: Arc<Notify>,
    remembered: Mutex<Option<Remembered>>,
    /// Ends the sweeping task.
    _sweeping: DropGuard,
}

impl Session {
    pub(super) fn sweep(&self) -> SweepState {
        self.sweep.borrow().clone()
    }

    /// Sweeps without waiting for the end of a pause.
    pub(super) fn sweep_now(&self) {
        self.now.notify_one();
    }

    pub(super) fn remembered(&self) -> Option<Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn remember(&self, remembered: Option<Remembered>) {
        *self.remembered.lock().unwrap_or_else(PoisonError::into_inner) = remembered;
    }
}

/// The sessions of all pools.
pub(super) struct Sessions {
    by_pool: Mutex<HashMap<String, Arc<Session>>>,
    installation: InstallationId,
    sweep_interval: Duration,
    shutdown: CancellationToken,
    wake: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Sessions {
    /// No session yet. `wake` makes a pool be looked at, when a sweep brought news.
    pub(super) fn new(
        installation: InstallationId,
        sweep_interval: Duration,
        shutdown: CancellationToken,
        wake: Arc<dyn Fn(&str) + Send + Sync>,
    ) -> Self {
        Self { by_pool: Mutex::default(), installation, sweep_interval, shutdown, wake }
    }

    fn by_pool(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.by_pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the last pass over a pool came to.
    pub(super) fn remembered(&self, pool: &str) -> Option<Remembered> {
        self.by_pool().get(pool).and_then(|session| session.remembered())
    }

    /// Ends the session of a pool.
    pub(super) fn remove(&self, pool: &str) {
        self.by_pool().remove(pool);
    }

    /// The session of a pool, a new one if there is none or its tokens or accounts changed.
    pub(super) fn open(
        &self,
        pool: &str,
        uid: &str,
        settings: &PoolSettings,
        spec: &HostingPoolSpec,
        parsed: &ParsedSpec,
        tokens: [ReadToken; 2],
    ) -> Result<Arc<Session>, ConfigError> {
        let group = |group: &Option<String>| group.clone().unwrap_or_else(|| pool.to_owned());
        let [hetzner, cloudflare] = tokens;
        let origin = Origin {
            uid: uid.to_owned(),
            tokens: [hetzner.version, cloudflare.version],
            groups: [group(&spec.hetzner.budget_group), group(&spec.cloudflare.budget_group)],
            account: parsed.account.clone(),
            zone: parsed.zone.clone(),
        };
        let known = self.by_pool().get(pool).cloned();
        if let Some(known) = known.filter(|known| known.origin == origin) {
            return Ok(known);
        }
        let config = |cloud, group: &str, url: &url::Url, token| ClientConfig {
            extra_root_certificates: settings.extra_roots.clone(),
            observer: Arc::clone(&settings.observer),
            ..ClientConfig::new(url.clone(), token, settings.budgets.budget(cloud, group))
        };
        let [hetzner_group, cloudflare_group] = &origin.groups;
        let hetzner: Arc<dyn HetznerApi> = Arc::new(HetznerClient::new(config(
            Cloud::Hetzner,
            hetzner_group,
            &settings.hetzner_endpoint,
            hetzner.token,
        ))?);
        let cloudflare: Arc<dyn CloudflareApi> = Arc::new(CloudflareClient::new(
            config(
                Cloud::Cloudflare,
                cloudflare_group,
                &settings.cloudflare_endpoint,
                cloudflare.token,
            ),
            parsed.account.clone(),
        )?);
        let session = Arc::new(self.start(pool, origin, hetzner, cloudflare));
        self.by_pool().insert(pool.to_owned(), Arc::clone(&session));
        Ok(session)
    }

    fn start(
        &self,
        pool: &str,
        origin: Origin,
        hetzner: Arc<dyn HetznerApi>,
        cloudflare: Arc<dyn CloudflareApi>,
    ) -> Session {
        let zone = origin.zone.clone();
        let inventory = Arc::new(Inventory::new(
            Arc::clone(&hetzner),
            Arc::clone(&cloudflare),
            zone.clone(),
            self.installation,
        ));
        let dns = Arc::new(DnsQueue::new(Arc::clone(&cloudflare), zone));
        let (news, sweep) = watch::channel(SweepState::Pending);
        let stop = self.shutdown.child_token();
        let now = Arc::new(Notify::new());
        let sweeper = Sweeper {
            pool: pool.to_owned(),
            inventory: Arc::clone(&inventory),
            interval: self.sweep_interval,
            news,
            wake: Arc::clone(&self.wake),
            now: Arc::clone(&now),
        };
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(sweeper.run()).await });
        Session {
            origin,
            hetzner,
            cloudflare,
            inventory,
            dns,
            sweep,
            now,
            remembered: Mutex::default(),
            _sweeping: stop.drop_guard(),
        }
    }
}

/// The task that lists a pool's clouds again and again.
struct Sweeper {
    pool: String,
    inventory: Arc<Inventory>,
    interval: Duration,
    news: watch::Sender<SweepState>,
    wake: Arc<dyn Fn(&str) + Send + Sync>,
    now: Arc<Notify>,
}

impl Sweeper {
    async fn run(self) {
        let backoff = Backoff::default();
        loop {
            let result = self.inventory.sweep().await;
            let state = next_state(&self.news.borrow(), result);
            let pause = match &state {
                SweepState::Failed { error, .. } => {
                    tracing::warn!(pool = self.pool, %error, "a sweep failed");
                    let trouble = Trouble::cloud(error, "");
                    match trouble.again {
                        // A refused token: it may be mended at the cloud, of which nothing tells here.
                        _ if trouble.blocked.reason == reason::UNAUTHORIZED => SLOWLY,
                        Again::After(pause) => pause.max(backoff.next(&(), random())),
                        _ => backoff.next(&(), random()),
                    }
                }
                SweepState::Done | SweepState::Pending => {
                    backoff.reset(&());
                    self.interval
                }
            };
            let changed = self.news.send_if_modified(|old| {
                let changed = *old != state;
                *old = state;
                changed
            });
            if changed {
                (self.wake)(&self.pool);
            }
            // A person who asks does not wait for a pause to end.
            let _ = tokio::time::timeout(pause, self.now.notified()).await;
        }
    }
}

fn next_state(old: &SweepState, result: Result<(), crate::cloud::CloudError>) -> SweepState {
    let (swept_before, times) = match old {
        SweepState::Pending => (false, 0),
        SweepState::Done => (true, 0),
        SweepState::Failed { swept_before, times, .. } => (*swept_before, *times),
    };
    match result {
        Ok(()) => SweepState::Done,
        Err(error) => SweepState::Failed { error, swept_before, times: times.saturating_add(1) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::{CloudError, ErrorKind};
    use k8s_openapi::ByteString;
    use rstest::rstest;

    fn reference() -> TokenSecretRef {
        TokenSecretRef { name: "clouds".to_owned(), key: "hetzner".to_owned() }
    }

    fn secret(key: &str, value: &str) -> KubeSecret {
        let data = [(key.to_owned(), ByteString(value.into()))].into();
        KubeSecret { data: Some(data), ..KubeSecret::default() }
    }

    #[rstest]
    #[case(None, "no such Secret")]
    #[case(Some(KubeSecret::default()), "no such key")]
    #[case(Some(secret("token", "abc")), "no such key")]
    #[case(Some(secret("hetzner", " \n")), "empty")]
    #[case(Some(secret("hetzner", "a b")), "visible ASCII")]
    fn a_token_that_is_not_there_is_explained(
        #[case] secret: Option<KubeSecret>,
        #[case] about: &str,
    ) {
        let problem = parse_token(secret, &reference()).err().unwrap();
        assert!(problem.contains(about), "{problem}");
        let trouble = token_missing(Cloud::Hetzner, "moorage-system", &reference(), &problem);
        for part in ["moorage-system/clouds", "key hetzner"] {
            assert!(trouble.blocked.message.contains(part), "{}", trouble.blocked.message);
        }
    }

    #[test]
    fn a_token_is_read_with_its_version() {
        let mut secret = secret("hetzner", "abc\n");
        secret.metadata.resource_version = Some("12".to_owned());
        let read =
            parse_token(Some(secret), &reference()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(read.version, "/12/hetzner");
    }

    #[test]
    fn failures_in_a_row_are_counted_and_a_success_is_remembered() {
        let kind = ErrorKind::Transient { maybe_applied: false };
        let error = CloudError::new(Cloud::Hetzner, "list_servers", kind, "");
        let mut state = next_state(&SweepState::Pending, Err(error.clone()));
        assert!(matches!(state, SweepState::Failed { swept_before: false, times: 1, .. }));
        state = next_state(&state, Ok(()));
        assert_eq!(state, SweepState::Done);
        state = next_state(&state, Err(error.clone()));
        state = next_state(&state, Err(error));
        assert!(matches!(state, SweepState::Failed { swept_before: true, times: 2, .. }));
    }
}
