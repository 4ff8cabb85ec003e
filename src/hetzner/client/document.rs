//! The documents around the objects: what wraps an answer, and the bodies of requests.

use serde::{Deserialize, Serialize};

use crate::hetzner::{
    Action, CreateServer, Firewall, FirewallId, Labels, Server, SshKey, SshKeyId,
};

/// The most entries that Hetzner puts on a page.
pub(super) const PER_PAGE: usize = 50;

#[derive(Default, Deserialize)]
pub(super) struct Meta {
    #[serde(default)]
    pub(super) pagination: Option<Pagination>,
}

#[derive(Default, Deserialize)]
pub(super) struct Pagination {
    #[serde(default)]
    pub(super) next_page: Option<u64>,
    #[serde(default)]
    pub(super) last_page: Option<u64>,
    #[serde(default)]
    pub(super) total_entries: Option<u64>,
}

impl Pagination {
    /// Every field can be null. Then a full page means that there may be another.
    pub(super) fn next(&self, page: u64, entries: usize) -> Option<u64> {
        match (self.next_page, self.last_page) {
            (Some(next), _) => Some(next),
            (None, Some(last)) => (page < last).then_some(page + 1),
            (None, None) => (entries >= PER_PAGE).then_some(page + 1),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct ServerDocument {
    pub(super) server: Server,
}

#[derive(Deserialize)]
pub(super) struct ActionDocument {
    #[serde(default)]
    pub(super) action: Option<Action>,
}

#[derive(Deserialize)]
pub(super) struct ActionsDocument {
    #[serde(default)]
    pub(super) actions: Vec<Action>,
}

#[derive(Deserialize)]
pub(super) struct FirewallDocument {
    pub(super) firewall: Firewall,
}

#[derive(Deserialize)]
pub(super) struct SshKeyDocument {
    pub(super) ssh_key: SshKey,
}

/// The body of `POST /servers`. `datacenter` is never sent: Hetzner has removed it.
#[derive(Serialize)]
pub(super) struct CreateServerBody<'a> {
    name: &'a str,
    server_type: &'a str,
    image: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<&'a str>,
    labels: &'a Labels,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    ssh_keys: &'a [SshKeyId],
    user_data: &'a str,
    firewalls: Vec<FirewallReference>,
    public_net: PublicNetBody,
    start_after_create: bool,
}

#[derive(Serialize)]
pub(super) struct FirewallReference {
    firewall: FirewallId,
}

#[derive(Serialize)]
pub(super) struct PublicNetBody {
    enable_ipv4: bool,
    enable_ipv6: bool,
}

impl<'a> From<&'a CreateServer> for CreateServerBody<'a> {
    fn from(server: &'a CreateServer) -> Self {
        Self {
            name: &server.name,
            server_type: &server.server_type,
            image: &server.image,
            location: server.location.as_deref(),
            labels: &server.labels,
            ssh_keys: &server.ssh_keys,
            user_data: server.user_data.expose_secret(),
            firewalls: server
                .firewalls
                .iter()
                .map(|&firewall| FirewallReference { firewall })
                .collect(),
            public_net: PublicNetBody {
                enable_ipv4: server.enable_ipv4,
                enable_ipv6: server.enable_ipv6,
            },
            start_after_create: true,
        }
    }
}
