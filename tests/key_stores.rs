//! The master key and the key ring in a real API server.
//!
//! Needs the tools of `hack/tools.sh`; without them the test says that it is skipped, and fails if
//! `MOORAGE_REQUIRE_ALL=1`.

#![allow(clippy::unwrap_used)] // Helpers of tests, outside of test functions.

use std::os::unix::fs::PermissionsExt as _;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Secret as KubeSecret};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use moorage::{
    credentials::{
        key_ring_store::{KeyRingStore, KeyRingStoreError, TOMBSTONES_CONFIG_MAP, secret_name},
        lifetimes::{KeyRingStep, UndeliveredNeeds, after},
    },
    master_key::MasterKey,
    master_key_store::{
        INSTALLATION_CONFIG_MAP, InstanceCensus, MASTER_KEY_SECRET, MasterKeySource, MasterKeyStore,
    },
};
use moorage_testbed::{Components, ControlPlane, Tool, Tools};
use moorage_wire::{InstallationId, Secret, sealing::KeyStrength};
use serde_json::json;

/// Whether there are claimed instances.
struct Instances(bool);

#[async_trait]
impl InstanceCensus for Instances {
    async fn any_instance_is_claimed(&self) -> Result<bool, kube::Error> {
        Ok(self.0)
    }
}

/// One server for all, since each takes seconds to start; every part has a namespace of its own.
#[tokio::test]
async fn keys_in_a_real_api_server_are_destroyed_for_good() {
    let Some(tools) = Tools::for_test(&[Tool::Etcd, Tool::KubeApiserver]) else { return };
    let plane = ControlPlane::start(tools, Components::ApiServer).await.unwrap();
    let server = Namespaces(plane.client().await.unwrap());
    the_master_key_is_made_once(&server.namespace("made-once").await).await;
    two_leaders_agree_on_one_key(&server.namespace("two-leaders").await).await;
    a_lost_master_key_is_not_replaced(&server.namespace("lost").await).await;
    a_damaged_master_key_is_not_replaced(&server.namespace("damaged").await).await;
    a_key_file_gets_an_installation(&server.namespace("key-file").await).await;
    a_sealing_key_lives_and_dies(&server.namespace("ring").await).await;
    a_foreign_sealing_key_is_named_and_kept(&server.namespace("foreign").await).await;
    a_second_master_key_is_the_newest(&server.namespace("second").await).await;
    a_key_moves_from_its_secret_into_a_file(&server.namespace("moves").await).await;
    a_key_that_is_needed_outlives_its_deletion(&server.namespace("protected").await).await;
    sealing_keys_are_wrapped_again(&server.namespace("rewrapped").await).await;
}

struct Namespace {
    client: Client,
    name: String,
}

impl Namespace {
    fn master_keys(&self) -> MasterKeyStore {
        MasterKeyStore::new(self.client.clone(), &self.name, MasterKeySource::Secret)
    }

    fn secrets(&self) -> Api<KubeSecret> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    fn ring(&self) -> KeyRingStore {
        KeyRingStore::new(self.client.clone(), &self.name).with_strength(KeyStrength::Agent)
    }
}

async fn the_master_key_is_made_once(namespace: &Namespace) {
    let store = namespace.master_keys();
    assert!(store.load().await.unwrap().is_none());
    let made = store.load_or_create(&Instances(false)).await.unwrap();
    // Also once there are instances, and for a replica that does not lead.
    let again = store.load_or_create(&Instances(true)).await.unwrap();
    let follower = store.load().await.unwrap().unwrap();
    for other in [again, follower] {
        assert_eq!(other.newest().id(), made.newest().id());
        assert_eq!(other.installation(), made.installation());
    }
    let changed = Patch::Merge(json!({"data": {"key": "AAAA"}}));
    let edited =
        namespace.secrets().patch(MASTER_KEY_SECRET, &PatchParams::default(), &changed).await;
    assert!(edited.is_err(), "the master key can be changed by mistake");
}

async fn two_leaders_agree_on_one_key(namespace: &Namespace) {
    let store = namespace.master_keys();
    let (none, other) = (Instances(false), Instances(false));
    let (one, two) = tokio::join!(store.load_or_create(&none), store.load_or_create(&other));
    assert_eq!(one.unwrap().newest().id(), two.unwrap().newest().id());
}

async fn a_lost_master_key_is_not_replaced(namespace: &Namespace) {
    let store = namespace.master_keys();
    let error = store.load_or_create(&Instances(true)).await.unwrap_err();
    assert_eq!(error.reason(), "MasterKeyMissing");
    assert!(error.to_string().contains("Restore it from a backup"), "{error}");
    assert!(store.load().await.unwrap().is_none());
}

async fn a_damaged_master_key_is_not_replaced(namespace: &Namespace) {
    let secret: KubeSecret = serde_json::from_value(json!({
        "metadata": {"name": MASTER_KEY_SECRET},
        "stringData": {"key": "too short", "installation-id": "0011223344556677"},
    }))
    .unwrap();
    namespace.secrets().create(&kube::api::PostParams::default(), &secret).await.unwrap();
    let error = namespace.master_keys().load_or_create(&Instances(false)).await.unwrap_err();
    assert_eq!(error.reason(), "MasterKeyInvalid");
    assert!(!error.to_string().contains("too short"), "{error}");
}

async fn a_key_file_gets_an_installation(namespace: &Namespace) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    std::fs::write(&path, b"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
    let source = MasterKeySource::File { newest: path, older: Vec::new() };
    let store = MasterKeyStore::new(namespace.client.clone(), &namespace.name, source);

    let lost = store.load_or_create(&Instances(true)).await.unwrap_err();
    assert_eq!(lost.reason(), "MasterKeyMissing");
    let made = store.load_or_create(&Instances(false)).await.unwrap();
    let again = store.load_or_create(&Instances(true)).await.unwrap();
    assert_eq!(made.newest().id(), again.newest().id());
    assert_eq!(made.installation(), again.installation());
    namespace.config_maps().get(INSTALLATION_CONFIG_MAP).await.unwrap();
    let none = namespace.secrets().get_opt(MASTER_KEY_SECRET).await.unwrap();
    assert!(none.is_none(), "the key of a file was stored in the cluster");
}

fn master(byte: u8) -> MasterKey {
    let mut key = [byte; 32];
    key[0] = 0;
    MasterKey::new(Secret::from(key), InstallationId::from_bytes([7; 8])).unwrap()
}

async fn a_sealing_key_lives_and_dies(namespace: &Namespace) {
    let (store, wrapping) = (namespace.ring(), master(1).wrapping_key());
    let needs = UndeliveredNeeds::default();
    let start = Timestamp::now();
    let empty = store.load(std::slice::from_ref(&wrapping)).await.unwrap();
    assert_eq!(empty.plan(start, &needs), [KeyRingStep::Generate]);

    let old = store.generate(&wrapping, start).await.unwrap();
    let envelope = old.key.certificate().seal(&"value".to_owned().into(), "tenants/ada").unwrap();
    let ring = store.load(std::slice::from_ref(&wrapping)).await.unwrap();
    assert_eq!(ring.plan(start, &needs), []);
    assert_eq!(ring.certificate().unwrap().fingerprint(), old.fingerprint());
    assert_eq!(ring.unseal(&envelope, "tenants/ada").unwrap().plaintext.expose(), b"value");

    let later = after(start, SignedDuration::from_hours(61 * 24));
    let new = store.generate(&wrapping, later).await.unwrap();
    let ring = store.load(std::slice::from_ref(&wrapping)).await.unwrap();
    assert_eq!(ring.plan(later, &needs), [KeyRingStep::Destroy(old.fingerprint())]);
    let tombstone = ring.tombstone(&old.fingerprint(), later).unwrap();
    assert_eq!(tombstone.not_served_after, new.created);
    store.destroy(&tombstone).await.unwrap();
    // Carried out again after a crash, it changes nothing.
    store.destroy(&tombstone).await.unwrap();

    let name = secret_name(&old.fingerprint());
    assert!(namespace.secrets().get_opt(&name).await.unwrap().is_none());
    let ring = store.load(std::slice::from_ref(&wrapping)).await.unwrap();
    assert_eq!(ring.keys().len(), 1);
    assert!(ring.unseal(&envelope, "tenants/ada").is_err());
    assert_eq!(ring.tombstones().collect::<Vec<_>>(), [&tombstone]);

    // A second one joins the first in the same object, and an unreadable one stops nothing.
    let another = ring.tombstone(&new.fingerprint(), later).unwrap();
    store.destroy(&another).await.unwrap();
    let junk = Patch::Merge(json!({"data": {"junk": "?"}}));
    let parameters = PatchParams::default();
    namespace.config_maps().patch(TOMBSTONES_CONFIG_MAP, &parameters, &junk).await.unwrap();
    assert_eq!(store.load(std::slice::from_ref(&wrapping)).await.unwrap().tombstones().count(), 2);
}

async fn a_foreign_sealing_key_is_named_and_kept(namespace: &Namespace) {
    let (store, mine) = (namespace.ring(), master(1).wrapping_key());
    let foreign = store.generate(&master(2).wrapping_key(), Timestamp::now()).await.unwrap();
    store.generate(&mine, Timestamp::now()).await.unwrap();
    let name = secret_name(&foreign.fingerprint());
    let Err(error) = store.load(std::slice::from_ref(&mine)).await else {
        panic!("a foreign key was taken")
    };
    let KeyRingStoreError::Damaged { damaged, .. } = &error else { panic!("{error}") };
    assert_eq!(damaged.iter().map(|key| &key.secret).collect::<Vec<_>>(), [&name]);
    namespace.secrets().get(&name).await.unwrap();

    // The remedy that the message names.
    namespace.secrets().delete(&name, &DeleteParams::default()).await.unwrap();
    assert_eq!(store.load(std::slice::from_ref(&mine)).await.unwrap().keys().len(), 1);
}

/// What the documentation has a person do.
async fn add_key(namespace: &Namespace, number: u32, key: &[u8]) {
    let secret: KubeSecret = serde_json::from_value(json!({
        "metadata": {"name": format!("{MASTER_KEY_SECRET}-{number}")},
        "stringData": {"key": std::str::from_utf8(key).unwrap()},
    }))
    .unwrap();
    namespace.secrets().create(&kube::api::PostParams::default(), &secret).await.unwrap();
}

async fn a_second_master_key_is_the_newest(namespace: &Namespace) {
    let store = namespace.master_keys();
    let first = store.load_or_create(&Instances(false)).await.unwrap();
    add_key(namespace, 2, b"0123456789abcdef0123456789abcdef").await;
    let both = store.load_or_create(&Instances(true)).await.unwrap();
    assert_ne!(both.newest().id(), first.newest().id());
    assert_eq!(both.older()[0].id(), first.newest().id());
    assert_eq!(both.installation(), first.installation());
    namespace.config_maps().get(INSTALLATION_CONFIG_MAP).await.unwrap();
    add_key(namespace, 10, b"another-key-of-32-bytes-in-text!").await;
    let three = store.load().await.unwrap().unwrap();
    assert_eq!(three.older()[0].id(), both.newest().id(), "10 comes after 2");

    // The first goes at the end, and the installation stays.
    store.protect(&std::collections::BTreeSet::new()).await.unwrap();
    namespace.secrets().delete(MASTER_KEY_SECRET, &DeleteParams::default()).await.unwrap();
    let left = store.load_or_create(&Instances(true)).await.unwrap();
    assert_eq!(left.installation(), first.installation());
    assert!(left.named(first.newest().id().as_str()).is_none());
    add_key(namespace, 11, b"too short").await;
    let error = store.load().await.unwrap_err();
    assert!(error.to_string().contains("moorage-master-key-11"), "{error}");
}

async fn a_key_moves_from_its_secret_into_a_file(namespace: &Namespace) {
    let secret = namespace.master_keys().load_or_create(&Instances(false)).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    std::fs::write(&path, b"0123456789abcdef0123456789abcdef").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
    let source = MasterKeySource::File { newest: path, older: Vec::new() };
    let store = MasterKeyStore::new(namespace.client.clone(), &namespace.name, source);
    let keys = store.load_or_create(&Instances(true)).await.unwrap();
    assert_eq!(keys.installation(), secret.installation());
    assert_eq!(keys.older()[0].id(), secret.newest().id());
    assert_ne!(keys.newest().id(), secret.newest().id());
}

async fn a_key_that_is_needed_outlives_its_deletion(namespace: &Namespace) {
    let store = namespace.master_keys();
    let made = store.load_or_create(&Instances(false)).await.unwrap();
    let id = std::collections::BTreeSet::from([made.newest().id().to_string()]);
    store.protect(&id).await.unwrap();
    namespace.secrets().delete(MASTER_KEY_SECRET, &DeleteParams::default()).await.unwrap();
    store.protect(&id).await.unwrap();
    let still = store.load().await.unwrap().expect("it can still be read, and saved");
    assert_eq!(still.newest().id(), made.newest().id());
    store.protect(&std::collections::BTreeSet::new()).await.unwrap();
    assert!(store.load().await.unwrap().is_none(), "what nothing needs goes");
}

async fn sealing_keys_are_wrapped_again(namespace: &Namespace) {
    let (store, old, new) = (namespace.ring(), master(1), master(2));
    let made = store.generate(&old.wrapping_key(), Timestamp::now()).await.unwrap();
    let both = || [new.wrapping_key(), old.wrapping_key()];
    // As after a crash between making the one and deleting the other.
    let name = secret_name(&made.fingerprint());
    let first = namespace.secrets().get(&name).await.unwrap();
    assert_eq!(store.rewrap(&both(), "22").await.unwrap(), [1, 0]);
    let mut again = first.clone();
    again.metadata = serde_json::from_value(json!({
        "name": name, "labels": first.metadata.labels, "annotations": first.metadata.annotations,
    }))
    .unwrap();
    namespace.secrets().create(&kube::api::PostParams::default(), &again).await.unwrap();
    assert_eq!(store.load(&both()).await.unwrap().keys().len(), 1, "one key in two Secrets");
    assert_eq!(store.rewrap(&both(), "22").await.unwrap(), [1, 0]);
    assert!(namespace.secrets().get_opt(&name).await.unwrap().is_none());

    let ring = store.load(&[new.wrapping_key()]).await.unwrap();
    let envelope = made.key.certificate().seal(&"value".to_owned().into(), "tenants/ada").unwrap();
    assert_eq!(ring.unseal(&envelope, "tenants/ada").unwrap().plaintext.expose(), b"value");
    assert!(store.load(&[old.wrapping_key()]).await.is_err(), "the old key opens nothing");
    // It can be destroyed under its new name.
    let tombstone = ring.tombstone(&made.fingerprint(), Timestamp::now());
    if let Some(tombstone) = tombstone {
        store.destroy(&tombstone).await.unwrap();
        assert_eq!(store.load(&both()).await.unwrap().keys().len(), 0);
    }
}

struct Namespaces(Client);

impl Namespaces {
    async fn namespace(&self, name: &str) -> Namespace {
        let namespace: k8s_openapi::api::core::v1::Namespace =
            serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        let namespaces = Api::all(self.0.clone());
        namespaces.create(&kube::api::PostParams::default(), &namespace).await.unwrap();
        Namespace { client: self.0.clone(), name: name.to_owned() }
    }
}
