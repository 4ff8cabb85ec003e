//! What becomes of a server between Hetzner's answer and its agent's first: what shows late, and what does
//! not come up by itself.

use serde_json::{Value, json};

use crate::{
    tenant::{Tenant, condition, is},
    trouble::server_id,
};

pub(crate) async fn a_firewall_that_shows_late_is_no_refusal(tenant: Tenant) {
    let unseen = json!({"kind": "firewall-unseen", "pathPrefix": "/servers", "times": null});
    let unseen = tenant.fault("hetzner", unseen).await;
    let ada = tenant.make("ada").await;
    tenant.lift(unseen).await;
    let (servers, ..) = tenant.cloud_objects().await;
    assert_eq!(servers[0]["public_net"]["firewalls"].as_array().map(Vec::len), Some(1));
    assert!(is(&ada, "ServerReady", "True"));
}

pub(crate) async fn a_new_server_that_stays_off_is_powered_on(tenant: Tenant) {
    let off = json!({"kind": "stays-off", "method": "POST", "path": "/servers"});
    let _ = tenant.fault("hetzner", off).await;
    let ada = tenant.make("ada").await;
    let power_on = format!("/servers/{}/actions/poweron", server_id(&ada));
    let count = async || tenant.count("hetzner", "POST", &power_on).await;
    let pressed = count().await;
    assert!((1..=3).contains(&pressed), "{pressed} times");

    // From then on it is a person who turns it off.
    let power_off = format!("/servers/{}/actions/poweroff", server_id(&ada));
    tenant.hetzner("POST", &power_off, Some(json!({}))).await;
    let off = |instance: &Value| condition(instance, "ServerReady")["reason"] == "ServerOff";
    tenant.until("ada", "it is off", off).await;
    tenant.sweeps(2).await;
    assert_eq!(count().await, pressed);
}
