//! New programs on a running server: those that work stay, the others are taken back.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    PROGRAMS,
    server::current,
    tenant::{Tenant, condition, is},
};

fn program(variable: &str) -> PathBuf {
    std::env::var_os(variable).map(PathBuf::from).unwrap()
}

pub(crate) async fn an_agent_that_does_not_work_is_taken_back_and_a_good_one_stays(tenant: Tenant) {
    let ada = tenant.make("ada").await;
    let server = tenant.server(&ada);
    let old = current(&server, "agent").await;
    let folder = tempfile::tempdir().unwrap();
    let programs = PROGRAMS.get().unwrap();

    // What follows the ELF image is not looked at, so this is another file and the same program.
    let better = folder.path().join("better");
    std::fs::copy(program("MOORAGE_LAB_AGENT"), &better).unwrap();
    std::fs::OpenOptions::new().append(true).open(&better).unwrap().write_all(b"\0").unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let good = programs.show("agent", version, &better).unwrap();
    let sha256 = good["sha256"].as_str().unwrap().to_owned();
    tenant.switch_to("ada", "good", "agent", &good).await;
    tenant.until_prints(&server, &["readlink", "/opt/moorage/agent/current"], &sha256).await;
    assert_ne!(old, sha256);
    tenant.until_ready("ada").await;

    for (name, body) in
        [("crashes", "std::process::exit(3)"), ("hangs", "loop { std::thread::park() }")]
    {
        let bad = fake_agent(folder.path(), name, version, body);
        let bad = programs.show("agent", version, &bad).unwrap();
        tenant.switch_to("ada", name, "agent", &bad).await;
        told_as_rolled_back(&tenant, name).await;
        assert_eq!(current(&server, "agent").await, sha256, "{name}");
        tenant.until_dashboard_answers("ada").await;
    }
    let mut corrupt = good.clone();
    corrupt["sha256"] = json!("0".repeat(64));
    tenant.switch_to("ada", "corrupt", "agent", &corrupt).await;
    tenant
        .until("ada", "the wrong file is told", |ada| {
            let said = condition(ada, "ConfigApplied")["message"].as_str().unwrap_or_default();
            said.contains(&"0".repeat(12)) || said.contains("SHA-256")
        })
        .await;
    assert_eq!(current(&server, "agent").await, sha256);

    tenant
        .patch_instance("ada", json!({"spec": {"release": format!("good-{}", tenant.name)}}))
        .await;
    tenant.until_ready("ada").await;
}

/// A program that says that it is the agent, and then does something else.
fn fake_agent(folder: &Path, name: &str, version: &str, body: &str) -> PathBuf {
    let source = folder.join(format!("{name}.rs"));
    let text = format!(
        "fn main() {{ if std::env::args().nth(1).as_deref() == Some(\"--version\") {{ \
         println!(\"moorage-agent {version}\"); return; }} {body} }}"
    );
    std::fs::write(&source, text).unwrap();
    let program = folder.join(name);
    let built = Command::new("rustc")
        .args(["-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o"])
        .args([&program, &source])
        .status()
        .unwrap();
    assert!(built.success());
    program
}

async fn told_as_rolled_back(tenant: &Tenant, what: &str) -> Value {
    tenant
        .until("ada", &format!("{what} is taken back"), |ada| {
            let rolled_back =
                |kind: &str| condition(ada, kind)["reason"].as_str() == Some("RolledBack");
            (rolled_back("ConfigApplied") || rolled_back("UpToDate"))
                && ada["status"]["observedGeneration"] == ada["metadata"]["generation"]
        })
        .await
}

pub(crate) async fn an_openclaw_that_does_not_start_is_taken_back_with_its_data(tenant: Tenant) {
    let ada = tenant.make("ada").await;
    let server = tenant.server(&ada);
    let (old, marker) = (current(&server, "openclaw").await, "/var/lib/openclaw/.openclaw/marker");
    let written = server.run_as(Some("openclaw"), &["touch", marker], "").await.unwrap();
    assert!(written.succeeded(), "{written:?}");

    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.tar.gz");
    broken_openclaw(&broken);
    let programs = PROGRAMS.get().unwrap();
    let broken = programs.show("openclaw", "2026.9.7", &broken).unwrap();
    tenant.switch_to("ada", "broken", "openclaw", &broken).await;
    told_as_rolled_back(&tenant, "the broken OpenClaw").await;
    assert_eq!(current(&server, "openclaw").await, old);
    server.exec(&["test", "-e", marker]).await.unwrap();
    tenant.until_dashboard_answers("ada").await;

    // It is not tried again, and what worked is asked for again.
    let release = format!("release-{}", tenant.name);
    tenant.patch_instance("ada", json!({"spec": {"release": release}})).await;
    let ada = tenant.until_ready("ada").await;
    assert!(is(&ada, "UpToDate", "True"));
}

/// A bundle whose program takes any configuration, loses the data, and does not start.
fn broken_openclaw(path: &Path) {
    let program = "const { rmSync } = require('node:fs');\n\
        if (process.argv[2] === 'config') { console.log('{\"valid\":true}'); process.exit(0); }\n\
        if (process.argv[2] === '--version') { console.log('2026.9.7'); process.exit(0); }\n\
        rmSync('/var/lib/openclaw/.openclaw/marker', { force: true });\n\
        process.exit(1);\n";
    let file = std::fs::File::create(path).unwrap();
    let mut archive =
        tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    archive.append_data(&mut header, "bin/openclaw", program.as_bytes()).unwrap();
    archive.into_inner().unwrap().finish().unwrap();
}
