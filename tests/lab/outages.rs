//! What fails around a server while it comes up.

use std::io::Write as _;

use moorage_testbed::{Cloudflared, Press};
use serde_json::json;

use crate::{
    PROGRAMS,
    tenant::{Tenant, condition, is},
};

pub(crate) async fn a_first_boot_survives_artifacts_that_fail_and_a_power_cut(tenant: Tenant) {
    // Another file and the same program, so that the faults strike this server alone.
    let folder = tempfile::tempdir().unwrap();
    let cloudflared = folder.path().join("cloudflared");
    let used = Cloudflared::from_env().unwrap();
    std::fs::copy(used.program, &cloudflared).unwrap();
    std::fs::OpenOptions::new().append(true).open(&cloudflared).unwrap().write_all(b"\0").unwrap();
    let programs = PROGRAMS.get().unwrap();
    let own = programs.show("cloudflared", &used.version, &cloudflared).unwrap();
    let url = own["url"].as_str().unwrap();
    let path = url.strip_prefix("http://artifacts.moorage.test").unwrap();
    let faults = [
        json!({"path": path, "times": 1, "fault": {"kind": "down"}}),
        json!({"path": path, "times": 1, "fault": {"kind": "cut", "after": 1_000_000}}),
        json!({"path": path, "times": 1, "fault": {"kind": "wrong-bytes"}}),
    ];
    tenant.stage.simulator.set_artifact_faults(&faults).await.unwrap();

    let mut release = tenant.release();
    let name = format!("own-{}", tenant.name);
    release["metadata"]["name"] = json!(name);
    release["spec"]["artifacts"]["cloudflared"] = own;
    tenant.apply::<moorage::api::OpenClawRelease>(None, release).await;
    tenant.apply_instance("ada", json!({"release": name})).await;
    let ada = tenant.until("ada", "a server", |ada| is(ada, "ServerReady", "True")).await;
    let server = tenant.server(&ada);
    tenant.until_prints(&server, &["ls", "/opt/moorage"], "node").await;
    server.power(Press::Reset).await.unwrap();
    let ada = tenant.until_ready("ada").await;
    tenant.until_dashboard_answers("ada").await;
    assert_eq!(server.state().await.unwrap().starts, 2);

    let filler = server.fill_disk().await.unwrap();
    let model = json!({"agents": {"defaults": {"model": {"primary": "openai/gpt-5"}}}});
    tenant.apply_instance("ada", json!({"release": ada["spec"]["release"], "config": model})).await;
    tenant
        .until("ada", "the full disk is told or survived", |ada| {
            let said = condition(ada, "ConfigApplied")["message"].as_str().unwrap_or_default();
            said.contains("No space left") || said.contains("os error 28")
        })
        .await;
    tenant.until_dashboard_answers("ada").await;
    server.exec(&["rm", filler]).await.unwrap();
    tenant.until_ready("ada").await;
}
