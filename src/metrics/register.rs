//! The names, help texts, labels and buckets of all metrics, and their registration.

use parking_lot::Mutex;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
    core::{Collector, GenericCounterVec},
};
use strum::VariantArray as _;

use super::{
    Metrics,
    label::{DeliveryOutcome, WriteKind},
};

/// What is said of each price.
const COST: &str = "What the servers among them cost a month, in the project's currency.";
/// From an in-memory pass to the deadline of a pass, in seconds.
const RECONCILE_BUCKETS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 120.0];
/// From a near cloud to the deadline of a call, in seconds.
const CALL_BUCKETS: [f64; 8] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 20.0];

/// Makes metrics and registers them.
pub(super) struct Builder(pub(super) Registry);

impl Builder {
    /// All of them, at zero.
    pub(super) fn metrics(self) -> Result<Metrics, prometheus::Error> {
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
            master_key_servers: self.gauge(
                "moorage_master_key_servers",
                "Servers that obey the newest master key, and older ones.",
                &["key"],
            )?,
            waiting_secrets: self.registered(IntGauge::new(
                "moorage_waiting_secrets",
                "Sealed Secrets that have been waiting for their instance for 15 minutes.",
            )?)?,
            orphans: self.gauge(
                "moorage_orphans",
                "Objects in a pool's clouds under this installation's id that belong to nobody.",
                &["pool"],
            )?,
            oldest_orphan: self.gauge(
                "moorage_orphans_oldest_seconds",
                "Time since the oldest of them was first seen.",
                &["pool"],
            )?,
            orphans_cost: self.money("moorage_orphans_monthly_cost", COST, &["pool"])?,
            orphans_since: Mutex::default(),
            retained: self.gauge(
                "moorage_retained",
                "Objects in a pool's clouds that deletionPolicy Retain, or a label, keeps.",
                &["pool"],
            )?,
            retained_cost: self.money("moorage_retained_monthly_cost", COST, &["pool"])?,
            api_writes: self.counter(
                "moorage_api_writes_total",
                "Writes to the Kubernetes API server, the Lease aside.",
                &["kind"],
            )?,
            budgets: Mutex::new(None),
            registry: self.0,
        };
        Ok(metrics.begun_at_zero())
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

    fn money(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GaugeVec, prometheus::Error> {
        self.registered(GaugeVec::new(Opts::new(name, help), labels)?)
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
    fn begun_at_zero(self) -> Self {
        for kind in WriteKind::VARIANTS {
            self.api_writes.with_label_values(&[kind.as_str()]);
        }
        for outcome in DeliveryOutcome::VARIANTS {
            self.deliveries.with_label_values(&[outcome.as_str()]);
        }
        self.set_instances([]);
        self
    }
}
