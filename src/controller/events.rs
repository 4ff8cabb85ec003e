//! Events: one when a condition turns, for people who watch. A condition that merely makes progress
//! is worth none.

use async_trait::async_trait;
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::runtime::events::{Event, EventType, Recorder};
use moorage_wire::plain_text::printable;

use super::context::Context;
use crate::{
    api::conditions::{ConditionType, Reason},
    api_server::told,
    metrics::WriteKind,
};

/// The notes of Events hold at most 1,024 bytes.
const MAX_NOTE: usize = 1000;

/// Publishes Events: kube's recorder, or the model world's.
#[async_trait]
pub trait EventSink: Send + Sync {
    /// Publishes one Event about an object.
    async fn publish(&self, event: &Event, about: &ObjectReference) -> Result<(), kube::Error>;
}

#[async_trait]
impl EventSink for Recorder {
    async fn publish(&self, event: &Event, about: &ObjectReference) -> Result<(), kube::Error> {
        Self::publish(self, event, about).await
    }
}

/// Publishes what changed between two statuses of `about`. An Event that is lost is no reason to fail.
pub(super) async fn publish(
    ctx: &Context,
    about: &ObjectReference,
    old: &[Condition],
    new: &[Condition],
) {
    for condition in new.iter().filter(|condition| is_news(old, condition)) {
        let event = Event {
            type_: if condition.status == "True" && condition.type_ != "Stalled" {
                EventType::Normal
            } else {
                EventType::Warning
            },
            reason: condition.reason.clone(),
            note: Some(shortened(&condition.message)),
            action: condition.type_.clone(),
            secondary: None,
        };
        match ctx.events.publish(&event, about).await {
            Ok(()) => ctx.metrics.api_write(WriteKind::Event),
            Err(error) => tracing::warn!(error = told(&error), "an Event could not be published"),
        }
    }
}

/// Publishes an Event that no condition stands for.
pub(super) async fn tell(ctx: &Context, about: &ObjectReference, reason: Reason, note: String) {
    say(ctx, about, EventType::Normal, reason, &note).await;
}

/// The same of something that is wrong.
pub(super) async fn warn(ctx: &Context, about: &ObjectReference, reason: Reason, note: &str) {
    say(ctx, about, EventType::Warning, reason, note).await;
}

async fn say(ctx: &Context, about: &ObjectReference, type_: EventType, reason: Reason, note: &str) {
    let event = Event {
        type_,
        reason: reason.as_str().to_owned(),
        note: Some(shortened(note)),
        action: reason.as_str().to_owned(),
        secondary: None,
    };
    match ctx.events.publish(&event, about).await {
        Ok(()) => ctx.metrics.api_write(WriteKind::Event),
        Err(error) => tracing::warn!(error = told(&error), "an Event could not be published"),
    }
}

fn is_news(old: &[Condition], condition: &Condition) -> bool {
    let known = old.iter().find(|known| known.type_ == condition.type_);
    let same = known.is_some_and(|known| {
        (&known.status, &known.reason) == (&condition.status, &condition.reason)
    });
    let kind = condition.type_.as_str();
    let ready = kind == ConditionType::Ready.as_str() && condition.status == "True";
    let trouble = kind == ConditionType::Stalled.as_str();
    let delivered =
        kind == ConditionType::CredentialsDelivered.as_str() && condition.status == "True";
    let reason = Reason::named(&condition.reason);
    let is_one_of = |reasons: [Reason; 2]| reason.is_some_and(|reason| reasons.contains(&reason));
    let progress = is_one_of([Reason::Progressing, Reason::Waiting]);
    let passing = kind == ConditionType::Reconciling.as_str() && !progress;
    let mismatch = is_one_of([Reason::ServerMismatch, Reason::DuplicateServer]);
    !same && (ready || trouble || delivered || passing || mismatch)
}

fn shortened(message: &str) -> String {
    let message = printable(message);
    let end = message.char_indices().map(|(at, _)| at).take_while(|at| *at <= MAX_NOTE).last();
    if message.len() <= MAX_NOTE { message } else { message[..end.unwrap_or(0)].to_owned() }
}
