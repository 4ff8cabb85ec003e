//! Which instances depend on a master key, asked before there is one; and telling them that it is
//! missing, since no controller runs that could.

use async_trait::async_trait;
use kube::{Api, Client, Resource as _, ResourceExt as _, api::ListParams};

use crate::{
    api::{FINALIZER, Guarded, OpenClawInstance, conditions::reason},
    clock::{Clock as _, SystemClock},
    controller::{guard, references::PAGE_SIZE},
    master_key_store::InstanceCensus,
};

/// All instances of the cluster.
pub(super) struct ClusterCensus {
    instances: Api<Guarded<OpenClawInstance>>,
    client: Client,
}

impl ClusterCensus {
    pub(super) fn new(client: Client) -> Self {
        Self { instances: Api::all(client.clone()), client }
    }

    /// Writes `Stalled`/`MasterKeyMissing` onto all that were claimed. The controllers replace it as
    /// soon as they run.
    pub(super) async fn tell_that_the_key_is_missing(
        &self,
        message: &str,
    ) -> Result<(), kube::Error> {
        let mut page = Page::First;
        while let Some(claimed) = self.next_claimed(&mut page).await? {
            for instance in &claimed {
                let (now, why) = (SystemClock.now(), (reason::MASTER_KEY_MISSING, message));
                let conditions = match &instance.0 {
                    Ok(instance) => instance.status.as_ref().map(|status| &status.conditions),
                    Err(unreadable) => Some(&unreadable.conditions),
                };
                let old = conditions.map(Vec::as_slice).unwrap_or_default();
                guard::stall::<OpenClawInstance>(&self.client, instance.meta(), old, why, now)
                    .await?;
            }
        }
        Ok(())
    }

    /// The claimed instances of the next page; `None` after the last.
    async fn next_claimed(
        &self,
        page: &mut Page,
    ) -> Result<Option<Vec<Guarded<OpenClawInstance>>>, kube::Error> {
        let parameters = ListParams::default().limit(PAGE_SIZE);
        let parameters = match std::mem::replace(page, Page::End) {
            Page::First => parameters,
            Page::After(token) => parameters.continue_token(&token),
            Page::End => return Ok(None),
        };
        let mut list = self.instances.list(&parameters).await?;
        let token = list.metadata.continue_.filter(|token| !token.is_empty());
        *page = token.map_or(Page::End, Page::After);
        list.items.retain(is_claimed);
        Ok(Some(list.items))
    }
}

/// Where in the list.
enum Page {
    First,
    After(String),
    End,
}

fn is_claimed(instance: &Guarded<OpenClawInstance>) -> bool {
    instance.finalizers().iter().any(|held| held == FINALIZER)
        // Its finalizer may have been taken away by a replacement.
        || instance.0.as_ref().map_or_else(
            |unreadable| unreadable.in_cloud,
            |instance| instance.status.as_ref().is_some_and(|status| status.server.is_some()),
        )
}

#[async_trait]
impl InstanceCensus for ClusterCensus {
    async fn any_instance_is_claimed(&self) -> Result<bool, kube::Error> {
        let mut page = Page::First;
        while let Some(claimed) = self.next_claimed(&mut page).await? {
            if !claimed.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
