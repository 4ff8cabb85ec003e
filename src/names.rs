//! The names and labels that tie a cloud object to its instance, and how they are read back. A name
//! alone never proves ownership: the random ids in it do.

use std::collections::BTreeMap;

use moorage_wire::{Epoch, InstallationId, InstanceId};

use crate::{
    api::label,
    cloudflare::{DnsRecord, MAX_COMMENT_CHARS, Tunnel},
    hetzner::{Labels, Server},
};

/// What all tunnels of this installation begin with.
pub fn tunnel_prefix(installation: InstallationId) -> String {
    format!("moorage-{installation}-")
}

/// The name of an instance's tunnel.
pub fn tunnel(installation: InstallationId, instance: InstanceId) -> String {
    format!("{}{instance}", tunnel_prefix(installation))
}

/// The name of an instance's server: readable first, unique by its tail.
pub fn server(hostname: &str, instance: InstanceId) -> String {
    let id = instance.to_string();
    // A server's name is one DNS label of at most 63 characters.
    let room = 63 - 9;
    format!("{}-{}", &hostname[..hostname.len().min(room)], &id[..8])
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
    let full = format!("moorage {installation} {instance} {namespace}/{name}");
    full.chars().take(MAX_COMMENT_CHARS).collect()
}

/// All that identifies an instance's server.
pub struct ServerIdentity<'a> {
    /// This installation.
    pub installation: InstallationId,
    /// The instance.
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

/// A cloud object that says whose it is.
pub trait OwnedName {
    /// The instance that it belongs to, if it belongs to this installation and was not let go.
    fn owner(&self, installation: InstallationId) -> Option<InstanceId>;
}

impl OwnedName for Server {
    fn owner(&self, installation: InstallationId) -> Option<InstanceId> {
        let ours = self.labels.get(label::INSTALLATION)? == &installation.to_string();
        let kept = !self.labels.contains_key(label::RETAINED);
        self.labels.get(label::INSTANCE)?.parse().ok().filter(|_| ours && kept)
    }
}

impl OwnedName for Tunnel {
    fn owner(&self, installation: InstallationId) -> Option<InstanceId> {
        let live = self.deleted_at.is_none();
        let id = self.name.strip_prefix(&tunnel_prefix(installation))?;
        id.parse().ok().filter(|_| live)
    }
}

impl OwnedName for DnsRecord {
    fn owner(&self, installation: InstallationId) -> Option<InstanceId> {
        let mut words = self.comment.as_deref()?.split(' ');
        let ours = words.next() == Some("moorage") && words.next()? == installation.to_string();
        words.next()?.parse().ok().filter(|_| ours)
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
        assert!(record_comment(INSTALLATION, INSTANCE, &long, &long).chars().count() <= 100);
    }

    fn record(comment: &str) -> DnsRecord {
        serde_json::from_value(serde_json::json!({
            "id": "r1", "name": "ada.example.com", "type": "CNAME", "comment": comment,
        }))
        .unwrap()
    }

    #[test]
    fn a_record_is_ours_by_the_ids_in_its_comment_only() {
        let comment = record_comment(INSTALLATION, INSTANCE, "tenants", "ada");
        assert_eq!(record(&comment).owner(INSTALLATION), Some(INSTANCE));
        let elsewhere = InstallationId::from_bytes([9; 8]);
        for foreign in
            [&record_comment(elsewhere, INSTANCE, "tenants", "ada"), "moorage", "by hand", ""]
        {
            assert_eq!(record(foreign).owner(INSTALLATION), None, "{foreign}");
        }
    }
}
