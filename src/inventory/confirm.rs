//! Confirmations: what the clouds themselves say of single instances, asked after the question was put.
//! A round of questions answers all that wait for it, so that many deletions cost few lists.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use moorage_wire::InstanceId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Inventory;
use crate::{
    api::label,
    cloud::{CloudError, Flow, Priority},
    cloudflare::{DnsRecord, Tunnel},
    hetzner::{LabelSelector, Server},
    names,
};

/// How long a round waits for company before it asks.
const GATHER: Duration = Duration::from_millis(500);
/// From the end of a round to the questions of the next: rounds are nobody's call in particular, so that
/// whoever deletes without end must not fill the budget with them.
const BETWEEN: Duration = Duration::from_secs(2);
/// The most instances that one list of servers asks for: what fits into a URL.
const PER_LIST: usize = 40;

/// What the clouds hold, listed after all who get it had asked.
#[derive(Debug, Default)]
pub struct Confirmed {
    /// Servers with the labels of the instances that were asked for.
    pub servers: Vec<Server>,
    /// All tunnels of this installation that are not deleted.
    pub tunnels: Vec<Tunnel>,
    /// All records of the zone.
    pub records: Vec<DnsRecord>,
}

type Answer = Result<Arc<Confirmed>, CloudError>;

/// Who waits for the next round.
#[derive(Default)]
pub(super) struct Confirmations {
    /// Whose turn it is to ask for all, and when the last round ended.
    turn: tokio::sync::Mutex<Option<Timestamp>>,
    waiting: Mutex<Vec<(InstanceId, oneshot::Sender<Answer>)>>,
}

impl Confirmations {
    fn join(&self, instance: InstanceId) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().push((instance, sender));
        receiver
    }

    fn take(&self) -> Vec<(InstanceId, oneshot::Sender<Answer>)> {
        std::mem::take(&mut *self.waiting.lock())
    }
}

impl Inventory {
    /// Asks the clouds what there is of an instance; the lists may hold others' objects as well. They
    /// were begun after this was called. It is nobody's call in particular: it is made for all who wait.
    pub async fn confirm(&self, instance: InstanceId) -> Result<Arc<Confirmed>, CloudError> {
        let mut answer = self.confirmations.join(instance);
        loop {
            let mut turn = self.confirmations.turn.lock().await;
            if let Ok(answer) = answer.try_recv() {
                return answer;
            }
            // A clock that was set back must not make it longer than that.
            let since = turn.map_or(BETWEEN, |ended| elapsed(ended, self.clock.now()));
            self.clock.sleep(GATHER.max(BETWEEN.saturating_sub(since))).await;
            let asked = self.confirmations.take();
            let instances: Vec<_> = asked.iter().map(|(instance, _)| *instance).collect();
            let round = Flow::Shared.scope(self.round(&instances)).await.map(Arc::new);
            for (_, sender) in asked {
                // Whoever does not wait any more does not need it.
                let _ = sender.send(round.clone());
            }
            *turn = Some(self.clock.now());
            drop(turn);
            match answer.try_recv() {
                Ok(answer) => return answer,
                // A round that was given up took our question with it.
                Err(oneshot::error::TryRecvError::Closed) => {
                    answer = self.confirmations.join(instance);
                }
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
        }
    }

    async fn round(&self, instances: &[InstanceId]) -> Result<Confirmed, CloudError> {
        let prefix = names::tunnel_prefix(self.installation);
        let (servers, tunnels, records) = tokio::try_join!(
            self.servers_of(instances),
            self.cloudflare.list_tunnels(Priority::Delete, &prefix),
            self.cloudflare.list_dns_records(Priority::Delete, &self.zone, ""),
        )?;
        Ok(Confirmed { servers, tunnels, records })
    }

    async fn servers_of(&self, instances: &[InstanceId]) -> Result<Vec<Server>, CloudError> {
        let installation = self.installation.to_string();
        let mut servers = Vec::new();
        for some in instances.chunks(PER_LIST) {
            let ids: Vec<String> = some.iter().map(ToString::to_string).collect();
            let selector = LabelSelector::all_of([(label::INSTALLATION, installation.as_str())])
                .and_one_of(label::INSTANCE, ids.iter().map(String::as_str));
            servers.extend(self.hetzner.list_servers(Priority::Delete, &selector).await?);
        }
        Ok(servers)
    }
}

/// None if the clock was set back meanwhile.
fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    now.duration_since(since).try_into().unwrap_or_default()
}
