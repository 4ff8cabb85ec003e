//! Instances so large that etcd hardly takes them, and a status even less.

use k8s_openapi::api::events::v1::Event;
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use moorage_testbed::wait_until;
use serde_json::json;

use crate::{
    PATIENCE,
    objects::api,
    tenant::{Tenant, condition},
};

/// One of 1.45 MiB is told by its condition, and the largest that etcd takes by an Event. Gives the names of
/// all that were made.
pub(crate) async fn one_that_etcd_hardly_takes_is_told(tenant: &Tenant) -> Vec<String> {
    let mut made = vec!["large".to_owned()];
    create(tenant, "large", 1_450 << 10).await.unwrap();
    let told = tenant.until("large", "a condition", |large| condition(large, "Ready").is_object());
    assert_eq!(condition(&told.await, "Ready")["reason"], "InvalidSpec");

    let (mut taken, mut refused) = (1_450 << 10, 1_700 << 10);
    while refused - taken > 64 {
        let middle = usize::midpoint(taken, refused);
        let name = format!("largest-{middle}");
        match create(tenant, &name, middle).await {
            Ok(()) => {
                made.push(name);
                taken = middle;
            }
            Err(_) => refused = middle,
        }
    }
    let name = format!("largest-{taken}");
    let events = Api::<Event>::namespaced(tenant.stage.client.clone(), &tenant.name);
    let said = wait_until(format!("an Event about {name}"), PATIENCE, || async {
        let events =
            events.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
        let about = |event: &Event| {
            let regarding = event.regarding.as_ref().and_then(|one| one.name.as_deref());
            regarding == Some(name.as_str()) && event.reason.as_deref() == Some("ObjectTooLarge")
        };
        if events.iter().any(about) { Ok(()) } else { Err("it is not there".to_owned()) }
    });
    said.await.unwrap();
    eprintln!("etcd takes an instance with {taken} bytes of configuration, and no status with it");
    made
}

async fn create(tenant: &Tenant, name: &str, size: usize) -> Result<(), String> {
    let spec = json!({"config": {"notes": "x".repeat(size)}});
    let document = serde_json::from_value(tenant.instance(name, spec)).unwrap();
    let instances = api(&tenant.stage.client, "OpenClawInstance", Some(&tenant.name));
    let made = instances.create(&PostParams::default(), &document).await;
    made.map(drop).map_err(|error| error.to_string())
}
