//! The handover of a server to a newer master key. The agent is told the next key by the one that it
//! obeys, obeys both, is called with the next one, and only then is the next one recorded for the
//! server; from that moment everything derived for the server is derived from it, so that its tokens
//! are rotated as after bring-up. At the end the agent lets the old key go. A crash between any two of
//! these leaves a key that is both recorded and obeyed.

use std::fmt;

use moorage_wire::{OperatorPublicKey, Report};

use super::{
    Observed, Part, Wanted,
    observed::AgentState,
    plan::{SOON, Timing},
    rotation,
    step::{Own, PartStep},
};

/// One thing to do for the handover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandOverStep {
    /// Tell the agent the next key of the operator.
    Begin,
    /// Call the agent with the next key, and record that it is the server's.
    TakeOver,
    /// Have the agent obey the recorded key alone.
    End,
}

/// What a step of the handover did.
#[derive(Debug)]
pub enum HandOverOutcome {
    /// The agent obeys these keys, the one in use first.
    Obeyed(Vec<OperatorPublicKey>),
    /// The newest key is the server's.
    Taken {
        /// What the agent reported to it.
        report: Option<Box<Report>>,
    },
}

impl PartStep for HandOverStep {
    type Outcome = HandOverOutcome;

    fn touches_only_own(&self, _: &Own<'_>) -> bool {
        true
    }

    fn needs_agent(&self) -> bool {
        true
    }

    fn foresee(&self, _: &Wanted, observed: &Observed) -> HandOverOutcome {
        let own = observed.operator_keys.map(|keys| keys.own);
        match self {
            Self::Begin => {
                let newest = observed.operator_keys.and_then(|keys| keys.newest);
                HandOverOutcome::Obeyed(own.into_iter().chain(newest).collect())
            }
            Self::TakeOver => HandOverOutcome::Taken { report: None },
            Self::End => HandOverOutcome::Obeyed(own.into_iter().collect()),
        }
    }

    fn note(outcome: HandOverOutcome, observed: &mut Observed) {
        let AgentState::Reported(view) = &mut observed.agent else { return };
        match outcome {
            HandOverOutcome::Obeyed(keys) => view.report.details.operator_keys = keys,
            HandOverOutcome::Taken { report } => {
                if let Some(report) = report {
                    view.report = *report;
                }
                observed.master_key_id.clone_from(&observed.newest_master_key_id);
                if let Some(keys) = &mut observed.operator_keys
                    && let Some(newest) = keys.newest.take()
                {
                    keys.own = newest;
                }
            }
        }
    }
}

impl fmt::Display for HandOverStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Begin => "tell the agent the next key that it obeys",
            Self::TakeOver => "call the agent with the next key, and use that from now on",
            Self::End => "have the agent obey no older key any more",
        })
    }
}

/// The operator's keys for one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperatorKeys {
    /// Of the master key that is recorded for the server.
    pub own: OperatorPublicKey,
    /// Of the newest master key, if that is another one.
    pub newest: Option<OperatorPublicKey>,
    /// Whether this server may be handed over now: not all are at once.
    pub may_begin: bool,
}

/// What is to be done about the key that the agent obeys. Nothing else waits for it, except that an
/// agent which obeys two is brought to the one in use before anything is signed for its installer.
pub fn plan(_: &Wanted, observed: &Observed, _: Timing) -> Part {
    let go_on = Part { passable: true, ..Part::default() };
    let (Some(view), Some(keys)) = (observed.agent.view(), observed.operator_keys) else {
        return go_on;
    };
    let then = |step: HandOverStep| Part {
        steps: vec![step.into()],
        requeue_after: Some(SOON),
        ..Part::default()
    };
    match view.report.details.operator_keys.as_slice() {
        // An agent that is older than handovers: it is updated with the release, then handed over.
        [] => go_on,
        [in_force, others @ ..] if *in_force == keys.own => match keys.newest {
            Some(newest) if others.contains(&newest) => then(HandOverStep::TakeOver),
            Some(_) if keys.may_begin && rotation::is_done(observed, view) => {
                then(HandOverStep::Begin)
            }
            // Begun towards a key that was taken away again.
            None if !others.is_empty() => then(HandOverStep::End),
            Some(_) | None => go_on,
        },
        _ => then(HandOverStep::End),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::instance::fixtures::{self, TIMING};

    const OLD: OperatorPublicKey = OperatorPublicKey::from_bytes([1; 32]);
    const NEW: OperatorPublicKey = OperatorPublicKey::from_bytes([2; 32]);
    const OTHER: OperatorPublicKey = OperatorPublicKey::from_bytes([3; 32]);

    fn observed(own: OperatorPublicKey, newest: Option<OperatorPublicKey>) -> Observed {
        let mut observed = fixtures::ready(&fixtures::wanted());
        observed.operator_keys = Some(OperatorKeys { own, newest, may_begin: true });
        observed
    }

    fn obeyed(observed: &mut Observed, keys: &[OperatorPublicKey]) {
        if let AgentState::Reported(view) = &mut observed.agent {
            view.report.details.operator_keys = keys.to_vec();
        }
    }

    #[rstest]
    #[case::no_rotation(OLD, None, &[OLD], None)]
    #[case::an_old_agent(OLD, Some(NEW), &[], None)]
    #[case::begin(OLD, Some(NEW), &[OLD], Some("BeginHandOver"))]
    #[case::taken_and_not_recorded(OLD, Some(NEW), &[OLD, NEW], Some("TakeOver"))]
    #[case::recorded_and_not_ended(NEW, None, &[OLD, NEW], Some("EndHandOver"))]
    #[case::ended(NEW, None, &[NEW], None)]
    #[case::a_newer_key_meanwhile(OLD, Some(OTHER), &[OLD, NEW], Some("BeginHandOver"))]
    #[case::first_ended_then_begun_again(NEW, Some(OTHER), &[OLD, NEW], Some("EndHandOver"))]
    #[case::taken_away_again(OLD, None, &[OLD, NEW], Some("EndHandOver"))]
    fn the_next_step_follows_from_recorded_and_obeyed_keys(
        #[case] own: OperatorPublicKey,
        #[case] newest: Option<OperatorPublicKey>,
        #[case] keys: &[OperatorPublicKey],
        #[case] expected: Option<&str>,
    ) {
        let mut observed = observed(own, newest);
        obeyed(&mut observed, keys);
        let part = plan(&fixtures::wanted(), &observed, TIMING);
        assert_eq!(part.steps.first().map(fixtures::kind), expected);
        assert_eq!(part.passable, expected.is_none());
    }

    #[test]
    fn a_hand_over_waits_for_its_turn_and_a_settled_tunnel() {
        let mut waiting = observed(OLD, Some(NEW));
        obeyed(&mut waiting, &[OLD]);
        waiting.operator_keys =
            waiting.operator_keys.map(|keys| OperatorKeys { may_begin: false, ..keys });
        assert!(plan(&fixtures::wanted(), &waiting, TIMING).steps.is_empty());
        let mut rotating = observed(OLD, Some(NEW));
        obeyed(&mut rotating, &[OLD]);
        if let AgentState::Reported(view) = &mut rotating.agent {
            view.report.cloudflared.connected = false;
        }
        assert!(plan(&fixtures::wanted(), &rotating, TIMING).steps.is_empty());
    }
}
