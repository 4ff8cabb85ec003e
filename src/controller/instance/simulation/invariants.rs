//! What must always hold (section 3 of the design, in the numbers of its list), checked at the very
//! write that would break it. What may never be written to for another is checked by
//! `Link::check_owner` (4, 9).

use kube::ResourceExt as _;
use moorage_wire::Sha256;

use super::world::{Key, Machine, SecretThere, State};
use crate::{
    api::{OpenClawInstance, SEALED_SECRET_TYPE, instance::DeletionPolicy, label},
    credentials::secret_source::parse_envelope,
    hetzner::{Server, ServerStatus},
    instance::deletion::has_history,
    names,
};

/// 3: the finalizer comes before anything in a cloud.
pub(super) fn made(state: &mut State, owner: Option<&Key>, what: &str) {
    let held = owner.is_some_and(|owner| state.is_held(owner) || state.forced.contains(owner));
    if !held {
        state.violated(format!("{what} was made for {owner:?}, which no finalizer holds"));
    }
}

/// 3, and one server per life: its epoch stands in the status, and no other server lives.
pub(super) fn server_made(state: &mut State, owner: Option<&Key>, server: &Server) {
    made(state, owner, "a server");
    let recorded = owner.and_then(|owner| state.instance(owner)).and_then(recorded_epoch);
    let labelled = names::epoch(server).map(|epoch| epoch.to_string());
    // A status may be lost between the moment at which it was read and this one, and so may the object.
    let lost = |owner: &Key| state.forgotten.contains(owner) || state.forced.contains(owner);
    if recorded != labelled && !owner.is_some_and(lost) {
        state
            .violated(format!("a server was made of epoch {labelled:?}, recorded is {recorded:?}"));
    }
    let lives = |status: &ServerStatus| *status != ServerStatus::Deleting;
    let others = state.servers.values().filter(|machine| machine.owner.as_ref() == owner);
    let retained = |labels: &crate::hetzner::Labels| labels.contains_key(label::RETAINED);
    let living =
        others.filter(|machine| lives(&machine.server.status) && !retained(&machine.server.labels));
    if let Some(other) = living.map(|machine| machine.server.id).next() {
        state.violated(format!("a second server was made for {owner:?} beside {other}"));
    }
}

fn recorded_epoch(instance: &OpenClawInstance) -> Option<String> {
    Some(instance.status.as_ref()?.server.as_ref()?.epoch.clone())
}

/// Whether the agent of a server has answered. That counts once the status tells of it: of more no operator
/// can know.
pub(super) fn was_heard(state: &State, machine: &Machine) -> bool {
    let owner = machine.owner.as_ref();
    let status = owner.and_then(|owner| state.instance(owner)?.status.as_ref());
    let agent = status.and_then(|status| status.agent.as_ref());
    let told = agent.is_some_and(|agent| agent.epoch == machine.epoch.to_string());
    let forgotten = owner.is_some_and(|owner| state.forgotten.contains(owner));
    !machine.stored.is_empty() && (told || forgotten)
}

/// A server goes with its instance, because a person named it, or because it never ran.
pub(super) fn server_deleted(state: &mut State, id: u64) {
    let Some(machine) = state.servers.get(&id) else { return };
    let owner = machine.owner.clone();
    let going = owner.as_ref().is_some_and(|owner| {
        let deleted = |instance: &OpenClawInstance| instance.metadata.deletion_timestamp.is_some();
        state.instance(owner).is_none_or(deleted) || state.forced.contains(owner)
    });
    let never_ran = machine.server.status != ServerStatus::Running && !was_heard(state, machine);
    if !going && !never_ran && !state.to_rebuild.contains(&id) {
        state.violated(format!("server {id} of {owner:?} was deleted, and nobody asked for it"));
    }
}

/// 2: a Secret goes when all of its values are stored on its instance's server, or with its instance.
pub(super) fn secret_deleted(state: &mut State, key: &Key, secret: &SecretThere) {
    if secret.kind != SEALED_SECRET_TYPE {
        return;
    }
    let Some(name) = secret.labels.get(label::INSTANCE) else {
        state.violated(format!("Secret {key:?} of nobody was deleted"));
        return;
    };
    let owner = (key.0.clone(), name.clone());
    let Some(instance) = state.instance(&owner) else { return };
    if instance.metadata.deletion_timestamp.is_some() {
        return;
    }
    let digests = secret.data.values().map(|value| {
        parse_envelope(&moorage_wire::Secret::new(value.clone())).map(|envelope| envelope.sha256())
    });
    let lost = digests
        .filter(|digest| digest.as_ref().map_or(true, |digest| !was_stored(state, &owner, digest)));
    let lost = lost.count();
    if lost > 0 {
        state.violated(format!("Secret {key:?} was deleted with {lost} values undelivered"));
    }
}

/// Also on a server that was lost since: the receipt was given.
fn was_stored(state: &State, owner: &Key, digest: &Sha256) -> bool {
    state.stored.contains(&(owner.clone(), *digest))
}

/// 4: a ciphertext comes to the server of the one whom it is for.
pub(super) fn delivered(state: &mut State, id: u64, digest: &Sha256) {
    let owner = state.servers.get(&id).and_then(|machine| machine.owner.clone());
    let meant_for = state.sealed_for.get(digest).cloned();
    if meant_for.is_some() && meant_for != owner {
        state.violated(format!("a value of {meant_for:?} came to the server of {owner:?}"));
    }
    state.stored.extend(owner.map(|owner| (owner, *digest)));
}

/// 3: the finalizer goes when nothing is left in a cloud that is not retained.
pub(super) fn released(state: &mut State, key: &Key) {
    let Some(instance) = state.instance(key) else { return };
    let deleted = instance.metadata.deletion_timestamp.is_some();
    let retained = instance.spec.deletion_policy == DeletionPolicy::Retain;
    let names_something = instance.status.as_ref().is_some_and(has_history);
    if !instance.finalizers().is_empty() && names_something {
        state.violated(format!("{key:?} was let go, is held, and its status names what is gone"));
    }
    if !deleted {
        state.violated(format!("{key:?} was let go though it is not being deleted"));
    }
    if retained {
        return;
    }
    if let Some(left) = left_in_clouds(state, key) {
        state.violated(format!("{key:?} was let go, and {left} is left"));
    }
}

/// Something in a cloud that was made for an instance and is not retained.
pub(super) fn left_in_clouds(state: &State, key: &Key) -> Option<String> {
    let is_own = |owner: &Option<Key>| owner.as_ref() == Some(key);
    let server = state.servers.values().find(|machine| {
        is_own(&machine.owner)
            && machine.server.status != ServerStatus::Deleting
            && !machine.server.labels.contains_key(label::RETAINED)
    });
    if let Some(machine) = server {
        return Some(format!("server {}", machine.server.id));
    }
    let tunnel = state
        .tunnels
        .values()
        .find(|there| is_own(&there.owner) && !there.tunnel.name.contains(names::RETAINED));
    if let Some(there) = tunnel {
        return Some(format!("tunnel {}", there.tunnel.id));
    }
    let kept = |comment: &Option<String>| {
        comment.as_ref().is_some_and(|comment| comment.starts_with(names::RETAINED_COMMENT))
    };
    let mut records = state.records.values();
    let record = records.find(|there| is_own(&there.owner) && !kept(&there.record.comment));
    record.map(|there| format!("record {}", there.record.name))
}

/// The Secrets that are bound to an instance.
pub(super) fn secrets_of(state: &State, key: &Key) -> usize {
    let bound = |((namespace, _), secret): &(&Key, &SecretThere)| {
        *namespace == key.0
            && secret.kind == SEALED_SECRET_TYPE
            && secret.labels.get(label::INSTANCE) == Some(&key.1)
    };
    state.secrets.iter().filter(bound).count()
}

/// Whether an instance says that it is Ready for its present spec.
pub(super) fn is_ready(instance: &OpenClawInstance) -> bool {
    let conditions = instance.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|known| {
        known.type_ == "Ready"
            && known.status == "True"
            && known.observed_generation == instance.metadata.generation
    }) && !instance.name_any().is_empty()
}
