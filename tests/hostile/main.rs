//! Hostile values in objects that are there already, as of an older version's definitions, and a running
//! operator: what it asks the API server and the clouds for, what it logs, and what others notice of it.
//!
//! Needs the tools of `hack/tools.sh` and the workspace's binaries; without them it says that it is
//! skipped, and fails if `MOORAGE_REQUIRE_ALL=1`.

#![allow(clippy::unwrap_used)] // Helpers of tests, outside of test functions.

mod large;
mod meant;
mod objects;
#[allow(dead_code, reason = "what only the end-to-end scenarios do")]
#[path = "../e2e/objects.rs"]
mod scenario_objects;
#[allow(dead_code, reason = "what only the test of admission does")]
#[path = "../admission/schema.rs"]
mod schema;
#[allow(dead_code, reason = "what only the end-to-end scenarios do")]
#[path = "../e2e/stage.rs"]
mod stage;
#[allow(dead_code, reason = "what only the end-to-end scenarios do")]
#[path = "../e2e/tenant.rs"]
mod tenant;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use kube::api::{DeleteParams, ListParams};
use moorage_testbed::Audit;
use serde_json::json;

use meant::Meant;
use objects::{Hostile, MARKER, create, marked_values, relax_definitions};
use stage::{Installed, SYSTEM, Servers, Stage};
use tenant::{Tenant, condition};

const PATIENCE: Duration = Duration::from_secs(180);
/// Who asks, in the audit log.
const OPERATOR: &str = "system:serviceaccount:moorage-system:moorage";

#[tokio::test(flavor = "multi_thread")]
async fn no_hostile_value_becomes_a_call_or_a_line_of_the_log() {
    let trace = ["--log-filter=info,moorage=trace"];
    let servers = Servers::processes();
    let stage = Stage::start_watched(servers, Installed::Chart, Audit::Metadata, &trace).await;
    let Some(stage) = stage.map(Arc::new) else { return };
    let began = Instant::now();
    let neighbour = Tenant::new(Arc::clone(&stage), "the neighbour").await;
    neighbour.apply_instance("ada", json!({})).await;
    let ada = neighbour.until_ready("ada").await;
    let mallory = Tenant::new(Arc::clone(&stage), "who means ill").await;
    forget_policies(&stage).await;
    relax_definitions(&stage.client).await;

    let objects = hostile_objects(&mallory.name);
    create(&stage.client, &objects).await;
    eprintln!("{} objects made: {:?}", objects.len(), began.elapsed());
    restart(&stage).await;
    let end = Instant::now() + PATIENCE;
    let told = stream::iter(&objects).map(|hostile| hostile.until_told(&stage.client, end));
    let told = told.buffer_unordered(6).filter_map(async |told| told.err());
    let untold: Vec<_> = told.collect().await;
    assert!(untold.is_empty(), "{} are not told:\n{}", untold.len(), untold.join("\n"));
    eprintln!("all are told: {:?}", began.elapsed());
    let large = large::one_that_etcd_hardly_takes_is_told(&mallory).await;

    neighbour.apply_instance("bob", json!({})).await;
    neighbour.until_ready("bob").await;
    let now = neighbour.get("ada").await.unwrap();
    assert_eq!(condition(&now, "Ready"), condition(&ada, "Ready"), "ada was Ready all the while");
    let names = objects.iter().map(|one| one.name.clone()).chain(large).collect();
    nothing_was_meant_by_it(&stage, names).await;
    eprintln!("looked through: {:?}", began.elapsed());
}

/// Every string of every spec with every hostile value.
fn hostile_objects(tenant: &str) -> Vec<Hostile> {
    let (fields, values) = (schema::fields(), marked_values());
    let mut objects = Vec::new();
    for field in &fields {
        if objects::is_parsed_by_entry(&field.path) {
            objects.push(objects::with_entries(field, objects.len(), tenant));
            continue;
        }
        for value in &values {
            objects.push(Hostile::new(field, value, objects.len(), tenant));
        }
    }
    let mut counts = BTreeMap::<_, usize>::new();
    for object in &objects {
        *counts.entry(object.kind.as_str()).or_default() += 1;
    }
    eprintln!("{} fields, {} values; objects: {counts:?}", fields.len(), values.len());
    objects
}

/// An operator that starts finds all of it there.
async fn restart(stage: &Stage) {
    stage.operator.lock().unwrap().wanted = false;
    let (options, clouds) = (stage.options.clone(), stage.simulator.endpoints().clone());
    stage.operator.lock().unwrap().operator.process().kill();
    let kept = stage::Kept::start(&options, &clouds).await;
    *stage.operator.lock().unwrap() = kept;
}

/// An installation of before there were any.
async fn forget_policies(stage: &Stage) {
    use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
    let bindings = kube::Api::<ValidatingAdmissionPolicyBinding>::all(stage.client.clone());
    bindings.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
}

/// Looks through all calls and the log. `names` are those of the hostile objects.
async fn nothing_was_meant_by_it(stage: &Stage, names: BTreeSet<String>) {
    let least = names.len();
    let mut names = names;
    for tenant in ["t1", "t2"] {
        let of_tenant = [
            "TENANT",
            "release-TENANT",
            "TENANT-hetzner",
            "TENANT-cloudflare",
            "moorage-access-TENANT",
        ];
        names.extend(of_tenant.map(|name| name.replace("TENANT", tenant)));
    }
    let own =
        ["moorage", "moorage-master-key", "moorage-installation", "moorage-sealing-certificate"];
    names.extend(["ada", "bob"].into_iter().chain(own).map(str::to_owned));
    let namespaces = [SYSTEM, "t1", "t2", "default"].map(str::to_owned).into();
    let meant = Meant::new(SYSTEM, namespaces, names, MARKER);
    let audit = stage.plane.audit_log();
    let own: Vec<_> = audit.iter().filter(|line| line["user"]["username"] == OPERATOR).collect();
    let journal = stage.simulator.whole_journal().await.unwrap();
    let log = stage.operator_log();
    let mut wrong: Vec<_> = own.iter().filter_map(|line| meant.wrong_in_audit(line)).collect();
    wrong.extend(journal.iter().filter_map(|entry| meant.wrong_in_journal(entry)));
    let leaks = log.lines().filter(|line| line.contains(MARKER));
    wrong.extend(leaks.map(|line| format!("the log: {line:.400}")));
    wrong.sort();
    wrong.dedup();
    let (kube, clouds, bytes) = (own.len(), journal.len(), log.len());
    eprintln!("{kube} calls to the API server, {clouds} to the clouds, {bytes} bytes of log");
    assert!(kube > least && clouds > 20 && bytes > least, "they are not found any more");
    let shown = wrong[..wrong.len().min(40)].join("\n");
    assert!(wrong.is_empty(), "{} calls or lines that are not meant:\n{shown}", wrong.len());
}
