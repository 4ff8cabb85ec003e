//! A plan as text.

use std::fmt;

use kube::ResourceExt as _;
use moorage_wire::plain_text::printable;

use crate::{
    api::{OpenClawInstance, conditions::ConditionStatus},
    instance::{
        forecast::{Forecast, Happening},
        programs::listed,
    },
};

/// What the command prints.
pub(super) struct Report {
    what: String,
    release: Option<String>,
    notes: Vec<String>,
    now: Vec<String>,
    then: Vec<String>,
    end: Vec<String>,
}

impl Report {
    pub(super) fn new(instance: &OpenClawInstance) -> Self {
        let namespace = instance.namespace().unwrap_or_default();
        let what = format!(
            "OpenClawInstance {namespace}/{} in HostingPool {}",
            instance.name_any(),
            instance.spec.pool
        );
        let note = "Planned from the objects in the cluster alone: no cloud and no server was asked, and nothing was done.";
        Self {
            what,
            release: None,
            notes: vec![note.to_owned()],
            now: Vec::new(),
            then: Vec::new(),
            end: Vec::new(),
        }
    }

    pub(super) fn release(&mut self, name: &str) {
        self.release = Some(name.to_owned());
    }

    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Nothing is done, for this reason.
    pub(super) fn refused(&mut self, why: &str) {
        self.end.push(format!("Nothing would be done: {why}"));
    }

    /// The step before all others.
    pub(super) fn claim(&mut self) {
        self.now.push("write the finalizer and the instance's random id".to_owned());
    }

    pub(super) fn deletion(&mut self, steps: Vec<String>) {
        self.now = steps;
        self.end.push("The instance is being deleted.".to_owned());
    }

    pub(super) fn forecast(&mut self, forecast: &Forecast) {
        let steps = forecast.now.iter().map(ToString::to_string);
        // After the claim the operator observes again, so the rest is for later.
        if self.now.is_empty() {
            self.now.extend(steps);
        } else {
            self.then.extend(steps);
        }
        self.then.extend(forecast.then.iter().map(|happening| match happening {
            Happening::Step(step) => step.to_string(),
            Happening::AgentEnrols => {
                "wait until the server has booted and its agent is enrolled".to_owned()
            }
            Happening::ServerConverges { lacked } => match listed(lacked) {
                None => "wait until OpenClaw runs with its configuration".to_owned(),
                Some(programs) => format!(
                    "wait until the server has fetched and installed {programs}, and OpenClaw runs with its configuration"
                ),
            },
        }));
        let open =
            forecast.last.verdicts.iter().filter(|verdict| verdict.status != ConditionStatus::True);
        let open: Vec<_> = open
            .map(|verdict| {
                format!(
                    "{} is not there: {}: {}",
                    verdict.kind.as_str(),
                    verdict.reason,
                    verdict.message
                )
            })
            .collect();
        if open.is_empty() {
            self.end.push(
                if self.now.is_empty() {
                    "There is nothing to do: the instance is ready."
                } else {
                    "Then the instance is ready."
                }
                .to_owned(),
            );
        } else {
            self.end.push("Then this remains for a person to look at:".to_owned());
            self.end.extend(open.into_iter().map(|line| format!("  {line}")));
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let release =
            self.release.as_ref().map(|name| format!(", release {name}")).unwrap_or_default();
        writeln!(formatter, "{}{release}", self.what)?;
        self.notes.iter().try_for_each(|note| writeln!(formatter, "{}", printable(note)))?;
        section(formatter, "Now:", &self.now, 1)?;
        section(formatter, "Then, if all of that works:", &self.then, self.now.len() + 1)?;
        writeln!(formatter)?;
        self.end.iter().try_for_each(|line| writeln!(formatter, "{}", printable(line)))
    }
}

fn section(
    formatter: &mut fmt::Formatter<'_>,
    title: &str,
    lines: &[String],
    first: usize,
) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(formatter, "\n{title}")?;
    lines
        .iter()
        .zip(first..)
        .try_for_each(|(line, number)| writeln!(formatter, "{number:>4}. {}", printable(line)))
}
