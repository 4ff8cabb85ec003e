//! What we wrote last of each object, until the watch has brought it back. A watch lags behind our own
//! writes, and a pass that began with an older object would lay what it did not know of over them.

use std::{collections::HashMap, sync::Arc};

use kube::{Resource, ResourceExt as _};
use parking_lot::{Mutex, MutexGuard};

/// Our last writes, by the UID of the object.
#[derive(Debug)]
pub struct Latest<K>(Mutex<HashMap<String, Arc<K>>>);

impl<K> Default for Latest<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Resource> Latest<K> {
    /// Notes what the API server answered to a write of ours.
    pub fn note(&self, written: K) {
        let Some(uid) = written.uid() else { return };
        self.written().insert(uid, Arc::new(written));
    }

    /// What was written after `seen`; `None` if the watch has brought that or something newer.
    pub fn newer(&self, seen: &K) -> Option<Arc<K>> {
        let mut written = self.written();
        let uid = seen.uid()?;
        let known = written.get(&uid)?;
        if is_newer(known.as_ref(), seen) {
            return Some(Arc::clone(known));
        }
        written.remove(&uid);
        None
    }

    /// The version that a write which builds on `base` has to find. Only the pass that runs writes, so
    /// what is newer than its base is its own.
    pub fn version(&self, base: &K) -> Option<String> {
        let written = self.written();
        let own = base.uid().and_then(|uid| written.get(&uid).cloned());
        let own = own.filter(|own| is_newer(own.as_ref(), base));
        own.map_or_else(|| base.resource_version(), |own| own.resource_version())
    }

    /// Forgets all but these objects.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.written().retain(|uid, _| is_there(uid));
    }

    fn written(&self) -> MutexGuard<'_, HashMap<String, Arc<K>>> {
        self.0.lock()
    }
}

/// Resource versions of one object are decimal numbers that grow (Kubernetes promises it since 1.35,
/// and etcd's always were). What is none is not compared: the watch's object stands.
fn is_newer<K: Resource>(this: &K, that: &K) -> bool {
    let version = |object: &K| object.resource_version()?.parse::<u128>().ok();
    version(this).zip(version(that)).is_some_and(|(this, that)| this > that)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{OpenClawInstance, OpenClawInstanceStatus};

    fn ada(version: &str) -> OpenClawInstance {
        let spec = serde_json::from_value(serde_json::json!({"pool": "eu", "hostname": "ada"}));
        let mut ada = OpenClawInstance::new("ada", spec.unwrap());
        ada.metadata.uid = Some("u1".to_owned());
        ada.metadata.resource_version = Some(version.to_owned());
        ada
    }

    #[test]
    fn a_pass_builds_on_our_own_write_until_the_watch_has_it() {
        let latest = Latest::default();
        let mut written = ada("100");
        written.status = Some(OpenClawInstanceStatus::default());
        latest.note(written);
        assert!(latest.newer(&ada("99")).unwrap().status.is_some(), "100 is newer than 99");
        assert_eq!(latest.version(&ada("99")).as_deref(), Some("100"));
        assert!(latest.newer(&ada("100")).is_none());
        assert!(latest.newer(&ada("99")).is_none(), "what was brought back is not kept");
        assert_eq!(latest.version(&ada("101")).as_deref(), Some("101"));
    }

    #[test]
    fn versions_of_two_objects_are_never_compared() {
        let latest = Latest::default();
        latest.note(ada("100"));
        let mut second_life = ada("5");
        second_life.metadata.uid = Some("u2".to_owned());
        assert!(latest.newer(&second_life).is_none());
        latest.note(ada("b"));
        assert!(latest.newer(&ada("a")).is_none());
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let latest = Latest::default();
        latest.note(ada("100"));
        latest.retain(|uid| uid != "u1");
        assert!(latest.newer(&ada("1")).is_none());
    }
}
