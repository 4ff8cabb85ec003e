//! Which sealing keys the values that wait for their servers need, asked of a whole process.

use std::{collections::BTreeSet, sync::Arc};

use rstest::rstest;
use serde_json::json;

use super::{
    dice::Dice,
    process::{POOL, Process},
    tenants,
    world::{Faults, Key, World},
};
use crate::{
    controller::pool_runtime::PoolState,
    controller::sealing_keys::{Needs as _, NeedsOfInstances},
    credentials::{
        key_ring::KeyRing,
        lifetimes::UndeliveredNeeds,
        test_keys::{self, ANTHROPIC, ring_key},
    },
};

const KEY: usize = 1;

fn ring() -> KeyRing {
    KeyRing::new([ring_key(0, "2026-01-01T00:00:00Z"), ring_key(KEY, "2026-02-01T00:00:00Z")], [])
}

/// The needs of one that hands in a value for key 1, in a Secret.
async fn needs(
    key: &Key,
    pool: &str,
    circumstances: impl FnOnce(&mut Process, &World),
) -> UndeliveredNeeds {
    let world = Arc::new(World::new(Dice::new(7), false));
    {
        let mut state = world.state();
        tenants::create(&mut state, key);
        let mut ada = state.instance(key).expect("it was made").clone();
        let credentials = json!([{
            "name": "anthropic", "type": "AnthropicApiKey",
            "secretRef": {"name": "waiting", "key": "anthropic"},
        }]);
        ada.spec.pool = pool.parse().expect("it is a name");
        ada.spec.credentials = serde_json::from_value(credentials).expect("they are credentials");
        state.store(key, ada);
        let label = format!("{}/waiting", key.0);
        let value = ANTHROPIC.to_owned().into();
        let sealed = test_keys::key(KEY).certificate().seal(&value, &label).expect("it can be");
        tenants::put_sealed(&mut state, key, "waiting", sealed.to_base64().into_bytes());
    }
    let mut process = Process::start(&world, None);
    process.sweep().await;
    circumstances(&mut process, &world);
    let needs = NeedsOfInstances::new(process.context(), process.link.clone());
    needs.of(&ring()).await
}

fn needed() -> UndeliveredNeeds {
    let keys = BTreeSet::from([test_keys::key(KEY).certificate().fingerprint()]);
    UndeliveredNeeds { keys, unknown: false }
}

fn starting(process: &Process) {
    process.context().pools.set(POOL, PoolState::Starting);
}

#[tokio::test]
async fn what_waits_for_its_server_needs_its_key() {
    let [ada, ..] = tenants::keys();
    assert_eq!(needs(&ada, POOL, |_, _| ()).await, needed());
    // Also while its pool was not looked at yet, and when the watch has brought its essence only.
    assert_eq!(needs(&ada, POOL, |process, _| starting(process)).await, needed());
    assert_eq!(needs(&ada, POOL, |process, _| process.know_in_part(&ada)).await, needed());
}

#[rstest]
#[case::its_pool_is_not_there("eu-2", "tenants")]
#[case::its_namespace_is_not_allowed(POOL, "team-x")]
#[tokio::test]
async fn what_is_never_delivered_needs_no_key(#[case] pool: &str, #[case] namespace: &str) {
    let key = (namespace.to_owned(), "ada".to_owned());
    assert_eq!(needs(&key, pool, |_, _| ()).await, UndeliveredNeeds::default());
}

#[tokio::test]
async fn what_cannot_be_read_may_need_any_key() {
    let [ada, ..] = tenants::keys();
    let refused = |_: &mut Process, world: &World| {
        world.state().faults = Faults { refused: 1000, ..Faults::default() };
    };
    assert!(needs(&ada, POOL, refused).await.unknown);
    let unseen = |process: &mut Process, _: &World| {
        process.know_in_part(&ada);
        starting(process);
    };
    assert!(needs(&ada, POOL, unseen).await.unknown);
}
