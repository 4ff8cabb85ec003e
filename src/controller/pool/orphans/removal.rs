//! The deletion of orphans, after one more look at both the cloud and the cluster.

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use kube::{Api, Client, Resource as _, ResourceExt as _, api::ListParams};
use moorage_wire::{InstallationId, InstanceId};
use tokio::time::Instant;

use super::Inspection;
use crate::{
    api::{
        conditions::Reason,
        pool::{OrphanKind, OrphanPolicy},
    },
    api_server::Pages,
    cloudflare::{RecordId, TunnelId},
    controller::{
        events,
        pool::{Controller, GuardedPool},
        references::{Name, ReferringInstance},
    },
    hetzner::ServerId,
    inventory::Inventory,
    orphans::{Found, FoundOwner},
    ownership,
};

/// This many rounds of deletions fit into the time that an orphan is left alone for.
const ROUNDS_PER_AGE: u32 = 24;

impl Controller {
    /// Deletes a round of orphans, if the one before it is long enough ago and nobody has come for them.
    pub(super) async fn delete(
        &self,
        look: &Inspection<'_>,
        due: &[Found],
    ) -> Result<(), kube::Error> {
        let pace = self.ctx.intervals.orphan_age / ROUNDS_PER_AGE;
        let deleting = look.pool.metadata.deletion_timestamp.is_some();
        let recent = self.orphans.with(look.name, |memory| {
            memory.deleted.is_some_and(|deleted| deleted.elapsed() < pace)
        });
        if due.is_empty() || deleting || recent || !self.still_says_delete(look).await? {
            return Ok(());
        }
        self.orphans.with(look.name, |memory| memory.deleted = Some(Instant::now()));
        for one in due {
            // As short before each deletion as can be.
            let installation = self.ctx.master_keys.installation();
            if has_owner(&self.ctx.client, installation, one).await? {
                continue;
            }
            self.delete_one(look, one).await;
        }
        Ok(())
    }

    /// The pool as the API server has it, in case somebody thought better of it.
    async fn still_says_delete(&self, look: &Inspection<'_>) -> Result<bool, kube::Error> {
        let api: Api<GuardedPool> = Api::all(self.ctx.client.clone());
        let found = api.get_opt(look.name).await?;
        let pool = found.and_then(|pool| pool.0.ok());
        Ok(pool.is_some_and(|pool| pool.spec.orphan_policy == OrphanPolicy::Delete))
    }

    async fn delete_one(&self, look: &Inspection<'_>, one: &Found) {
        let (pool, kind, id, name) = (look.name, one.kind, &one.id, &one.name);
        match look.place.remove(one).await {
            Ok(true) => {
                tracing::warn!(pool, ?kind, id, name, "deleted an orphan");
                self.orphans.with(pool, |memory| memory.of_pools = None);
                forget(&look.session.inventory, one);
                let about = look.pool.object_ref(&());
                let owner = one.owner.describe();
                let note = format!(
                    "{kind:?} {name} ({id}) of {owner} was deleted: nobody accounted for it."
                );
                events::warn(&self.ctx, &about, Reason::OrphanDeleted, &note).await;
            }
            Ok(false) => {
                tracing::info!(pool, ?kind, id, "an orphan is not what it was; it is left alone");
            }
            // The next round tries again.
            Err(error) => tracing::warn!(pool, ?kind, id, %error, "an orphan cannot be deleted"),
        }
    }
}

/// Instances that are there, by the API server itself. Of each only the names are read: whatever else it
/// holds, and however deep, does not make the list fail.
#[derive(Default)]
pub(super) struct Living {
    ids: HashSet<InstanceId>,
    places: HashSet<Name>,
}

impl Living {
    pub(super) async fn list(
        client: &Client,
        installation: InstallationId,
    ) -> Result<Self, kube::Error> {
        let api: Api<ReferringInstance> = Api::all(client.clone());
        let mut living = Self::default();
        let mut pages = Pages::of(ListParams::default());
        while let Some(request) = pages.request() {
            let page = api.list(request).await?;
            pages.turn(&page.metadata);
            for instance in &page.items {
                let place = (instance.namespace().unwrap_or_default(), instance.name_any());
                living.ids.insert(ownership::instance_id(installation, &place.0, &place.1));
                living.places.insert(place);
            }
        }
        Ok(living)
    }

    /// Whether one of them may be its owner.
    pub(super) fn has(&self, one: &Found) -> bool {
        match &one.owner {
            FoundOwner::Instance { id, place } => {
                let here = |place: &Name| self.places.contains(place);
                self.ids.contains(id) || place.as_ref().is_some_and(here)
            }
            FoundOwner::Pool(_) => false,
        }
    }
}

/// Whether there is an instance that may own an orphan. One request where the orphan says which.
async fn has_owner(
    client: &Client,
    installation: InstallationId,
    one: &Found,
) -> Result<bool, kube::Error> {
    match &one.owner {
        FoundOwner::Pool(_) => Ok(false),
        FoundOwner::Instance { id, place: Some((namespace, name)) }
            if ownership::instance_id(installation, namespace, name) == *id =>
        {
            let api: Api<ReferringInstance> = Api::namespaced(client.clone(), namespace);
            Ok(api.get_opt(name).await?.is_some())
        }
        // Without a name, or with one that has another id, it may be anybody's.
        FoundOwner::Instance { .. } => Ok(Living::list(client, installation).await?.has(one)),
    }
}

fn forget(inventory: &Inventory, one: &Found) {
    match one.kind {
        OrphanKind::Server => {
            if let Ok(id) = one.id.parse() {
                inventory.forget_server(ServerId(id));
            }
        }
        OrphanKind::Tunnel => {
            if let Ok(id) = TunnelId::parse(&one.id) {
                inventory.forget_tunnel(&id);
            }
        }
        OrphanKind::DnsRecord => {
            if let Ok(id) = RecordId::parse(&one.id) {
                inventory.forget_record(&id);
            }
        }
        _ => {}
    }
}
