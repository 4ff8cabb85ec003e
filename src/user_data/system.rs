//! Packages and settings of the machine: what a careful administrator would do to a stock Debian 13.
//! The settings are files without a value in them.

use serde::Serialize;

use super::{
    bundle::Bundle,
    cloud_config::{WriteFile, json},
    ssh::{STOPPED, UNWANTED_SOCKETS},
};

/// What the first boot does to packages and units.
pub(super) const MACHINE_PATH: &str = "/etc/moorage/machine.json";

const PACKAGES: &[&str] = &[
    "ca-certificates",
    "curl",
    "dbus",
    "nftables",
    "python3-systemd",
    "systemd-timesyncd",
    "unattended-upgrades",
];
/// On top, if sshd runs.
const SSH_PACKAGES: &[&str] = &["fail2ban", "openssh-server"];
/// What gives root's powers to people. It is part of stock images.
const PEOPLE_PACKAGES: &[&str] = &["sudo"];
/// What listens, or waits for mail that nobody reads.
const UNWANTED: &[&str] = &[
    "avahi-daemon",
    "bind9",
    "cups-daemon",
    "exim4-base",
    "exim4-daemon-light",
    "nfs-common",
    "postfix",
    "rpcbind",
    "telnetd",
    "xinetd",
];
/// What reads its settings again, if it runs.
const RESTARTED: &[&str] =
    &["systemd-sysctl.service", "systemd-journald.service", "systemd-resolved.service"];
const ENABLED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "moorage-reboot.timer",
    "systemd-timesyncd.service",
    "unattended-upgrades.service",
];

const SETTINGS: &[(&str, &str)] = &[
    ("/etc/sysctl.d/90-moorage.conf", include_str!("files/sysctl.conf")),
    ("/etc/modprobe.d/moorage.conf", include_str!("files/modprobe.conf")),
    ("/etc/systemd/journald.conf.d/90-moorage.conf", include_str!("files/journald.conf")),
    ("/etc/systemd/resolved.conf.d/90-moorage.conf", include_str!("files/resolved.conf")),
    ("/etc/systemd/system.conf.d/90-moorage.conf", include_str!("files/manager.conf")),
    ("/etc/security/limits.d/90-moorage.conf", include_str!("files/limits.conf")),
    ("/etc/apt/apt.conf.d/90moorage", include_str!("files/apt.conf")),
    (
        "/etc/systemd/system/apt-daily.timer.d/moorage.conf",
        include_str!("files/apt-update-timer.conf"),
    ),
    (
        "/etc/systemd/system/apt-daily-upgrade.timer.d/moorage.conf",
        include_str!("files/apt-upgrade-timer.conf"),
    ),
    (
        "/etc/systemd/system/apt-daily-upgrade.service.d/moorage.conf",
        include_str!("files/apt-upgrade-service.conf"),
    ),
];

/// What the script reads.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Machine {
    packages: Vec<&'static str>,
    unwanted_packages: Vec<&'static str>,
    stop: Vec<&'static str>,
    restart: Vec<&'static str>,
    enable: Vec<&'static str>,
}

pub(super) fn constants(bundle: &mut Bundle) {
    for (path, content) in SETTINGS {
        bundle.add(*path, *content);
    }
}

/// What the first boot does, on a machine with or without sshd.
pub(super) fn machine(ssh: bool) -> WriteFile {
    let mut machine = Machine {
        packages: PACKAGES.to_vec(),
        unwanted_packages: UNWANTED.to_vec(),
        stop: UNWANTED_SOCKETS.to_vec(),
        restart: RESTARTED.to_vec(),
        enable: ENABLED.to_vec(),
    };
    if ssh {
        machine.packages.extend(SSH_PACKAGES);
        machine.packages.extend(PEOPLE_PACKAGES);
        machine.restart.extend(["ssh.service", "fail2ban.service"]);
        machine.enable.extend(["ssh.service", "fail2ban.service"]);
    } else {
        machine.unwanted_packages.extend(PEOPLE_PACKAGES);
        machine.stop.extend(STOPPED);
    }
    WriteFile::value(MACHINE_PATH, json(&machine))
}
