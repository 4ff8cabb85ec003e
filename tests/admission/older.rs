//! A release that an older definition let in, with integrations that nothing pins: it cannot be changed,
//! so it has to stay usable as it is.

use std::time::Duration;

use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use moorage::api::custom_resource_definitions;
use moorage_testbed::wait_until;
use serde_json::{Value, json};

use crate::{Cluster, RELEASE, merged, message};

const NAME: &str = "older";
const PATIENCE: Duration = Duration::from_secs(30);

fn release(name: &str) -> DynamicObject {
    let integration = json!({"name": "@a/b", "kind": "Skill", "version": "1.0.0"});
    let change = json!({"metadata": {"name": name}, "spec": {"integrations": [integration]}});
    merged(RELEASE, &change)
}

impl Cluster {
    /// Puts an older definition of releases in place, and makes one.
    pub(crate) async fn has_an_older_release(&self) {
        let definitions = custom_resource_definitions();
        let found = definitions.iter().find(|one| one.spec.names.kind == "OpenClawRelease");
        let mut definition = serde_json::to_value(found.unwrap()).unwrap();
        let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
        let items = format!("{schema}/integrations/items");
        let rules =
            definition.pointer_mut(&items).unwrap()["x-kubernetes-validations"].as_array_mut();
        let rules = rules.unwrap();
        let before = rules.len();
        rules.retain(|rule| !rule["rule"].as_str().unwrap().contains("artifact"));
        assert_eq!(rules.len() + 1, before, "the rule of this test has gone");
        let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let request = http::Request::patch(format!("{path}/{name}?fieldManager=test"))
            .header("content-type", "application/apply-patch+yaml")
            .body(serde_json::to_vec(&definition).unwrap())
            .unwrap();
        self.client.request::<Value>(request).await.unwrap();
        let object = release(NAME);
        let taken = wait_until("the older release to be taken", PATIENCE, || async {
            let made = self.api(&object).create(&PostParams::default(), &object).await;
            made.map(drop).map_err(message)
        });
        taken.await.unwrap();
    }

    pub(crate) async fn keeps_the_older_release(&self) {
        let refused = wait_until("the newer definition to count", PATIENCE, || async {
            match self.dry_run(release("another")).await {
                Err(why) if why.contains("an integration needs its artifact") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        refused.await.unwrap();
        let releases = self.api(&release(NAME));
        let params = PatchParams::default();
        let change =
            json!({"metadata": {"finalizers": ["moorage.dev/test"], "labels": {"a": "b"}}});
        releases.patch(NAME, &params, &Patch::Merge(change)).await.unwrap();
        let status = json!({"status": {"instances": 3}});
        let found = releases.patch_status(NAME, &params, &Patch::Merge(status)).await.unwrap();
        assert_eq!(found.data["status"]["instances"], 3);
        assert_eq!(found.data["spec"]["integrations"], release(NAME).data["spec"]["integrations"]);
        let change = json!({"metadata": {"finalizers": null}});
        releases.patch(NAME, &params, &Patch::Merge(change)).await.unwrap();
    }
}
