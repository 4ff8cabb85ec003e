//! Leader election over the Lease `moorage-operator`: only its holder writes. The lease itself is
//! the business of `kube-lease-manager`; three things that it leaves open are closed here.
//!
//! It reports a lost lease only when it can read that somebody else has it, so a leader that is cut
//! off from the API server would go on for ever. Every renewal is therefore timed, and leadership
//! ends before the lease can, whatever the network does. It sleeps until the lease that it knows of
//! ends, so a lease that was given up is looked for here. And a rival that clears an expired lease
//! may be a moment late, so a new holder looks again before it begins.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use http::{Method, Request, Response};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, Config,
    client::{Body, ClientBuilder},
};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError, LeaseParams};
use parking_lot::{Mutex, MutexGuard};
use thiserror::Error;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tower::{Layer, Service};

/// Name of the Lease, in the operator's namespace.
pub const LEASE_NAME: &str = "moorage-operator";
/// Field manager of the Lease's fields, completed by the identity: each holder needs its own, so that
/// the API server refuses two who take the lease at once.
const FIELD_MANAGER: &str = "moorage-leader";
/// A late release by a rival has arrived after this time.
const SETTLE: Duration = Duration::from_secs(1);
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(2);

/// How long a lease lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTiming {
    /// How long after its last renewal others may take it; whole seconds.
    pub lasts: Duration,
    /// How long before its end it is renewed; whole seconds.
    pub renew_before: Duration,
    /// A leader whose last renewal is this old stops. Less than `lasts`, for clocks that differ.
    pub trusted_for: Duration,
}

impl Default for LeaseTiming {
    fn default() -> Self {
        Self {
            lasts: Duration::from_secs(30),
            renew_before: Duration::from_secs(10),
            trusted_for: Duration::from_secs(25),
        }
    }
}

/// Why this process does not lead.
#[derive(Debug, Error)]
pub enum LeaderError {
    /// The client for the lease cannot be made.
    #[error("the client for the lease cannot be made: {0}")]
    Client(#[source] Box<kube::Error>),
    /// The lease cannot be read or made.
    #[error(
        "Lease {LEASE_NAME} in namespace {namespace} cannot be read or made: {source}; check that the API server is reachable and that the operator's Role allows get, create and patch of leases"
    )]
    Lease { namespace: String, source: Box<LeaseManagerError> },
    /// Another process has the lease now.
    #[error("leadership is lost: another process holds Lease {LEASE_NAME} now")]
    Lost,
    /// The lease could not be renewed.
    #[error("leadership is lost: Lease {LEASE_NAME} was last renewed {0} s ago")]
    NotRenewed(u64),
}

/// A process that wants to lead.
pub struct Candidate {
    manager: LeaseManager,
    client: Client,
    leases: Api<Lease>,
    namespace: String,
    parameters: LeaseParams,
    identity: String,
    renewals: Renewals,
    trusted_for: Duration,
    /// The version of the lease when another process had it last.
    before: Mutex<Option<String>>,
}

impl Candidate {
    /// Reads the lease, or makes it. `identity` must be this process's alone.
    ///
    /// # Panics
    /// If `timing` renews a lease before it begins, or does not renew it at all.
    pub async fn new(
        mut config: Config,
        namespace: &str,
        identity: String,
        timing: LeaseTiming,
    ) -> Result<Self, LeaderError> {
        config.connect_timeout = Some(REQUEST_TIMEOUT);
        config.read_timeout = Some(REQUEST_TIMEOUT);
        config.write_timeout = Some(REQUEST_TIMEOUT);
        config.default_retry = false;
        let renewals = Renewals::default();
        let builder = ClientBuilder::try_from(config);
        let builder = builder.map_err(|error| LeaderError::Client(Box::new(error)))?;
        let client: Client = builder.with_layer(&renewals).build();
        let parameters =
            LeaseParams::new(&identity, timing.lasts.as_secs(), timing.renew_before.as_secs())
                .with_field_manager(format!("{FIELD_MANAGER}-{identity}"));
        let leases = Api::<Lease>::namespaced(client.clone(), namespace);
        // Before this process can take it. Not to know is no reason not to lead.
        let before = leases.get_opt(LEASE_NAME).await.ok().flatten();
        let manager = manager(&client, namespace, &parameters).await?;
        Ok(Self {
            manager,
            leases,
            client,
            namespace: namespace.to_owned(),
            parameters,
            identity,
            renewals,
            trusted_for: timing.trusted_for,
            before: Mutex::new(before.and_then(|lease| lease.metadata.resource_version)),
        })
    }

    /// Waits until this process leads.
    pub async fn elected(&mut self) {
        loop {
            let changed = tokio::select! {
                changed = self.manager.changed() => changed,
                () = self.given_up() => {
                    // A new manager knows of no lease that it would have to wait for.
                    match manager(&self.client, &self.namespace, &self.parameters).await {
                        Ok(manager) => self.manager = manager,
                        Err(error) => tracing::warn!(%error, "a free lease cannot be taken yet"),
                    }
                    continue;
                }
            };
            match changed {
                Ok(true) => {
                    sleep(SETTLE).await;
                    if self.holds_the_lease().await {
                        return;
                    }
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "Lease {LEASE_NAME} cannot be looked at; trying again");
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// The version of the cluster up to which another process is known to have led.
    pub fn led_before(&self) -> Option<String> {
        self.before().clone()
    }

    fn before(&self) -> MutexGuard<'_, Option<String>> {
        self.before.lock()
    }

    /// Waits until nobody has the lease, or it is gone.
    async fn given_up(&self) {
        loop {
            sleep(RETRY).await;
            let lease = self.leases.get_opt(LEASE_NAME).await;
            let version =
                lease.iter().flatten().find_map(|lease| lease.metadata.resource_version.clone());
            match lease.map(holder) {
                Ok(None) => return,
                Ok(Some(holder)) if holder != self.identity => *self.before() = version,
                Ok(Some(_)) => {}
                Err(error) => tracing::debug!(%error, "Lease {LEASE_NAME} cannot be looked at"),
            }
        }
    }

    async fn holds_the_lease(&self) -> bool {
        match self.leases.get_opt(LEASE_NAME).await.map(holder) {
            Ok(holder) => holder.as_deref() == Some(self.identity.as_str()),
            Err(error) => {
                tracing::warn!(%error, "Lease {LEASE_NAME} cannot be confirmed");
                false
            }
        }
    }

    /// Renews the lease for as long as that works, and ends with why it does not. Must be polled all
    /// the time while this process leads.
    pub async fn lost(&self) -> LeaderError {
        let mut taken = pin!(self.taken_by_another());
        loop {
            let deadline = self.renewals.last() + self.trusted_for;
            tokio::select! {
                () = &mut taken => return LeaderError::Lost,
                () = sleep_until(deadline) => {
                    let age = self.renewals.last().elapsed();
                    if age >= self.trusted_for {
                        return LeaderError::NotRenewed(age.as_secs());
                    }
                }
            }
        }
    }

    /// Renews until somebody else has the lease.
    async fn taken_by_another(&self) {
        loop {
            match self.manager.changed().await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, "Lease {LEASE_NAME} cannot be renewed; trying again");
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Gives the lease up if this process has it, so that another one need not wait for its end.
    pub async fn release(&self) {
        let release = async {
            if self.holds_the_lease().await {
                self.manager.release().await?;
                tracing::info!("gave Lease {LEASE_NAME} up");
            }
            Ok::<_, LeaseManagerError>(())
        };
        match timeout(RELEASE_TIMEOUT, release).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "Lease {LEASE_NAME} was not given up"),
            Err(_) => tracing::warn!("Lease {LEASE_NAME} was not given up in time"),
        }
    }
}

fn holder(lease: Option<Lease>) -> Option<String> {
    lease?.spec?.holder_identity
}

async fn manager(
    client: &Client,
    namespace: &str,
    parameters: &LeaseParams,
) -> Result<LeaseManager, LeaderError> {
    let builder = LeaseManagerBuilder::new(client.clone(), LEASE_NAME).with_namespace(namespace);
    let built = builder.with_parameters(parameters.clone()).build().await;
    built.map_err(|source| LeaderError::Lease {
        namespace: namespace.to_owned(),
        source: Box::new(source),
    })
}

/// When the lease was last written with success, by the clock that never jumps: the time at which
/// that request began.
#[derive(Clone)]
struct Renewals(Arc<Mutex<Instant>>);

impl Default for Renewals {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Renewals {
    fn last(&self) -> Instant {
        *self.0.lock()
    }

    fn renewed(&self, at: Instant) {
        *self.0.lock() = at;
    }
}

impl<S> Layer<S> for Renewals {
    type Service = Timed<S>;

    fn layer(&self, inner: S) -> Timed<S> {
        Timed { inner, renewals: self.clone() }
    }
}

/// Notes every successful write of the lease.
struct Timed<S> {
    inner: S,
    renewals: Renewals,
}

impl<S, B> Service<Request<Body>> for Timed<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (began, writes) = (Instant::now(), request.method() == Method::PATCH);
        let renewals = self.renewals.clone();
        let answered = self.inner.call(request);
        async move {
            let answer = answered.await?;
            if writes && answer.status().is_success() {
                renewals.renewed(began);
            }
            Ok(answer)
        }
        .boxed()
    }
}
