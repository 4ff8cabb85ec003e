//! The forecast: what a plan leads to if every step works and the server does its part. It carries
//! the steps out in a model of the world that holds nothing but what the planner looks at, so that
//! `moorage plan` can show the whole way, and tests can walk it.

use moorage_wire::{
    Program,
    report::{CloudflaredHealth, Consumed, ConvergenceState, OpenClawState},
};

use super::{
    Observed, Plan, Step, Wanted,
    observed::{AgentKeys, AgentState},
    placeholders::{enrolled, installed, tokens},
    plan::{self, Timing},
    programs, status,
};
use crate::hetzner::ServerStatus as Power;

/// More than any way from nothing to ready takes; a way that is longer goes in circles.
const MAX_ROUNDS: usize = 40;

/// One thing that is going to happen.
#[derive(Debug, Clone, PartialEq)]
pub enum Happening {
    /// The operator does a step.
    Step(Step),
    /// The server boots and its agent is enrolled.
    AgentEnrols,
    /// The server installs the programs that it lacks, and OpenClaw runs with what it was told.
    ServerConverges {
        /// Names and versions of those programs.
        lacked: Vec<String>,
    },
}

/// The way from what is seen to where nothing more happens.
#[derive(Debug)]
pub struct Forecast {
    /// What can be done now.
    pub now: Vec<Step>,
    pub then: Vec<Happening>,
    /// The plan at the end of the way: its verdicts say what stands in the way of `Ready`, if anything.
    pub last: Plan,
    /// What is seen at the end of the way.
    pub observed: Observed,
}

/// Walks the way. `placeholders` are the keys that a server which is not made yet is given here, to stand
/// in for those that it is going to make; nothing is encrypted or verified with them.
pub fn forecast(
    wanted: &Wanted,
    observed: Observed,
    timing: Timing,
    placeholders: &AgentKeys,
) -> Forecast {
    let mut model = Model { wanted, placeholders, observed };
    let mut now = None;
    let mut then = Vec::new();
    let mut last = Plan::default();
    for _ in 0..MAX_ROUNDS {
        last = plan::plan(wanted, &model.observed, timing);
        let steps = std::mem::take(&mut last.steps);
        for step in &steps {
            model.carry_out(step);
        }
        model.report();
        let settled = steps.is_empty();
        match &now {
            None => now = Some(steps),
            Some(_) => then.extend(steps.into_iter().map(Happening::Step)),
        }
        if settled && !model.write_status(&last) {
            match model.happen() {
                Some(happening) => then.push(happening),
                None => break,
            }
        }
    }
    Forecast { now: now.unwrap_or_default(), then, last, observed: model.observed }
}

/// What the planner looks at, and the rules by which it changes.
pub(super) struct Model<'a> {
    pub(super) wanted: &'a Wanted,
    pub(super) placeholders: &'a AgentKeys,
    pub(super) observed: Observed,
}

impl Model<'_> {
    /// The effect of one step that works.
    pub(super) fn carry_out(&mut self, step: &Step) {
        let before = self.observed.epoch;
        step.foresee(self.wanted, &mut self.observed);
        if self.observed.epoch != before {
            self.observed.own_tokens = self.observed.epoch.map(tokens);
        }
    }

    /// What the server does by itself, if it is its turn.
    pub(super) fn happen(&mut self) -> Option<Happening> {
        let observed = &mut self.observed;
        let epoch = observed.epoch?;
        let running =
            observed.server.present().is_some_and(|server| server.status == Power::Running);
        if !running || observed.tunnel.is_none() {
            return None;
        }
        let AgentState::Reported(view) = &mut observed.agent else {
            // An agent that was known and is silent may stay so: that is for a person to look at.
            let awaited = observed.status.agent.is_none();
            observed.agent =
                awaited.then(|| enrolled(self.wanted, epoch, self.placeholders, observed.now))?;
            return Some(Happening::AgentEnrols);
        };
        let progress = &mut view.report.desired;
        if progress.state != ConvergenceState::Converging {
            return None;
        }
        progress.state = ConvergenceState::Converged;
        view.report.openclaw.state = OpenClawState::Ready;
        let artifacts = &self.wanted.release.artifacts;
        let lacked = programs::behind(artifacts, &view.report.details);
        view.report.details.programs = installed(artifacts, Program::ALL);
        let lacked = lacked.into_iter().map(|(program, _)| programs::titled(artifacts, program));
        Some(Happening::ServerConverges { lacked: lacked.collect() })
    }

    /// Writes the status that the pass would write; tells whether it says anything new.
    pub(super) fn write_status(&mut self, plan: &Plan) -> bool {
        let outcome = status::Outcome { verdicts: plan.verdicts.clone(), problem: None };
        let observed = &self.observed;
        let key =
            observed.status.server.as_ref().and_then(|server| server.master_key_id.as_deref());
        let written = status::of_pass(
            self.wanted,
            observed,
            &outcome,
            key,
            observed.status.observed_generation,
        );
        let changed = written != observed.status;
        self.observed.status = written;
        changed
    }

    /// What the server's next report says beside what the operator's steps did to it.
    pub(super) fn report(&mut self) {
        let rotated = self.observed.tunnel_memory.rotated.is_some();
        let AgentState::Reported(view) = &mut self.observed.agent else { return };
        let report = &mut view.report;
        for receipt in &report.receipts {
            let consumed = Consumed {
                credential: receipt.credential.clone(),
                source_sha256: receipt.source_sha256,
            };
            if !report.consumed.contains(&consumed) {
                report.consumed.push(consumed);
            }
        }
        // Whose connections were cut comes back with the token that is valid now.
        if let (Some(own), true) = (self.observed.own_tokens, rotated) {
            report.cloudflared = CloudflaredHealth {
                connected: true,
                active_token_sha256: Some(own.tunnel),
                token_sha256: vec![own.tunnel],
            };
        }
    }
}
