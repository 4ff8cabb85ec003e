//! The operator's link to the world: one per process. Every call of every port passes [`Link::gate`],
//! where it may fail, lose its answer, or be the last that the process ever made.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::Event;
use parking_lot::{Mutex, MutexGuard};

use super::{
    broken::Defect,
    world::{Key, State, World},
};
use crate::{
    api::OpenClawInstance,
    clock::Clock,
    cloud::{Cloud, CloudError, ErrorKind},
    controller::{events::EventSink, latest::Latest},
    randomness::Randomness,
};

/// One process's link.
pub(super) struct Link {
    pub(super) world: Arc<World>,
    /// What this process wrote and the watch has not brought back.
    pub(super) written: Latest<OpenClawInstance>,
    pub(super) defect: Option<Defect>,
    alive: AtomicBool,
    acting: Mutex<Option<Key>>,
    /// The servers of the last list.
    listed: Mutex<BTreeSet<u64>>,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Works,
    /// No effect, and an error.
    Refused,
    /// An effect, and an error.
    Unanswered,
}

impl Link {
    pub(super) fn new(world: Arc<World>, defect: Option<Defect>) -> Self {
        Self {
            world,
            written: Latest::default(),
            defect,
            alive: AtomicBool::new(true),
            acting: Mutex::default(),
            listed: Mutex::default(),
        }
    }

    pub(super) fn listed(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.listed.lock()
    }

    /// Whether the process lives. The calls of a dead one have no effect.
    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    pub(super) fn die(&self) {
        self.alive.store(false, Ordering::Relaxed);
    }

    /// Whose pass it is.
    pub(super) fn act_for(&self, key: Option<Key>) {
        *self.acting.lock() = key;
    }

    pub(super) fn acting(&self) -> Option<Key> {
        self.acting.lock().clone()
    }

    /// Lets others go first, then decides.
    pub(super) async fn gate(&self, call: &'static str) -> Fate {
        let turns = self.world.state().dice.within(0..3);
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        let mut state = self.world.state();
        if !self.is_alive() {
            return Fate::Refused;
        }
        state.counts.calls += 1;
        let faults = state.faults;
        let fate = if state.dice.per_mille(faults.death) {
            self.die();
            if state.dice.per_mille(500) { Fate::Refused } else { Fate::Unanswered }
        } else if state.dice.per_mille(faults.refused) {
            Fate::Refused
        } else if state.dice.per_mille(faults.unanswered) {
            Fate::Unanswered
        } else {
            Fate::Works
        };
        let dead = !self.is_alive();
        state.counts.deaths += u64::from(dead);
        state.counts.faults += u64::from(fate != Fate::Works);
        state.say(|| format!("{call}: {fate:?}{}", if dead { ", the process dies" } else { "" }));
        fate
    }

    /// A call to a cloud.
    pub(super) async fn cloud<T>(
        &self,
        cloud: Cloud,
        call: &'static str,
        effect: impl FnOnce(&mut State) -> Result<T, CloudError>,
    ) -> Result<T, CloudError> {
        let failed = |maybe_applied| {
            let kind = ErrorKind::Transient { maybe_applied };
            Err(CloudError::new(cloud, call, kind, "the world is unreliable"))
        };
        let fate = self.gate(call).await;
        if fate == Fate::Refused {
            return failed(self.world.state().dice.per_mille(500));
        }
        let answer = effect(&mut self.world.state());
        if fate == Fate::Unanswered { failed(true) } else { answer }
    }

    /// Checks that a write is made for the one whose object it is.
    pub(super) fn check_owner(&self, state: &mut State, what: &str, owner: Option<&Key>) {
        let acting = self.acting();
        if owner != acting.as_ref() {
            state.violated(format!("{what} of {owner:?} in the pass of {acting:?}"));
        }
    }
}

#[async_trait]
impl Clock for Link {
    fn now(&self) -> Timestamp {
        self.world.state().now
    }

    async fn sleep(&self, duration: Duration) {
        self.world.state().pass_time(duration);
        tokio::task::yield_now().await;
    }
}

impl Randomness for Link {
    fn fill(&self, bytes: &mut [u8]) -> bool {
        let mut state = self.world.state();
        for chunk in bytes.chunks_mut(8) {
            let number = state.dice.next().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
        true
    }
}

/// Events are counted.
pub(super) struct EventCount(pub(super) Arc<World>);

#[async_trait]
impl EventSink for EventCount {
    async fn publish(&self, _: &Event, _: &ObjectReference) -> Result<(), kube::Error> {
        self.0.state().events += 1;
        Ok(())
    }
}
