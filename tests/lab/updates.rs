//! New programs on a running server: those that work stay, the others are rolled back.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use moorage_testbed::LabServer;
use serde_json::{Value, json};

use crate::{
    OLDER_OPENCLAW, OPENCLAW, PROGRAMS, cuts,
    server::{blocking, current, json_file, openclaw, run_openclaw},
    tenant::{Tenant, condition, is},
};

/// The file that a variable names.
pub(crate) fn program(variable: &str) -> PathBuf {
    std::env::var_os(variable).map(PathBuf::from).unwrap()
}

pub(crate) async fn an_agent_update_survives_a_power_cut_at_any_step(mut tenant: Tenant) {
    tenant.use_stand_in_for_openclaw().await;
    let ada = tenant.make("ada").await;
    let server = tenant.server(&ada);
    let old = current(&server, "agent").await;
    let folder = tempfile::tempdir().unwrap();
    let good = good_agent(folder.path(), "good").await;
    let sha256 = good["sha256"].as_str().unwrap().to_owned();
    tenant.switch_to("ada", "good", "agent", &good).await;
    tenant.until_prints(&server, &["readlink", "/opt/moorage/agent/current"], &sha256).await;
    assert_ne!(old, sha256);
    tenant.until_ready("ada").await;

    // One that hangs comes below, with power cuts.
    let bad = fake_agent(folder.path(), "crashes", "std::process::exit(3)").await;
    tenant.switch_to("ada", "crashes", "agent", &bad).await;
    told_as_rolled_back(&tenant, "the agent that crashes").await;
    assert_eq!(current(&server, "agent").await, sha256);
    tenant.until_dashboard_answers("ada").await;
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
    cuts::in_each_step_of_an_update_of_the_agent(&tenant, &server).await;
}

/// The agent in another file: what follows the ELF image is not looked at.
pub(crate) async fn good_agent(folder: &Path, name: &str) -> Value {
    let (path, name) = (folder.join(name), name.to_owned());
    let path = blocking(move || {
        std::fs::copy(program("MOORAGE_LAB_AGENT"), &path).unwrap();
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(name.as_bytes()).unwrap();
        path
    })
    .await;
    show("agent", env!("CARGO_PKG_VERSION"), path).await
}

/// Lets servers fetch a file; gives what a release says of it.
pub(crate) async fn show(kind: &'static str, version: &'static str, file: PathBuf) -> Value {
    blocking(move || PROGRAMS.get().unwrap().show(kind, version, &file).unwrap()).await
}

/// A program that says that it is the agent, and then does something else.
pub(crate) async fn fake_agent(folder: &Path, name: &str, body: &str) -> Value {
    let version = env!("CARGO_PKG_VERSION");
    let said = format!("println!(\"moorage-agent {version}\")");
    built_agent(folder, name, &said, body).await
}

/// A program that does `asked` when it is asked for its version, and `body` as the agent.
pub(crate) async fn built_agent(folder: &Path, name: &str, asked: &str, body: &str) -> Value {
    let source = folder.join(format!("{name}.rs"));
    let text = format!(
        "fn main() {{ if std::env::args().nth(1).as_deref() == Some(\"--version\") {{ \
         {asked}; }} else {{ {body} }} }}"
    );
    std::fs::write(&source, text).unwrap();
    let program = folder.join(name);
    let mut rustc = Command::new("rustc");
    rustc
        .args([
            "--edition",
            "2024",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "strip=symbols",
            "-o",
        ])
        .args([&program, &source]);
    assert!(blocking(move || rustc.status()).await.unwrap().success());
    show("agent", env!("CARGO_PKG_VERSION"), program).await
}

pub(crate) async fn told_as_rolled_back(tenant: &Tenant, what: &str) -> Value {
    tenant.until("ada", &format!("{what} is rolled back"), is_rolled_back).await
}

/// Whether an instance says that what was asked of it last was rolled back.
pub(crate) fn is_rolled_back(ada: &Value) -> bool {
    let rolled_back = |kind: &str| condition(ada, kind)["reason"].as_str() == Some("RolledBack");
    (rolled_back("ConfigApplied") || rolled_back("UpToDate"))
        && ada["status"]["observedGeneration"] == ada["metadata"]["generation"]
}

pub(crate) async fn an_openclaw_that_does_not_work_is_rolled_back(tenant: Tenant) {
    let (ada, server) = on_the_older_openclaw(&tenant).await;
    let new = show("openclaw", OPENCLAW.0, program(OPENCLAW.1)).await;
    let old = current(&server, "openclaw").await;
    let token = gateway_token(&server).await;
    tenant.switch_to("ada", "newer", "openclaw", &new).await;
    let ada = runs_the_newer_openclaw(&tenant, &ada, &server, &new).await;
    assert_eq!(gateway_token(&server).await, token);
    server
        .exec(&["test", "-e", &format!("/opt/moorage/openclaw/{old}/bin/openclaw")])
        .await
        .unwrap();

    // A backup is for people: OpenClaw takes it for a good one.
    assert!(ada["status"]["agent"]["lastBackup"].is_string(), "{}", ada["status"]["agent"]);
    let backups = server.exec(&["find", "/var/lib/openclaw/backups", "-type", "f"]).await.unwrap();
    let verified = run_openclaw(&server, &["backup", "verify", backups.trim()]).await;
    assert!(verified.succeeded(), "{verified:?}");

    let folder = tempfile::tempdir().unwrap();
    let broken = broken_openclaw(folder.path()).await;
    tenant.switch_to("ada", "broken", "openclaw", &broken).await;
    let ada = told_as_rolled_back(&tenant, "the broken OpenClaw").await;
    let said = condition(&ada, "ConfigApplied")["message"].as_str().unwrap_or_default();
    assert!(said.contains("it ended 3 times: exit status 1"), "{said}");
    assert_eq!(ada["status"]["agent"]["lastRollback"]["sha256"], broken["sha256"]);
    // It is not tried again, and what worked is asked for again.
    let release = json!({"spec": {"release": format!("newer-{}", tenant.name)}});
    tenant.patch_instance("ada", release).await;
    runs_the_newer_openclaw(&tenant, &ada, &server, &new).await;
    let kept = server.exec(&["ls", "/opt/moorage/openclaw"]).await.unwrap();
    let versions = kept.lines().filter(|name| name.len() == 64).count();
    assert!(versions <= 2, "{kept}");
}

/// What the owner of a server has in it, besides a value in its configuration.
const NOTES: &str = "/var/lib/openclaw/.openclaw/workspace/notes.md";
const NOTED: &str = "water the plants";
/// What [`broken_openclaw`] ruins.
const MARKER: &str = "/var/lib/openclaw/.openclaw/marker";
const MODEL: &str = "anthropic/claude-opus-4-5";

/// A server with an OpenClaw before the newest, which somebody uses.
pub(crate) async fn on_the_older_openclaw(tenant: &Tenant) -> (Value, LabServer) {
    let older = show("openclaw", OLDER_OPENCLAW.0, program(OLDER_OPENCLAW.1)).await;
    let name = tenant.apply_release("older", |spec| spec["artifacts"]["openclaw"] = older).await;
    let config = json!({"agents": {"defaults": {"model": {"primary": MODEL}}}});
    tenant.apply_instance("ada", json!({"release": name, "config": config})).await;
    let ada = tenant.until_ready("ada").await;
    let server = tenant.server(&ada);
    assert_eq!(ada["status"]["agent"]["openclawVersion"], OLDER_OPENCLAW.0);
    assert!(openclaw(&server, &["--version"]).await.contains(OLDER_OPENCLAW.0));
    let workspace = Path::new(NOTES).parent().and_then(Path::to_str).unwrap();
    let made = server.run_as(Some("openclaw"), &["mkdir", "-p", workspace], "").await.unwrap();
    assert!(made.succeeded(), "{made:?}");
    for file in [NOTES, MARKER] {
        let written = server.run_as(Some("openclaw"), &["tee", file], NOTED).await.unwrap();
        assert!(written.succeeded(), "{written:?}");
    }
    (ada, server)
}

/// Waits for the end of an update, and looks at everything that it must leave as it was.
pub(crate) async fn runs_the_newer_openclaw(
    tenant: &Tenant,
    before: &Value,
    server: &LabServer,
    new: &Value,
) -> Value {
    let ada = tenant.until_ready("ada").await;
    assert_eq!(ada["status"]["server"], before["status"]["server"], "it is the same server");
    assert_eq!(current(server, "openclaw").await, new["sha256"]);
    assert!(is(&ada, "UpToDate", "True"));
    assert_eq!(ada["status"]["agent"]["openclawVersion"], OPENCLAW.0);
    assert!(openclaw(server, &["--version"]).await.contains(OPENCLAW.0));
    for file in [NOTES, MARKER] {
        assert_eq!(server.read(file).await.unwrap(), NOTED.as_bytes(), "{file}");
    }
    let model = openclaw(server, &["config", "get", "agents.defaults.model.primary"]).await;
    assert!(model.contains(MODEL), "{model}");
    tenant.until_dashboard_answers("ada").await;
    let token = gateway_token(server).await;
    assert_eq!(tenant.tool_call("ada", "wrong").await, 401);
    assert_eq!(tenant.tool_call("ada", &token).await, 400, "a call of nothing");
    ada
}

/// The token of the dashboard, as OpenClaw reads it.
async fn gateway_token(server: &LabServer) -> String {
    let keys = json_file(server, "/var/lib/openclaw/credentials/secrets.json").await.unwrap();
    keys[moorage_wire::credential::GATEWAY_TOKEN].as_str().expect("a token").to_owned()
}

/// A bundle whose program takes any configuration, ruins the data, and does not start.
pub(crate) async fn broken_openclaw(folder: &Path) -> Value {
    let program = format!(
        "const {{ rmSync }} = require('node:fs');\n\
        if (process.argv[2] === 'config') {{ console.log('{{\"valid\":true}}'); process.exit(0); }}\n\
        if (process.argv[2] === '--version') {{ console.log('2026.9.7'); process.exit(0); }}\n\
        rmSync('{MARKER}', {{ force: true }});\n\
        process.exit(1);\n"
    );
    let path = folder.join("broken.tar.gz");
    let file = std::fs::File::create(&path).unwrap();
    let mut archive =
        tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    archive.append_data(&mut header, "bin/openclaw", program.as_bytes()).unwrap();
    archive.into_inner().unwrap().finish().unwrap();
    show("openclaw", "2026.9.7", path).await
}
