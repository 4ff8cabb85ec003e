//! A tenant's Secrets in a real API server: what is deleted, and what is written, when somebody else
//! writes at the same moment.
//!
//! Needs the tools of `hack/tools.sh`; without them the test says that it is skipped, and fails if
//! `MOORAGE_REQUIRE_ALL=1`.

#![allow(clippy::unwrap_used)] // Helpers of tests, outside of test functions.

use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use moorage::{
    api::OpenClawInstance,
    cluster::{
        BoundSecret, ClusterApi as _, ClusterError, DashboardAccess, DashboardSecret, InstanceKey,
        KubeCluster,
    },
    credentials::secret_source::SecretVersion,
    metrics::Metrics,
};
use moorage_testbed::{Components, ControlPlane, Tool, Tools};
use moorage_wire::Secret;
use serde_json::{Value, json};

const DASHBOARD: &str = "ada-dashboard";
const TYPE: &str = "moorage.dev/sealed-credentials";

/// One server for all, since each takes seconds to start; every part has a namespace of its own.
#[tokio::test]
async fn a_tenants_secrets_change_only_as_they_were_read() {
    let Some(tools) = Tools::for_test(&[Tool::Etcd, Tool::KubeApiserver]) else { return };
    let plane = ControlPlane::start(tools, Components::ApiServer).await.unwrap();
    let client = plane.client().await.unwrap();
    let tenant = async |name: &str| Tenant::new(client.clone(), name).await;
    only_our_type_is_bound(&tenant("bound").await).await;
    a_secret_that_changed_is_not_deleted(&tenant("changed").await).await;
    a_secret_made_in_between_is_left_alone(&tenant("race").await).await;
    a_secret_replaced_in_between_is_left_alone(&tenant("replaced").await).await;
    only_what_we_made_is_ours(&tenant("foreign").await).await;
    ours_is_corrected_and_keeps_what_others_added(&tenant("corrected").await).await;
}

struct Tenant {
    cluster: KubeCluster,
    secrets: Api<KubeSecret>,
    namespace: String,
    token: Secret,
}

impl Tenant {
    async fn new(client: Client, name: &str) -> Self {
        let namespace: k8s_openapi::api::core::v1::Namespace =
            serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        Self {
            cluster: KubeCluster::new(client.clone(), Metrics::new()),
            secrets: Api::namespaced(client, name),
            namespace: name.to_owned(),
            token: "the-token".to_owned().into(),
        }
    }

    /// The instance that the operator acts for.
    fn ada(&self) -> OpenClawInstance {
        serde_json::from_value(json!({
            "apiVersion": "moorage.dev/v1alpha1", "kind": "OpenClawInstance",
            "metadata": {"name": "ada", "namespace": self.namespace, "uid": "uid-of-ada"},
            "spec": {"pool": "eu-1", "hostname": "ada"},
        }))
        .unwrap()
    }

    fn access(&self) -> DashboardAccess<'_> {
        DashboardAccess { url: "https://ada.example.com", token: &self.token }
    }

    async fn make(&self, secret: Value) -> KubeSecret {
        let secret: KubeSecret = serde_json::from_value(secret).unwrap();
        self.secrets.create(&PostParams::default(), &secret).await.unwrap()
    }

    async fn make_labelled(&self, name: &str, kind: &str, data: Value) -> KubeSecret {
        let labels = json!({"moorage.dev/instance": "ada"});
        let metadata = json!({"name": name, "labels": labels});
        self.make(json!({"metadata": metadata, "type": kind, "stringData": data})).await
    }

    async fn bound(&self) -> Vec<BoundSecret> {
        let key = InstanceKey { namespace: &self.namespace, name: "ada" };
        self.cluster.bound_secrets(key).await.unwrap()
    }

    async fn write(&self, version: Option<&SecretVersion>) -> Result<(), ClusterError> {
        let access = self.access();
        let ada = self.ada();
        self.cluster.write_dashboard_secret(&ada, DASHBOARD, version, &access).await.map(drop)
    }

    async fn look(&self) -> DashboardSecret {
        self.cluster.dashboard_secret(&self.ada(), DASHBOARD).await.unwrap()
    }

    /// The version of the dashboard's Secret, which is ours.
    async fn version(&self) -> SecretVersion {
        match self.look().await {
            DashboardSecret::Ours { version, .. } => version,
            other => panic!("{other:?}"),
        }
    }

    async fn value(&self, name: &str, key: &str) -> String {
        let data = self.secrets.get(name).await.unwrap().data.unwrap();
        String::from_utf8(data[key].0.clone()).unwrap()
    }
}

async fn only_our_type_is_bound(tenant: &Tenant) {
    tenant.make_labelled("prod-db", "Opaque", json!({"password": "irreplaceable"})).await;
    let basic = json!({"username": "u", "password": "p"});
    tenant.make_labelled("basic", "kubernetes.io/basic-auth", basic).await;
    tenant.make_labelled("keys", TYPE, json!({"k": "v"})).await;
    tenant.make(json!({"metadata": {"name": "unbound"}, "type": TYPE})).await;
    let bound = tenant.bound().await;
    let names: Vec<_> = bound.iter().map(|secret| secret.name.as_str()).collect();
    assert_eq!(names, ["keys"]);
    let keys = &bound[0];
    tenant.cluster.delete_secret(&tenant.namespace, "keys", &keys.version).await.unwrap();
    // Gone already is fine.
    tenant.cluster.delete_secret(&tenant.namespace, "keys", &keys.version).await.unwrap();
    let left = tenant.secrets.list_metadata(&kube::api::ListParams::default()).await.unwrap();
    assert_eq!(left.items.len(), 3);
}

async fn a_secret_that_changed_is_not_deleted(tenant: &Tenant) {
    tenant.make_labelled("keys", TYPE, json!({"k": "old"})).await;
    let bound = tenant.bound().await;
    tenant.secrets.delete("keys", &DeleteParams::default()).await.unwrap();
    tenant.make_labelled("keys", "Opaque", json!({"k": "somebody's"})).await;
    let deleted = tenant.cluster.delete_secret(&tenant.namespace, "keys", &bound[0].version).await;
    assert!(matches!(deleted, Err(ClusterError::Changed)), "{deleted:?}");
    assert_eq!(tenant.value("keys", "k").await, "somebody's");
}

async fn a_secret_made_in_between_is_left_alone(tenant: &Tenant) {
    assert!(matches!(tenant.look().await, DashboardSecret::Absent));
    // Even one that looks like ours: what was seen is that there is none.
    let own = json!({"name": DASHBOARD, "ownerReferences": [owner("uid-of-ada")]});
    tenant.make(json!({"metadata": own, "stringData": {"token": "somebody's"}})).await;
    let written = tenant.write(None).await;
    assert!(matches!(written, Err(ClusterError::Changed)), "{written:?}");
    assert_eq!(tenant.value(DASHBOARD, "token").await, "somebody's");
    assert!(matches!(tenant.look().await, DashboardSecret::Foreign));
}

async fn a_secret_replaced_in_between_is_left_alone(tenant: &Tenant) {
    tenant.write(None).await.unwrap();
    let version = tenant.version().await;
    tenant.secrets.delete(DASHBOARD, &DeleteParams::default()).await.unwrap();
    let absent = tenant.write(Some(&version)).await;
    assert!(matches!(absent, Err(ClusterError::Changed)), "{absent:?}");
    let somebodys = json!({"metadata": {"name": DASHBOARD}, "stringData": {"token": "somebody's"}});
    tenant.make(somebodys).await;
    let replaced = tenant.write(Some(&version)).await;
    assert!(matches!(replaced, Err(ClusterError::Changed)), "{replaced:?}");
    let deleted = tenant.cluster.delete_secret(&tenant.namespace, DASHBOARD, &version).await;
    assert!(matches!(deleted, Err(ClusterError::Changed)), "{deleted:?}");
    assert_eq!(tenant.value(DASHBOARD, "token").await, "somebody's");
}

async fn only_what_we_made_is_ours(tenant: &Tenant) {
    let label = json!({"moorage.dev/dashboard-of": "ada"});
    let both = json!({"url": "u", "token": "t"});
    let mut uncontrolled = owner("uid-of-ada");
    uncontrolled["controller"] = json!(false);
    let foreign = [
        ("a label alone", json!({"labels": label}), both.clone()),
        (
            "a former life",
            json!({"labels": label, "ownerReferences": [owner("other")]}),
            both.clone(),
        ),
        (
            "no controller",
            json!({"labels": label, "ownerReferences": [uncontrolled]}),
            both.clone(),
        ),
        (
            "the owner alone",
            json!({"ownerReferences": [owner("uid-of-ada")]}),
            json!({"url": "u", "token": "t", "more": "m"}),
        ),
    ];
    for (what, mut metadata, data) in foreign {
        metadata["name"] = json!(DASHBOARD);
        tenant.make(json!({"metadata": metadata, "stringData": data})).await;
        let seen = tenant.look().await;
        assert!(matches!(seen, DashboardSecret::Foreign), "{what}: {seen:?}");
        tenant.secrets.delete(DASHBOARD, &DeleteParams::default()).await.unwrap();
    }
    // What the versions before the label made.
    let metadata = json!({"name": DASHBOARD, "ownerReferences": [owner("uid-of-ada")]});
    tenant.make(json!({"metadata": metadata, "stringData": both})).await;
    tenant.version().await;
}

async fn ours_is_corrected_and_keeps_what_others_added(tenant: &Tenant) {
    tenant.write(None).await.unwrap();
    let spoilt = json!({
        "metadata": {"annotations": {"example.com/note": "n"}},
        "stringData": {"token": "spoilt"},
    });
    let patch = kube::api::Patch::Merge(spoilt);
    tenant.secrets.patch(DASHBOARD, &kube::api::PatchParams::default(), &patch).await.unwrap();
    let DashboardSecret::Ours { version, url, token } = tenant.look().await else {
        panic!("not ours any more");
    };
    assert!(!tenant.access().is_in(&url, &token));
    tenant.write(Some(&version)).await.unwrap();
    let DashboardSecret::Ours { url, token, .. } = tenant.look().await else {
        panic!("not ours any more");
    };
    assert!(tenant.access().is_in(&url, &token));
    let found = tenant.secrets.get(DASHBOARD).await.unwrap();
    assert!(found.metadata.annotations.unwrap().contains_key("example.com/note"));
}

fn owner(uid: &str) -> Value {
    json!({
        "apiVersion": "moorage.dev/v1alpha1", "kind": "OpenClawInstance", "name": "ada", "uid": uid,
        "controller": true, "blockOwnerDeletion": true,
    })
}
