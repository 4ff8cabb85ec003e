//! Which master key a server obeys, and which one comes next. What is derived for a server is derived
//! from the key that is recorded for it, and from no other.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use moorage_wire::Epoch;
use parking_lot::Mutex;

use super::Controller;
use crate::{
    agent::ServerKeys,
    api::OpenClawInstanceStatus,
    controller::pool_runtime::PoolRuntime,
    instance::{Observed, Wanted, handover::OperatorKeys},
    master_key::MasterKey,
};

/// Handovers that one pool begins within [`WINDOW`]: each costs two calls to Cloudflare, whose budget
/// is for more than that.
const AT_ONCE: u32 = 30;
const WINDOW: Duration = Duration::from_secs(60);

/// How many handovers each pool has begun lately.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<HashMap<String, (Timestamp, u32)>>);

impl Pace {
    /// Whether one more may begin now; counts it.
    pub(super) fn take(&self, pool: &str, now: Timestamp) -> bool {
        let mut begun = self.0.lock();
        let (since, count) = begun.entry(pool.to_owned()).or_insert((now, 0));
        if now.duration_since(*since).unsigned_abs() >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= AT_ONCE
    }
}

impl Controller {
    /// The master key of the server that was seen. One whose key nobody has is refused before; until
    /// its epoch is replaced nothing is signed for it.
    pub(super) fn master_key(&self, observed: &Observed) -> Arc<MasterKey> {
        let keys = &self.ctx.master_keys;
        keys.of_server(observed.master_key_id.as_deref()).unwrap_or_else(|| keys.newest())
    }

    /// The id of the server's master key. It stands in the status; where that was lost, the agent is
    /// asked with each key there is. `None` while that cannot be told.
    pub(super) async fn key_of_server(
        &self,
        wanted: &Wanted,
        pool: &PoolRuntime,
        status: &OpenClawInstanceStatus,
        (epoch, server_is_there): (Option<Epoch>, bool),
    ) -> Option<String> {
        let recorded = status.server.as_ref().and_then(|server| server.master_key_id.clone());
        let keys = self.ctx.master_keys.get();
        if recorded.is_some() || keys.older().is_empty() {
            return recorded.or_else(|| Some(keys.newest().id().to_string()));
        }
        let (Some(epoch), true) = (epoch, server_is_there) else {
            return Some(keys.newest().id().to_string());
        };
        let route = Self::route(&wanted.subject, pool)?;
        for key in keys.all() {
            let derived = ServerKeys::derive(key, wanted.subject.instance, epoch);
            if self.ctx.agents.enrol(&route, &derived).await.is_ok() {
                return Some(key.id().to_string());
            }
        }
        None
    }

    /// The operator's keys for a server, and whether it may be handed over now.
    pub(super) fn operator_keys(
        &self,
        wanted: &Wanted,
        observed: &Observed,
        epoch: Epoch,
    ) -> OperatorKeys {
        let public =
            |key: &MasterKey| (self.costly.operator_key)(key, wanted.subject.instance, epoch);
        let (own, newest) = (self.master_key(observed), self.ctx.master_keys.newest());
        let newest = (own.id() != newest.id()).then(|| public(&newest));
        let own = public(&own);
        let obeyed = observed.agent.view().map(|view| view.report.details.operator_keys.as_slice());
        // Nobody's turn is used up by a server that cannot begin.
        let could_begin = newest.is_some() && obeyed == Some(&[own]);
        let may_begin = could_begin && self.pace.take(&wanted.subject.pool, observed.now);
        OperatorKeys { own, newest, may_begin }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_hands_over_a_limited_number_of_servers_at_once() {
        let pace = Pace::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        let taken = |second| (0..100).filter(|_| pace.take("eu-1", at(second))).count();
        assert_eq!(taken(0), 30);
        assert_eq!(taken(59), 0);
        assert!(pace.take("eu-2", at(59)));
        assert_eq!(taken(60), 30);
    }
}
