//! Who is admitted, of all instances that are there now. What decides is `crate::admission`; here is
//! what it decides about, kept for all controllers, and what this process has granted.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Arc, OnceLock},
    time::Duration,
};

use jiff::Timestamp;
use kube::ResourceExt as _;
use moorage_wire::{InstallationId, InstanceId};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    admission::{
        Applicant, ByNamespace, Denied, Home, PoolStanding, Population, Register, Rules, is_watched,
    },
    api::{HostingPoolSpec, OpenClawInstance},
    clock::Clock,
};

/// For how long the register is believed about others; whoever asks for itself is always in it.
const FRESH: Duration = Duration::from_secs(1);

/// For how long a life that began counts: Hetzner bills an hour for each server.
const BILLED: Duration = Duration::from_hours(1);
/// How many lives are remembered whatever became of what they made.
const REMEMBERED: usize = 1000;

/// Gives all instances, and what stands in the clouds of the pools.
type Source = Box<dyn Fn() -> (Vec<Applicant>, Vec<PoolStanding>) + Send + Sync>;

/// The register, and what it is made from.
pub struct Admissions {
    clock: Arc<dyn Clock>,
    installation: InstallationId,
    source: OnceLock<Source>,
    /// The namespaces that are watched; all if there are none.
    watched: OnceLock<Vec<String>>,
    complete: watch::Sender<bool>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rules: HashMap<String, Rules>,
    /// The UIDs of those of whom something was found in a cloud, and whether a server was.
    granted: HashMap<String, bool>,
    /// The UIDs of those whom this process let in: something may be made for them any moment.
    let_in: HashSet<String>,
    /// The UIDs of those whose lives were counted as they began.
    counted: HashSet<String>,
    /// When lives of servers began, by pool and namespace.
    begun: HashMap<(String, String), VecDeque<Timestamp>>,
    /// Whose they are: nothing else says it of a tunnel that has no server and no records.
    homes: HashMap<InstanceId, Home>,
    register: Arc<Register>,
    made: Option<Timestamp>,
    changed: BTreeSet<(String, String)>,
}

impl Admissions {
    /// Begins without any instance.
    pub fn new(clock: Arc<dyn Clock>, installation: InstallationId) -> Self {
        let (source, complete) = (OnceLock::new(), watch::Sender::new(false));
        let (watched, state) = (OnceLock::new(), Mutex::default());
        Self { clock, installation, source, watched, complete, state }
    }

    /// Sets where all instances of the watched namespaces (all if there are none) are known. Called once,
    /// when they are.
    pub fn follow(
        &self,
        watched: Vec<String>,
        source: impl Fn() -> (Vec<Applicant>, Vec<PoolStanding>) + Send + Sync + 'static,
    ) {
        let _ = self.watched.set(watched);
        // A second source would be a second instance controller, which there is not.
        let _ = self.source.set(Box::new(source));
        self.complete.send_replace(true);
    }

    /// Waits until all instances are known.
    pub async fn complete(&self) {
        // The sender lives as long as `self`, so there is no error to handle.
        let _ = self.complete.subscribe().wait_for(|complete| *complete).await;
    }

    /// Takes in what a pool says about who may come.
    pub fn set_pool(&self, name: &str, spec: &HostingPoolSpec, closed: bool) {
        let rules = Rules::of(spec, closed);
        let mut state = self.state.lock();
        if state.rules.get(name) != Some(&rules) {
            state.rules.insert(name.to_owned(), rules);
            state.made = None;
        }
    }

    /// Forgets a pool that is gone.
    pub fn remove_pool(&self, name: &str) {
        let mut state = self.state.lock();
        state.rules.remove(name);
        state.made = None;
    }

    /// Whether an instance is admitted. From then on it comes before those who were not, so that of two
    /// that come at once only one is. `None`: it is not known yet.
    pub fn admit(&self, instance: &OpenClawInstance) -> Option<Result<(), Denied>> {
        let (namespace, name) = (instance.namespace()?, instance.name_any());
        let uid = instance.uid()?;
        let mut state = self.state.lock();
        self.refresh(&mut state);
        if state.register.verdict(&namespace, &name, &uid).is_none() {
            state.made = None;
            self.refresh(&mut state);
        }
        let verdict = state.register.verdict(&namespace, &name, &uid)?;
        if verdict.is_ok() {
            state.let_in.insert(uid);
        }
        Some(verdict)
    }

    /// Notes that a life of an instance's server begins: a tunnel and records are made for it, and then a
    /// server, if there is one to be had.
    pub fn begin(&self, instance: &OpenClawInstance, id: InstanceId, home: Home) {
        let mut state = self.state.lock();
        state.counted.extend(instance.uid());
        let place = (home.pool.clone(), home.namespace.clone());
        state.begun.entry(place).or_default().push_back(self.clock.now());
        state.homes.insert(id, home);
        state.made = None;
    }

    /// Notes that something of an instance was found in a cloud, whatever its status says; and whether a
    /// server was.
    pub fn grant(&self, instance: &OpenClawInstance, server: bool) {
        let Some(uid) = instance.uid() else { return };
        let mut state = self.state.lock();
        let before = state.granted.get(&uid).copied();
        if before.is_none_or(|before| server && !before) {
            state.granted.insert(uid, server);
            state.made = None;
        }
    }

    /// Whether instances of a namespace are looked after.
    pub fn watches(&self, namespace: &str) -> bool {
        self.watched.get().is_some_and(|watched| is_watched(watched, namespace))
    }

    /// Whether an instance counts for what its pool, its release and the sealing keys are kept for. One
    /// that cannot be read counts where its namespace is watched and allowed.
    pub fn counts(&self, pool: &str, namespace: &str, name: &str) -> bool {
        let mut state = self.state.lock();
        self.refresh(&mut state);
        let allows = |rules: &Rules| rules.allows(namespace);
        let unknown = || self.watches(namespace) && state.rules.get(pool).is_some_and(allows);
        state.register.counts(namespace, name).unwrap_or_else(unknown)
    }

    /// The instances whose verdict changed since this was asked.
    pub fn take_changed(&self) -> BTreeSet<(String, String)> {
        let mut state = self.state.lock();
        self.refresh(&mut state);
        std::mem::take(&mut state.changed)
    }

    fn refresh(&self, state: &mut State) {
        let now = self.clock.now();
        let fresh = |made| (made..made + FRESH).contains(&now);
        let fresh = state.made.is_some_and(fresh);
        let (false, Some(source)) = (fresh, self.source.get()) else { return };
        let (mut applicants, standing) = source();
        let there: HashSet<&str> = applicants.iter().map(|one| one.uid.as_str()).collect();
        state.granted.retain(|uid, _| there.contains(uid.as_str()));
        state.let_in.retain(|uid| there.contains(uid.as_str()));
        state.counted.retain(|uid| there.contains(uid.as_str()));
        for one in applicants.iter_mut().filter(|one| !one.ended) {
            let granted = state.granted.get(&one.uid);
            one.granted |= granted.is_some();
            one.begun |= granted.is_some_and(|server| *server) || state.counted.contains(&one.uid);
            one.let_in = state.let_in.contains(&one.uid);
        }
        let begun = state.billed(now);
        state.forget_homes(&standing);
        let (homes, installation) = (std::mem::take(&mut state.homes), Some(self.installation));
        let population = Population { applicants, standing, homes, installation, begun };
        let register = Register::of(&population, &state.rules);
        // One that is refused now, also because it rests, gives up the place that nothing was made in: it
        // comes in its turn again.
        let refused = |one: &&Applicant| {
            let verdict = || register.verdict(&one.namespace, &one.name, &one.uid);
            one.let_in && matches!(verdict(), Some(Err(_)))
        };
        for one in population.applicants.iter().filter(refused) {
            state.let_in.remove(&one.uid);
        }
        state.homes = population.homes;
        state.changed.extend(register.changed_since(&state.register));
        state.register = Arc::new(register);
        state.made = Some(now);
    }
}

impl State {
    /// How many lives began within the last hour.
    fn billed(&mut self, now: Timestamp) -> ByNamespace {
        for begun in self.begun.values_mut() {
            // A clock that was set back must not hold anybody up for longer.
            while begun.front().is_some_and(|at| !(*at..*at + BILLED).contains(&now)) {
                begun.pop_front();
            }
        }
        self.begun.retain(|_, begun| !begun.is_empty());
        let count = |begun: &VecDeque<Timestamp>| u32::try_from(begun.len()).unwrap_or(u32::MAX);
        self.begun.iter().map(|(place, begun)| (place.clone(), count(begun))).collect()
    }

    /// Forgets whose the lives were of which nothing is left, when these are many.
    fn forget_homes(&mut self, standing: &[PoolStanding]) {
        let all = || standing.iter().flat_map(|pool| &pool.all);
        if self.homes.len() > REMEMBERED + 2 * all().count() {
            let left: HashSet<_> = all().map(|one| one.instance).collect();
            self.homes.retain(|id, _| left.contains(id));
        }
    }
}

#[cfg(test)]
mod tests;
