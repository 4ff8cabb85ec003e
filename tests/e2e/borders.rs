//! What an object may hold and still cost nobody but itself.

use kube::Api;
use moorage::api::{Guarded, OpenClawInstance};
use moorage_testbed::wait_until;
use serde_json::json;

use crate::tenant::Tenant;

/// Found in no log of the operator.
const MARKER: &str = "text-of-one-tenant-in-a-deep-configuration";

/// An object with `levels` objects in each other.
fn deep(levels: usize) -> String {
    format!("{}\"{MARKER}\"{}", r#"{"a":"#.repeat(levels), "}".repeat(levels))
}

impl Tenant {
    /// Changes or deletes an instance without looking into the answer, which may be of any depth.
    async fn blindly(&self, method: &str, name: &str, body: String) {
        let url =
            format!("/apis/moorage.dev/v1alpha1/namespaces/{}/openclawinstances/{name}", self.name);
        let request = http::Request::builder()
            .method(method)
            .uri(url)
            .header("content-type", "application/merge-patch+json")
            .body(body.into_bytes())
            .unwrap();
        self.stage.client.request_text(request).await.unwrap();
    }

    async fn patch_config(&self, name: &str, config: &str) {
        self.blindly("PATCH", name, format!(r#"{{"spec":{{"config":{config}}}}}"#)).await;
    }

    fn instances_of_any_depth(&self) -> Api<Guarded<OpenClawInstance>> {
        Api::namespaced(self.stage.client.clone(), &self.name)
    }

    /// Waits until the condition `Ready` of an instance of any depth has this reason.
    async fn until_told(&self, name: &str, reason: &str) -> String {
        let api = self.instances_of_any_depth();
        let told = wait_until(format!("{name}: {reason}"), self.stage.patience, || async {
            let instance = api.get(name).await.map_err(|error| error.to_string())?;
            let instance = instance.0.map_err(|unreadable| unreadable.error)?;
            let conditions = instance.status.unwrap_or_default().conditions;
            let ready = conditions.iter().find(|condition| condition.type_ == "Ready").cloned();
            let ready = ready.ok_or("it has no condition yet")?;
            if ready.reason == reason { Ok(ready.message) } else { Err(format!("{ready:?}")) }
        });
        told.await.unwrap_or_else(|late| panic!("{late}"))
    }
}

pub(crate) async fn a_configuration_that_is_too_deep_costs_its_own_instance_only(tenant: Tenant) {
    tenant.apply_instance("ada", json!({})).await;
    tenant.apply_instance("deep", json!({"suspend": true})).await;
    tenant.patch_config("deep", &deep(200)).await;
    tenant.until_ready("ada").await;
    tenant.blindly("PATCH", "deep", json!({"spec": {"suspend": false}}).to_string()).await;
    let told = tenant.until_told("deep", "InvalidSpec").await;
    assert!(told.starts_with("spec.config: it has more than 64 levels"), "{told}");

    // One that is Ready, and is told; its server stays.
    tenant.patch_config("ada", &deep(130)).await;
    tenant.until_told("ada", "InvalidSpec").await;
    assert_eq!(tenant.cloud_objects().await.0.len(), 1, "ada's server");
    // One that no agent would take is told before anything is bought.
    let large = json!({"notes": "x".repeat(1_400_000)});
    tenant.apply_instance("large", json!({"config": large})).await;
    let told = tenant.until_told("large", "InvalidSpec").await;
    assert!(told.contains("but a server takes 524288"), "{told}");
    assert_eq!(tenant.cloud_objects().await.0.len(), 1, "still ada's server alone");
    // Another one does not notice.
    tenant.apply_instance("bob", json!({})).await;
    tenant.until_ready("bob").await;
    for name in ["deep", "large", "ada"] {
        tenant.blindly("DELETE", name, String::new()).await;
        let api = tenant.instances_of_any_depth();
        let gone = wait_until(format!("{name} is gone"), tenant.stage.patience, || async {
            match api.get_opt(name).await {
                Ok(None) => Ok(()),
                there => Err(format!("{:?}", there.map(|_| "it is there"))),
            }
        });
        gone.await.unwrap_or_else(|late| panic!("{late}"));
    }
    let (servers, tunnels, records) = tenant.cloud_objects().await;
    assert_eq!((servers.len(), tunnels.len(), records.len()), (1, 1, 2), "bob's alone");
    assert!(!tenant.stage.operator_log().contains(MARKER));
}
