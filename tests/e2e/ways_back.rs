//! What was lost or taken away, and comes back: a cluster of which the master key alone was saved, a
//! status that was lost while there are two master keys, a release that was deleted while it was used, and
//! the operator and the definitions that were removed while they were needed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use moorage::api::{HostingPool, OpenClawRelease};
use moorage_testbed::{install_chart_with, uninstall_chart};
use serde_json::{Value, json};

use crate::{
    lifecycle::make_ada,
    removal::Own,
    stage::{Installed, SYSTEM},
    tenant::{Tenant, condition, is},
    trouble::server_id,
};

pub(crate) async fn servers_are_found_again_by_their_master_key_alone(_: Tenant) {
    let Some(own) = Own::start(Installed::Kustomize).await else { return };
    let ada = make_ada(&own.tenant).await;
    let posts = own.posts().await;
    let ada = a_lost_cluster_is_taken_over(&own, &ada).await;
    a_lost_status_is_found_by_the_older_of_two_keys(&own, &ada).await;
    assert_eq!(own.posts().await, posts, "no server was recreated");
}

/// All that Moorage had in the cluster is gone, but for the master key with its installation id and what
/// stands in Git.
async fn a_lost_cluster_is_taken_over(own: &Own, ada: &Value) -> Value {
    own.stop();
    let part = |key: &str| {
        let path = format!("jsonpath={{.data['{key}']}}");
        own.kubectl(&format!("-n {SYSTEM} get secret moorage-master-key -o {path}"))
    };
    let saved = [part("key"), part("installation-id")];
    let tenant = &own.tenant;
    let bare = "--type=merge -p {\"metadata\":{\"finalizers\":null}}";
    for (scope, object) in [
        (format!("-n {} ", tenant.name), "oci ada".to_owned()),
        (String::new(), format!("hpool {}", tenant.name)),
        (String::new(), format!("ocr release-{}", tenant.name)),
        (format!("-n {SYSTEM} "), "secret moorage-master-key".to_owned()),
    ] {
        own.kubectl(&format!("{scope}delete {object} --wait=false"));
        own.kubectl(&format!("{scope}patch {object} {bare}"));
    }
    own.kubectl(&format!("-n {SYSTEM} delete secrets,configmaps,leases --all"));
    assert_eq!(tenant.get("ada").await, None);

    let restored = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "moorage-master-key", "namespace": SYSTEM},
        "data": {"key": saved[0], "installation-id": saved[1]},
    });
    own.kubectl_with("create -f -", restored.to_string().as_bytes());
    tenant.put_tokens().await;
    own.run().await;
    tenant.apply::<OpenClawRelease>(None, tenant.release()).await;
    tenant.apply::<HostingPool>(None, tenant.pool()).await;
    tenant.pool_until("the pool is ready", |pool| is(pool, "Ready", "True")).await;
    // Its Secret went long ago, and Git has the instance alone.
    let reference = json!({"name": "ada-keys", "key": "anthropic"});
    let credential =
        json!({"name": "anthropic", "type": "AnthropicApiKey", "secretRef": reference});
    tenant.apply_instance("ada", json!({"credentials": [credential]})).await;
    let back = tenant.until_ready("ada").await;
    assert_eq!(server_id(&back), server_id(ada));
    assert_eq!(back["status"]["agent"]["publicKey"], ada["status"]["agent"]["publicKey"]);
    back
}

/// Suspended, so that it is not handed over before its status is lost.
async fn a_lost_status_is_found_by_the_older_of_two_keys(own: &Own, ada: &Value) {
    let tenant = &own.tenant;
    tenant.patch_instance("ada", json!({"spec": {"suspend": true}})).await;
    tenant.until_reason("ada", "Ready", "Suspended").await;
    own.kubectl_with(
        "-n moorage-system create secret generic moorage-master-key-2 --from-file=key=/dev/stdin",
        b"fedcba9876543210fedcba9876543210",
    );
    let two = tenant.pool_until("there are two keys", |pool| {
        pool["status"]["masterKey"]["older"].as_array().is_some_and(|older| older.len() == 1)
    });
    let newest = two.await["status"]["masterKey"]["id"].clone();
    tenant.forget_status("ada").await;
    let now = tenant.get("ada").await.unwrap();
    assert!(now["status"]["server"]["masterKeyId"].is_null(), "{}", now["status"]);
    tenant.patch_instance("ada", json!({"spec": {"suspend": false}})).await;
    let handed_over =
        |ada: &Value| ada["status"]["server"]["masterKeyId"] == newest && is(ada, "Ready", "True");
    let after = tenant.until("ada", "it obeys the newest key", handed_over).await;
    assert_eq!(server_id(&after), server_id(ada));
}

pub(crate) async fn a_release_deleted_while_it_is_used_can_be_had_back(tenant: Tenant) {
    let ada = tenant.make("ada").await;
    let name = format!("release-{}", tenant.name);
    let releases: Api<OpenClawRelease> = Api::all(tenant.stage.client.clone());
    releases.delete(&name, &DeleteParams::default()).await.unwrap();
    tenant
        .eventually("it says who uses it", || async {
            let found = releases.get(&name).await.map_err(|error| error.to_string())?;
            let found = serde_json::to_value(found).unwrap();
            let told = condition(&found, "Ready")["message"].as_str().unwrap_or_default();
            let named = told.contains("1 instances run it") && told.contains(&tenant.name);
            if named { Ok(()) } else { Err(told.to_owned()) }
        })
        .await;
    // It serves on, also whoever is new.
    let bob = tenant.make("bob").await;
    tenant.look_now("ada").await;
    assert_eq!(server_id(&tenant.until_ready("ada").await), server_id(&ada));

    // The way back: everything moves to a copy of it, it goes, and comes again.
    let copy = tenant.apply_release("copy", |_| {}).await;
    tenant.patch_pool(json!({"spec": {"defaultRelease": copy}})).await;
    tenant
        .eventually("it goes", || async {
            let found = releases.get_opt(&name).await.map_err(|error| error.to_string())?;
            found.map_or(Ok(()), |found| Err(format!("{:?}", found.status)))
        })
        .await;
    tenant.apply::<OpenClawRelease>(None, tenant.release()).await;
    tenant.patch_pool(json!({"spec": {"defaultRelease": name}})).await;
    for (name, before) in [("ada", &ada), ("bob", &bob)] {
        tenant.look_now(name).await;
        assert_eq!(server_id(&tenant.until_ready(name).await), server_id(before));
    }
}

pub(crate) async fn only_the_releases_that_a_pool_allows_run_in_it(tenant: Tenant) {
    let ada = tenant.make("ada").await;
    let other = tenant.apply_release("other", |_| {}).await;
    let default = format!("release-{}", tenant.name);
    tenant.patch_pool(json!({"spec": {"allowedReleases": [default]}})).await;
    tenant.apply_instance("bob", json!({"release": other})).await;
    let said = tenant.until_reason("bob", "Ready", "ReleaseNotAllowed").await;
    assert!(said.contains(&other), "{said}");
    assert_eq!(tenant.cloud_objects().await.0.len(), 1, "nothing was made for it");
    // What it has not made it may have later, and nobody else is concerned.
    tenant.patch_pool(json!({"spec": {"allowedReleases": [default, other]}})).await;
    tenant.until_ready("bob").await;
    assert_eq!(server_id(&tenant.until_ready("ada").await), server_id(&ada));
}

pub(crate) async fn an_uninstalled_chart_comes_back_and_definitions_go_in_order(_: Tenant) {
    let Some(own) = Own::start(Installed::Chart).await else { return };
    let ada = make_ada(&own.tenant).await;
    let scratch = own.stage.kubeconfig.with_file_name("helm");
    uninstall_chart(own.tools, &own.stage.plane, SYSTEM, &scratch).unwrap();
    own.stop();
    let now = own.tenant.get("ada").await.unwrap();
    assert!(now["metadata"]["deletionTimestamp"].is_null(), "nothing of a customer is deleted");
    own.secrets().get("moorage-master-key").await.unwrap();
    let (status, _) = own.tenant.visit(&format!("ada.{}", own.tenant.domain), "/", None).await;
    assert_eq!(status, 200, "the customer notices nothing");

    install_chart_with(own.tools, &own.stage.plane, SYSTEM, &[], &[], &scratch).unwrap();
    own.run().await;
    own.tenant.look_now("ada").await;
    assert_eq!(server_id(&own.tenant.until_ready("ada").await), server_id(&ada));

    // The definitions, while the operator runs: everything goes in its order.
    own.kubectl("delete -k config/crd --wait=false");
    let definitions: Api<CustomResourceDefinition> = Api::all(own.stage.client.clone());
    own.eventually("the definitions go", || async {
        let left = definitions.list(&ListParams::default()).await;
        let left = left.map_err(|error| error.to_string())?;
        let names: Vec<_> = left.iter().filter_map(|crd| crd.metadata.name.clone()).collect();
        if names.is_empty() { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
    assert_eq!(own.tenant.cloud_objects().await, (vec![], vec![], vec![]));
}
