//! The tunnel's ingress rules: put, and compared.

use std::time::Duration;

use super::{Apply, Executor, PassError};
use crate::{
    api::conditions::ConditionType,
    cloud::{CloudError, ErrorKind, Priority},
    instance::{
        Observed,
        routes::{AppliedRules, RoutesStep, digest},
    },
};

/// For how long a comparison of the rules is put off when the budget has no call for it.
const CHECK_PUT_OFF: Duration = Duration::from_mins(5);

impl Apply for RoutesStep {
    async fn apply(
        self,
        executor: &mut Executor<'_>,
        observed: &mut Observed,
    ) -> Result<AppliedRules, PassError> {
        let cloudflare = &executor.pool.cloudflare;
        let (put, id, rules) = match self {
            Self::Put(id, rules) => (true, id, rules),
            Self::Check(id, rules) => (false, id, rules),
        };
        let applied = |at| AppliedRules { digest: digest(&rules), at };
        if !put {
            let found = match cloudflare.get_tunnel_configuration(Priority::Sweep, &id).await {
                // Nothing waits for a comparison: what else the instance needs goes on.
                Err(CloudError { kind: ErrorKind::BudgetExhausted { .. }, .. }) => {
                    let interval = executor.controller.ctx.intervals.routes;
                    let again = interval.saturating_sub(CHECK_PUT_OFF.min(interval / 2));
                    return Ok(applied(observed.now.checked_sub(again).unwrap_or(observed.now)));
                }
                found => found.map_err(PassError::of_cloud(ConditionType::RoutesReady))?,
            };
            let found = found.and_then(|found| found.config);
            if found.is_some_and(|found| found.ingress == rules.ingress) {
                return Ok(applied(observed.now));
            }
            tracing::info!(
                "the tunnel's ingress rules were changed by somebody; setting them again"
            );
        }
        let put = cloudflare.put_tunnel_configuration(&id, &rules).await;
        put.map_err(PassError::of_cloud(ConditionType::RoutesReady))?;
        Ok(applied(observed.now))
    }
}
