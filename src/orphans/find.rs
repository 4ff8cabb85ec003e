//! Everything in a pool's clouds that carries an installation's id, by labels, names and comments; and
//! the removal of one of these, which looks at it once more first. Nothing else is ever touched.

use moorage_wire::InstallationId;

use super::{Found, FoundOwner};
use crate::{
    api::{label, pool::OrphanKind},
    cloud::{CloudError, Priority},
    cloudflare::{
        AccessAppId, AccessPolicyId, CloudflareApi, DnsBatch, DnsRecord, RecordId, ServiceTokenId,
        Tunnel, TunnelId, ZoneId,
    },
    hetzner::{
        FirewallId, HetznerApi, LabelSelector, Labels, Server, ServerId, ServerType, SshKeyId,
    },
    names,
    ownership::{Mark, Marked},
};

/// Where to look.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// A Hetzner project.
    pub hetzner: &'a dyn HetznerApi,
    /// A Cloudflare account.
    pub cloudflare: &'a dyn CloudflareApi,
    /// A zone of it.
    pub zone: &'a ZoneId,
    /// Whose things.
    pub installation: InstallationId,
}

impl Place<'_> {
    /// Servers, tunnels and DNS records.
    pub async fn of_instances(&self, priority: Priority) -> Result<Vec<Found>, CloudError> {
        let prefix = names::tunnel_prefix(self.installation);
        let servers = self.hetzner.list_servers(priority, &self.selector()).await?;
        let tunnels = self.cloudflare.list_tunnels(priority, &prefix).await?;
        let records = self.cloudflare.list_dns_records(priority, self.zone, "").await?;
        Ok(self.instances(&servers, &tunnels, &records))
    }

    /// The same, of what was listed before.
    pub fn instances(
        &self,
        servers: &[Server],
        tunnels: &[Tunnel],
        records: &[DnsRecord],
    ) -> Vec<Found> {
        let servers = servers.iter().filter_map(|server| self.server(server));
        let found = tunnels.iter().filter_map(|tunnel| self.tunnel(tunnel));
        let records = records.iter().filter_map(|record| self.record(record, tunnels));
        servers.chain(found).chain(records).collect()
    }

    /// What belongs to pools: firewalls, SSH keys and Access objects.
    pub async fn of_pools(&self, priority: Priority) -> Result<Vec<Found>, CloudError> {
        let mut found = Vec::new();
        for firewall in self.hetzner.list_firewalls(priority, &self.selector()).await? {
            let (id, owner) = (firewall.id.to_string(), self.labelled(&firewall.labels));
            found.extend(pools(OrphanKind::Firewall, id, firewall.name, owner));
        }
        for key in self.hetzner.list_ssh_keys(priority, &self.selector()).await? {
            let (id, owner) = (key.id.to_string(), self.labelled(&key.labels));
            found.extend(pools(OrphanKind::SshKey, id, key.name, owner));
        }
        for app in self.cloudflare.list_access_apps(priority).await? {
            let owner = self.named(&app.name);
            found.extend(pools(OrphanKind::AccessApplication, app.id.to_string(), app.name, owner));
        }
        for policy in self.cloudflare.list_access_policies(priority).await? {
            let (id, owner) = (policy.id.to_string(), self.named(&policy.name));
            found.extend(pools(OrphanKind::AccessPolicy, id, policy.name, owner));
        }
        for token in self.cloudflare.list_service_tokens(priority).await? {
            let (id, owner) = (token.id.to_string(), self.named(&token.name));
            found.extend(pools(OrphanKind::ServiceToken, id, token.name, owner));
        }
        Ok(found)
    }

    /// Removes one thing, if it still is what was found; says whether it was there.
    pub async fn remove(&self, one: &Found) -> Result<bool, CloudError> {
        if self.look_again(one).await?.as_ref().is_none_or(|now| now.owner != one.owner) {
            return Ok(false);
        }
        match one.kind {
            OrphanKind::Server => {
                let Some(id) = number(&one.id) else { return Ok(false) };
                self.hetzner.delete_server(ServerId(id)).await?;
            }
            OrphanKind::Firewall => {
                let Some(id) = number(&one.id) else { return Ok(false) };
                self.hetzner.delete_firewall(FirewallId(id)).await?;
            }
            OrphanKind::SshKey => {
                let Some(id) = number(&one.id) else { return Ok(false) };
                self.hetzner.delete_ssh_key(SshKeyId(id)).await?;
            }
            OrphanKind::Tunnel => {
                let Ok(id) = TunnelId::parse(&one.id) else { return Ok(false) };
                self.cloudflare.delete_tunnel_connections(&id).await?;
                self.cloudflare.delete_tunnel(&id).await?;
            }
            OrphanKind::DnsRecord => {
                let Ok(id) = RecordId::parse(&one.id) else { return Ok(false) };
                let batch = DnsBatch { deletes: vec![id], ..DnsBatch::default() };
                self.cloudflare.dns_batch(self.zone, &batch).await?;
            }
            OrphanKind::AccessApplication => {
                let Ok(id) = AccessAppId::parse(&one.id) else { return Ok(false) };
                self.cloudflare.delete_access_app(&id).await?;
            }
            OrphanKind::AccessPolicy => {
                let Ok(id) = AccessPolicyId::parse(&one.id) else { return Ok(false) };
                self.cloudflare.delete_access_policy(&id).await?;
            }
            OrphanKind::ServiceToken => {
                let Ok(id) = ServiceTokenId::parse(&one.id) else { return Ok(false) };
                self.cloudflare.delete_service_token(&id).await?;
            }
        }
        Ok(true)
    }

    /// The thing as it is now.
    async fn look_again(&self, one: &Found) -> Result<Option<Found>, CloudError> {
        let priority = Priority::Delete;
        match one.kind {
            OrphanKind::Server => {
                let Some(id) = number(&one.id) else { return Ok(None) };
                let server = self.hetzner.get_server(priority, ServerId(id)).await?;
                Ok(server.and_then(|server| self.server(&server)))
            }
            OrphanKind::Tunnel => {
                let Ok(id) = TunnelId::parse(&one.id) else { return Ok(None) };
                let tunnel = self.cloudflare.get_tunnel(priority, &id).await?;
                Ok(tunnel.and_then(|tunnel| self.tunnel(&tunnel)))
            }
            OrphanKind::DnsRecord => {
                let named = self
                    .cloudflare
                    .find_dns_records_by_name(priority, self.zone, &one.name)
                    .await?;
                let record = named.iter().find(|record| record.id.as_str() == one.id);
                // Without our comment it may have been taken over by somebody since.
                Ok(record.and_then(|record| self.record(record, &[])))
            }
            OrphanKind::Firewall
            | OrphanKind::SshKey
            | OrphanKind::AccessApplication
            | OrphanKind::AccessPolicy
            | OrphanKind::ServiceToken => {
                let all = self.of_pools(priority).await?;
                Ok(all.into_iter().find(|now| now.kind == one.kind && now.id == one.id))
            }
        }
    }

    fn selector(&self) -> LabelSelector {
        let installation = self.installation.to_string();
        LabelSelector::all_of([(label::INSTALLATION, installation.as_str())])
    }

    fn server(&self, server: &Server) -> Option<Found> {
        let kind = Some(server.server_type.name.clone());
        let found = self.marked(OrphanKind::Server, server.mark()?, &server.id.to_string())?;
        let (name, created) = (server.name.clone(), Some(server.created));
        Some(Found { name, created, server_type: kind, ..found })
    }

    fn tunnel(&self, tunnel: &Tunnel) -> Option<Found> {
        let found = self.marked(OrphanKind::Tunnel, tunnel.mark()?, tunnel.id.as_str())?;
        Some(Found { name: tunnel.name.clone(), created: tunnel.created_at, ..found })
    }

    /// A record is ours by its comment, or by leading to a tunnel that is.
    fn record(&self, record: &DnsRecord, tunnels: &[Tunnel]) -> Option<Found> {
        let leads_to =
            |tunnel: &&Tunnel| record.content.as_deref() == Some(&tunnel.id.dns_target());
        let by_tunnel = || tunnels.iter().find(leads_to).and_then(Marked::mark);
        let mark = record.mark().or_else(by_tunnel)?;
        let found = self.marked(OrphanKind::DnsRecord, mark, record.id.as_str())?;
        Some(Found { name: record.name.clone(), ..found })
    }

    fn marked(&self, kind: OrphanKind, mark: Mark, id: &str) -> Option<Found> {
        let owner = match mark {
            Mark::Live(tag) if tag.installation == self.installation => FoundOwner::Instance {
                id: tag.instance,
                place: tag.place.as_ref().and_then(|place| {
                    let (namespace, name) = place.parts()?;
                    Some((namespace.to_owned(), name.to_owned()))
                }),
            },
            Mark::Retained { tag: Some(tag), .. } if tag.installation == self.installation => {
                FoundOwner::Retained
            }
            Mark::Live(_) | Mark::Retained { .. } => return None,
        };
        let (id, name) = (id.to_owned(), String::new());
        let (created, server_type, monthly_cost) = (None, None, None);
        Some(Found { kind, id, name, owner, created, server_type, monthly_cost })
    }

    fn labelled(&self, labels: &Labels) -> Option<String> {
        let ours = labels.get(label::INSTALLATION)? == &self.installation.to_string();
        labels.get(label::POOL).filter(|_| ours).cloned()
    }

    /// The pool in the name of an Access object, which has no labels.
    fn named(&self, name: &str) -> Option<String> {
        let rest = name.strip_prefix("moorage-")?;
        let pool = rest.strip_suffix(&format!("-{}", self.installation))?;
        (!pool.is_empty()).then(|| pool.to_owned())
    }
}

fn pools(kind: OrphanKind, id: String, name: String, pool: Option<String>) -> Option<Found> {
    let owner = FoundOwner::Pool(pool?);
    let (created, server_type, monthly_cost) = (None, None, None);
    Some(Found { kind, id, name, owner, created, server_type, monthly_cost })
}

fn number(id: &str) -> Option<u64> {
    id.parse().ok()
}

/// Adds what the servers cost a month, as the catalogue has it.
pub fn price(found: &mut [Found], servers: &[Server], catalogue: &[ServerType]) {
    for one in found.iter_mut().filter(|one| one.kind == OrphanKind::Server) {
        let server = servers.iter().find(|server| server.id.to_string() == one.id);
        let location = server.and_then(|server| server.location.as_ref());
        let kind = catalogue.iter().find(|kind| Some(&kind.name) == one.server_type.as_ref());
        one.monthly_cost = kind.zip(location).and_then(|(kind, location)| {
            let price = kind.prices.iter().find(|price| price.location == location.name)?;
            Some(price.price_monthly.gross.clone())
        });
    }
}
