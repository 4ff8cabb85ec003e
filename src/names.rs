//! The names and labels that tie a cloud object to its instance. They are read back by
//! [`crate::ownership`] alone: a name never proves ownership, the ids in it do.

use std::{collections::BTreeMap, fmt::Display};

use moorage_wire::{Epoch, InstallationId, InstanceId, Sha256};

use crate::{
    api::label,
    cloudflare::{DnsRecord, MAX_COMMENT_CHARS, TunnelId},
    hetzner::{Labels, Server},
};

/// What the names of all tunnels begin with, whichever installation's.
pub const TUNNEL_PREFIX: &str = "moorage-";
/// What follows the ids in the name of a tunnel that was left behind on purpose.
pub const RETAINED: &str = "retained-";
/// What the comments of DNS records begin with, before the ids.
pub const COMMENT: &str = "moorage ";
/// The same of records that were left behind on purpose.
pub const RETAINED_COMMENT: &str = "moorage-retained ";
/// The same as versions before this one wrote it: without ids.
pub const RETAINED_COMMENT_OF_OLD: &str = "retained by moorage for ";

/// What all tunnels of this installation begin with.
pub fn tunnel_prefix(installation: InstallationId) -> String {
    format!("{TUNNEL_PREFIX}{installation}-")
}

/// The name of an instance's tunnel.
pub fn tunnel(installation: InstallationId, instance: InstanceId) -> String {
    format!("{}{instance}", tunnel_prefix(installation))
}

/// The name of a tunnel that its instance left behind: another instance of the same name may need the
/// one that it had, and may leave one behind as well.
pub fn retained_tunnel(
    installation: InstallationId,
    instance: InstanceId,
    tunnel: &TunnelId,
) -> String {
    let tail: String = tunnel.as_str().chars().take(8).collect();
    format!("{}-{RETAINED}{tail}", self::tunnel(installation, instance))
}

/// The name of an instance's server: readable first, unique by its tail.
pub fn server(hostname: &str, instance: InstanceId) -> String {
    let id = instance.to_string();
    // A server's name is one DNS label of at most 63 characters.
    let room = 63 - 9;
    let readable: String = hostname.chars().take(room).collect();
    format!("{readable}-{}", &id[..8])
}

/// The host names of an instance: dashboard, then management API.
pub fn hosts(hostname: &str, domain: &str) -> [String; 2] {
    [format!("{hostname}.{domain}"), format!("{hostname}-mgmt.{domain}")]
}

/// The comment on an instance's DNS records, within Cloudflare's 100 characters. The ids come first;
/// namespace and name are for people and may be cut.
pub fn record_comment(
    installation: InstallationId,
    instance: InstanceId,
    namespace: &str,
    name: &str,
) -> String {
    cut(&format!("{COMMENT}{installation} {instance} {namespace}/{name}"))
}

/// The comment on DNS records that their instance left behind.
pub fn retained_comment(
    installation: InstallationId,
    instance: InstanceId,
    namespace: &str,
    name: &str,
) -> String {
    cut(&format!("{RETAINED_COMMENT}{installation} {instance} {namespace}/{name}"))
}

/// What the comments of the DNS records of pools begin with, before the installation and the pool.
pub const POOL_COMMENT: &str = "moorage-pool ";

/// The comment on a pool's own DNS record.
pub fn pool_comment(installation: impl Display, pool: &str) -> String {
    cut(&format!("{POOL_COMMENT}{installation} {pool}"))
}

/// The pool that a record says it is of, if it is one of this installation.
pub fn pool_of_record(record: &DnsRecord, installation: InstallationId) -> Option<String> {
    let rest = record.comment.as_deref()?.strip_prefix(POOL_COMMENT)?;
    let mut words = rest.split(' ');
    let ours = words.next()?.parse() == Ok(installation);
    words.next().filter(|pool| ours && !pool.is_empty()).map(str::to_owned)
}

/// The host name of a pool's own DNS record: one label, whatever the pool is called.
pub fn pool_host(installation: impl Display, pool: &str, domain: &str) -> String {
    let digest = Sha256::of(pool.as_bytes()).to_string();
    format!("moorage-{installation}-{}.{domain}", &digest[..8])
}

fn cut(comment: &str) -> String {
    comment.chars().take(MAX_COMMENT_CHARS).collect()
}

/// All that identifies an instance's server.
pub struct ServerIdentity<'a> {
    pub installation: InstallationId,
    pub instance: InstanceId,
    /// The life of the server.
    pub epoch: Epoch,
    /// Namespace of the instance.
    pub namespace: &'a str,
    /// Name of the instance.
    pub name: &'a str,
    /// Name of the pool.
    pub pool: &'a str,
}

impl ServerIdentity<'_> {
    /// The labels that the server is made with.
    pub fn labels(&self) -> Labels {
        BTreeMap::from([
            (label::INSTALLATION.to_owned(), self.installation.to_string()),
            (label::INSTANCE.to_owned(), self.instance.to_string()),
            (label::EPOCH.to_owned(), self.epoch.to_string()),
            (label::NAMESPACE.to_owned(), self.namespace.to_owned()),
            (label::NAME.to_owned(), self.name.to_owned()),
            (label::POOL.to_owned(), self.pool.to_owned()),
        ])
    }
}

/// The epoch on a server's labels.
pub fn epoch(server: &Server) -> Option<Epoch> {
    server.labels.get(label::EPOCH)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSTALLATION: InstallationId = InstallationId::from_bytes([1; 8]);
    const INSTANCE: InstanceId = InstanceId::from_bytes([2; 16]);

    #[test]
    fn every_name_fits_into_the_limits_of_its_cloud() {
        let long = "a".repeat(253);
        assert!(server(&"h".repeat(58), INSTANCE).len() <= 63);
        assert!(tunnel(INSTALLATION, INSTANCE).len() <= 100);
        let id = TunnelId::parse("6ff42ae2-765d-4adf-8112-31c55c1551ef").unwrap();
        assert!(retained_tunnel(INSTALLATION, INSTANCE, &id).len() <= 100);
        assert!(record_comment(INSTALLATION, INSTANCE, &long, &long).chars().count() <= 100);
        assert!(pool_comment(INSTALLATION, &"p".repeat(63)).ends_with(&"p".repeat(63)));
        assert!(pool_host(INSTALLATION, &"p".repeat(63), "").len() <= 64);
        assert!(retained_comment(INSTALLATION, INSTANCE, &long, &long).chars().count() <= 100);
    }
}
