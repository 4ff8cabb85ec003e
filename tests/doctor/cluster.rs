//! `--pool`: a pool as it stands in a real API server, and the cluster around it.

use k8s_openapi::{
    api::{
        admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
        core::v1::{Namespace, Secret},
        networking::v1::NetworkPolicy,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use moorage::api::{HostingPool, OpenClawRelease};
use moorage_testbed::{Components, ControlPlane, Tool, Tools, eventually};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    clouds::{CLOUDFLARE_TOKEN, Clouds, HETZNER_TOKEN, merged, pool},
    verdicts,
};

const NAMESPACE: &str = "moorage-system";
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

fn of<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// All that the chart installs and a person makes, but for the operator itself.
async fn install(client: &Client, clouds: &Clouds) {
    let new = PostParams::default();
    let namespace: Namespace = of(json!({"metadata": {"name": NAMESPACE}}));
    Api::all(client.clone()).create(&new, &namespace).await.unwrap();
    for definition in moorage::api::custom_resource_definitions() {
        let definitions = Api::<CustomResourceDefinition>::all(client.clone());
        definitions.create(&new, &definition).await.unwrap();
    }
    for (policy, binding) in moorage::admission_policy::policies() {
        let policies = Api::<ValidatingAdmissionPolicy>::all(client.clone());
        policies.create(&new, &policy).await.unwrap();
        Api::all(client.clone()).create(&new, &binding).await.unwrap();
    }
    let secrets = Api::<Secret>::namespaced(client.clone(), NAMESPACE);
    for (name, token) in [("hetzner", HETZNER_TOKEN), ("cloudflare", CLOUDFLARE_TOKEN)] {
        let secret = json!({"metadata": {"name": name}, "stringData": {"token": token}});
        secrets.create(&new, &of(secret)).await.unwrap();
    }
    let mut manifest = pool(&json!({}), &json!({}));
    manifest["spec"]["defaultRelease"] = json!("x86");
    let pools = Api::<HostingPool>::all(client.clone());
    let releases = Api::<OpenClawRelease>::all(client.clone());
    // A definition is served a moment after it was made.
    eventually("the pool to be taken", PATIENCE, async || {
        pools.create(&new, &of(manifest.clone())).await.ok()
    })
    .await;
    eventually("the release to be taken", PATIENCE, async || {
        releases.create(&new, &of(clouds.release("x86", 7))).await.ok()
    })
    .await;
}

/// The pool is as an operator would find it.
async fn is_ready(client: &Client) {
    let condition = json!({
        "type": "Ready", "status": "True", "reason": "Ready", "message": "Instances can be made.",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let status = json!({"status": {"conditions": [condition]}});
    let pools = Api::<HostingPool>::all(client.clone());
    pools.patch_status("eu-1", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

async fn look(plane: &ControlPlane, clouds: &Clouds) -> (Vec<(String, String)>, i32) {
    let mut command = clouds.bare_command(&["--pool", "eu-1", "-o", "json"]);
    let output = command.env("KUBECONFIG", plane.kubeconfig()).output().await.unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let text = report.to_string();
    assert!(!text.contains(HETZNER_TOKEN) && !text.contains(CLOUDFLARE_TOKEN), "a token is shown");
    let mut found = verdicts(&report);
    found.retain(|(id, verdict)| verdict != "pass" && id != "artifacts.file");
    (found, output.status.code().unwrap())
}

#[tokio::test]
async fn a_pool_in_a_cluster_is_looked_at_with_the_cluster() {
    let Some(tools) = Tools::for_test(&[Tool::Etcd, Tool::KubeApiserver]) else { return };
    let start = ControlPlane::start(tools, Components::ApiServer);
    let (plane, clouds) = tokio::join!(start, Clouds::start());
    let plane = plane.unwrap();
    let client = plane.client().await.unwrap();
    install(&client, &clouds).await;
    let told = |id: &str, verdict: &str| vec![(id.to_owned(), verdict.to_owned())];

    assert_eq!(look(&plane, &clouds).await, (told("cluster.pool", "fail"), 1));
    is_ready(&client).await;
    assert_eq!(look(&plane, &clouds).await, (Vec::new(), 0));

    let network = Api::<NetworkPolicy>::namespaced(client.clone(), NAMESPACE);
    let deny = json!({"podSelector": {}, "policyTypes": ["Egress"]});
    let deny = merged(json!({"metadata": {"name": "deny"}}), &json!({"spec": deny}));
    network.create(&PostParams::default(), &of(deny)).await.unwrap();
    assert_eq!(look(&plane, &clouds).await, (told("cluster.network-policy", "fail"), 1));
    network.delete("deny", &DeleteParams::default()).await.unwrap();

    let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(client.clone());
    let [_, (_, binding)] = moorage::admission_policy::policies();
    bindings.delete(&binding.metadata.name.unwrap(), &DeleteParams::default()).await.unwrap();
    assert_eq!(look(&plane, &clouds).await, (told("cluster.admission-policies", "warn"), 0));

    let secrets = Api::<Secret>::namespaced(client.clone(), NAMESPACE);
    secrets.delete("hetzner", &DeleteParams::default()).await.unwrap();
    let (found, code) = look(&plane, &clouds).await;
    assert!(found.contains(&("cluster.token-secret".to_owned(), "fail".to_owned())), "{found:?}");
    assert_eq!(code, 1);
}
