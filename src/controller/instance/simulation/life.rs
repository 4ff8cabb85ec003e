//! One life of the model world: people and failures for a while, then peace. In peace everybody becomes
//! Ready, and whoever is deleted leaves nothing behind.

use std::{sync::Arc, time::Duration};

use super::{
    broken::Defect,
    dice::Dice,
    invariants,
    process::Process,
    tenants,
    world::{Counts, Faults, Key, World},
};

/// What happens before there is peace.
const TURNS: std::ops::Range<u64> = 20..80;
/// More rounds than any way from nothing to Ready, or to gone, takes.
const PEACEFUL_ROUNDS: usize = 60;

/// How a life ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// How much happened.
    pub(super) counts: Counts,
    /// What should never happen and did.
    pub(super) violation: Option<String>,
    /// What happened, if it was asked for.
    pub(super) log: Vec<String>,
}

/// Lives the life of this seed.
pub(super) async fn live(seed: u64, defect: Option<Defect>, log: bool) -> Ended {
    let mut dice = Dice::new(seed);
    let world = Arc::new(World::new(Dice::new(dice.next()), log));
    let mut life = Life { processes: vec![Process::start(&world, defect)], world, dice, defect };
    Box::pin(life.unrest()).await;
    life.peace().await;
    let mut state = life.world.state();
    Ended {
        counts: state.counts,
        violation: state.violation.take(),
        log: state.log.take().unwrap_or_default(),
    }
}

struct Life {
    world: Arc<World>,
    /// The leader, and perhaps one that does not know that it leads no more.
    processes: Vec<Process>,
    dice: Dice,
    defect: Option<Defect>,
}

impl Life {
    fn is_over(&self) -> bool {
        self.world.state().violation.is_some()
    }

    async fn unrest(&mut self) {
        let quiet = self.dice.per_mille(200);
        let some = |dice: &mut Dice, most: u64| if quiet { 0 } else { dice.within(0..most) };
        let faults = Faults {
            refused: some(&mut self.dice, 80),
            unanswered: some(&mut self.dice, 80),
            death: some(&mut self.dice, 30),
            incomplete: some(&mut self.dice, 100),
        };
        self.world.state().faults = faults;
        for _ in 0..self.dice.within(TURNS) {
            Box::pin(self.turn()).await;
            if self.is_over() {
                return;
            }
        }
    }

    async fn turn(&mut self) {
        let key = self.dice.one_of(tenants::keys()).unwrap_or_default();
        let which = usize::try_from(self.dice.within(0..self.processes.len() as u64));
        let which = which.unwrap_or_default();
        match self.dice.within(0..100) {
            0..=11 => tenants::meddle(&mut self.world.state(), &key),
            12..=24 => self.processes[which].watch(|changed| *changed == key),
            25..=34 => self.processes[which].sweep().await,
            35..=44 => {
                let seconds = Duration::from_secs(self.dice.within(1..700));
                self.world.state().pass_time(seconds);
            }
            45..=46 => self.restart(which),
            47 => self.second_leader(),
            48..=60 if self.processes.len() > 1 => Box::pin(self.both(&key)).await,
            _ => self.processes[which].pass(&key).await,
        }
        for which in 0..self.processes.len() {
            if !self.processes[which].link.is_alive() {
                self.restart(which);
            }
        }
    }

    /// Two processes at once, over the same instance or two.
    async fn both(&mut self, key: &Key) {
        let other = self.dice.one_of(tenants::keys()).unwrap_or_default();
        tokio::join!(self.processes[0].pass(key), self.processes[1].pass(&other));
    }

    fn restart(&mut self, which: usize) {
        self.world.state().say(|| format!("process {which} starts again"));
        self.processes[which].link.die();
        self.processes[which] = Process::start(&self.world, self.defect);
    }

    /// A change of leader, while the former one has not noticed.
    fn second_leader(&mut self) {
        if self.processes.len() > 1 {
            self.processes.remove(0).link.die();
        } else {
            self.processes.push(Process::start(&self.world, self.defect));
        }
    }

    async fn peace(&mut self) {
        if self.is_over() {
            return;
        }
        {
            let mut state = self.world.state();
            state.say(|| "peace".to_owned());
            state.faults = Faults::default();
            tenants::tidy(&mut state);
        }
        self.processes.drain(1..).for_each(|process| process.link.die());
        self.restart(0);
        if !self.settle(Life::who_is_not_ready).await {
            return;
        }
        self.world.state().say(|| "all are deleted".to_owned());
        tenants::leave(&mut self.world.state());
        self.settle(Life::who_is_not_gone).await;
    }

    /// Rounds of peace until nobody is unsettled; else that is a violation.
    async fn settle(&mut self, unsettled: fn(&Self) -> Option<String>) -> bool {
        for round in 0..PEACEFUL_ROUNDS {
            self.processes[0].sweep().await;
            for key in tenants::keys() {
                self.processes[0].watch(|_| true);
                self.processes[0].pass(&key).await;
            }
            self.world.state().pass_time(Duration::from_secs(700));
            if self.is_over() {
                return false;
            }
            if round % 10 == 9 {
                self.help();
            }
            if unsettled(self).is_none() {
                return true;
            }
        }
        let why = unsettled(self).unwrap_or_default();
        self.world.state().violated(why);
        false
    }

    /// Who lost a server is asked for the values again.
    fn help(&self) {
        for key in tenants::keys() {
            let mut state = self.world.state();
            if state.instance(&key).is_some_and(|instance| !invariants::is_ready(instance)) {
                tenants::hand_in(&mut state, &key);
            }
        }
    }

    fn who_is_not_ready(&self) -> Option<String> {
        let state = self.world.state();
        let unready = state.instances.iter().find(|(_, instance)| {
            instance.metadata.deletion_timestamp.is_some() || !invariants::is_ready(instance)
        });
        unready.map(|(key, instance)| {
            let told = instance.status.iter().flat_map(|status| &status.conditions);
            let told = told.filter(|known| known.status != "True");
            let told: Vec<_> = told
                .map(|known| format!("{} {}: {}", known.type_, known.reason, known.message))
                .collect();
            format!("in peace {key:?} does not become Ready: {}", told.join("; "))
        })
    }

    fn who_is_not_gone(&self) -> Option<String> {
        let state = self.world.state();
        if let Some((key, instance)) = state.instances.iter().next() {
            let told = instance.status.iter().flat_map(|status| &status.conditions);
            let told: Vec<_> = told.map(|known| known.message.clone()).collect();
            return Some(format!("in peace {key:?} does not go: {}", told.join("; ")));
        }
        tenants::keys().iter().filter(|key| !state.forced.contains(*key)).find_map(|key| {
            let left = invariants::left_in_clouds(&state, key);
            let secrets = invariants::secrets_of(&state, key);
            let secrets = if state.held.contains(key) { secrets } else { 0 };
            let left = left.or_else(|| (secrets > 0).then(|| format!("{secrets} Secrets")));
            left.map(|left| format!("{key:?} is gone, and {left} is left"))
        })
    }
}
