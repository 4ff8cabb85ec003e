use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn digest(byte: u8) -> Sha256 {
    Sha256::from_bytes([byte; 32])
}

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn at(phase: Phase) -> Record {
    let update = Update { new: digest(2), old: digest(1), retry: None, phase };
    Record { update: Some(update), failed: Vec::new() }
}

fn watching(watches: u8) -> Phase {
    Phase::Watching { watches }
}

fn rolling_back(failure: AgentFailure) -> Phase {
    Phase::RollingBack { failure }
}

const STAYS: Phase = Phase::Settling { failure: None, restarts: 0 };
const WENT: Phase = Phase::Settling { failure: Some(AgentFailure::NoSocket), restarts: 0 };

#[rstest]
#[case::switch(Phase::Switching, Event::Switched, Phase::Restarting)]
#[case::resumed_switch(Phase::Switching, Event::Resumed, Phase::Switching)]
#[case::early(Phase::Switching, Event::Confirmed, Phase::Switching)]
#[case::restart(Phase::Restarting, Event::Restarted, watching(1))]
#[case::does_not_start(Phase::Restarting, Event::Silent, rolling_back(AgentFailure::NoSocket))]
#[case::not_this_one(Phase::Restarting, Event::Confirmed, Phase::Restarting)]
#[case::silent(watching(1), Event::Silent, rolling_back(AgentFailure::NoSocket))]
#[case::lonely(watching(1), Event::Unconfirmed, rolling_back(AgentFailure::NotConfirmed))]
#[case::power_cut(watching(1), Event::Resumed, watching(2))]
#[case::brings_us_down(watching(4), Event::Resumed, rolling_back(AgentFailure::NotConfirmed))]
#[case::confirmed(watching(3), Event::Confirmed, STAYS)]
#[case::doubled(STAYS, Event::Confirmed, STAYS)]
#[case::late(STAYS, Event::Unconfirmed, STAYS)]
#[case::installer(STAYS, Event::InstallerFailed, rolling_back(AgentFailure::Installer))]
#[case::boot(watching(1), Event::InstallerFailed, rolling_back(AgentFailure::Installer))]
#[case::back(rolling_back(AgentFailure::NoSocket), Event::RolledBack, WENT)]
#[case::too_late(
    rolling_back(AgentFailure::NoSocket),
    Event::Confirmed,
    rolling_back(AgentFailure::NoSocket)
)]
#[case::keeps_its_reason(
    rolling_back(AgentFailure::NoSocket),
    Event::InstallerFailed,
    rolling_back(AgentFailure::NoSocket)
)]
#[case::old_installer(WENT, Event::InstallerFailed, WENT)]
fn events_move_an_update(#[case] from: Phase, #[case] event: Event, #[case] to: Phase) {
    assert_eq!(at(from).after(event, NOW), at(to));
}

#[test]
fn what_is_next_is_a_matter_of_the_record_and_of_who_asks() {
    assert_eq!(Record::default().next(None), Step::Rest);
    assert_eq!(at(Phase::Switching).next(None), Step::Switch { new: digest(2) });
    assert_eq!(at(Phase::Restarting).next(None), Step::RestartAgent);
    assert_eq!(at(watching(1)).next(None), Step::Watch);
    let back = at(rolling_back(AgentFailure::NoSocket));
    assert_eq!(back.next(None), Step::RollBack { old: digest(1) });
    assert_eq!(at(STAYS).next(Some(digest(1))), Step::RestartInstaller);
    assert_eq!(at(STAYS).next(Some(digest(2))), Step::Settle);
    assert_eq!(at(WENT).next(Some(digest(2))), Step::RestartInstaller);
    assert_eq!(at(WENT).next(Some(digest(1))), Step::Settle);
}

#[test]
fn an_installer_restarts_itself_a_bounded_number_of_times() {
    for running in [None, Some(digest(9)), Some(digest(1))] {
        let (mut record, mut restarts) = (at(STAYS), 0);
        while record.next(running) == Step::RestartInstaller {
            record = record.after(Event::RestartingItself, NOW).after(Event::Resumed, NOW);
            restarts += 1;
        }
        assert!((1..=2).contains(&restarts), "{running:?}: {restarts}");
    }
}

#[test]
fn a_failed_agent_is_refused_until_retry_changes() {
    let record = at(WENT).after(Event::Settled, NOW);
    assert_eq!(record.update, None);
    let refusal = Err(Refusal::FailedBefore(AgentFailure::NoSocket));
    assert_eq!(record.check(digest(2), None), refusal);
    assert_eq!(record.check(digest(3), None), Ok(()));
    assert_eq!(record.check(digest(2), Some("again")), Ok(()));
    let record = record.begin(digest(2), digest(1), Some("again".to_owned()));
    assert_eq!(record.check(digest(3), None), Err(Refusal::Busy));
    let events = [Event::Switched, Event::Restarted, Event::Confirmed, Event::Settled];
    let record = events.into_iter().fold(record, |record, event| record.after(event, NOW));
    assert_eq!(record, Record::default());
}

#[test]
fn the_memory_of_failures_is_bounded() {
    let mut record = Record::default();
    for byte in 0..100 {
        record.remember(digest(byte), AgentFailure::Trial, None, NOW);
    }
    assert_eq!(record.failed.len(), FAILED_CAPACITY);
    assert!(record.check(digest(99), None).is_err());
}

#[test]
fn a_record_survives_the_disk_and_reasons_of_a_newer_installer() {
    let record = at(WENT);
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    let newer = text.replace("no-socket", "bad-mood");
    let read: Record = serde_json::from_str(&newer).unwrap();
    assert_eq!(read, at(Phase::Settling { failure: Some(AgentFailure::Unknown), restarts: 0 }));
}

/// How a new agent behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    Works,
    DoesNotAnswer,
    IsNeverCalled,
    /// The agent works, but its installer does not start.
    HasNoInstaller,
}

/// A server: what survives a power cut, and what runs.
#[derive(Debug)]
struct Server {
    record: Record,
    current: Sha256,
    agent: Sha256,
    installer: Sha256,
    behaviour: Behaviour,
}

impl Server {
    /// Starts what `current` names. The roll-back unit runs when the installer does not start.
    fn boot(&mut self) {
        self.agent = self.current;
        self.start_installer();
    }

    fn start_installer(&mut self) {
        if self.current == digest(2) && self.behaviour == Behaviour::HasNoInstaller {
            self.record = std::mem::take(&mut self.record).after(Event::InstallerFailed, NOW);
            if let Some(update) = &self.record.update {
                self.current = update.current();
            }
        }
        self.installer = self.current;
        self.happened(Event::Resumed);
    }

    fn happened(&mut self, event: Event) {
        self.record = std::mem::take(&mut self.record).after(event, NOW);
    }

    /// Does one step, or half of it if the power goes.
    fn step(&mut self, power_cut: Option<bool>) -> bool {
        let (half, cut) = (power_cut == Some(true), power_cut.is_some());
        match self.record.next(Some(self.installer)) {
            Step::Rest => return false,
            Step::Switch { new } => {
                if !cut || half {
                    self.current = new;
                }
                self.unless(cut, Event::Switched);
            }
            Step::RestartAgent => {
                self.agent = self.current;
                self.unless(cut, Event::Restarted);
            }
            Step::Watch => {
                let event = match self.behaviour {
                    Behaviour::Works | Behaviour::HasNoInstaller => Event::Confirmed,
                    Behaviour::DoesNotAnswer => Event::Silent,
                    Behaviour::IsNeverCalled => Event::Unconfirmed,
                };
                self.unless(cut, event);
            }
            Step::RollBack { old } => {
                if !cut || half {
                    self.current = old;
                    self.agent = old;
                }
                self.unless(cut, Event::RolledBack);
            }
            Step::RestartInstaller => {
                self.unless(cut && !half, Event::RestartingItself);
                if !cut {
                    self.start_installer();
                }
            }
            Step::Settle => self.unless(cut, Event::Settled),
        }
        if cut {
            self.boot();
        }
        true
    }

    fn unless(&mut self, cut: bool, event: Event) {
        if !cut {
            self.happened(event);
        }
    }
}

proptest! {
    #[test]
    fn whatever_dies_a_server_ends_with_one_version_that_works(
        behaviour in prop_oneof![
            Just(Behaviour::Works),
            Just(Behaviour::DoesNotAnswer),
            Just(Behaviour::IsNeverCalled),
            Just(Behaviour::HasNoInstaller),
        ],
        cuts in prop::collection::vec(prop::option::weighted(0.4, any::<bool>()), 0..12),
    ) {
        let record = Record::default().begin(digest(2), digest(1), None);
        let (current, agent, installer) = (digest(1), digest(1), digest(1));
        let mut server = Server { record, current, agent, installer, behaviour };
        let mut cuts = cuts.into_iter();
        for step in 0.. {
            prop_assert!(step < 100, "no end: {server:?}");
            if !server.step(cuts.next().flatten()) {
                break;
            }
        }
        prop_assert_eq!(server.record.update.as_ref(), None);
        prop_assert_eq!(server.agent, server.current, "the agent is the current one");
        prop_assert_eq!(server.installer, server.current, "the installer is the current one");
        let failed = server.record.failed.iter().any(|failed| failed.sha256 == digest(2));
        prop_assert_eq!(failed, server.current == digest(1), "remembered if and only if rolled back");
        if behaviour != Behaviour::Works {
            prop_assert_eq!(server.current, digest(1));
        }
    }
}
