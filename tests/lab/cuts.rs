//! Power cuts in the middle of updates: of OpenClaw, of the agent, and of the installer that follows
//! the agent. A step is held where it is, so that it is certain what was hit, by what a power cut takes
//! away: a drop-in below `/run`, a stopped process. Most cuts hit one and the same update: that it
//! comes to its next step shows that it survived the one before.

use std::future::Future;

use moorage_testbed::{LabServer, Press, wait_until};
use serde_json::{Value, json};

use crate::{
    OPENCLAW, PROGRAMS,
    server::{blocking, current, drop_in, json_file, prints},
    tenant::{Tenant, condition},
    updates::{
        broken_openclaw, built_agent, fake_agent, good_agent, is_rolled_back,
        on_the_older_openclaw, program, runs_the_newer_openclaw, told_as_rolled_back,
    },
};

/// The agent's journal of an update of OpenClaw.
const OPENCLAW_UPDATE: &str = "/var/lib/moorage/openclaw-update.json";
/// The installer's record of an update of the agent.
const AGENT_UPDATE: &str = "/var/lib/moorage-installer/agent-updates.json";
/// Never ends by itself.
const HOLD: &str = "/usr/bin/sleep infinity";
/// The same before a start.
const NEVER_STARTS: &str = "ExecStartPre=/usr/bin/sleep infinity";

pub(crate) async fn an_update_of_openclaw_survives_a_power_cut_in_each_step(tenant: Tenant) {
    let (ada, server) = on_the_older_openclaw(&tenant).await;
    let new = downloading(&tenant, &server).await;
    let staging = ["find", "/opt/moorage/.staging", "-mindepth", "2"];
    let unpacked = ["ls", "/opt/moorage/openclaw"];
    until_or_past(
        &tenant,
        "the bundle is unpacked",
        || prints(&server, &staging, "/opt"),
        || prints(&server, &unpacked, new["sha256"].as_str().unwrap()),
    )
    .await;
    // The first backup is made of a running OpenClaw, whose stop can be held.
    cut(&tenant, &server, "while the bundle is unpacked").await;

    hold(&server, "openclaw.service", "ExecStop").await;
    let stopping = async || {
        is_at(&server, "preparing").await
            && state(&server, "openclaw.service").await == "deactivating/stop"
    };
    let trying = async || is_at(&server, "trying").await;
    until_or_past(&tenant, "OpenClaw is being stopped", stopping, trying).await;
    cut(&tenant, &server, "after the backup, while OpenClaw is stopped").await;

    let backing_up = || prints(&server, &["ps", "-eo", "args"], "backup create");
    until_or_past(&tenant, "a backup is made", backing_up, trying).await;
    cut(&tenant, &server, "while a backup is made").await;

    hold(&server, "openclaw.service", "ExecStartPre").await;
    let is_trying = async |wanted: &'static str| {
        is_at(&server, "trying").await && state(&server, "openclaw.service").await == wanted
    };
    let (held, running) = (
        async || is_trying("activating/start-pre").await,
        async || is_trying("active/running").await,
    );
    until_or_past(&tenant, "the new OpenClaw is to be started", held, running).await;
    assert_eq!(current(&server, "openclaw").await, new["sha256"]);
    cut(&tenant, &server, "after the switch, before the start").await;

    let over = || prints(&server, &["test", "!", "-e", OPENCLAW_UPDATE], "");
    until_or_past(&tenant, "the new OpenClaw is on its way up", running, over).await;
    cut(&tenant, &server, "while the new OpenClaw starts").await;
    runs_the_newer_openclaw(&tenant, &ada, &server, &new).await;

    let folder = tempfile::tempdir().unwrap();
    let broken = broken_openclaw(folder.path()).await;
    tenant.switch_to("ada", "broken", "openclaw", &broken).await;
    until(&tenant, "the broken OpenClaw fails", async || {
        is_at(&server, "trying").await
            && state(&server, "openclaw.service").await.starts_with("activating/auto-restart")
    })
    .await;
    // Whoever puts the data back.
    let stop = ["systemctl", "kill", "--signal=SIGSTOP", "moorage-worker.service"];
    server.exec(&stop).await.unwrap();
    until(&tenant, "it is rolled back", async || is_at(&server, "rolling-back").await).await;
    let stays = drop_in(&server, "/etc", "openclaw.service", NEVER_STARTS).await;
    cut(&tenant, &server, "before the data is put back").await;

    until(&tenant, "the old OpenClaw is to be started", async || {
        is_at(&server, "rolling-back").await
            && state(&server, "openclaw.service").await == "activating/start-pre"
    })
    .await;
    assert_eq!(current(&server, "openclaw").await, new["sha256"]);
    server.exec(&["rm", &stays]).await.unwrap();
    cut(&tenant, &server, "after the data is back, before the start").await;
    let ada = told_as_rolled_back(&tenant, "the broken OpenClaw").await;
    let release = json!({"spec": {"release": format!("newer-{}", tenant.name)}});
    tenant.patch_instance("ada", release).await;
    runs_the_newer_openclaw(&tenant, &ada, &server, &new).await;
}

/// Cuts the power in the middle of the download of an OpenClaw, and gives that.
async fn downloading(tenant: &Tenant, server: &LabServer) -> Value {
    // Under an address of its own, so that the fault strikes this server alone.
    let name = tenant.name.clone();
    let (new, path) = blocking(move || {
        let programs = PROGRAMS.get().unwrap();
        programs.show_for(&name, "openclaw", OPENCLAW.0, &program(OPENCLAW.1)).unwrap()
    })
    .await;
    let simulator = &tenant.stage.simulator;
    let slow = json!({"fault": {"kind": "slow", "bytesPerSecond": 1000}});
    simulator.set_faults_of_artifact(&path, &[slow]).await.unwrap();
    tenant.switch_to("ada", "newer", "openclaw", &new).await;
    let partial = format!("/var/lib/moorage/downloads/{}.part", new["sha256"].as_str().unwrap());
    until(tenant, "a part of the bundle is there", async || {
        let size = server.run(&["stat", "--format=%s", &partial]).await;
        size.is_ok_and(|size| size.text().trim().parse::<u64>().is_ok_and(|size| size > 0))
    })
    .await;
    simulator.set_faults_of_artifact(&path, &[]).await.unwrap();
    cut(tenant, server, "while the bundle is downloaded").await;
    until(tenant, "the download goes on where it was", async || {
        let requests = simulator.artifact_requests().await.unwrap();
        requests.iter().any(|request| request["path"] == path && request["status"] == 206)
    })
    .await;
    new
}

/// Updates of the agent of a server, good ones and others, with a power cut in each step.
pub(crate) async fn in_each_step_of_an_update_of_the_agent(tenant: &Tenant, server: &LabServer) {
    let old = current(server, "agent").await;
    let folder = tempfile::tempdir().unwrap();

    let mute = built_agent(folder.path(), "mute", "loop { std::thread::park() }", "").await;
    tenant.switch_to("ada", "mute", "agent", &mute).await;
    let program = format!("/opt/moorage/agent/{}/moorage-agent", mute["sha256"].as_str().unwrap());
    let asked = format!("{program} --version");
    let asked = || prints(server, &["ps", "-eo", "args"], &asked);
    let told = |ada: &Value| {
        let told = condition(ada, "ConfigApplied");
        let said = told["message"].as_str().unwrap_or_default();
        told["reason"] == "ArtifactFailed" && said.contains("asked for its version")
    };
    catch(tenant, "the mute agent is asked for its version", asked, told).await;
    cut(tenant, server, "while a new agent is asked for its version").await;
    tenant.until("ada", "the agent that does not say its version is told", told).await;
    assert_eq!(current(server, "agent").await, old);
    tenant.until_dashboard_answers("ada").await;

    let good = good_agent(folder.path(), "another").await;
    a_good_agent(tenant, server, &good).await;
    let good = good_agent(folder.path(), "third").await;
    a_good_agent_whose_installer_is_cut_off(tenant, server, &good).await;
    let old = current(server, "agent").await;
    assert_eq!(old, good["sha256"]);

    let silent = fake_agent(folder.path(), "silent", "loop { std::thread::park() }").await;
    tenant.switch_to("ada", "silent", "agent", &silent).await;
    let watched = || is_agent_at(server, "watching");
    catch(tenant, "the silent agent is watched", watched, is_rolled_back).await;
    cut(tenant, server, "before a new agent is on its socket").await;
    catch(tenant, "the silent agent is watched again", watched, is_rolled_back).await;
    hold(server, "moorage-agent.service", "ExecStartPre").await;
    until(tenant, "it is rolled back", async || {
        is_agent_at(server, "rolling-back").await
            && state(server, "moorage-agent.service").await == "activating/start-pre"
    })
    .await;
    cut(tenant, server, "while the agent before is restarted").await;
    rolled_back_state(tenant, server, "the silent agent", &old).await;

    let dead = fake_agent(folder.path(), "dead", WITHOUT_INSTALLER).await;
    hold(server, "moorage-roll-back.service", "ExecStartPre").await;
    tenant.switch_to("ada", "dead", "agent", &dead).await;
    until(tenant, "the roll-back unit runs", async || {
        state(server, "moorage-roll-back.service").await == "activating/start-pre"
    })
    .await;
    assert_eq!(current(server, "agent").await, dead["sha256"]);
    cut(tenant, server, "while the roll-back unit runs").await;
    rolled_back_state(tenant, server, "the agent whose installer does not start", &old).await;
}

/// The agent before it in all but the installer.
const WITHOUT_INSTALLER: &str = "use std::os::unix::process::CommandExt as _; \
    let arguments: Vec<_> = std::env::args_os().skip(1).collect(); \
    if arguments.first().is_some_and(|verb| verb == \"installer\") { std::process::exit(3); } \
    let error = std::process::Command::new(\"/opt/moorage/agent/previous/moorage-agent\")\
        .args(arguments).exec(); \
    panic!(\"{error}\");";

/// Cuts the power in each step of an update that ends well. Nobody can reach the server meanwhile, so
/// that the new agent is not confirmed before its time.
async fn a_good_agent(tenant: &Tenant, server: &LabServer, good: &Value) {
    hold(server, "moorage-agent.service", "ExecStartPre").await;
    tenant.switch_to("ada", "another", "agent", good).await;
    until(tenant, "the new agent is to be started", async || {
        is_agent_at(server, "restarting").await
            && state(server, "moorage-agent.service").await == "activating/start-pre"
    })
    .await;
    assert_eq!(current(server, "agent").await, good["sha256"]);
    let unreachable = drop_in(server, "/etc", "cloudflared.service", NEVER_STARTS).await;
    cut(tenant, server, "after the switch, while the agent is restarted").await;

    until(tenant, "the new agent is on its socket", async || {
        is_agent_at(server, "watching").await
            && says(server, "the new agent is on its socket").await
    })
    .await;
    cut(tenant, server, "before the operator reached the new agent").await;

    until(tenant, "it is watched again", async || {
        is_agent_at(server, "watching").await
            && says(server, "the new agent is on its socket").await
    })
    .await;
    server.exec(&["rm", &unreachable]).await.unwrap();
    server.exec(&["systemctl", "daemon-reload"]).await.unwrap();
    server.exec(&["systemctl", "--no-block", "restart", "cloudflared.service"]).await.unwrap();
    is_settled(tenant, server, good).await;
}

/// Cuts the power in the last step, which a boot in between takes by itself: the installer starts again,
/// from the new agent's file.
async fn a_good_agent_whose_installer_is_cut_off(
    tenant: &Tenant,
    server: &LabServer,
    good: &Value,
) {
    hold(server, "moorage-installer.service", "ExecStartPre").await;
    tenant.switch_to("ada", "third", "agent", good).await;
    until(tenant, "the installer restarts itself", async || {
        is_agent_at(server, "settling").await
            && state(server, "moorage-installer.service").await == "activating/start-pre"
    })
    .await;
    cut(tenant, server, "while the installer becomes the new one").await;
    is_settled(tenant, server, good).await;
}

/// The update is over, and all runs from the new file.
async fn is_settled(tenant: &Tenant, server: &LabServer, good: &Value) {
    until(tenant, "the update is over", async || {
        json_file(server, AGENT_UPDATE).await.is_some_and(|record| record.get("update").is_none())
    })
    .await;
    let pid = server.unit("moorage-installer.service", &["MainPID"]).await.unwrap();
    let program =
        server.exec(&["readlink", &format!("/proc/{}/exe", pid["MainPID"])]).await.unwrap();
    assert!(program.contains(good["sha256"].as_str().unwrap()), "{program}");
    tenant.until_ready("ada").await;
    tenant.until_dashboard_answers("ada").await;
}

async fn rolled_back_state(tenant: &Tenant, server: &LabServer, what: &str, old: &str) {
    told_as_rolled_back(tenant, what).await;
    assert_eq!(current(server, "agent").await, old, "{what}");
    tenant.until_dashboard_answers("ada").await;
}

/// Cuts the power, gives it back, and waits for the machine's systemd.
async fn cut(tenant: &Tenant, server: &LabServer, when: &str) {
    eprintln!("{}: the power is cut {when}", tenant.name);
    server.power(Press::Reset).await.unwrap();
    tenant.until_prints(server, &["systemctl", "show", "--property=Version"], "Version=").await;
}

/// Keeps a unit from being started (`ExecStartPre`) or stopped (`ExecStop`) until the next power cut.
async fn hold(server: &LabServer, unit: &str, when: &str) {
    drop_in(server, "/run", unit, &format!("{when}={HOLD}")).await;
    server.exec(&["systemctl", "daemon-reload"]).await.unwrap();
}

/// Waits until a look at a server sees it.
async fn until<F: Future<Output = bool>>(tenant: &Tenant, what: &str, look: impl Fn() -> F) {
    let looked = wait_until(what, tenant.stage.patience, || async {
        if look().await {
            return Ok(());
        }
        let ada = tenant.get("ada").await.unwrap_or_default();
        Err(condition(&ada, "ConfigApplied").to_string())
    });
    looked.await.unwrap_or_else(|late| panic!("{late}"));
}

/// Waits for a step that nothing holds. Looks are far apart on a busy machine, and what comes after the
/// step is as good a moment.
pub(crate) async fn until_or_past<F, G>(
    tenant: &Tenant,
    what: &str,
    look: impl Fn() -> F,
    past: impl Fn() -> G,
) where
    F: Future<Output = bool>,
    G: Future<Output = bool>,
{
    until(tenant, what, async || {
        if look().await {
            return true;
        }
        let missed = past().await;
        if missed {
            eprintln!("{}: missed, cut anyway: {what}", tenant.name);
        }
        missed
    })
    .await;
}

/// Waits for a step that ends by itself after some seconds. One that was missed, as `over` sees in the
/// instance, is asked for once more.
async fn catch<F: Future<Output = bool>>(
    tenant: &Tenant,
    what: &str,
    look: impl Fn() -> F,
    over: impl Fn(&Value) -> bool,
) {
    let caught = wait_until(what, tenant.stage.patience, || async {
        if look().await {
            return Ok(true);
        }
        let ada = tenant.get("ada").await.unwrap_or_default();
        if over(&ada) { Ok(false) } else { Err(condition(&ada, "ConfigApplied").to_string()) }
    });
    if !caught.await.unwrap_or_else(|late| panic!("{late}")) {
        eprintln!("{}: missed, and asked for again: {what}", tenant.name);
        let now = jiff::Timestamp::now().to_string();
        tenant.annotate("ada", "moorage.dev/retry", &now).await;
        until(tenant, what, look).await;
    }
}

/// What systemd says of a unit: its state and the state below it.
async fn state(server: &LabServer, unit: &str) -> String {
    let state = server.unit(unit, &["ActiveState", "SubState"]).await.unwrap_or_default();
    let part = |name: &str| state.get(name).cloned().unwrap_or_default();
    format!("{}/{}", part("ActiveState"), part("SubState"))
}

/// Whether an update of OpenClaw is at this stage.
async fn is_at(server: &LabServer, stage: &str) -> bool {
    json_file(server, OPENCLAW_UPDATE)
        .await
        .is_some_and(|journal| journal["stage"]["stage"] == stage)
}

/// Whether an update of the agent is in this phase.
async fn is_agent_at(server: &LabServer, phase: &str) -> bool {
    let record = json_file(server, AGENT_UPDATE).await;
    record.is_some_and(|record| record["update"]["phase"]["name"] == phase)
}

/// Whether the installer said so since the machine came up.
async fn says(server: &LabServer, what: &str) -> bool {
    let unit = Some("moorage-installer.service");
    server.journal(unit).await.is_ok_and(|journal| journal.contains(what))
}
