//! The master keys of an installation: the newest, which new servers are made under, and older ones
//! that servers or sealing keys still need while a rotation is under way. Pure; where they come from is
//! in `master_key_store`, and how a server moves from one to the next in `instance::handover`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use moorage_wire::InstallationId;
use parking_lot::RwLock;

use crate::{
    api::pool::{MasterKeyPlace, MasterKeyStatus, OlderMasterKey},
    credentials::wrapping_key::WrappingKey,
    master_key::MasterKey,
};

/// Whence the newest key was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPlace {
    /// A Secret: in etcd, and in every backup of it.
    Secret,
    /// A file: outside of etcd, if its volume is.
    File,
}

/// All keys, the newest first; at least one.
#[derive(Debug, Clone)]
pub struct MasterKeys {
    newest: Arc<MasterKey>,
    older: Vec<Arc<MasterKey>>,
    /// Whence the newest is.
    pub place: KeyPlace,
}

impl MasterKeys {
    /// One key, as long as there was no rotation.
    pub fn only(key: MasterKey, place: KeyPlace) -> Self {
        Self { newest: Arc::new(key), older: Vec::new(), place }
    }

    /// Adds an older key, unless it is one that is there.
    #[must_use]
    pub fn with_older(mut self, key: MasterKey) -> Self {
        if self.named(key.id().as_str()).is_none() {
            self.older.push(Arc::new(key));
        }
        self
    }

    /// The key that new servers are made under, and that sealing keys are wrapped by.
    pub fn newest(&self) -> &Arc<MasterKey> {
        &self.newest
    }

    /// The others, the newest of them first.
    pub fn older(&self) -> &[Arc<MasterKey>] {
        &self.older
    }

    /// All of them, the newest first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<MasterKey>> {
        std::iter::once(&self.newest).chain(&self.older)
    }

    /// The key with this id.
    pub fn named(&self, id: &str) -> Option<&Arc<MasterKey>> {
        self.all().find(|key| key.id().as_str() == id)
    }

    /// What opens the stored sealing keys: that of the newest key first.
    pub fn wrapping_keys(&self) -> Vec<WrappingKey> {
        self.all().map(|key| key.wrapping_key()).collect()
    }

    /// The installation, which a rotation does not change.
    pub fn installation(&self) -> InstallationId {
        self.newest.installation()
    }
}

/// The keys as they are now: a key that is added or taken away is seen without a restart.
#[derive(Debug)]
pub struct CurrentKeys(RwLock<Arc<MasterKeys>>);

impl CurrentKeys {
    pub fn new(keys: MasterKeys) -> Self {
        Self(RwLock::new(Arc::new(keys)))
    }

    pub fn get(&self) -> Arc<MasterKeys> {
        Arc::clone(&self.0.read())
    }

    /// Takes over what was read last.
    pub fn set(&self, keys: Arc<MasterKeys>) {
        *self.0.write() = keys;
    }

    pub fn installation(&self) -> InstallationId {
        self.get().installation()
    }

    pub fn newest(&self) -> Arc<MasterKey> {
        Arc::clone(self.get().newest())
    }

    /// The key that a server was made under or handed over to, if it is known; the newest for a server
    /// of which that is not recorded.
    pub fn of_server(&self, recorded: Option<&str>) -> Option<Arc<MasterKey>> {
        let keys = self.get();
        match recorded {
            Some(id) => keys.named(id).cloned(),
            None => Some(Arc::clone(keys.newest())),
        }
    }
}

/// What needs which key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyUse {
    /// Servers, by the id of the key that is recorded for them.
    pub servers: BTreeMap<String, u32>,
    /// Instances that may have a server for which no key is recorded: each key may be theirs.
    pub unrecorded: u32,
    /// Stored sealing keys, by the key that wraps them; nothing while that is not known.
    pub sealing_keys: Option<BTreeMap<String, u32>>,
    /// Pools, and instances that were claimed: the newest key is theirs to come.
    pub dependants: u32,
}

impl KeyUse {
    /// Whether anything needs this key, or may.
    pub fn needs(&self, id: &str) -> bool {
        let sealing = self.sealing_keys.as_ref().map(|keys| keys.get(id).copied().unwrap_or(0));
        self.servers.get(id).is_some_and(|count| *count > 0)
            || self.unrecorded > 0
            || sealing.is_none_or(|count| count > 0)
    }

    /// The ids of the keys that must not go.
    pub fn needed(&self, keys: &MasterKeys) -> BTreeSet<String> {
        let newest = keys.newest().id().to_string();
        let older = keys.older().iter().map(|key| key.id().to_string());
        let older = older.filter(|id| self.needs(id));
        older.chain((self.dependants > 0).then_some(newest)).collect()
    }

    /// What the pools' status says of the keys.
    pub fn status(&self, keys: &MasterKeys) -> MasterKeyStatus {
        let count = |counts: &BTreeMap<String, u32>, id: &str| counts.get(id).copied().unwrap_or(0);
        let older = keys.older().iter().map(|key| {
            let id = key.id().as_str();
            OlderMasterKey {
                id: id.to_owned(),
                servers: count(&self.servers, id),
                sealing_keys: self.sealing_keys.as_ref().map_or(0, |keys| count(keys, id)),
                removable: !self.needs(id),
            }
        });
        let older: Vec<_> = older.collect();
        let source = match keys.place {
            KeyPlace::Secret => MasterKeyPlace::Secret,
            KeyPlace::File => MasterKeyPlace::File,
        };
        let message = match (older.iter().all(|key| key.removable), keys.place) {
            _ if older.is_empty() => match keys.place {
                KeyPlace::Secret => SECRET_WARNING.to_owned(),
                KeyPlace::File => "The master key is read from a file. Keep a copy of it.".to_owned(),
            },
            (true, _) => "Nothing needs the older keys any more. Back up the newest key, then delete them.".to_owned(),
            (false, _) => "Servers are being handed over to the newest key. Keep the older keys until this says that they can go.".to_owned(),
        };
        MasterKeyStatus { id: keys.newest().id().to_string(), source, older, message }
    }
}

const SECRET_WARNING: &str = "The master key is a Secret, so a backup of etcd holds every key that is derived from it, and opens sealed values. Give it as a file from a KMS or CSI volume to keep it out of etcd.";

/// Which master key wraps how many sealing keys; nothing before they were looked at.
#[derive(Debug, Default)]
pub struct SealingKeyUse(RwLock<Option<BTreeMap<String, u32>>>);

impl SealingKeyUse {
    /// `None` before they were counted.
    pub fn get(&self) -> Option<BTreeMap<String, u32>> {
        self.0.read().clone()
    }

    /// Takes over what was counted.
    pub fn set(&self, counted: BTreeMap<String, u32>) {
        *self.0.write() = Some(counted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moorage_wire::Secret;
    use rstest::rstest;

    fn key(byte: u8) -> MasterKey {
        let mut bytes = [byte; 32];
        bytes[0] = 0;
        MasterKey::new(Secret::from(bytes), InstallationId::from_bytes([7; 8])).unwrap()
    }

    #[test]
    fn a_server_keeps_the_key_that_is_recorded_for_it() {
        let keys = MasterKeys::only(key(2), KeyPlace::Secret).with_older(key(1));
        let current = CurrentKeys::new(keys);
        let id = |key: &MasterKey| key.id().to_string();
        let of = |recorded: &str| current.of_server(Some(recorded)).map(|key| id(&key));
        assert_eq!(of(&id(&key(1))), Some(id(&key(1))));
        assert_eq!(of(&id(&key(3))), None, "a key that nobody has is not guessed");
        assert_eq!(current.of_server(None).map(|found| id(&found)), Some(id(&key(2))));
    }

    #[test]
    fn the_same_key_in_two_places_is_one_key() {
        let keys = MasterKeys::only(key(1), KeyPlace::File).with_older(key(1)).with_older(key(2));
        assert_eq!(keys.older().len(), 1);
        assert_eq!(keys.wrapping_keys().len(), 2);
    }

    fn counts(list: &[(&MasterKey, u32)]) -> BTreeMap<String, u32> {
        list.iter().map(|(key, count)| (key.id().to_string(), *count)).collect()
    }

    #[rstest]
    #[case::done(&[(2, 5)], 0, Some(&[(2, 3)][..]), true)]
    #[case::a_server_is_left(&[(2, 5), (1, 1)], 0, Some(&[(2, 3)][..]), false)]
    #[case::a_sealing_key_is_left(&[(2, 5)], 0, Some(&[(1, 1)][..]), false)]
    #[case::sealing_keys_are_not_known(&[(2, 5)], 0, None, false)]
    #[case::a_server_of_which_nothing_is_recorded(&[(2, 5)], 1, Some(&[][..]), false)]
    fn an_older_key_can_go_when_nothing_can_need_it(
        #[case] servers: &[(u8, u32)],
        #[case] unrecorded: u32,
        #[case] sealing: Option<&[(u8, u32)]>,
        #[case] removable: bool,
    ) {
        let keys = MasterKeys::only(key(2), KeyPlace::Secret).with_older(key(1));
        let by_id = |list: &[(u8, u32)]| {
            let keys: Vec<_> = list.iter().map(|(byte, count)| (key(*byte), *count)).collect();
            counts(&keys.iter().map(|(key, count)| (key, *count)).collect::<Vec<_>>())
        };
        let use_ = KeyUse {
            servers: by_id(servers),
            unrecorded,
            sealing_keys: sealing.map(by_id),
            dependants: 5,
        };
        let status = use_.status(&keys);
        assert_eq!(status.older[0].removable, removable);
        assert_eq!(status.message.contains("Nothing needs"), removable, "{}", status.message);
        let needed = use_.needed(&keys);
        assert!(needed.contains(key(2).id().as_str()), "new servers are made under it");
        assert_eq!(!needed.contains(key(1).id().as_str()), removable);
    }

    #[test]
    fn without_pools_and_instances_no_key_is_needed() {
        let keys = MasterKeys::only(key(1), KeyPlace::Secret);
        let nothing = KeyUse { sealing_keys: Some(counts(&[(&key(1), 1)])), ..KeyUse::default() };
        assert!(nothing.needed(&keys).is_empty());
        assert!(nothing.status(&keys).message.contains("etcd"));
    }
}
