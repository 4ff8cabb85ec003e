//! What the operator counts, as Prometheus metrics. Every label's values come from a bounded set:
//! names of controllers, reasons and operations in the code, and budget groups, which are as many as
//! there are pools. No instance, host or namespace is ever a label.

mod label;
mod register;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus::{
    GaugeVec, Histogram, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use crate::{
    api::{instance::Phase, pool::RetainedStatus},
    cloud::{BudgetRegistry, CallObserver, Cloud, StatusClass},
    master_keys::{KeyUse, MasterKeys},
};

pub use label::{DeliveryOutcome, WriteKind};
use label::{PHASES, phase_index};
use register::Builder;

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
    master_key_servers: IntGaugeVec,
    waiting_secrets: IntGauge,
    orphans: IntGaugeVec,
    oldest_orphan: IntGaugeVec,
    orphans_cost: GaugeVec,
    orphans_since: Mutex<BTreeMap<String, Timestamp>>,
    retained: IntGaugeVec,
    retained_cost: GaugeVec,
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
        self.read_ages();
        let encoded = TextEncoder::new().encode_to_string(&self.registry.gather());
        encoded.unwrap_or_else(|error| {
            tracing::error!(%error, "metrics cannot be encoded");
            String::new()
        })
    }

    /// Shows what is left of these budgets from now on.
    pub fn watch_budgets(&self, budgets: Arc<BudgetRegistry>) {
        *self.budgets.lock() = Some(budgets);
    }

    fn read_budgets(&self) {
        let budgets = self.budgets.lock();
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

    /// Replaces the number of sealed Secrets that have been waiting for their instance for long.
    pub fn set_waiting_secrets(&self, count: u32) {
        self.waiting_secrets.set(count.into());
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

/// What is counted of a pool's orphans.
#[derive(Debug, Clone, Copy, Default)]
pub struct OrphanFigures {
    pub count: u32,
    /// When the oldest was first seen.
    pub oldest: Option<Timestamp>,
    /// What the servers among them cost.
    pub monthly_cost: Option<f64>,
}

/// What is counted of what was left behind on purpose.
#[derive(Debug, Clone, Copy, Default)]
pub struct RetainedFigures {
    pub count: u32,
    /// What the servers among them cost.
    pub monthly_cost: Option<f64>,
}

impl RetainedFigures {
    /// As a pool's status tells them.
    pub fn of(status: &RetainedStatus) -> Self {
        let RetainedStatus { servers, tunnels, dns_records, monthly_cost, .. } = status;
        let count = servers.saturating_add(*tunnels).saturating_add(*dns_records);
        Self { count, monthly_cost: monthly_cost.as_ref().and_then(|cost| cost.parse().ok()) }
    }
}

impl Metrics {
    /// Replaces what is counted of what was left behind in a pool's clouds on purpose.
    pub fn set_retained(&self, pool: &str, figures: RetainedFigures) {
        self.retained.with_label_values(&[pool]).set(figures.count.into());
        let cost = figures.monthly_cost.unwrap_or_default();
        self.retained_cost.with_label_values(&[pool]).set(cost);
    }

    /// Replaces what is counted of a pool's orphans.
    pub fn set_orphans(&self, pool: &str, figures: OrphanFigures) {
        self.orphans.with_label_values(&[pool]).set(figures.count.into());
        self.orphans_cost.with_label_values(&[pool]).set(figures.monthly_cost.unwrap_or_default());
        let mut since = self.orphans_since.lock();
        match figures.oldest {
            Some(oldest) => since.insert(pool.to_owned(), oldest),
            None => since.remove(pool),
        };
        self.oldest_orphan.with_label_values(&[pool]).set(0);
    }

    /// Forgets what was counted of a pool that is gone.
    pub fn forget_pool(&self, pool: &str) {
        let mut since = self.orphans_since.lock();
        since.remove(pool);
        // What was never set is not there, which is just as well.
        let _ = self.orphans.remove_label_values(&[pool]);
        let _ = self.oldest_orphan.remove_label_values(&[pool]);
        let _ = self.orphans_cost.remove_label_values(&[pool]);
        let _ = self.retained.remove_label_values(&[pool]);
        let _ = self.retained_cost.remove_label_values(&[pool]);
    }

    fn read_ages(&self) {
        let since = self.orphans_since.lock();
        for (pool, since) in &*since {
            let age = Timestamp::now().duration_since(*since).as_secs().max(0);
            self.oldest_orphan.with_label_values(&[pool]).set(age);
        }
    }

    /// Replaces the number of servers that obey the newest master key, and an older one.
    pub fn set_master_keys(&self, keys: &MasterKeys, counted: &KeyUse) {
        let count = |id: &str| i64::from(counted.servers.get(id).copied().unwrap_or(0));
        let newest = count(keys.newest().id().as_str());
        let older = keys.older().iter().map(|key| count(key.id().as_str())).sum();
        self.master_key_servers.with_label_values(&["newest"]).set(newest);
        self.master_key_servers.with_label_values(&["older"]).set(older);
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
        metrics.set_waiting_secrets(2);
        let oldest = Some(Timestamp::now() - Duration::from_secs(90));
        metrics.set_orphans("eu-1", OrphanFigures { count: 2, oldest, monthly_cost: Some(7.5) });
        metrics.set_orphans("eu-2", OrphanFigures { count: 1, ..OrphanFigures::default() });
        metrics.set_retained("eu-1", RetainedFigures { count: 4, monthly_cost: Some(2.5) });
        metrics.set_retained("eu-2", RetainedFigures::default());
        metrics.forget_pool("eu-2");
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
            "moorage_waiting_secrets 2",
            r#"moorage_api_writes_total{kind="status"} 1"#,
            r#"moorage_instances{phase="Ready"} 2"#,
            r#"moorage_orphans{pool="eu-1"} 2"#,
            r#"moorage_orphans_oldest_seconds{pool="eu-1"} 90"#,
            r#"moorage_orphans_monthly_cost{pool="eu-1"} 7.5"#,
            r#"moorage_retained{pool="eu-1"} 4"#,
            r#"moorage_retained_monthly_cost{pool="eu-1"} 2.5"#,
            r#"moorage_instances{phase="Stalled"} 1"#,
            r#"moorage_instances{phase="Deleting"} 0"#,
        ] {
            assert!(text.lines().any(|rendered| rendered == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains(r#"{pool="eu-2"}"#), "{text}");
        assert!(text.contains(r#"moorage_budget_left{cloud="cloudflare",group="eu-1"}"#), "{text}");
    }

    #[test]
    fn a_pass_that_is_dropped_counts_as_cancelled() {
        let metrics = Metrics::new();
        drop(metrics.reconcile("pool"));
        let line = r#"moorage_reconciles_total{controller="pool",outcome="cancelled"} 1"#;
        assert!(metrics.render().contains(line));
    }
}
