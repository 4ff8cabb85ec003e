//! What can be seen of a server from outside and by those who have no business there, and that it
//! comes up again by itself.

use std::{net::IpAddr, time::Duration};

use moorage_testbed::{LabServer, Press, Probed, wait_until};
use serde_json::{Value, json};

use crate::{
    lifecycle::make_ada,
    server::{drop_in, openclaw, resident},
    tenant::{Tenant, condition},
};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ada";
const INSTALLER: &str = "moorage-installer.service";
const CONFIG: &str = "/var/lib/openclaw/.openclaw/openclaw.json";
const UNITS: [&str; 7] = [
    "moorage-agent.service",
    "moorage-worker.service",
    INSTALLER,
    "moorage-installer-again.service",
    "moorage-roll-back.service",
    "openclaw.service",
    "cloudflared.service",
];

pub(crate) async fn a_server_is_locked_down_whatever_is_killed(tenant: Tenant) {
    let ssh = json!({"user": "ops", "keys": [KEY], "allowFrom": ["198.51.100.0/25", "2001:db8:ffff::10/128"]});
    tenant.patch_pool(json!({"spec": {"hetzner": {"ssh": ssh}}})).await;
    tenant.until_pool_is_looked_at().await;
    let ada = make_ada(&tenant).await;
    tenant.until_secret_gone("ada-keys").await;
    tenant.until_dashboard_answers("ada").await;
    let server = tenant.server(&ada);
    // Packages and settings come last, after the way in.
    tenant.until_active(&server, "fail2ban").await;

    let first_boot = server.journal(Some("moorage-first-boot.service")).await.unwrap();
    assert!(!first_boot.contains("again in"), "a download stalled: {first_boot}");
    systemd_gives_the_installer_up(&tenant, &server).await;
    nothing_answers_but_ssh_from_where_it_may(&server).await;
    units_are_in_tight_sandboxes(&server).await;
    let audit: Value =
        serde_json::from_str(&openclaw(&server, &["security", "audit", "--json"]).await).unwrap();
    assert_eq!(audit["summary"]["critical"], 0, "{audit}");
    a_change_reaches_openclaw_all_the_same(&tenant, &server).await;
    others_read_neither_keys_nor_metadata_nor_state(&server).await;
    the_agent_comes_to_rest_in_ten_megabytes(&server).await;

    the_number_of_a_killed_openclaw_is_taken_by_another_process(&tenant, &server).await;
    for unit in ["moorage-agent.service", "cloudflared.service"] {
        server.kill_unit(unit).await.unwrap();
        tenant.until_active(&server, unit).await;
        tenant.until_dashboard_answers("ada").await;
    }
    a_pending_reboot_is_told(&tenant, &server).await;
    server.power(Press::Reset).await.unwrap();
    server.wait_boot(2, tenant.stage.patience).await.unwrap();
    tenant.until_dashboard_answers("ada").await;
    tenant.look_now("ada").await;
    tenant.until("ada", "the reboot is known", |ada| !is_reboot_pending(ada)).await;
    tenant.until_ready("ada").await;
}

/// Until it was made.
async fn a_pending_reboot_is_told(tenant: &Tenant, server: &LabServer) {
    assert!(!is_reboot_pending(&tenant.until_ready("ada").await), "nothing asked for it");
    server.write("/run/reboot-required", "").await.unwrap();
    tenant.look_now("ada").await;
    let ada = tenant.until("ada", "a pending reboot", is_reboot_pending).await;
    let said = condition(&ada, "UpToDate")["message"].as_str().unwrap();
    assert!(said.contains("an upgrade waits for the server's reboot"), "{said}");
}

fn is_reboot_pending(instance: &Value) -> bool {
    instance["status"]["agent"]["rebootPending"] == true
}

/// Its socket goes with it. How many deaths that takes depends on when it first started.
async fn systemd_gives_the_installer_up(tenant: &Tenant, server: &LabServer) {
    tenant
        .eventually("systemd gives the installer up", || async {
            let state = server.unit(INSTALLER, &["ActiveState"]).await;
            let state = state.map_err(|error| error.to_string())?["ActiveState"].clone();
            if state == "failed" {
                return Ok(());
            }
            // Between two starts there is nothing to kill.
            let killed = server.kill_unit(INSTALLER).await;
            Err(format!("{state}, {killed:?}"))
        })
        .await;
    let socket = server.unit("moorage-installer.socket", &["ActiveState"]).await.unwrap();
    assert_eq!(socket["ActiveState"], "failed");
}

/// The installer came back by itself. Without it the agent could neither look at OpenClaw nor start it.
async fn a_change_reaches_openclaw_all_the_same(tenant: &Tenant, server: &LabServer) {
    let model = "anthropic/claude-opus-4-5";
    let config = json!({"agents": {"defaults": {"model": {"primary": model}}}});
    tenant.patch_instance("ada", json!({"spec": {"config": config}})).await;
    tenant.until_prints(server, &["cat", CONFIG], model).await;
    tenant.until_ready("ada").await;
    tenant.until_active(server, INSTALLER).await;
}

/// All that is resident, the program's own pages included.
async fn the_agent_comes_to_rest_in_ten_megabytes(server: &LabServer) {
    let (most, at_rest) = (10_000_000 / 1024, Duration::from_secs(60));
    let looked = wait_until("the agent takes at most 10 MB", at_rest, || async {
        let memory = resident(server, "moorage-agent.service").await;
        if memory <= most { Ok(memory) } else { Err(format!("{memory} KiB")) }
    });
    let memory = looked.await.unwrap_or_else(|late| panic!("{late}"));
    eprintln!("the agent takes {memory} KiB");
}

/// As after a power cut, when all processes get new numbers.
async fn the_number_of_a_killed_openclaw_is_taken_by_another_process(
    tenant: &Tenant,
    server: &LabServer,
) {
    let (script, unit) = ("/run/reused-pid.py", "openclaw.service");
    server.write(script, include_str!("reused-pid.py")).await.unwrap();
    let agent = server.unit("moorage-agent.service", &["MainPID"]).await.unwrap();
    let command = format!("ExecStartPre=/usr/bin/python3 -I {script} {}", agent["MainPID"]);
    let file = drop_in(server, "/run", unit, &command).await;
    server.exec(&["systemctl", "daemon-reload"]).await.unwrap();
    let began = server.unit(unit, &["MainPID"]).await.unwrap();
    server.kill_unit(unit).await.unwrap();
    tenant
        .eventually("OpenClaw runs again", || async {
            let now = server.unit(unit, &["MainPID"]).await.map_err(|error| error.to_string())?;
            if now != began && now["MainPID"] != "0" { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
    tenant.until_dashboard_answers("ada").await;
    let journal = server.journal(Some(unit)).await.unwrap();
    assert!(!journal.contains("still active"), "{journal}");
    server.exec(&["rm", &file]).await.unwrap();
    server.exec(&["systemctl", "daemon-reload"]).await.unwrap();
}

async fn nothing_answers_but_ssh_from_where_it_may(server: &LabServer) {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let (friend, stranger) = (address("198.51.100.7"), address("198.51.100.200"));
    for friend in [friend, address("2001:db8:ffff::10")] {
        assert_eq!(server.probe_port(friend, 22).await.unwrap(), Probed::Open, "{friend}");
    }
    for (from, port) in [(stranger, 22), (address("2001:db8:ffff::1"), 22), (friend, 80)] {
        assert_eq!(server.probe_port(from, port).await.unwrap(), Probed::Dropped, "{from} {port}");
    }
    for port in [443, 7443, 18789, 241] {
        assert_eq!(server.probe_port(friend, port).await.unwrap(), Probed::Dropped, "{port}");
    }
    nothing_listens_in_public(server).await;
}

/// Other than sshd.
pub(crate) async fn nothing_listens_in_public(server: &LabServer) {
    let listening = server.exec(&["ss", "-lntuH"]).await.unwrap();
    let public = |line: &&str| {
        let local = line.split_whitespace().nth(4).unwrap_or_default();
        !local.starts_with("127.") && !local.starts_with("[::1]") && !local.ends_with(":22")
    };
    let public: Vec<_> = listening.lines().filter(public).collect();
    assert!(public.is_empty(), "{public:?}");
}

pub(crate) async fn units_are_in_tight_sandboxes(server: &LabServer) {
    for unit in UNITS {
        let table =
            server.exec(&["systemd-analyze", "security", "--no-pager", unit]).await.unwrap();
        let score = table.lines().find_map(|line| line.split_once(&format!("level for {unit}: ")));
        let score = score.and_then(|(_, rest)| rest.split_whitespace().next()).unwrap();
        assert!(score.parse::<f32>().unwrap() <= 2.5, "{unit}: {score}");
    }
}

pub(crate) async fn others_read_neither_keys_nor_metadata_nor_state(server: &LabServer) {
    let metadata = "http://169.254.169.254/hetzner/v1/userdata";
    let ask = |seconds| ["curl", "-sS", "--max-time", seconds, metadata];
    let asked = server.run(&ask("60")).await.unwrap();
    assert!(asked.text().starts_with("#cloud-config"), "root can ask: {asked:?}");
    for user in ["openclaw", "moorage", "cloudflared"] {
        let asked = server.run_as(Some(user), &ask("5"), "").await.unwrap();
        assert!(!asked.succeeded(), "{user} reads metadata");
    }
    for (user, file) in [
        ("cloudflared", "/var/lib/openclaw/credentials/secrets.json"),
        ("cloudflared", "/etc/moorage/bootstrap.json"),
        ("cloudflared", "/var/lib/moorage/identity.json"),
        ("moorage", "/var/lib/openclaw/credentials/secrets.json"),
        ("openclaw", "/var/lib/moorage/identity.json"),
        ("openclaw", "/etc/moorage/bootstrap.json"),
        ("openclaw", "/etc/moorage/tunnel-token"),
    ] {
        let read = server.run_as(Some(user), &["cat", file], "").await.unwrap();
        let said = String::from_utf8_lossy(&read.stderr).into_owned();
        assert!(said.contains("Permission denied"), "{user} {file}: {said}");
    }
    let keys = ["stat", "-c", "%a %U:%G", "/var/lib/openclaw/credentials/secrets.json"];
    assert_eq!(server.exec(&keys).await.unwrap(), "600 openclaw:openclaw");
    for (user, socket) in [("openclaw", "installer"), ("cloudflared", "worker")] {
        let socket = format!("/run/moorage/{socket}.sock");
        let ask = ["curl", "-sS", "--max-time", "5", "--unix-socket", &socket, "http://x/"];
        let asked = server.run_as(Some(user), &ask, "").await.unwrap();
        assert!(!asked.succeeded(), "{user} opens {socket}");
    }
}
