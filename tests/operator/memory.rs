//! What a tenant can make the operator keep in memory: instances of the largest size that the API server
//! stores, in a namespace that no pool allows, or in one that a pool allows two of.

use kube::{Api, Client, api::PostParams};
use moorage::api::HostingPool;
use serde_json::json;

use super::{
    NAMESPACE, Operator, PATIENCE, control_plane, eventually, make_definitions, make_namespace,
};

const COUNT: usize = 300;
/// The limit of the chart, with some room.
const MOST: u64 = 240 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_instances_that_nobody_allows_cost_little() {
    cost_little("nowhere").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_instances_over_a_quota_cost_little() {
    cost_little("eu-1").await;
}

/// `eu-1` allows two instances in their namespace, and cannot be used; there is no other pool.
async fn cost_little(pool: &str) {
    let Some(server) = control_plane().await else { return };
    let client = server.client().await.unwrap();
    make_namespace(&client).await;
    make_definitions(&client).await;
    let token = json!({"name": "token"});
    let eu = json!({"metadata": {"name": "eu-1"}, "spec": {
        "hetzner": {"tokenSecretRef": token, "serverTypes": ["cx33"], "locations": ["fsn1"]},
        "cloudflare": {"tokenSecretRef": token, "accountId": "1".repeat(32), "zoneId": "2".repeat(32), "domain": "example.com"},
        "capacity": 1000, "allowedNamespaces": [NAMESPACE], "maxInstancesPerNamespace": 2,
    }});
    let eu: HostingPool = serde_json::from_value(eu).unwrap();
    Api::all(client.clone()).create(&PostParams::default(), &eu).await.unwrap();
    let size = largest("n", pool).len();
    for number in 0..COUNT {
        let object = largest(&format!("large-{number}"), pool);
        let made = || async { post(&client, object.clone()).await.then_some(()) };
        eventually("it is stored", made).await;
    }
    let operator = Operator::start(&server.kubeconfig());
    eventually("it is ready", || async {
        operator.get("/readyz").await.filter(|(status, _)| *status == 200)
    })
    .await;
    // Twice, for a busy machine: each status that is written is of an object of this size.
    for last in [false, true] {
        let told = || async {
            let (_, metrics) = operator.get("/metrics").await?;
            let counted = metrics.lines().filter_map(|line| {
                line.strip_prefix("moorage_instances{")?.rsplit_once(' ')?.1.parse::<usize>().ok()
            });
            (counted.sum::<usize>() == COUNT).then_some(())
        };
        let all =
            tokio::time::timeout(PATIENCE.mul_f32(0.9), eventually("all are told", told)).await;
        if all.is_ok() {
            break;
        }
        assert!(!last, "not all are told");
    }
    let [_, most] = operator.memory();
    operator.terminate().await;
    assert!(most < MOST, "{most} bytes were resident at once, with {COUNT} objects of {size}");
}

/// About as large as etcd takes: an annotation as `kubectl apply` makes it, a configuration, sealed values.
fn largest(name: &str, pool: &str) -> String {
    let note = "n".repeat(250 << 10);
    let config = "c".repeat(500 << 10);
    let value = "s".repeat(56_000);
    let credential =
        |number| format!(r#"{{"name":"k{number}","type":"AnthropicApiKey","sealed":"{value}"}}"#);
    let credentials: Vec<_> = (0..7).map(credential).collect();
    format!(
        r#"{{"apiVersion":"moorage.dev/v1alpha1","kind":"OpenClawInstance",
        "metadata":{{"name":"{name}","annotations":{{"kubectl.kubernetes.io/last-applied-configuration":"{note}"}}}},
        "spec":{{"pool":"{pool}","hostname":"{name}","config":{{"c":"{config}"}},"credentials":[{}]}}}}"#,
        credentials.join(",")
    )
}

async fn post(client: &Client, object: String) -> bool {
    let url = format!("/apis/moorage.dev/v1alpha1/namespaces/{NAMESPACE}/openclawinstances");
    let request = http::Request::post(&url).header("content-type", "application/json");
    let request = request.body(object.into_bytes()).unwrap();
    client.request_text(request).await.is_ok()
}
