//! What happens between power on and power off.

use std::sync::Arc;

use serde_json::json;

use crate::stage::{PATIENCE, Stage, up};

const USER_DATA: &str = "#cloud-config
users:
- {name: tenant, homedir: /var/lib/tenant, system: true, shell: /usr/sbin/nologin}
write_files:
- {path: /etc/tenant.conf, content: from user-data, permissions: '0640', owner: 'root:tenant', defer: true}
runcmd:
- [touch, /var/lib/ran]
";

pub(crate) async fn a_server_boots_and_applies_its_user_data(stage: Arc<Stage>) {
    let server = stage.booted("boot", USER_DATA).await;
    assert_eq!(server.read("/etc/tenant.conf").await.unwrap(), b"from user-data");
    let owner = server.exec(&["stat", "--format=%a %U:%G", "/etc/tenant.conf"]).await.unwrap();
    assert_eq!(owner, "640 root:tenant");
    server.exec(&["test", "-e", "/var/lib/ran"]).await.unwrap();
    assert_eq!(server.exec(&["hostname"]).await.unwrap(), "boot");
    assert_eq!(server.exec(&["cat", "/proc/1/comm"]).await.unwrap(), "systemd");
    let seed = server.read("/var/lib/cloud/instance/user-data.txt").await.unwrap();
    assert_eq!(String::from_utf8(seed).unwrap(), USER_DATA);
    let failed = server.exec(&["systemctl", "list-units", "--failed", "--plain", "--no-legend"]);
    assert_eq!(failed.await.unwrap(), "");
    // What every machine has to make for itself.
    let machine_id = server.exec(&["cat", "/etc/machine-id"]).await.unwrap();
    assert_eq!(machine_id.len(), 32, "{machine_id}");
    server.exec(&["test", "-e", "/etc/ssh/ssh_host_ed25519_key"]).await.unwrap();
    stage.delete(&server).await;
}

pub(crate) async fn a_package_is_installed_from_the_mirror_while_it_boots(stage: Arc<Stage>) {
    let server = stage.booted("packages", "#cloud-config\npackages: [tree]\n").await;
    server.exec(&["tree", "--version"]).await.unwrap();
    stage.delete(&server).await;
}

pub(crate) async fn a_reboot_keeps_the_disk_and_forgets_the_rules_of_the_network(
    stage: Arc<Stage>,
) {
    let server = stage.booted("reboot", USER_DATA).await;
    let boot_id = server.exec(&["cat", "/etc/machine-id"]).await.unwrap();
    server.write("/root/kept", "kept").await.unwrap();
    server.exec(&["rm", "/var/lib/ran"]).await.unwrap();
    server.exec(&["nft", "add", "table", "inet", "forgotten"]).await.unwrap();
    // From the inside, as an upgrade does.
    server.run(&["systemctl", "reboot"]).await.unwrap();
    up(&server, 2).await;
    assert_eq!(server.read("/root/kept").await.unwrap(), b"kept");
    assert_eq!(server.exec(&["cat", "/etc/machine-id"]).await.unwrap(), boot_id);
    assert!(!server.exec(&["nft", "list", "tables"]).await.unwrap().contains("forgotten"));
    // From the outside, as the API's button does.
    stage.press(&server, "reboot", json!({})).await;
    up(&server, 3).await;
    assert_eq!(server.read("/root/kept").await.unwrap(), b"kept");
    // It is the same instance, so runcmd does not run again.
    assert!(!server.run(&["test", "-e", "/var/lib/ran"]).await.unwrap().succeeded());
    stage.delete(&server).await;
}

pub(crate) async fn power_off_and_on_keep_the_disk(stage: Arc<Stage>) {
    let server = stage.booted("power", USER_DATA).await;
    server.write("/root/kept", "kept").await.unwrap();
    let mut starts = 1;
    for off in ["shutdown", "poweroff"] {
        stage.press(&server, off, json!({})).await;
        server.wait_off(PATIENCE).await.unwrap();
        assert!(server.run(&["true"]).await.is_err(), "nothing runs in a server that is off");
        starts += 1;
        // The API tells of "off" some milliseconds later than it is so.
        moorage_testbed::wait_until("another start", PATIENCE, || async {
            stage.press(&server, "poweron", json!({})).await;
            let seen = server.state().await.map_err(|error| error.to_string())?;
            if seen.starts == starts { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await
        .unwrap();
        up(&server, starts).await;
        assert_eq!(server.read("/root/kept").await.unwrap(), b"kept");
    }
    // Shutting down is orderly: the journal says that the system powered off.
    let argv = ["journalctl", "--no-pager", "--output=cat", "--boot=-2", "--unit=poweroff.target"];
    let journal = server.exec(&argv).await.unwrap();
    assert!(journal.contains("poweroff.target"), "{journal}");
    // A machine that powers itself off is off.
    server.run(&["systemctl", "poweroff"]).await.unwrap();
    server.wait_off(PATIENCE).await.unwrap();
    stage.delete(&server).await;
}

pub(crate) async fn a_rebuild_wipes_the_disk_and_applies_the_new_user_data(stage: Arc<Stage>) {
    let server = stage.booted("rebuild", USER_DATA).await;
    server.write("/root/kept", "kept").await.unwrap();
    let key = server.read("/etc/ssh/ssh_host_ed25519_key.pub").await.unwrap();
    let user_data = "#cloud-config\nwrite_files: [{path: /etc/second, content: second}]\n";
    let rebuild = json!({"image": "debian-13", "user_data": user_data});
    stage.press(&server, "rebuild", rebuild).await;
    up(&server, 2).await;
    assert_eq!(server.read("/etc/second").await.unwrap(), b"second");
    for gone in ["/root/kept", "/etc/tenant.conf", "/var/lib/ran"] {
        assert!(!server.run(&["test", "-e", gone]).await.unwrap().succeeded(), "{gone}");
    }
    assert_ne!(server.read("/etc/ssh/ssh_host_ed25519_key.pub").await.unwrap(), key);
    stage.delete(&server).await;
}

pub(crate) async fn the_disk_has_its_size_and_can_be_full(stage: Arc<Stage>) {
    let server = stage.booted("full", "").await;
    let size = server.exec(&["df", "--output=size", "--block-size=1M", "/"]).await.unwrap();
    let size: u64 = size.lines().last().unwrap().trim().parse().unwrap();
    assert!((1500..=2048).contains(&size), "{size} MB");
    let filler = server.fill_disk().await.unwrap();
    let refused = server.write("/root/more", &"x".repeat(1 << 20)).await.unwrap_err().to_string();
    assert!(refused.contains("No space left"), "{refused}");
    server.exec(&["rm", filler]).await.unwrap();
    server.write("/root/more", "fits").await.unwrap();
    stage.delete(&server).await;
}

pub(crate) async fn programs_run_inside_as_root_and_as_a_user(stage: Arc<Stage>) {
    let server = stage.booted("inside", USER_DATA).await;
    assert_eq!(server.exec(&["id", "-un"]).await.unwrap(), "root");
    let id = server.run_as(Some("tenant"), &["id"], "").await.unwrap().text();
    assert!(id.contains("(tenant)") && !id.contains("root"), "{id}");
    let refused = server.run_as(Some("tenant"), &["cat", "/etc/shadow"], "").await.unwrap();
    assert!(!refused.succeeded());
    let echoed = server.run_as(None, &["cat"], "input").await.unwrap();
    assert_eq!(echoed.text(), "input");
    // A unit is killed and its journal read.
    let first = server.unit("ssh.service", &["MainPID"]).await.unwrap()["MainPID"].clone();
    server.kill_unit("ssh.service").await.unwrap();
    moorage_testbed::wait_until("another sshd", PATIENCE, || async {
        let unit = server.unit("ssh.service", &["MainPID", "ActiveState"]).await;
        let unit = unit.map_err(|error| error.to_string())?;
        let another = unit["ActiveState"] == "active" && unit["MainPID"] != first;
        if another { Ok(()) } else { Err(format!("{unit:?}")) }
    })
    .await
    .unwrap();
    let journal = server.journal(Some("ssh.service")).await.unwrap();
    assert!(journal.contains("status=9/KILL"), "{journal}");
    stage.delete(&server).await;
}
