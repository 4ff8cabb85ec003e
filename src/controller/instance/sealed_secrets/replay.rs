//! What happened to instances while no operator looked. The API server keeps the latest changes for a
//! while and tells them again to a watch that begins at an older version. The version is that of the
//! Lease as another leader wrote it last. Where the server has forgotten, or counts otherwise, there
//! are fewer events, and never a wrong one.

use futures::{StreamExt as _, stream};
use kube::{
    Client, Resource as _,
    api::{WatchEvent, WatchParams},
};

use super::super::{GuardedInstance, watches::apis};
use crate::{api_server::told, controller::turns::Name};

/// What is known of the past comes at once; the watches tell the rest.
const SECONDS: u32 = 5;

/// Tells of each instance that was deleted since that version of the cluster, and at which.
pub(super) async fn departures(
    client: &Client,
    namespaces: &[String],
    since: Option<String>,
    tell: impl Fn(Name, u64),
) {
    let Some(since) = since else { return };
    let parameters = WatchParams::default().timeout(SECONDS);
    for api in apis::<GuardedInstance>(client, namespaces) {
        let events = match api.watch(&parameters, &since).await {
            Ok(events) => events,
            Err(error) => {
                tracing::debug!(error = told(&error), "the past of the instances is not known");
                continue;
            }
        };
        let readable = events.take_while(|event| std::future::ready(event.is_ok()));
        let gone = readable.filter_map(async |event| match event {
            Ok(WatchEvent::Deleted(instance)) => departure(&instance),
            _ => None,
        });
        stream::StreamExt::for_each(gone, async |(name, version)| tell(name, version)).await;
    }
}

fn departure(instance: &GuardedInstance) -> Option<(Name, u64)> {
    let metadata = instance.meta();
    let name = (metadata.namespace.clone()?, metadata.name.clone()?);
    Some((name, metadata.resource_version.as_ref()?.parse().ok()?))
}
