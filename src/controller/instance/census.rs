//! What is counted over all instances, now and then rather than at every change: the phases for the
//! metrics.

use std::{collections::HashSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{Resource as _, ResourceExt as _, runtime::reflector::Store};
use tokio_util::sync::CancellationToken;

use super::{GuardedInstance, is_claimed};
use crate::{
    admission::{Applicant, PoolStanding},
    api::OpenClawInstance,
    cluster::ClusterApi,
    controller::context::Context,
    controller::pool_runtime::{PoolRuntime, PoolState, Pools},
    instance::deletion::has_history,
};

const INTERVAL: Duration = Duration::from_secs(10);

/// Counts until `shutdown`.
pub(super) async fn keep(
    ctx: Arc<Context>,
    cluster: Arc<dyn ClusterApi>,
    instances: Store<GuardedInstance>,
    shutdown: CancellationToken,
) {
    // The writer lives as long as the watch, so there is no error to handle.
    let _ = instances.wait_until_ready().await;
    // Set by nobody else.
    let _ = ctx.instances.set(instances.clone());
    let mut interval = tokio::time::interval(INTERVAL);
    while shutdown.run_until_cancelled(interval.tick()).await.is_some() {
        let state = instances.state();
        let readable = || state.iter().filter_map(|instance| instance.0.as_ref().ok());
        let phases = readable().filter_map(|instance| instance.status.as_ref()?.phase);
        ctx.metrics.set_instances(phases);
        let uids: HashSet<_> =
            state.iter().filter_map(|instance| instance.meta().uid.as_deref()).collect();
        cluster.retain(&|uid| uids.contains(uid));
    }
}

/// What admissions are decided about. The context keeps the register, so that this must not keep it.
pub(super) fn population(
    ctx: &Arc<Context>,
    instances: Store<GuardedInstance>,
) -> impl Fn() -> (Vec<Applicant>, Vec<PoolStanding>) + Send + Sync + 'static {
    let ctx = Arc::downgrade(ctx);
    move || {
        let standing = ctx.upgrade().map(|ctx| standing(&ctx.pools));
        (applicants(&instances), standing.unwrap_or_default())
    }
}

/// All instances, as far as their admission is concerned. One that cannot be read counts for what it has
/// in the clouds: else whoever spoils an object of his own would have room for another server.
fn applicants(instances: &Store<GuardedInstance>) -> Vec<Applicant> {
    let state = instances.state();
    state.iter().filter_map(|instance| considered(instance)).collect()
}

/// All that the pools' clouds hold.
fn standing(pools: &Pools) -> Vec<PoolStanding> {
    let running = pools.all().into_iter().filter_map(|state| match state {
        PoolState::Running(pool) => Some(pool),
        PoolState::Starting | PoolState::Absent | PoolState::Blocked(_) => None,
    });
    let of = |pool: Arc<PoolRuntime>| PoolStanding {
        pool: pool.name.clone(),
        all: pool.inventory.standing(),
    };
    running.map(of).collect()
}

fn considered(instance: &GuardedInstance) -> Option<Applicant> {
    match &instance.0 {
        Ok(instance) => Some(applicant(instance)),
        Err(unreadable) => {
            let salvaged = applicant(unreadable.salvage.as_deref()?);
            let granted = salvaged.granted || unreadable.in_cloud;
            granted.then_some(Applicant { granted, ended: false, ..salvaged })
        }
    }
}

fn applicant(instance: &OpenClawInstance) -> Applicant {
    let granted = instance.status.as_ref().is_some_and(has_history);
    let deleting = instance.metadata.deletion_timestamp.is_some();
    Applicant {
        namespace: instance.namespace().unwrap_or_default(),
        name: instance.name_any(),
        uid: instance.uid().unwrap_or_default(),
        created: instance.creation_timestamp().map_or(Timestamp::MAX, |time| time.0),
        pool: instance.spec.pool.to_string(),
        hostname: instance.spec.hostname.to_string(),
        granted,
        let_in: false,
        begun: instance.status.as_ref().is_some_and(|status| status.server.is_some()),
        resting: instance.spec.suspend || deleting,
        leaving: deleting,
        ended: deleting && !granted && !is_claimed(instance),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn instance(generation: u64, status: &serde_json::Value) -> GuardedInstance {
        serde_json::from_str(
            &json!({
                "metadata": {"name": "ada", "namespace": "tenants", "uid": "u"},
                "spec": {"pool": "eu-1", "hostname": "ada", "access": {"tokenGeneration": generation}},
                "status": status,
            })
            .to_string(),
        )
        .unwrap()
    }

    #[test]
    fn an_unreadable_instance_still_counts_for_its_server() {
        let with_server = json!({"server": {"id": 4711, "epoch": "0011223344556677"}});
        let spoiled = instance(1 << 32, &with_server);
        assert!(spoiled.0.is_err());
        let counted = considered(&spoiled).expect("it has a server");
        assert!(counted.granted);
        assert_eq!((&*counted.pool, &*counted.hostname), ("eu-1", "ada"));
        assert!(considered(&instance(1 << 32, &json!({}))).is_none(), "it has nothing");
        assert!(considered(&instance(1, &with_server)).is_some());
    }
}
