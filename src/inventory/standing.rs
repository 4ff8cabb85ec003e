//! What stands under the id of each instance, kept up with every change: admissions ask for it once a
//! second, and the marks of ten thousand objects are not to be read that often.

use std::{collections::HashMap, sync::Arc};

use moorage_wire::{InstallationId, InstanceId};

use crate::{
    admission::{Routes, Standing, StandingServer},
    api::label,
    cloudflare::{DnsRecord, Tunnel},
    hetzner::{Server, ServerStatus},
    ownership::{Marked, Tag},
};

/// The standings of a pool, found by their instance.
#[derive(Default)]
pub(super) struct ById(HashMap<InstanceId, Arc<Standing>>);

impl ById {
    /// Everything that is there.
    pub(super) fn all(&self) -> Vec<Arc<Standing>> {
        self.0.values().cloned().collect()
    }

    /// Takes in what was made or seen.
    pub(super) fn add<T: Counted>(&mut self, installation: InstallationId, new: &T) {
        let Some(Seen { tag, retained }) = seen(installation, new) else { return };
        let make = || Arc::new(Standing::new(tag.instance));
        let standing = Arc::make_mut(self.0.entry(tag.instance).or_insert_with(make));
        new.add(standing, retained);
        if let (None, Some(place)) = (&standing.name, &tag.place) {
            standing.name = place.parts().map(|(_, name)| name.into());
            let namespace = place.namespace().map(Into::into);
            standing.namespace = namespace.or(standing.namespace.take());
        }
    }

    /// Takes out what is gone, or is another now.
    pub(super) fn remove<T: Counted>(&mut self, installation: InstallationId, old: &T) {
        let Some(Seen { tag, retained }) = seen(installation, old) else { return };
        let Some(standing) = self.0.get_mut(&tag.instance) else { return };
        let standing = Arc::make_mut(standing);
        old.subtract(standing, retained);
        if standing.is_empty() {
            self.0.remove(&tag.instance);
        }
    }
}

/// Whose an object is.
struct Seen {
    tag: Tag,
    retained: bool,
}

fn seen<T: Counted>(installation: InstallationId, object: &T) -> Option<Seen> {
    if !object.stays() {
        return None;
    }
    let (tag, retained) = object.mark()?.tag()?;
    (tag.installation == installation).then_some(Seen { tag, retained })
}

/// What is counted under an id.
pub(super) trait Counted: Marked {
    /// Whether it is not on its way out already.
    fn stays(&self) -> bool {
        true
    }
    fn add(&self, standing: &mut Standing, retained: bool);
    fn subtract(&self, standing: &mut Standing, retained: bool);
}

impl Counted for Server {
    fn stays(&self) -> bool {
        self.status != ServerStatus::Deleting
    }

    fn add(&self, standing: &mut Standing, retained: bool) {
        standing.servers.push(counted(self, retained));
    }

    fn subtract(&self, standing: &mut Standing, retained: bool) {
        let gone = counted(self, retained);
        if let Some(at) = standing.servers.iter().position(|server| *server == gone) {
            standing.servers.swap_remove(at);
        }
    }
}

fn counted(server: &Server, retained: bool) -> StandingServer {
    let pool = server.labels.get(label::POOL).map(|pool| pool.as_str().into());
    StandingServer { pool, retained }
}

fn routes(standing: &mut Standing, retained: bool) -> &mut Routes {
    if retained { &mut standing.retained } else { &mut standing.live }
}

impl Counted for Tunnel {
    fn add(&self, standing: &mut Standing, retained: bool) {
        routes(standing, retained).tunnels += 1;
    }

    fn subtract(&self, standing: &mut Standing, retained: bool) {
        let tunnels = &mut routes(standing, retained).tunnels;
        *tunnels = tunnels.saturating_sub(1);
    }
}

impl Counted for DnsRecord {
    fn add(&self, standing: &mut Standing, retained: bool) {
        routes(standing, retained).records += 1;
    }

    fn subtract(&self, standing: &mut Standing, retained: bool) {
        let records = &mut routes(standing, retained).records;
        *records = records.saturating_sub(1);
    }
}
