//! Removes what was listed, in the order in which it can go: a firewall only when its servers are gone.

use std::{collections::HashSet, time::Duration};

use tokio::time::Instant;

use crate::{
    cloud::{Classification, CloudError},
    orphans::{Found, FoundOwner, find::Place},
};

/// What became of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is there, and was only listed.
    Present,
    /// It was left behind on purpose, or something that was needs it.
    Kept,
    Deleted,
    /// Nothing was deleted: it is not there any more, perhaps since a deletion whose answer was lost, or it
    /// is not what was listed.
    Changed,
    /// It could not be deleted.
    Failed(String),
}

/// How long to go on.
pub struct Pace {
    /// Between two rounds.
    pub pause: Duration,
    /// Without anything having gone.
    pub patience: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { pause: Duration::from_secs(2), patience: Duration::from_mins(3) }
    }
}

/// Whether an object stays: what was retained, and what a pool has that a retained server needs.
pub(super) fn is_kept(one: &Found, all: &[Found], retained_too: bool) -> bool {
    let needed = |pool: &String| {
        let retained = all.iter().filter(|one| one.retained);
        let pools: HashSet<_> = retained.filter_map(|one| one.pool.as_ref()).collect();
        pools.contains(pool)
    };
    !retained_too
        && match &one.owner {
            FoundOwner::Instance { .. } => one.retained,
            FoundOwner::Pool(pool) => needed(pool),
        }
}

/// A removal of many objects.
pub(super) struct Removal<'a> {
    pub(super) place: &'a Place<'a>,
    pub(super) pace: Pace,
    pub(super) progress: &'a (dyn Fn(&str) + Sync),
}

impl Removal<'_> {
    /// Removes them; gives what became of each.
    pub(super) async fn run(&self, targets: &[Found]) -> Vec<Outcome> {
        let mut outcomes: Vec<Option<Outcome>> = vec![None; targets.len()];
        let mut last = vec![String::new(); targets.len()];
        let mut moved = Instant::now();
        loop {
            for (at, one) in targets.iter().enumerate() {
                if outcomes[at].is_some() {
                    continue;
                }
                let (kind, name) = (one.kind, &one.name);
                match self.place.remove(one).await {
                    Ok(true) => outcomes[at] = Some(Outcome::Deleted),
                    Ok(false) => outcomes[at] = Some(Outcome::Changed),
                    Err(error) if error.classify() == Classification::Terminal => {
                        outcomes[at] = Some(Outcome::Failed(error.to_string()));
                    }
                    Err(error) => {
                        self.wait_for(&error).await;
                        last[at] = error.to_string();
                        continue;
                    }
                }
                moved = Instant::now();
                let done = outcomes.iter().flatten().count();
                let word = match &outcomes[at] {
                    Some(Outcome::Deleted) => "deleted",
                    Some(Outcome::Changed) => "left alone, gone or not what was listed:",
                    _ => "failed:",
                };
                (self.progress)(&format!("{done}/{} {word} {kind:?} {name}", targets.len()));
            }
            if outcomes.iter().all(Option::is_some) || moved.elapsed() > self.pace.patience {
                break;
            }
            tokio::time::sleep(self.pace.pause).await;
        }
        let ends = outcomes.into_iter().zip(last);
        ends.map(|(outcome, last)| outcome.unwrap_or(Outcome::Failed(last))).collect()
    }

    /// A used-up budget is everybody's: whoever comes next need not ask.
    async fn wait_for(&self, error: &CloudError) {
        if let Classification::RetryAfter(wait) = error.classify() {
            (self.progress)(&format!("waiting {} s: {error}", wait.as_secs()));
            tokio::time::sleep(wait.min(self.pace.patience)).await;
        }
    }
}
