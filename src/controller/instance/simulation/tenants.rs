//! What tenants and other people do to the world: customers who change their minds, tools that restore
//! and copy, hands in the consoles of the clouds.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use moorage_wire::{Epoch, envelope::Envelope};
use serde_json::json;

use super::{
    broken::ID_ANNOTATION,
    process::POOL,
    world::{INSTALLATION, Key, Machine, RecordThere, State},
};
use crate::{
    api::{
        FINALIZER, OpenClawInstance, OpenClawInstanceStatus, SEALED_SECRET_TYPE, annotation,
        instance::ServerStatus as ServerStatusThere, label,
    },
    cloudflare::RecordType,
    hetzner::{Labels, Server, ServerId, ServerStatus},
    names::{self, ServerIdentity},
    ownership,
};

const RENAMED: &str = "renamed";
const HOLD: &str = "x.example/hold";

/// The instances that there may be: two tenants, of whom one has two.
pub(super) fn keys() -> [Key; 3] {
    [("tenants", "ada"), ("tenants", "bob"), ("others", "ada")]
        .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
}

fn hostname(key: &Key) -> String {
    if key.0 == "tenants" { key.1.clone() } else { format!("{}-{}", key.0, key.1) }
}

fn secret_name(key: &Key) -> Key {
    (key.0.clone(), format!("{}-keys", key.1))
}

/// One of the things that may happen to one instance, or nothing if it does not fit.
pub(super) fn meddle(state: &mut State, key: &Key) {
    state.counts.deeds += 1;
    let exists = state.instances.contains_key(key);
    match state.dice.within(0..21) {
        _ if !exists => create(state, key),
        0..=2 => hand_in(state, key),
        3 => {
            state.say(|| format!("{key:?} is deleted"));
            state.delete_instance(key);
        }
        4 => reconfigure(state, key),
        5 => rebuild(state, key),
        6 => edit(state, key, |instance, _| {
            instance.spec.suspend = !instance.spec.suspend;
            instance.metadata.generation = Some(instance.metadata.generation.unwrap_or(0) + 1);
        }),
        7 => force(state, key),
        8 => claim_to_be_another(state, key),
        9 => lose_server(state, key),
        10 => silence(state, key),
        11 => deface_record(state, key),
        12 => deface_tunnel(state, key),
        13 => deface_server(state, key),
        14 => copy_server(state, key),
        15 => squat_server_name(state, key),
        16 => lose_status(state, key),
        17 => hold(state, key),
        18 => stall(state),
        19 => turn_off(state, key),
        _ => replace(state, key),
    }
}

pub(super) fn create(state: &mut State, key: &Key) {
    let number = state.number();
    let retain = state.dice.per_mille(100);
    let dashboard = state.dice.per_mille(300);
    let credentials = state.dice.per_mille(600);
    let mut spec = json!({
        "pool": POOL, "hostname": hostname(key),
        "deletionPolicy": if retain { "Retain" } else { "Delete" },
    });
    if dashboard {
        spec["access"] = json!({"dashboardSecretName": format!("{}-dashboard", key.1)});
    }
    if credentials {
        let secret = secret_name(key).1;
        spec["credentials"] = json!([{
            "name": "anthropic", "type": "AnthropicApiKey", "sealedTo": "Agent",
            "secretRef": {"name": secret, "key": "anthropic"},
        }]);
    }
    let spec = serde_json::from_value(spec).expect("it is an instance's spec");
    let mut instance = OpenClawInstance::new(&key.1, spec);
    instance.metadata.namespace = Some(key.0.clone());
    instance.metadata.uid = Some(format!("instance-{number}"));
    instance.metadata.generation = Some(1);
    instance.metadata.creation_timestamp = Some(Time(whole_second(state.now)));
    state.say(|| format!("{key:?} is made"));
    state.store(key, instance);
    if credentials {
        hand_in(state, key);
    }
}

fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

pub(super) fn reconfigure(state: &mut State, key: &Key) {
    edit(state, key, |instance, number| {
        let config = json!({"agents": {"defaults": {"thinking": number.to_string()}}});
        instance.spec.config = serde_json::from_value(config).expect("it is a configuration");
        instance.metadata.generation = Some(instance.metadata.generation.unwrap_or(0) + 1);
    });
}

fn edit(state: &mut State, key: &Key, change: impl FnOnce(&mut OpenClawInstance, u64)) {
    let number = state.number();
    if state.change(key, |instance| change(instance, number)).is_some() {
        state.say(|| format!("{key:?} is edited"));
    }
}

/// A customer seals a new value, if the instance asks for one.
pub(super) fn hand_in(state: &mut State, key: &Key) {
    if state.instance(key).is_none_or(|instance| instance.spec.credentials.is_empty()) {
        return;
    }
    let number = state.number();
    let mut bytes = vec![0; 2 + 256 + 16];
    bytes[..2].copy_from_slice(&256_u16.to_be_bytes());
    bytes[2..10].copy_from_slice(&number.to_be_bytes());
    let Ok(envelope) = Envelope::from_bytes(bytes.clone()) else { return };
    state.sealed_for.insert(envelope.sha256(), key.clone());
    let name = secret_name(key);
    let before = state.secrets.get(&name);
    let leaving = state.instance(key).is_some_and(|one| one.metadata.deletion_timestamp.is_some());
    // What comes after a deletion began is for the next instance of the name.
    if before.is_none() && leaving {
        state.held.remove(key);
    }
    let secret = super::world::SecretThere {
        uid: before.map_or_else(|| format!("secret-{number}"), |secret| secret.uid.clone()),
        version: number,
        created: before.map_or(whole_second(state.now), |secret| secret.created),
        kind: SEALED_SECRET_TYPE.to_owned(),
        labels: [(label::INSTANCE.to_owned(), key.1.clone())].into(),
        data: [("anthropic".to_owned(), bytes)].into(),
        controller: None,
    };
    state.say(|| format!("{key:?} is handed a value in"));
    state.secrets.insert(name, secret);
}

/// A Secret of an instance with a value that Moorage opens.
pub(super) fn put_sealed(state: &mut State, key: &Key, name: &str, sealed: Vec<u8>) {
    let number = state.number();
    let secret = super::world::SecretThere {
        uid: format!("secret-{number}"),
        version: number,
        created: whole_second(state.now),
        kind: SEALED_SECRET_TYPE.to_owned(),
        labels: [(label::INSTANCE.to_owned(), key.1.clone())].into(),
        data: [("anthropic".to_owned(), sealed)].into(),
        controller: None,
    };
    state.secrets.insert((key.0.clone(), name.to_owned()), secret);
}

fn rebuild(state: &mut State, key: &Key) {
    let recorded =
        state.instance(key).and_then(|instance| instance.status.as_ref()?.server.as_ref()?.id);
    let Some(id) = recorded else { return };
    state.to_rebuild.insert(id);
    edit(state, key, |instance, _| {
        instance.annotations_mut().insert(annotation::REBUILD.to_owned(), id.to_string());
    });
}

/// The finalizer is taken away by force.
fn force(state: &mut State, key: &Key) {
    if !state.is_held(key) || !state.dice.per_mille(300) {
        return;
    }
    take_finalizer(state, key);
}

/// Ours is taken off by hand.
pub(super) fn take_finalizer(state: &mut State, key: &Key) {
    state.forced.insert(key.clone());
    edit(state, key, |instance, _| instance.finalizers_mut().retain(|held| held != FINALIZER));
    remove_if_free(state, key);
}

/// Somebody else's finalizer, which is not taken off by itself.
pub(super) fn hold(state: &mut State, key: &Key) {
    edit(state, key, |instance, _| {
        if instance.metadata.deletion_timestamp.is_none()
            && !instance.finalizers().iter().any(|held| held == HOLD)
        {
            instance.finalizers_mut().push(HOLD.to_owned());
        }
    });
}

/// Whoever held an object lets it go.
fn stop_holding(state: &mut State, key: &Key) {
    if !state.instance(key).is_some_and(|one| one.finalizers().iter().any(|held| held == HOLD)) {
        return;
    }
    edit(state, key, |instance, _| instance.finalizers_mut().retain(|held| held != HOLD));
    remove_if_free(state, key);
}

fn remove_if_free(state: &mut State, key: &Key) {
    let free = |instance: &OpenClawInstance| {
        instance.metadata.deletion_timestamp.is_some() && instance.finalizers().is_empty()
    };
    if state.instance(key).is_some_and(free) {
        state.remove_instance(key);
    }
}

fn claim_to_be_another(state: &mut State, key: &Key) {
    let others = keys().into_iter().filter(|other| other != key);
    let Some(other) = state.dice.one_of(others) else { return };
    let id = ownership::instance_id(INSTALLATION, &other.0, &other.1);
    edit(state, key, |instance, _| {
        instance.annotations_mut().insert(ID_ANNOTATION.to_owned(), id.to_string());
    });
}

fn lose_server(state: &mut State, key: &Key) {
    let own = |machine: &Machine| machine.owner.as_ref() == Some(key);
    state.say(|| format!("the server of {key:?} is lost"));
    state.servers.retain(|_, machine| !own(machine));
}

fn silence(state: &mut State, key: &Key) {
    for machine in state.servers.values_mut() {
        if machine.owner.as_ref() == Some(key) {
            machine.silent = !machine.silent;
        }
    }
}

/// Hetzner's next servers come up, or stay off, or stay as they are.
fn stall(state: &mut State) {
    let how = [None, Some(ServerStatus::Off), Some(ServerStatus::Initializing)];
    state.stuck = state.dice.one_of(how).flatten();
    state.say(|| "the next servers may be stuck".to_owned());
}

/// A person turns a server off.
pub(super) fn turn_off(state: &mut State, key: &Key) {
    for machine in state.servers.values_mut() {
        if machine.owner.as_ref() == Some(key) && machine.stuck.is_none() {
            machine.stuck = Some(ServerStatus::Off);
            machine.server.status = ServerStatus::Off;
        }
    }
}

fn deface_record(state: &mut State, key: &Key) {
    let own = state.records.iter().filter(|(_, there)| there.owner.as_ref() == Some(key));
    let own: Vec<_> = own.map(|(id, _)| id.clone()).collect();
    let how = state.dice.within(0..3);
    let Some(id) = state.dice.one_of(own) else { return };
    state.say(|| format!("record {id} of {key:?} is defaced ({how})"));
    let Some(there) = state.records.get_mut(&id) else { return };
    match how {
        0 => there.record.comment = None,
        1 => there.record.proxied = Some(false),
        _ => drop(state.records.remove(&id)),
    }
}

/// What is not written down yet and loses its mark is nobody's, which no operator could mend.
fn is_recorded(state: &State, key: &Key, is: impl Fn(&OpenClawInstanceStatus) -> bool) -> bool {
    state.instance(key).and_then(|instance| instance.status.as_ref()).is_some_and(is)
}

fn deface_tunnel(state: &mut State, key: &Key) {
    let own = state.tunnels.values().find(|there| there.owner.as_ref() == Some(key));
    let Some(id) = own.map(|there| there.tunnel.id.to_string()) else { return };
    if !is_recorded(state, key, |status| status.tunnel.as_ref().is_some_and(|own| own.id == id)) {
        return;
    }
    let renamed = state.tunnels.values_mut().find(|there| there.owner.as_ref() == Some(key));
    if let Some(there) = renamed {
        // One that is retained keeps its name: nothing else tells that it is.
        if !there.tunnel.name.contains(names::RETAINED) {
            RENAMED.clone_into(&mut there.tunnel.name);
        }
    }
}

fn deface_server(state: &mut State, key: &Key) {
    let own = state.servers.iter().find(|(_, machine)| machine.owner.as_ref() == Some(key));
    let Some(id) = own.map(|(id, _)| *id) else { return };
    let named = |status: &OpenClawInstanceStatus| {
        status.server.as_ref().is_some_and(|server| server.id == Some(id))
    };
    if !is_recorded(state, key, named) {
        return;
    }
    let own = state.servers.values_mut().find(|machine| machine.owner.as_ref() == Some(key));
    if let Some(machine) = own
        && !machine.server.labels.contains_key(label::RETAINED)
    {
        machine.server.labels.clear();
    }
}

/// A server from a snapshot, with the labels of the first.
fn copy_server(state: &mut State, key: &Key) {
    let own = state.servers.values().find(|machine| machine.owner.as_ref() == Some(key));
    let Some(server) = own.map(|machine| machine.server.clone()) else { return };
    let number = state.number();
    let server = Server { id: ServerId(number), name: format!("copy-{number}"), ..server };
    add_foreign(state, server);
}

/// A server that somebody gave the name that an instance's is going to have.
fn squat_server_name(state: &mut State, key: &Key) {
    let name = server_name(key);
    let taken = state.servers.values().any(|machine| machine.server.name == name);
    let Some(some) = state.servers.values().next().filter(|_| !taken) else { return };
    let server = Server { name, labels: BTreeMap::new(), ..some.server.clone() };
    let number = state.number();
    add_foreign(state, Server { id: ServerId(number), ..server });
}

/// The name of an instance's server.
pub(super) fn server_name(key: &Key) -> String {
    names::server(&hostname(key), ownership::instance_id(INSTALLATION, &key.0, &key.1))
}

fn add_foreign(state: &mut State, server: Server) {
    state.say(|| format!("somebody makes server {} named {}", server.id, server.name));
    let Some(machine) = state.servers.values().next() else { return };
    let foreign = Machine {
        server: Server { status: ServerStatus::Running, ..server },
        owner: None,
        instance: machine.instance,
        epoch: machine.epoch,
        tunnel: String::new(),
        tokens: Vec::new(),
        desired: None,
        progress: machine.progress,
        converged_once: false,
        stored: BTreeMap::new(),
        consumed: Vec::new(),
        silent: true,
        stuck: None,
    };
    state.servers.insert(foreign.server.id.0, foreign);
}

/// A restore of the cluster from a backup that holds no statuses.
pub(super) fn lose_status(state: &mut State, key: &Key) {
    state.forgotten.insert(key.clone());
    edit(state, key, |instance, _| instance.status = None);
}

/// `kubectl replace --force`: another object of the same name.
fn replace(state: &mut State, key: &Key) {
    if state.is_held(key) {
        return;
    }
    state.remove_instance(key);
    state.held.remove(key);
    create(state, key);
}

/// A person puts right what only a person can.
pub(super) fn tidy(state: &mut State) {
    state.servers.retain(|_, machine| machine.owner.is_some());
    state.stuck = None;
    for machine in state.servers.values_mut() {
        machine.silent = false;
        machine.stuck = None;
    }
    for key in keys() {
        stop_holding(state, &key);
        if state.instance(&key).is_some_and(|instance| instance.spec.suspend) {
            edit(state, &key, |instance, _| {
                instance.spec.suspend = false;
                instance.metadata.generation = Some(instance.metadata.generation.unwrap_or(0) + 1);
            });
        }
    }
    put_marks_back(state);
    remove_duplicates(state);
    remove_what_is_retained(state);
    // Nothing else has the type; what is not a CNAME any more was somebody's.
    state.records.retain(|_, there| there.record.record_type == RecordType::Cname);
}

/// What has neither its mark nor a status that names it is nobody's, until a person marks it again, or
/// removes it where something else has its place. The next instance of a name finds the server that a
/// taken finalizer left behind, and not its tunnel.
fn put_marks_back(state: &mut State) {
    let names: Vec<_> = state.tunnels.values().map(|there| there.tunnel.name.clone()).collect();
    let (forgotten, forced) = (&state.forgotten, &state.forced);
    state.tunnels.retain(|_, there| {
        let lost = |owner: &&Key| forgotten.contains(*owner) || forced.contains(*owner);
        let Some(owner) = there.owner.as_ref().filter(lost) else { return true };
        if there.tunnel.name != RENAMED {
            return true;
        }
        let instance = ownership::instance_id(INSTALLATION, &owner.0, &owner.1);
        there.tunnel.name = names::tunnel(INSTALLATION, instance);
        !names.contains(&there.tunnel.name)
    });
    for machine in state.servers.values_mut() {
        let owner = machine.owner.as_ref().filter(|owner| state.forgotten.contains(*owner));
        if let Some(owner) = owner.filter(|_| machine.server.labels.is_empty()) {
            machine.server.labels = server_labels(owner, machine.epoch);
        }
    }
}

/// A status that is lost while the list lacks the server is written with another epoch: a person is told
/// to delete the server.
fn remove_duplicates(state: &mut State) {
    let (instances, forgotten) = (&state.instances, &state.forgotten);
    state.servers.retain(|_, machine| {
        let owner = machine.owner.as_ref().filter(|owner| forgotten.contains(*owner));
        let status = owner.and_then(|owner| instances.get(owner)?.status.as_ref());
        let recorded = status.and_then(|status| status.server.as_ref());
        let another = |server: &&ServerStatusThere| {
            server.id.is_none() && server.epoch != machine.epoch.to_string()
        };
        recorded.as_ref().is_none_or(|server| !another(server))
    });
}

/// What is retained of an instance is in the way of the next one of its name, which says so.
fn remove_what_is_retained(state: &mut State) {
    let instances = &state.instances;
    let in_the_way = |owner: &Option<Key>| {
        let next = owner.as_ref().and_then(|owner| instances.get(owner));
        next.is_some_and(|next| next.metadata.deletion_timestamp.is_none())
    };
    let kept = |there: &RecordThere| {
        let comment = there.record.comment.as_ref();
        comment.is_some_and(|comment| comment.starts_with(names::RETAINED_COMMENT))
    };
    state.records.retain(|_, there| !(kept(there) && in_the_way(&there.owner)));
    state.servers.retain(|_, machine| {
        !(machine.server.labels.contains_key(label::RETAINED) && in_the_way(&machine.owner))
    });
    state.tunnels.retain(|_, there| {
        !(there.tunnel.name.contains(names::RETAINED) && in_the_way(&there.owner))
    });
}

/// All instances are deleted.
pub(super) fn leave(state: &mut State) {
    for key in keys() {
        state.delete_instance(&key);
    }
}

/// The labels that an instance's server of this epoch has.
pub(super) fn server_labels((namespace, name): &Key, epoch: Epoch) -> Labels {
    let instance = ownership::instance_id(INSTALLATION, namespace, name);
    let installation = INSTALLATION;
    ServerIdentity { installation, instance, epoch, namespace, name, pool: POOL }.labels()
}
