//! On whose behalf a call is made. It is set once around a pass and read where the call is charged,
//! so that no client and no step in between has to pass it on.

use std::{future::Future, sync::Arc};

tokio::task_local! {
    static CURRENT: Flow;
}

/// Who a call is charged to, within a budget that many share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flow {
    /// All of the pool's instances: sweeps, the pool's own objects, batches.
    #[default]
    Shared,
    /// The instances of one namespace.
    Namespace(Arc<str>),
}

impl Flow {
    /// Whoever the running task works for.
    pub fn current() -> Self {
        CURRENT.try_with(Clone::clone).unwrap_or_default()
    }

    /// Runs `work` with its calls charged to this flow. Tasks that it spawns are not.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_is_charged_to_the_innermost_flow() {
        let tenants = Flow::Namespace("tenants".into());
        assert_eq!(Flow::current(), Flow::Shared);
        let inner = tenants.clone().scope(async {
            let shared = Flow::Shared.scope(async { Flow::current() }).await;
            (Flow::current(), shared)
        });
        assert_eq!(inner.await, (tenants, Flow::Shared));
    }
}
