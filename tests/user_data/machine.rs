//! Servers of the lab that booted our user-data: each line of the hardening, seen from inside and from
//! outside. What the programs do that it starts is tested elsewhere.

use std::{collections::BTreeSet, net::IpAddr, path::Path, time::Duration};

use moorage_testbed::{
    CloudInit, LabParts, LabServer, Press, Probed, Simulator, SimulatorOptions, wait_until,
};
use moorage_wire::{Sha256, desired::Artifact};
use serde_json::{Value, json};

use crate::{
    KEY,
    doors::{
        FRIEND, NETWORKS, Person, a_reboot_is_made_if_it_is_pending,
        port_22_is_open_to_its_networks_alone, port_22_is_shut_from_inside,
        services_have_no_shell_and_the_journal_is_kept, upgrades_are_made_at_night,
    },
    pinned, user_data_with,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
const TOKEN: &str = "lab-token";
/// Where cloud-init keeps user-data, the one-time key in it included.
const USER_DATA_COPIES: [&str; 4] = [
    "/var/lib/cloud/instance/user-data.txt",
    "/var/lib/cloud/instance/user-data.txt.i",
    "/var/lib/cloud/instance/cloud-config.txt",
    "/var/lib/cloud/instance/obj.pkl",
];
const METADATA: &str = "http://169.254.169.254/hetzner/v1/userdata";

/// A simulator with one server.
pub(crate) struct Lab {
    // Dropped in this order.
    pub(crate) server: LabServer,
    _simulator: Simulator,
    _artifacts: tempfile::TempDir,
}

impl Lab {
    /// A server that has begun to boot; `None`, said loudly, where the lab cannot run.
    async fn boot(allow_from: &[&str], key: &str) -> Option<Self> {
        Self::boot_with(allow_from, key, str::to_owned).await
    }

    /// The same, with user-data that is changed by this first.
    pub(crate) async fn boot_with(
        allow_from: &[&str],
        key: &str,
        change: impl FnOnce(&str) -> String,
    ) -> Option<Self> {
        let parts = LabParts::for_test()?;
        let moorage = Path::new(env!("CARGO_BIN_EXE_moorage"));
        let artifacts = tempfile::tempdir().unwrap();
        // The agent in the place of all: it is fetched, verified and put there.
        let content = std::fs::read(moorage.with_file_name("moorage-agent")).unwrap();
        std::fs::write(artifacts.path().join("program"), &content).unwrap();
        let program = Artifact {
            version: "1".into(),
            url: "http://artifacts.moorage.test/program".into(),
            sha256: Sha256::of(&content),
            size: content.len() as u64,
        };
        let mut arguments = parts.simulator_arguments(Some(artifacts.path()));
        arguments.push("--action-ms=1".to_owned());
        arguments.push("--disk-mb=2048".to_owned());
        let program_of_simulator = moorage.with_file_name("moorage-sim");
        let options = SimulatorOptions { program: program_of_simulator, agent: None, arguments };
        let simulator = Simulator::start(&options).await.unwrap();
        simulator.put_project("lab", &json!({"token": TOKEN, "serverQuota": 9})).await.unwrap();
        let user_data = change(&user_data_with(&pinned(&program), allow_from, key));
        let wanted = json!({
            "name": "hardened", "server_type": "cx33", "image": "debian-13", "user_data": user_data,
        });
        let url = format!("{}/servers", simulator.endpoints().hetzner);
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let created = http.post(url).bearer_auth(TOKEN).json(&wanted).send().await.unwrap();
        let created: Value = created.error_for_status().unwrap().json().await.unwrap();
        let server = simulator.lab_server(created["server"]["id"].as_u64().unwrap());
        Some(Self { server, _simulator: simulator, _artifacts: artifacts })
    }

    /// Waits until cloud-init and both jobs of the first boot are done.
    pub(crate) async fn settled(&self, start: u32) {
        let (took, end) = self.server.wait_boot(start, PATIENCE).await.unwrap();
        assert_eq!(end, CloudInit::Done);
        let jobs = ["/var/lib/moorage-setup/done", "/var/lib/moorage-first-boot/done"];
        for job in jobs {
            self.server.exec_until(&["test", "-e", job]).await;
        }
        eprintln!("start {start}: cloud-init ended after {:.1} s", took.as_secs_f64());
    }

    pub(crate) async fn exec(&self, argv: &[&str]) -> String {
        self.server.exec(argv).await.unwrap()
    }

    /// The exit code as `user`.
    async fn code_as(&self, user: &str, argv: &[&str]) -> Option<i32> {
        self.server.run_as(Some(user), argv, "").await.unwrap().exit_code
    }

    /// Ports that something listens on, except on loopback.
    pub(crate) async fn public_ports(&self) -> BTreeSet<String> {
        let listening = self.exec(&["ss", "--no-header", "-lntu"]).await;
        let local = listening.lines().map(|line| line.split_whitespace().nth(4).unwrap());
        let loopback = |address: &&str| address.starts_with("127.") || address.starts_with("[::1]");
        local
            .filter(|address| !loopback(address))
            .map(|address| address.rsplit(':').next().unwrap().to_owned())
            .collect()
    }

    pub(crate) async fn knock(&self, from: &str, port: u16) -> Probed {
        self.server.probe_port(from.parse::<IpAddr>().unwrap(), port).await.unwrap()
    }

    pub(crate) async fn is_hardened(&self) {
        let failed = ["systemctl", "list-units", "--failed", "--plain", "--no-legend"];
        // What stands in for cloudflared ends at once and is started again; nothing may fail.
        assert_eq!(self.exec(&failed).await, "");
        assert_eq!(self.exec(&["systemctl", "is-enabled", "nftables.service"]).await, "enabled");
        let rules = self.exec(&["nft", "list", "table", "inet", "moorage"]).await;
        assert!(rules.contains("hook input priority filter; policy drop;"), "{rules}");
        for (path, owner) in [
            ("/etc/moorage/bootstrap.json", "640 root:moorage"),
            ("/etc/moorage/tunnel-token", "640 root:moorage-tunnel"),
            ("/run/moorage/agent.sock", "660 moorage:moorage-tunnel"),
            ("/run/moorage/worker.sock", "660 openclaw:moorage"),
            ("/run/moorage/installer.sock", "600 moorage:moorage"),
            ("/opt/moorage/agent/current/moorage-agent", "755 root:root"),
        ] {
            assert_eq!(
                self.exec(&["stat", "-L", "--format=%a %U:%G", path]).await,
                owner,
                "{path}"
            );
        }
        assert!(self.exec(&["passwd", "--status", "root"]).await.starts_with("root L"));
        assert!(
            !self.exec(&["ls", "/home"]).await.contains("debian"),
            "no user that nobody asked for"
        );
    }

    /// Whoever sat on the connector's port could tell the agent that the tunnel works.
    async fn keeps_the_connectors_port_free(&self) {
        let bind = "import socket; socket.create_server((\"127.0.0.1\", 241))";
        for user in ["openclaw", "moorage", "daemon"] {
            let tried = ["python3", "-I", "-c", bind];
            let tried = self.server.run_as(Some(user), &tried, "").await.unwrap();
            let said = String::from_utf8_lossy(&tried.stderr).into_owned();
            assert!(said.contains("PermissionError"), "{user}: {said}");
        }
        let shown = self.exec(&["systemctl", "show", "moorage-agent.service", "-pExecStart"]).await;
        assert!(shown.contains("--cloudflared-metrics 127.0.0.1:241"), "{shown}");
    }

    /// User-data is for root alone, wherever it can be read.
    async fn keeps_user_data_from_users(&self) {
        let fetch = ["curl", "-sS", "--max-time", "5", "-o", "/dev/null", METADATA];
        assert!(self.server.run(&fetch).await.unwrap().succeeded(), "root reads the metadata");
        for path in USER_DATA_COPIES {
            self.exec(&["test", "-s", path]).await;
        }
        for user in ["daemon", "openclaw", "moorage", "cloudflared"] {
            assert_eq!(self.code_as(user, &fetch).await, Some(7), "{user}");
            for path in USER_DATA_COPIES.into_iter().chain(["/etc/shadow"]) {
                assert_ne!(self.code_as(user, &["cat", path]).await, Some(0), "{user}: {path}");
            }
        }
        // The worker learns from the installer whom to believe.
        let operator = "/etc/moorage/operator.json";
        self.server.exec_until(&["test", "-s", operator]).await;
        let shown = self.exec(&["stat", "--format=%a %U:%G", operator]).await;
        assert_eq!(shown, "644 root:root");
        assert_eq!(self.code_as("openclaw", &["cat", operator]).await, Some(0));
        for (user, path) in [
            ("openclaw", "/etc/moorage/bootstrap.json"),
            ("openclaw", "/etc/moorage/tunnel-token"),
            ("cloudflared", "/etc/moorage/bootstrap.json"),
        ] {
            assert_ne!(self.code_as(user, &["cat", path]).await, Some(0), "{user}: {path}");
        }
    }
}

/// What `LabServer` lacks for these tests.
pub(crate) trait Patient {
    /// Runs a program until it succeeds.
    async fn exec_until(&self, argv: &[&str]);
}

impl Patient for LabServer {
    async fn exec_until(&self, argv: &[&str]) {
        let wanted = argv.join(" ");
        let outcome = wait_until(&wanted, PATIENCE, || async {
            self.exec(argv).await.map(drop).map_err(|error| error.to_string())
        });
        if let Err(late) = outcome.await {
            let journal = self.journal(None).await.unwrap_or_default();
            panic!("{late}\n{journal}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_ssh_answers_to_its_networks_alone() {
    let ada = Person::new();
    let Some(lab) = Lab::boot(&NETWORKS, &ada.public_key).await else { return };
    lab.settled(1).await;
    lab.is_hardened().await;
    lab.keeps_user_data_from_users().await;
    lab.keeps_the_connectors_port_free().await;
    assert_eq!(lab.public_ports().await, BTreeSet::from(["22".to_owned()]));
    assert_eq!(lab.knock(FRIEND, 80).await, Probed::Dropped);
    port_22_is_open_to_its_networks_alone(&lab.server).await;
    port_22_is_shut_from_inside(&lab.server).await;
    for unit in ["ssh.service", "fail2ban.service"] {
        lab.server.exec_until(&["systemctl", "is-active", unit]).await;
    }
    ada.logs_in(&lab.server).await;
    ada.forwards_nothing(&lab.server).await;
    ada.others_are_refused(&lab.server).await;

    upgrades_are_made_at_night(&lab.server).await;
    a_reboot_is_made_if_it_is_pending(&lab.server).await;
    lab.settled(2).await;
    lab.is_hardened().await;
    port_22_is_open_to_its_networks_alone(&lab.server).await;
    services_have_no_shell_and_the_journal_is_kept(&lab.server).await;
    ada.logs_in(&lab.server).await;
    assert_eq!(lab.public_ports().await, BTreeSet::from(["22".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_ssh_runs_no_sshd_even_after_power_loss() {
    let Some(lab) = Lab::boot(&[], KEY).await else { return };
    // In the middle of whatever it does by now; it has to begin again, or go on.
    lab.server.exec_until(&["test", "-e", "/etc/moorage/release.json"]).await;
    lab.server.power(Press::Reset).await.unwrap();
    lab.settled(2).await;
    lab.is_hardened().await;
    assert_eq!(lab.public_ports().await, BTreeSet::new());
    for address in [FRIEND, "2001:db8:ffff::10"] {
        assert_eq!(lab.knock(address, 22).await, Probed::Dropped);
    }
    let state = lab.server.run(&["systemctl", "is-enabled", "ssh.service"]).await.unwrap();
    assert!(state.text().contains("masked"), "{state:?}");
    assert_ne!(lab.server.run(&["pgrep", "-x", "sshd"]).await.unwrap().exit_code, Some(0));
    for gone in ["/usr/bin/sudo", "/etc/sudoers.d/90-cloud-init-users"] {
        assert_ne!(
            lab.server.run(&["test", "-e", gone]).await.unwrap().exit_code,
            Some(0),
            "{gone}"
        );
    }
    // Again from the beginning, over what is there.
    lab.exec(&["rm", "/var/lib/moorage-setup/done", "/var/lib/moorage-first-boot/done"]).await;
    for job in ["moorage-setup.service", "moorage-first-boot.service"] {
        lab.exec(&["systemctl", "start", job]).await;
    }
    lab.settled(2).await;
    lab.is_hardened().await;
}
