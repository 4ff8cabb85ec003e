//! With `watchNamespaces`, and with Secrets whose instances went while no operator ran, or never came.

use k8s_openapi::{
    ByteString,
    api::{
        coordination::v1::Lease,
        core::v1::{Namespace, Secret},
    },
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use moorage::leader::LEASE_NAME;
use moorage_testbed::{
    Components, ControlPlane, Tool, Tools, install_chart, service_account_kubeconfig,
};
use serde_json::json;

use super::{NAMESPACE, Operator, eventually, instance, instances, until_reason};

const SEALED: &str = "moorage.dev/sealed-credentials";

/// Bytes in the form of a sealed value, as they stand under `data`.
fn sealed_value(number: u8) -> ByteString {
    let mut value = vec![number; 2 + 256 + 32];
    value[..2].copy_from_slice(&256_u16.to_be_bytes());
    ByteString(value)
}

/// With `watchNamespaces` the operator may touch nothing elsewhere, and works all the same.
#[tokio::test(flavor = "multi_thread")]
async fn only_watched_namespaces_are_worked_in() {
    let Some(tools) = Tools::for_test(&[Tool::Etcd, Tool::KubeApiserver, Tool::Helm]) else {
        return;
    };
    let server = ControlPlane::start(tools, Components::ApiServer).await.unwrap();
    let client = server.client().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    for name in ["watched", "other"] {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.to_owned());
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    }
    let values = ["watchNamespaces={watched}"];
    install_chart(tools, &server, NAMESPACE, &values, folder.path()).unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    service_account_kubeconfig(&server, client.clone(), NAMESPACE, "moorage", &kubeconfig)
        .await
        .unwrap();
    let (watched, other) = (instances(&client, "watched"), instances(&client, "other"));
    // Applied before the operator first ran, as a GitOps tool may.
    for (api, hostname) in [(&watched, "watched"), (&other, "other")] {
        let ada = instance("ada", &json!({"pool": "nowhere", "hostname": hostname}));
        api.create(&PostParams::default(), &ada).await.unwrap();
    }
    let operator = Operator::start_in(&kubeconfig, &["--watch-namespaces=watched"]);
    until_reason(&watched, "ada", "PoolNotFound").await;
    let other = other.get("ada").await.unwrap();
    assert!(other.data.get("status").is_none() && other.metadata.finalizers.is_none(), "{other:?}");

    // The key is lost: the instances that were admitted say so, and nothing is made in its place.
    operator.terminate().await;
    let held = Patch::Merge(json!({"metadata": {"finalizers": ["moorage.dev/finalizer"]}}));
    watched.patch("ada", &PatchParams::default(), &held).await.unwrap();
    let told = json!({"server": {"id": 4711, "epoch": "0011223344556677"}});
    let told = Patch::Merge(json!({"status": told}));
    watched.patch_status("ada", &PatchParams::default(), &told).await.unwrap();
    let sealed = Api::<Secret>::namespaced(client.clone(), "watched");
    for (name, kind, of) in [
        ("eve-keys", SEALED, "eve"),
        ("bound-but-ours", "Opaque", "eve"),
        ("early-keys", SEALED, "not-there-yet"),
        ("ada-keys", SEALED, "ada"),
        ("ada-next", SEALED, "ada"),
    ] {
        let labels = json!({"moorage.dev/instance": of});
        let secret = json!({"metadata": {"name": name, "labels": labels}, "type": kind, "data": {"key": sealed_value(1)}});
        let secret = serde_json::from_value(secret).unwrap();
        sealed.create(&PostParams::default(), &secret).await.unwrap();
    }
    let eve = instance("eve", &json!({"pool": "nowhere", "hostname": "eve"}));
    watched.create(&PostParams::default(), &eve).await.unwrap();
    watched.delete("eve", &DeleteParams::default()).await.unwrap();
    let secrets = Api::<Secret>::namespaced(client.clone(), NAMESPACE);
    let key = secrets.get("moorage-master-key").await.unwrap();
    // By force: an operator that could not see yet who needs the key may have protected it.
    let unprotected = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    secrets.patch("moorage-master-key", &PatchParams::default(), &unprotected).await.unwrap();
    secrets.delete("moorage-master-key", &DeleteParams::default()).await.unwrap();
    let operator = Operator::start_in(&kubeconfig, &["--watch-namespaces=watched"]);
    let said = until_reason(&watched, "ada", "MasterKeyMissing").await;
    assert!(said.contains("Restore it from a backup"), "{said}");
    assert!(secrets.get_opt("moorage-master-key").await.unwrap().is_none());
    let mut restored = Secret { data: key.data, type_: key.type_, ..Secret::default() };
    restored.metadata.name = Some("moorage-master-key".to_owned());
    secrets.create(&PostParams::default(), &restored).await.unwrap();
    until_reason(&watched, "ada", "PoolNotFound").await;
    // What is sealed for an instance that came and went while nobody looked goes as well.
    let gone = async |name: &str| sealed.get_opt(name).await.unwrap().is_none().then_some(());
    eventually("eve's Secret goes", || gone("eve-keys")).await;
    let is_there = async |name: &str| assert!(gone(name).await.is_none(), "{name} stays");
    is_there("bound-but-ours").await;
    is_there("early-keys").await;
    for name in ["ada-keys", "ada-next"] {
        let marked = async || {
            let found = sealed.get(name).await.unwrap().metadata;
            let mark = format!("ada/{}/", found.uid.unwrap());
            found.annotations?.get("moorage.dev/instance-seen")?.starts_with(&mark).then_some(())
        };
        eventually("ada's Secret is marked", marked).await;
    }
    operator.terminate().await;

    // The past cannot be asked for any more: the mark alone proves that ada was there.
    let bare = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    watched.patch("ada", &PatchParams::default(), &bare).await.unwrap();
    watched.delete("ada", &DeleteParams::default()).await.unwrap();
    // A new value in the same object, for the next life of the name: `kubectl apply` keeps the mark.
    let next = Patch::Merge(json!({"data": {"key": sealed_value(2)}}));
    sealed.patch("ada-next", &PatchParams::default(), &next).await.unwrap();
    let leases = Api::<Lease>::namespaced(client.clone(), NAMESPACE);
    leases.delete(LEASE_NAME, &DeleteParams::default()).await.unwrap();
    let operator = Operator::start_in(&kubeconfig, &["--watch-namespaces=watched"]);
    eventually("ada's Secret goes", || gone("ada-keys")).await;
    is_there("bound-but-ours").await;
    is_there("early-keys").await;
    // It was kept for an instance that comes in the end, and goes with it.
    let late = instance("not-there-yet", &json!({"pool": "nowhere", "hostname": "late"}));
    watched.create(&PostParams::default(), &late).await.unwrap();
    until_reason(&watched, "not-there-yet", "PoolNotFound").await;
    watched.delete("not-there-yet", &DeleteParams::default()).await.unwrap();
    eventually("the early Secret goes with its instance", || gone("early-keys")).await;
    is_there("ada-next").await;
    operator.terminate().await;
}
