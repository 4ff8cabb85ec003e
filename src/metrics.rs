//! What the operator counts, as Prometheus metrics. Every label's values come from a bounded set:
//! names of controllers, reasons and operations in the code, and budget groups, which are as many as
//! there are pools. No instance, host or namespace is ever a label.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
    TextEncoder,
    core::{Collector, GenericCounterVec},
};

use crate::{
    api::instance::Phase,
    cloud::{BudgetRegistry, CallObserver, Cloud, StatusClass},
};

/// From an in-memory pass to the deadline of a pass, in seconds.
const RECONCILE_BUCKETS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 120.0];
/// From a near cloud to the deadline of a call, in seconds.
const CALL_BUCKETS: [f64; 8] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 20.0];

/// All phases, in the order of [`phase_index`].
const PHASES: [(Phase, &str); 8] = [
    (Phase::Pending, "Pending"),
    (Phase::Provisioning, "Provisioning"),
    (Phase::Ready, "Ready"),
    (Phase::Updating, "Updating"),
    (Phase::Degraded, "Degraded"),
    (Phase::Stalled, "Stalled"),
    (Phase::Suspended, "Suspended"),
    (Phase::Deleting, "Deleting"),
];

/// What the operator writes to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WriteKind {
    /// The status of one of Moorage's resources.
    Status,
    /// Finalizers and annotations of one of Moorage's resources.
    Finalizer,
    /// An Event.
    Event,
    /// The deletion of an object.
    Delete,
    /// Making or changing a Secret or `ConfigMap`.
    Object,
}

impl WriteKind {
    const ALL: [Self; 5] = [Self::Status, Self::Finalizer, Self::Event, Self::Delete, Self::Object];

    /// The metrics label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Finalizer => "finalizer",
            Self::Event => "event",
            Self::Delete => "delete",
            Self::Object => "object",
        }
    }
}

/// What became of an attempt to hand a credential over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryOutcome {
    /// A receipt came.
    Delivered,
    /// The agent had it before; its receipt is there.
    AlreadyDelivered,
    /// The operator or the agent refused the value.
    Refused,
    /// Nothing is known: no answer, or none that is the agent's.
    Failed,
}

impl DeliveryOutcome {
    const ALL: [Self; 4] = [Self::Delivered, Self::AlreadyDelivered, Self::Refused, Self::Failed];

    /// The metrics label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::AlreadyDelivered => "already_delivered",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// All metrics, with a registry of their own.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    reconcile_errors: IntCounterVec,
    reconcile_duration: HistogramVec,
    cloud_calls: IntCounterVec,
    cloud_call_duration: HistogramVec,
    budget_left: IntGaugeVec,
    budget_capacity: IntGaugeVec,
    deliveries: IntCounterVec,
    sweep_duration: Histogram,
    instances: IntGaugeVec,
    api_writes: IntCounterVec,
    budgets: Mutex<Option<Arc<BudgetRegistry>>>,
}

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Panics
    /// Never: names and labels are constants and differ.
    pub fn new() -> Arc<Self> {
        let made = Builder(Registry::new()).metrics();
        Arc::new(made.expect("the names of the metrics are valid and differ"))
    }

    /// The exposition format of Prometheus, version 0.0.4.
    pub fn render(&self) -> String {
        self.read_budgets();
        let encoded = TextEncoder::new().encode_to_string(&self.registry.gather());
        encoded.unwrap_or_else(|error| {
            tracing::error!(%error, "metrics cannot be encoded");
            String::new()
        })
    }

    /// Shows what is left of these budgets from now on.
    pub fn watch_budgets(&self, budgets: Arc<BudgetRegistry>) {
        *self.budgets.lock().unwrap_or_else(PoisonError::into_inner) = Some(budgets);
    }

    fn read_budgets(&self) {
        let budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(budgets) = &*budgets else { return };
        for (cloud, group, left) in budgets.left() {
            let labels = [cloud.as_str(), &group];
            self.budget_left.with_label_values(&labels).set(left.calls.into());
            self.budget_capacity.with_label_values(&labels).set(left.capacity.into());
        }
    }

    /// Begins a pass of a controller; the timer counts how it ends.
    pub fn reconcile(self: &Arc<Self>, controller: &'static str) -> ReconcileTimer {
        ReconcileTimer {
            metrics: Arc::clone(self),
            controller,
            started: Instant::now(),
            outcome: "cancelled",
        }
    }

    /// Counts an attempt to hand a credential over.
    pub fn delivery(&self, outcome: DeliveryOutcome) {
        self.deliveries.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Records a sweep of one pool's clouds.
    pub fn sweep(&self, duration: Duration) {
        self.sweep_duration.observe(duration.as_secs_f64());
    }

    /// Counts a write to the API server.
    pub fn api_write(&self, kind: WriteKind) {
        self.api_writes.with_label_values(&[kind.as_str()]).inc();
    }

    /// Replaces the number of instances in each phase.
    pub fn set_instances(&self, phases: impl IntoIterator<Item = Phase>) {
        let mut counts = [0; PHASES.len()];
        for phase in phases {
            counts[phase_index(phase)] += 1;
        }
        for ((_, label), count) in PHASES.iter().zip(counts) {
            self.instances.with_label_values(&[label]).set(count);
        }
    }
}

impl CallObserver for Metrics {
    fn call(&self, cloud: Cloud, operation: &'static str, class: StatusClass, duration: Duration) {
        let labels = [cloud.as_str(), operation, class.as_str()];
        self.cloud_calls.with_label_values(&labels).inc();
        if class != StatusClass::OverBudget {
            let histogram = self.cloud_call_duration.with_label_values(&labels[..2]);
            histogram.observe(duration.as_secs_f64());
        }
    }
}

/// Measures one pass. A pass that neither succeeds nor fails (its deadline, a panic) is `cancelled`.
#[must_use = "dropped at once it measures nothing"]
pub struct ReconcileTimer {
    metrics: Arc<Metrics>,
    controller: &'static str,
    started: Instant,
    outcome: &'static str,
}

impl ReconcileTimer {
    /// The pass ended well.
    pub fn succeeded(mut self) {
        self.outcome = "success";
    }

    /// The pass failed; `reason` is a constant of the code, such as a condition's reason.
    pub fn failed(mut self, reason: &'static str) {
        self.outcome = "error";
        self.metrics.reconcile_errors.with_label_values(&[self.controller, reason]).inc();
    }
}

impl Drop for ReconcileTimer {
    fn drop(&mut self) {
        let metrics = &self.metrics;
        metrics.reconciles.with_label_values(&[self.controller, self.outcome]).inc();
        let histogram = metrics.reconcile_duration.with_label_values(&[self.controller]);
        histogram.observe(self.started.elapsed().as_secs_f64());
    }
}

const fn phase_index(phase: Phase) -> usize {
    match phase {
        Phase::Pending => 0,
        Phase::Provisioning => 1,
        Phase::Ready => 2,
        Phase::Updating => 3,
        Phase::Degraded => 4,
        Phase::Stalled => 5,
        Phase::Suspended => 6,
        Phase::Deleting => 7,
    }
}

/// Makes metrics and registers them.
struct Builder(Registry);

impl Builder {
    fn metrics(self) -> Result<Metrics, prometheus::Error> {
        let seconds = &CALL_BUCKETS;
        let metrics = Metrics {
            reconciles: self.counter(
                "moorage_reconciles_total",
                "Passes of a controller by how they ended: success, error or cancelled.",
                &["controller", "outcome"],
            )?,
            reconcile_errors: self.counter(
                "moorage_reconcile_errors_total",
                "Passes that failed, by reason.",
                &["controller", "reason"],
            )?,
            reconcile_duration: self.histogram(
                "moorage_reconcile_duration_seconds",
                "Duration of a pass.",
                &["controller"],
                &RECONCILE_BUCKETS,
            )?,
            cloud_calls: self.counter(
                "moorage_cloud_calls_total",
                "Calls to a cloud by how they ended.",
                &["cloud", "operation", "class"],
            )?,
            cloud_call_duration: self.histogram(
                "moorage_cloud_call_duration_seconds",
                "Duration of a call to a cloud, without the wait for its budget.",
                &["cloud", "operation"],
                seconds,
            )?,
            budget_left: self.gauge(
                "moorage_budget_left",
                "Calls that are left of a budget now.",
                &["cloud", "group"],
            )?,
            budget_capacity: self.gauge(
                "moorage_budget_capacity",
                "Calls in a full budget.",
                &["cloud", "group"],
            )?,
            deliveries: self.counter(
                "moorage_deliveries_total",
                "Attempts to hand a credential to an agent.",
                &["outcome"],
            )?,
            sweep_duration: self.registered(Histogram::with_opts(
                HistogramOpts::new(
                    "moorage_sweep_duration_seconds",
                    "Duration of listing everything in one pool's clouds.",
                )
                .buckets(RECONCILE_BUCKETS.to_vec()),
            )?)?,
            instances: self.gauge(
                "moorage_instances",
                "OpenClawInstances by phase.",
                &["phase"],
            )?,
            api_writes: self.counter(
                "moorage_api_writes_total",
                "Writes to the Kubernetes API server, the Lease aside.",
                &["kind"],
            )?,
            budgets: Mutex::new(None),
            registry: self.0,
        };
        metrics.begin_at_zero();
        Ok(metrics)
    }

    fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.registered(GenericCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.registered(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.registered(HistogramVec::new(options, labels)?)
    }

    fn registered<C: Collector + Clone + 'static>(
        &self,
        collector: C,
    ) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }
}

impl Metrics {
    /// A counter that first appears with its first increment hides that increment from `rate()`.
    fn begin_at_zero(&self) {
        for kind in WriteKind::ALL {
            self.api_writes.with_label_values(&[kind.as_str()]);
        }
        for outcome in DeliveryOutcome::ALL {
            self.deliveries.with_label_values(&[outcome.as_str()]);
        }
        self.set_instances([]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered() {
        let metrics = Metrics::new();
        metrics.reconcile("instance").succeeded();
        metrics.reconcile("instance").failed("PoolNotReady");
        metrics.call(Cloud::Hetzner, "create_server", StatusClass::Success, Duration::ZERO);
        metrics.call(Cloud::Hetzner, "create_server", StatusClass::OverBudget, Duration::ZERO);
        metrics.delivery(DeliveryOutcome::Delivered);
        metrics.sweep(Duration::from_secs(1));
        metrics.api_write(WriteKind::Status);
        metrics.set_instances([Phase::Ready, Phase::Ready, Phase::Stalled]);
        let budgets = Arc::new(BudgetRegistry::default());
        budgets.budget(Cloud::Cloudflare, "eu-1");
        metrics.watch_budgets(budgets);
        let text = metrics.render();
        for line in [
            r#"moorage_reconciles_total{controller="instance",outcome="success"} 1"#,
            r#"moorage_reconciles_total{controller="instance",outcome="error"} 1"#,
            r#"moorage_reconcile_errors_total{controller="instance",reason="PoolNotReady"} 1"#,
            r#"moorage_reconcile_duration_seconds_count{controller="instance"} 2"#,
            r#"moorage_cloud_calls_total{class="success",cloud="hetzner",operation="create_server"} 1"#,
            r#"moorage_cloud_calls_total{class="over_budget",cloud="hetzner",operation="create_server"} 1"#,
            r#"moorage_cloud_call_duration_seconds_count{cloud="hetzner",operation="create_server"} 1"#,
            r#"moorage_deliveries_total{outcome="delivered"} 1"#,
            r#"moorage_deliveries_total{outcome="failed"} 0"#,
            "moorage_sweep_duration_seconds_count 1",
            r#"moorage_api_writes_total{kind="status"} 1"#,
            r#"moorage_instances{phase="Ready"} 2"#,
            r#"moorage_instances{phase="Stalled"} 1"#,
            r#"moorage_instances{phase="Deleting"} 0"#,
        ] {
            assert!(text.lines().any(|rendered| rendered == line), "{line} is not in\n{text}");
        }
        assert!(text.contains(r#"moorage_budget_left{cloud="cloudflare",group="eu-1"}"#), "{text}");
    }

    #[test]
    fn a_pass_that_is_dropped_counts_as_cancelled() {
        let metrics = Metrics::new();
        drop(metrics.reconcile("pool"));
        let line = r#"moorage_reconciles_total{controller="pool",outcome="cancelled"} 1"#;
        assert!(metrics.render().contains(line));
    }

    #[test]
    fn phases_are_counted_under_their_own_names() {
        for (index, (phase, label)) in PHASES.iter().enumerate() {
            assert_eq!(phase_index(*phase), index);
            assert_eq!(format!("{phase:?}"), *label);
        }
    }
}
