//! Runs a controller from its triggers: kube's applier (one pass per object at a time, triggers that
//! come together make one pass) without the parts of `kube::runtime::Controller` that are not needed.

use std::{convert::Infallible, fmt::Debug, future::Future, hash::Hash, sync::Arc, time::Duration};

use futures::{
    FutureExt as _, Stream, StreamExt as _, future,
    stream::{self, BoxStream},
};
use kube::{
    Resource,
    runtime::{
        applier,
        controller::{Action, Config},
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use tokio_util::sync::CancellationToken;

use crate::api_server::told;

/// Triggers that come together within this time make one pass.
const DEBOUNCE: Duration = Duration::from_millis(300);

/// As many passes at a time as there are objects: who runs is decided elsewhere.
pub const NO_LIMIT: u16 = 0;

/// What says which objects to look at.
pub type Trigger<K> = BoxStream<'static, ObjectRef<K>>;

/// The objects of a watch, as a trigger. Errors are told and left to the watch's own back-off.
pub fn objects<K, O>(
    watch: impl Stream<Item = Result<O, watcher::Error>> + Send + 'static,
    to_references: impl Fn(&O) -> Vec<ObjectRef<K>> + Send + 'static,
) -> Trigger<K>
where
    K: Resource<DynamicType = ()> + Send + 'static,
    O: Send + 'static,
{
    let references = move |object: Result<O, watcher::Error>| {
        stream::iter(match object {
            Ok(object) => to_references(&object),
            Err(error) => {
                tracing::warn!(error = told(&error), kind = %K::kind(&()), "a watch failed; trying again");
                Vec::new()
            }
        })
    };
    watch.flat_map(references).boxed()
}

/// Runs passes until `shutdown`, `concurrency` at a time ([`NO_LIMIT`] for all). Passes under way are
/// finished.
pub async fn run<K, C, F>(
    store: Store<K>,
    triggers: Vec<Trigger<K>>,
    concurrency: u16,
    shutdown: CancellationToken,
    context: Arc<C>,
    pass: impl Fn(Arc<K>, Arc<C>) -> F,
) where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
    K::DynamicType: Debug + Eq + Hash + Clone + Unpin,
    F: Future<Output = Action> + Send + 'static,
{
    let queue = stream::select_all(triggers).map(Ok::<_, Infallible>);
    let queue = queue.take_until(shutdown.cancelled_owned());
    applier(
        move |object, context| pass(object, context).map(Ok::<_, Infallible>).boxed(),
        |_, never, _| match *never {},
        context,
        store,
        queue,
        Config::default().concurrency(concurrency).debounce(DEBOUNCE),
    )
    .for_each(|_| future::ready(()))
    .await;
}
