//! What may be done with the Secrets of our type that are bound to an instance. One is deleted unread
//! only where it is proven that its instance was there at the same time, and has gone since. Pure.
//!
//! Two things prove it. The instance was seen to go after the Secret was written last, which their
//! resource versions tell: numbers that one etcd gives out for all of its objects. Or the Secret has
//! our mark, which is set while both are there and says of which object, with which data. The watch does
//! not show the data: whether the mark holds is seen when the Secret is read, before anything is done.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::Secret as KubeSecret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{ResourceExt as _, core::PartialObjectMeta, runtime::watcher::Event};

use super::mirror::Mirror;
use crate::{
    api::{annotation, label},
    controller::{instance::GuardedInstance, turns::Name},
    credentials::secret_source::{SecretVersion, may_be_mark},
};

/// How long a Secret stands beside its instance before it is marked: most are delivered first.
const MARK_AFTER: Duration = Duration::from_secs(10);
/// How long a Secret may be without its instance before that is told.
const LONG: SignedDuration = SignedDuration::from_mins(15);
/// How long it is remembered who went: the watch over Secrets may lag behind.
const REMEMBERED: Duration = Duration::from_mins(10);
/// Secrets of one namespace that are looked after here, of whatever type: all cost memory. Those of an
/// instance with our finalizer go with it in any case.
const MOST_SECRETS: usize = 2_000;
/// Secrets of one instance in one turn.
pub(super) const AT_ONCE: usize = 50;

/// An instance that is there.
#[derive(Debug)]
pub(super) struct Living {
    version: Option<u64>,
    /// Nothing is to be written for it: it is suspended, or on its way out.
    resting: bool,
}

impl Living {
    pub(super) fn of(instance: &GuardedInstance) -> (Name, Self) {
        let metadata = kube::Resource::meta(instance);
        let suspended = instance.0.as_ref().is_ok_and(|instance| instance.spec.suspend);
        let resting = suspended || metadata.deletion_timestamp.is_some();
        (name_of(metadata), Self { version: number(metadata.resource_version.as_deref()), resting })
    }
}

/// A Secret with our label; whether it is of our type is not known from its metadata.
#[derive(Debug)]
pub(super) struct Bound {
    instance: String,
    version: SecretVersion,
    created: Timestamp,
    /// It has a mark, which may be that of other data.
    marked: bool,
}

impl Bound {
    pub(super) fn of(secret: &PartialObjectMeta<KubeSecret>) -> (Name, Self) {
        let instance = secret.labels().get(label::INSTANCE).cloned().unwrap_or_default();
        let uid = secret.uid().unwrap_or_default();
        let mark = secret.annotations().get(annotation::INSTANCE_SEEN);
        let bound = Self {
            marked: mark.is_some_and(|mark| may_be_mark(mark, &instance, &uid)),
            version: SecretVersion {
                uid,
                resource_version: secret.resource_version().unwrap_or_default(),
            },
            created: secret.creation_timestamp().map_or(Timestamp::MAX, |time| time.0),
            instance,
        };
        (name_of(&secret.metadata), bound)
    }
}

/// The same event about something else.
pub(super) fn mapped<K, V>(event: &Event<K>, map: impl Fn(&K) -> V) -> Event<V> {
    match event {
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(map(object)),
        Event::InitDone => Event::InitDone,
        Event::Apply(object) => Event::Apply(map(object)),
        Event::Delete(object) => Event::Delete(map(object)),
    }
}

fn name_of(metadata: &ObjectMeta) -> Name {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    (part(&metadata.namespace), part(&metadata.name))
}

fn number(resource_version: Option<&str>) -> Option<u64> {
    resource_version?.parse().ok()
}

/// What to do with one Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Mark it, unless it is: its instance is there.
    Mark,
    /// Delete it: its instance has gone.
    Delete(Proof),
    /// Tell that it has been waiting for its instance for long.
    Tell,
}

/// What proves that a Secret was there together with its instance, which has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// The instance went after the Secret was written last.
    Departure,
    /// The mark, if it holds for the data.
    Mark,
}

/// What the mark of a Secret was seen to be when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// It is as it should be beside the instance: nothing more is to be written.
    Settled,
    /// It does not hold for the data: it proves nothing.
    Untrue,
}

/// What to do with the Secrets of one instance, each exactly as it was seen.
pub(super) type Acts = Vec<(String, SecretVersion, Act)>;

/// All that is known.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    pub(super) instances: Mirror<Living>,
    pub(super) secrets: Mirror<Bound, MOST_SECRETS>,
    /// When each went that went lately: by version, and by our clock.
    departed: HashMap<Name, (u64, Instant)>,
    /// Since when each Secret is known as it is now, by UID: with its resource version.
    observed: HashMap<String, (String, Instant)>,
    /// What was found out about marks, by UID: at which resource version.
    marks: HashMap<String, (String, Mark)>,
    /// The Secrets of which nothing more is to be told, by UID.
    told: HashSet<String>,
    /// The Secrets that are of another type, by UID.
    foreign: HashSet<String>,
}

impl Evidence {
    pub(super) fn take_instance(
        &mut self,
        namespace: Option<&str>,
        event: &Event<GuardedInstance>,
        now: Instant,
    ) {
        for (name, gone) in self.instances.take(namespace, mapped(event, Living::of)) {
            if let Some(version) = gone.version {
                self.departed(name, version, now);
            }
        }
    }

    pub(super) fn take_secret(
        &mut self,
        namespace: Option<&str>,
        event: &Event<PartialObjectMeta<KubeSecret>>,
    ) {
        self.secrets.take(namespace, mapped(event, Bound::of));
    }

    /// An instance was there and went, at this version.
    pub(super) fn departed(&mut self, name: Name, version: u64, now: Instant) {
        let known = self.departed.entry(name).or_insert((version, now));
        *known = (known.0.max(version), now);
    }

    /// The Secret is of another type, and nothing of ours.
    pub(super) fn is_foreign(&mut self, uid: &str) {
        self.foreign.insert(uid.to_owned());
    }

    /// It was told that the Secret is waiting.
    pub(super) fn was_told(&mut self, uid: &str) {
        self.told.insert(uid.to_owned());
    }

    /// The mark of exactly this Secret was looked at.
    pub(super) fn looked_at_mark(&mut self, version: SecretVersion, mark: Mark) {
        self.marks.insert(version.uid, (version.resource_version, mark));
    }

    fn mark(&self, version: &SecretVersion) -> Option<Mark> {
        let (at, mark) = self.marks.get(&version.uid)?;
        (*at == version.resource_version).then_some(*mark)
    }

    /// What is to be done now, by instance, and how many Secrets have been waiting for long.
    pub(super) fn due(&mut self, now: Instant, clock: Timestamp) -> (HashMap<Name, Acts>, u32) {
        self.departed.retain(|_, (_, at)| now.duration_since(*at) < REMEMBERED);
        let uids: HashSet<&str> =
            self.secrets.iter().map(|(_, bound)| bound.version.uid.as_str()).collect();
        self.observed.retain(|uid, _| uids.contains(uid.as_str()));
        self.marks.retain(|uid, _| uids.contains(uid.as_str()));
        self.told.retain(|uid| uids.contains(uid.as_str()));
        self.foreign.retain(|uid| uids.contains(uid.as_str()));
        let (mut acts, mut waiting) = (HashMap::<Name, Acts>::new(), 0);
        for ((namespace, secret), bound) in self.secrets.iter() {
            if self.foreign.contains(&bound.version.uid) {
                continue;
            }
            let name: Name = (namespace.clone(), bound.instance.clone());
            let since = match self.observed.get(&bound.version.uid) {
                Some((version, since)) if *version == bound.version.resource_version => *since,
                _ => {
                    let SecretVersion { uid, resource_version } = bound.version.clone();
                    self.observed.insert(uid, (resource_version, now));
                    now
                }
            };
            let age = (now.duration_since(since), clock.duration_since(bound.created));
            let act = self.act(&name, bound, age);
            waiting += u32::from(act == Some(Act::Tell));
            let told = act == Some(Act::Tell) && self.told.contains(&bound.version.uid);
            let Some(act) = act.filter(|_| !told) else { continue };
            let acts = acts.entry(name).or_default();
            if acts.len() < AT_ONCE {
                acts.push((secret.clone(), bound.version.clone(), act));
            }
        }
        (acts, waiting)
    }

    fn act(
        &self,
        instance: &Name,
        secret: &Bound,
        (seen_for, age): (Duration, SignedDuration),
    ) -> Option<Act> {
        if let Some(living) = self.instances.get(instance) {
            let settled = self.mark(&secret.version) == Some(Mark::Settled);
            let due = !settled && !living.resting && seen_for >= MARK_AFTER;
            return due.then_some(Act::Mark);
        }
        let version = number(Some(&secret.version.resource_version));
        let gone = self.departed.get(instance).map(|(version, _)| *version);
        if version.zip(gone).is_some_and(|(version, gone)| version < gone) {
            return Some(Act::Delete(Proof::Departure));
        }
        if secret.marked && self.mark(&secret.version) != Some(Mark::Untrue) {
            return Some(Act::Delete(Proof::Mark));
        }
        (age >= LONG).then_some(Act::Tell)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn instance(version: u64, suspend: bool) -> GuardedInstance {
        let document = json!({
            "metadata": {"namespace": "tenants", "name": "ada", "resourceVersion": version.to_string()},
            "spec": {"pool": "eu-1", "hostname": "ada", "suspend": suspend},
        });
        GuardedInstance::read(&document.to_string())
    }

    fn secret(version: u64, mark: Option<&str>) -> PartialObjectMeta<KubeSecret> {
        let annotations = mark.map_or(Value::Null, |mark| json!({annotation::INSTANCE_SEEN: mark}));
        serde_json::from_value(json!({"metadata": {
            "namespace": "tenants", "name": "keys", "uid": "u1", "resourceVersion": version.to_string(),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {label::INSTANCE: "ada"}, "annotations": annotations,
        }}))
        .unwrap()
    }

    fn mark(of: &str) -> String {
        format!("{of}/{}", "0".repeat(64))
    }

    fn version(number: u64) -> SecretVersion {
        SecretVersion { uid: "u1".to_owned(), resource_version: number.to_string() }
    }

    /// What is done with the one Secret after this long.
    fn after(evidence: &mut Evidence, wait: Duration) -> (Option<Act>, u32) {
        let clock: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let now = Instant::now();
        evidence.due(now, clock);
        let clock = clock + SignedDuration::try_from(wait).unwrap();
        let (acts, waiting) = evidence.due(now + wait, clock);
        (acts.into_values().flatten().map(|(_, _, act)| act).next(), waiting)
    }

    const DEPARTED: Act = Act::Delete(Proof::Departure);
    const MARKED: Act = Act::Delete(Proof::Mark);
    const MINUTE: Duration = Duration::from_mins(1);
    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn a_secret_that_comes_long_before_its_instance_is_kept() {
        let mut evidence = Evidence::default();
        evidence.take_secret(None, &Event::Apply(secret(5, None)));
        assert_eq!(after(&mut evidence, MINUTE), (None, 0));
        assert_eq!(after(&mut evidence, DAY), (Some(Act::Tell), 1));
        evidence.was_told("u1");
        assert_eq!(after(&mut evidence, DAY), (None, 1), "told once, and counted on");
        evidence.take_instance(None, &Event::Apply(instance(6, false)), Instant::now());
        assert_eq!(after(&mut evidence, MINUTE), (Some(Act::Mark), 0));
        evidence.take_secret(None, &Event::Apply(secret(7, Some(&mark("ada/u1")))));
        evidence.looked_at_mark(version(7), Mark::Settled);
        assert_eq!(after(&mut evidence, DAY), (None, 0));
    }

    #[test]
    fn only_what_was_written_before_the_end_goes() {
        let mut evidence = Evidence::default();
        evidence.take_instance(None, &Event::Apply(instance(6, false)), Instant::now());
        evidence.take_instance(None, &Event::Delete(instance(9, false)), Instant::now());
        evidence.take_secret(None, &Event::Apply(secret(8, None)));
        assert_eq!(after(&mut evidence, Duration::ZERO).0, Some(DEPARTED));
        evidence.take_secret(None, &Event::Apply(secret(10, None)));
        assert_eq!(after(&mut evidence, MINUTE).0, None, "it is for the next life");
        // A new list that lacks the instance says only that it went after its last version.
        let mut evidence = Evidence::default();
        evidence.take_instance(None, &Event::Apply(instance(6, false)), Instant::now());
        for event in [Event::Init, Event::InitDone] {
            evidence.take_instance(None, &event, Instant::now());
        }
        evidence.take_secret(None, &Event::Apply(secret(8, None)));
        assert_eq!(after(&mut evidence, MINUTE).0, None);
        evidence.take_secret(None, &Event::Apply(secret(5, None)));
        assert_eq!(after(&mut evidence, MINUTE).0, Some(DEPARTED));
    }

    #[test]
    fn a_mark_is_true_of_one_secret_and_one_instance() {
        for (mark, act) in [
            (mark("ada/u1"), Some(MARKED)),
            // Of the Secret that was restored from a backup as a new object, or bound to another.
            (mark("ada/u0"), None),
            (mark("bob/u1"), None),
            // An earlier version set it beside whatever data there was.
            ("ada/u1".to_owned(), None),
            (String::new(), None),
        ] {
            let mut evidence = Evidence::default();
            evidence.take_secret(None, &Event::Apply(secret(5, Some(&mark))));
            assert_eq!(after(&mut evidence, MINUTE).0, act, "{mark}");
        }
    }

    #[test]
    fn a_mark_over_other_data_proves_nothing_and_is_replaced() {
        let mut evidence = Evidence::default();
        let marked = secret(5, Some(&mark("ada/u1")));
        evidence.take_secret(None, &Event::Apply(marked.clone()));
        assert_eq!(after(&mut evidence, MINUTE).0, Some(MARKED));
        evidence.looked_at_mark(version(5), Mark::Untrue);
        assert_eq!(after(&mut evidence, MINUTE).0, None);
        assert_eq!(after(&mut evidence, DAY), (Some(Act::Tell), 1), "it waits like any other");
        evidence.take_instance(None, &Event::Apply(instance(6, false)), Instant::now());
        assert_eq!(after(&mut evidence, MINUTE).0, Some(Act::Mark), "it is set again");
        evidence.looked_at_mark(version(5), Mark::Settled);
        assert_eq!(after(&mut evidence, DAY).0, None);
        // What is written to it later is looked at again.
        evidence.take_secret(None, &Event::Apply(secret(7, Some(&mark("ada/u1")))));
        assert_eq!(after(&mut evidence, MINUTE).0, Some(Act::Mark));
    }

    #[test]
    fn nothing_is_written_beside_an_instance_that_is_suspended() {
        let mut evidence = Evidence::default();
        evidence.take_secret(None, &Event::Apply(secret(5, None)));
        evidence.take_instance(None, &Event::Apply(instance(6, true)), Instant::now());
        assert_eq!(after(&mut evidence, DAY), (None, 0));
        evidence.take_instance(None, &Event::Delete(instance(7, true)), Instant::now());
        assert_eq!(after(&mut evidence, MINUTE).0, Some(DEPARTED), "it went with both there");
    }

    #[test]
    fn a_secret_of_another_type_is_left_alone() {
        let mut evidence = Evidence::default();
        evidence.take_secret(None, &Event::Apply(secret(5, Some(&mark("ada/u1")))));
        evidence.is_foreign("u1");
        assert_eq!(after(&mut evidence, DAY), (None, 0));
    }
}
