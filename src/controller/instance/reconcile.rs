//! What the queue calls: a pass in a slot and within a deadline, and when the next one is due.

use std::{sync::Arc, time::Duration};

use kube::{
    Resource as _,
    runtime::{controller::Action, reflector::ObjectRef},
};
use tracing::Instrument as _;

use super::{Controller, GuardedInstance};
use crate::{
    api::conditions::Reason,
    cloud::Flow,
    cluster::ClusterError,
    controller::events,
    instance::{Observed, plan::SOON},
    problem::{Problem, Retry, TERMINAL_RETRY},
};

/// A pass that takes longer is given up; the next one starts over.
const PASS_DEADLINE: Duration = Duration::from_secs(120);
/// What an instance is told that no condition has room in.
const TOO_LARGE: &str = "The object is so large that etcd takes no status with it. Make spec.config, the sealed values or the annotations shorter";

/// When a pass wants the next one.
#[derive(Debug)]
pub(super) enum Requeue {
    OnChange,
    After(Duration),
    /// After the object's own growing delay, because of a failure with this reason.
    BackOff(Reason),
}

pub(super) async fn reconcile(
    instance: Arc<GuardedInstance>,
    controller: Arc<Controller>,
) -> Action {
    let reference = ObjectRef::from_obj(instance.as_ref());
    let namespace = reference.namespace.clone().unwrap_or_default();
    // Passes that are under way at the end are finished, those that wait are not begun.
    let slot = controller.shutdown.run_until_cancelled(controller.slots.enter(&namespace)).await;
    let Some(_slot) = slot else { return Action::await_change() };
    // It may have waited for long.
    let instance = controller.instances.get(&reference).unwrap_or(instance);
    let flow = Flow::Namespace(namespace.into());
    Box::pin(flow.scope(begun(&instance, &reference, &controller))).await
}

async fn begun(
    instance: &GuardedInstance,
    reference: &ObjectRef<GuardedInstance>,
    controller: &Controller,
) -> Action {
    let meta = instance.meta();
    let span = tracing::info_span!(
        "reconcile",
        namespace = meta.namespace.as_deref().unwrap_or_default(),
        instance = meta.name.as_deref().unwrap_or_default(),
    );
    let timer = controller.ctx.metrics.reconcile("instance");
    let pass = async {
        match &instance.0 {
            Ok(instance) => controller.pass(instance).await,
            Err(unreadable) => controller.malformed(unreadable).await,
        }
    };
    let ended = tokio::time::timeout(PASS_DEADLINE, pass).instrument(span.clone()).await;
    let _entered = span.enter();
    tracing::debug!(?ended, "the pass ended");
    let pause = || controller.backoff.next(reference, controller.random());
    match ended {
        Ok(Ok(look)) => {
            if let Requeue::BackOff(reason) = look {
                timer.failed(reason.as_str());
                return Action::requeue(pause());
            }
            controller.backoff.reset(reference);
            timer.succeeded();
            match look {
                Requeue::OnChange | Requeue::BackOff(_) => Action::await_change(),
                Requeue::After(wait) => Action::requeue(wait),
            }
        }
        Ok(Err(ClusterError::Changed)) => {
            // The watch brings the newer object; this is for the case that it already has.
            timer.succeeded();
            Action::requeue(SOON)
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "a call to the API server failed");
            if error.is_too_large() {
                let about = instance.object_ref(&());
                events::warn(&controller.ctx, &about, Reason::ObjectTooLarge, TOO_LARGE).await;
            }
            timer.failed("KubernetesApi");
            Action::requeue(pause())
        }
        Err(_) => {
            tracing::warn!("the pass took longer than {PASS_DEADLINE:?}");
            timer.failed("Deadline");
            Action::requeue(pause())
        }
    }
}

impl Controller {
    /// When to look at an instance again at which there is nothing to do.
    pub(super) fn settled(&self, observed: &Observed) -> Duration {
        let report = self.ctx.intervals.report;
        let age =
            observed.agent.view().map(|view| observed.now.duration_since(view.at).unsigned_abs());
        self.jittered(report.saturating_sub(age.unwrap_or_default()).max(SOON))
    }

    pub(super) fn requeue_after(&self, failure: &Problem) -> Requeue {
        match failure.retry {
            Retry::BackOff => Requeue::BackOff(failure.reason),
            Retry::After(wait) => Requeue::After(self.jittered(wait)),
            Retry::OnChange | Retry::Slowly => Requeue::After(self.jittered(TERMINAL_RETRY)),
        }
    }
}
