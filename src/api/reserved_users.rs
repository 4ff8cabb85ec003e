//! Names that a pool's SSH user cannot have, since Debian or the server itself has them: cloud-init does
//! not make a user that is there, but gives it the rights all the same. A name that only a group has
//! cannot be made at all.

/// Users and groups of Debian and of the packages that servers have.
const NAMES: &[&str] = &[
    "adm",
    "audio",
    "backup",
    "bin",
    "cdrom",
    "clock",
    "cloudflared",
    "crontab",
    "daemon",
    "dhcpcd",
    "dialout",
    "dip",
    "disk",
    "fax",
    "floppy",
    "games",
    "input",
    "irc",
    "kmem",
    "kvm",
    "list",
    "lp",
    "mail",
    "man",
    "messagebus",
    "netdev",
    "news",
    "nobody",
    "nogroup",
    "openclaw",
    "operator",
    "plugdev",
    "polkitd",
    "proxy",
    "render",
    "root",
    "sasl",
    "sgx",
    "shadow",
    "src",
    "sshd",
    "staff",
    "sudo",
    "sync",
    "sys",
    "syslog",
    "tape",
    "tcpdump",
    "tty",
    "users",
    "utmp",
    "uucp",
    "uuidd",
    "video",
    "voice",
    "www-data",
    "_apt",
    "_chrony",
    "_ssh",
];
/// How other such names begin.
const BEGINNINGS: &[&str] = &["moorage", "systemd-"];

/// Whether the name is the system's.
pub(crate) fn is_reserved(name: &str) -> bool {
    NAMES.contains(&name) || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
}

/// The same as a rule of the CRD.
pub(super) fn rule() -> String {
    let names: Vec<_> = NAMES.iter().map(|name| format!("'{name}'")).collect();
    let begins = BEGINNINGS.iter().map(|beginning| format!(" && !self.startsWith('{beginning}')"));
    format!("!(self in [{}]){}", names.join(", "), begins.collect::<String>())
}
