//! Who accounts for what is found: the instances that exist, whatever state they are in, and the pools.

use std::collections::{HashMap, HashSet};

use moorage_wire::InstanceId;

use super::{Found, FoundOwner, Orphan};
use crate::{admission::is_watched, api::pool::OrphanKind};

/// The note on what an instance of the same name or id has no use for.
pub const CONTESTED: &str = "An instance of this name exists, but this object is not its own. Moorage never deletes it automatically.";
/// The note on what an instance of the same name or id has not taken over.
pub const UNCLAIMED: &str = "An instance of this name exists and has not taken it over: see its conditions. Moorage never deletes it automatically.";
/// The note on what is of a namespace that this operator does not look at.
pub const UNWATCHED: &str = "Its namespace is not among those that this operator watches. Moorage never deletes it automatically.";

/// An instance that exists, as far as it matters here.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    /// Namespace and name.
    pub place: (String, String),
    pub pool: String,
    /// Its ids: the computed one, and one that an older version drew.
    pub ids: Vec<InstanceId>,
    /// Whether its status says that something was made for it, or was lost. One that is suspended from the
    /// start, or not admitted, looks after nothing.
    pub started: bool,
    /// The server that its status names.
    pub server: Option<String>,
    /// The tunnel that its status names.
    pub tunnel: Option<String>,
}

/// The instances and pools that exist, and the cloud objects that are theirs.
#[derive(Default)]
pub struct Accounts {
    claims: Vec<Claim>,
    by_id: HashMap<InstanceId, usize>,
    by_place: HashMap<(String, String), usize>,
    by_object: HashMap<(OrphanKind, String), usize>,
    pools: HashSet<String>,
    /// The namespaces that are looked at; all if empty.
    watched: Vec<String>,
}

impl Accounts {
    /// Nobody but these pools.
    pub fn new(pools: HashSet<String>, watched: Vec<String>) -> Self {
        Self { pools, watched, ..Self::default() }
    }

    pub fn add(&mut self, claim: Claim) {
        let at = self.claims.len();
        self.by_id.extend(claim.ids.iter().map(|id| (*id, at)));
        self.by_place.insert(claim.place.clone(), at);
        let named = |kind, id: &Option<String>| id.clone().map(|id| ((kind, id), at));
        self.by_object.extend(named(OrphanKind::Server, &claim.server));
        self.by_object.extend(named(OrphanKind::Tunnel, &claim.tunnel));
        self.claims.push(claim);
    }

    /// Of what was found, what nobody accounts for. `sees` says whether the pool of this name has an
    /// object in its clouds; `None` if that cannot be told now, which is no reason to list it.
    pub fn orphans(
        &self,
        found: &[Found],
        sees: impl Fn(&str, &Found) -> Option<bool>,
    ) -> Vec<Orphan> {
        let ids = self.ids_of_named(found);
        let unwatched = |(namespace, _): &(String, String)| !is_watched(&self.watched, namespace);
        let judged = found.iter().filter(|one| !one.retained).filter_map(|one| {
            let kept = match &one.owner {
                FoundOwner::Pool(pool) if self.pools.contains(pool) => return None,
                FoundOwner::Pool(_) => None,
                FoundOwner::Instance { id, place } => {
                    let place = place.as_ref();
                    let own = ids.get(id).or_else(|| self.by_id.get(id));
                    let own = own.or_else(|| self.by_object.get(&one.key()));
                    let named = place.and_then(|place| self.by_place.get(place));
                    match (own, named) {
                        (Some(at), _) => {
                            let claim = &self.claims[*at];
                            match (sees(&claim.pool, one), claim.started) {
                                (Some(false), _) => Some(CONTESTED),
                                (_, false) => Some(UNCLAIMED),
                                (_, true) => return None,
                            }
                        }
                        (None, Some(at)) if self.claims[*at].started => Some(CONTESTED),
                        (None, Some(_)) => Some(UNCLAIMED),
                        (None, None) => place.is_some_and(unwatched).then_some(UNWATCHED),
                    }
                }
            };
            Some(Orphan { found: one.clone(), kept })
        });
        judged.collect()
    }

    /// The ids under which the objects stand that a status names: all of such an id are that instance's.
    fn ids_of_named(&self, found: &[Found]) -> HashMap<InstanceId, usize> {
        let named = found.iter().filter_map(|one| match &one.owner {
            FoundOwner::Instance { id, .. } => Some((*id, *self.by_object.get(&one.key())?)),
            FoundOwner::Pool(_) => None,
        });
        named.collect()
    }
}
