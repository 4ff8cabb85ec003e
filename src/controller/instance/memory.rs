//! What a process remembers of each instance between two passes. All of it can be lost: what is not
//! remembered is looked at or done again.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};
use parking_lot::Mutex;

use crate::{
    api::{OpenClawInstance, OpenClawInstanceStatus, annotation::Requests, instance::Phase},
    hetzner::Action,
    instance::{
        Observed,
        observed::{AgentState, AgentView, TunnelMemory},
        write_rate::WriteRate,
    },
};

/// What is remembered of one instance.
#[derive(Debug, Default, Clone)]
pub(super) struct Memory {
    pub(super) tunnel: TunnelMemory,
    pub(super) agent: Option<AgentView>,
    /// What Hetzner was last said to have failed at, and when it was asked.
    pub(super) failed_action: Option<(Timestamp, Option<Action>)>,
    /// What the last pass acted on: a change of it is a reason to ask the agent now.
    pub(super) asked_for: Option<(Option<i64>, Requests)>,
    /// Whether the last pass left nothing to do.
    pub(super) settled: bool,
    /// Since when what all around it lacks is lacking, without a word said about it.
    pub(super) waiting_since: Option<Timestamp>,
}

impl Memory {
    /// What a person can change to have the agent asked at once.
    pub(super) fn request(instance: &OpenClawInstance) -> (Option<i64>, Requests) {
        (instance.metadata.generation, Requests::of(instance.annotations()))
    }

    /// What remains of a pass that did not come to its end.
    pub(super) fn of_tunnel(tunnel: TunnelMemory) -> Self {
        Self { tunnel, ..Self::default() }
    }

    /// Takes over what a pass saw and did, and the status that it ended with.
    pub(super) fn remember(
        &mut self,
        observed: &Observed,
        instance: &OpenClawInstance,
        status: &OpenClawInstanceStatus,
    ) {
        self.tunnel = observed.tunnel_memory;
        self.waiting_since = None;
        if let AgentState::Reported(view) = &observed.agent {
            self.agent = Some(view.as_ref().clone());
        }
        self.asked_for = Some(Self::request(instance));
        self.settled = matches!(status.phase, Some(Phase::Ready | Phase::Degraded));
    }
}

/// The memories of all instances.
#[derive(Default)]
pub(super) struct Memories(Mutex<HashMap<ObjectRef<OpenClawInstance>, Memory>>);

impl Memories {
    /// Takes one out for the length of a pass; an abandoned pass loses it.
    pub(super) fn take(&self, key: &ObjectRef<OpenClawInstance>) -> Memory {
        self.0.lock().remove(key).unwrap_or_default()
    }

    pub(super) fn put(&self, key: &ObjectRef<OpenClawInstance>, memory: Memory) {
        self.0.lock().insert(key.clone(), memory);
    }
}

/// How often each instance's status was written for what its server says. Kept apart from the memories: a
/// server that drags a pass out until it is given up loses nothing of this.
#[derive(Default)]
pub(super) struct WriteRates(Mutex<HashMap<ObjectRef<OpenClawInstance>, WriteRate>>);

impl WriteRates {
    /// See [`WriteRate::take`].
    pub(super) fn take(
        &self,
        key: ObjectRef<OpenClawInstance>,
        current: Option<&OpenClawInstanceStatus>,
        wanted: &OpenClawInstanceStatus,
        now: Timestamp,
    ) -> Option<Duration> {
        let mut rates = self.0.lock();
        let rate = rates.entry(key).or_default();
        rate.take(current, wanted, now)
    }

    /// Of an instance that is gone nothing is kept.
    pub(super) fn forget(&self, key: &ObjectRef<OpenClawInstance>) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn status(phase: Phase) -> OpenClawInstanceStatus {
        OpenClawInstanceStatus { phase: Some(phase), ..OpenClawInstanceStatus::default() }
    }

    /// Otherwise the next pass believes a report that its own writes have outdated.
    #[rstest]
    #[case(Phase::Ready, Phase::Updating, false)]
    #[case(Phase::Updating, Phase::Ready, true)]
    #[case(Phase::Ready, Phase::Degraded, true)]
    fn whether_a_pass_left_something_to_do_is_told_by_how_it_ended(
        #[case] before: Phase,
        #[case] after: Phase,
        #[case] settled: bool,
    ) {
        let spec = json!({"pool": "eu", "hostname": "ada"});
        let mut ada = OpenClawInstance::new("ada", serde_json::from_value(spec).unwrap());
        ada.status = Some(status(before));
        let mut memory = Memory::default();
        memory.remember(&Observed::default(), &ada, &status(after));
        assert_eq!(memory.settled, settled);
    }
}
