//! Everything in a pool's clouds that carries an installation's id, by labels, names and comments; and
//! the removal of one of these, which looks at it once more first. Nothing else is ever touched.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use moorage_wire::{InstallationId, InstanceId};

use super::{Found, FoundOwner};
use crate::{
    api::{label, pool::OrphanKind},
    cloud::{CloudError, Priority},
    cloudflare::{
        AccessAppId, AccessPolicyId, CloudflareApi, DnsBatch, DnsRecord, RecordId, ServiceTokenId,
        Tunnel, TunnelId, ZoneId,
    },
    hetzner::{
        FirewallId, HetznerApi, LabelSelector, Labels, Server, ServerId, ServerStatus, ServerType,
        SshKeyId,
    },
    names,
    ownership::{Mark, Marked},
};

/// The clouds of a pool, and the installation whose objects are looked for.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub hetzner: &'a dyn HetznerApi,
    pub cloudflare: &'a dyn CloudflareApi,
    pub zone: &'a ZoneId,
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
        let mut found: Vec<_> = servers.iter().filter_map(|server| self.server(server)).collect();
        let tunnels = tunnels.iter().filter_map(|one| Some((one.id.clone(), self.tunnel(one)?)));
        let mut tunnels: HashMap<_, _> = tunnels.collect();
        let kept = RetainedServers::of(&found, tunnels.values());
        for tunnel in tunnels.values_mut() {
            tunnel.retained |= kept.may_have(tunnel);
        }
        let with_tunnel = |record: &DnsRecord| {
            let found = self.record(record, &tunnels)?;
            let tunnel = record.content.as_deref().and_then(TunnelId::of_dns_target);
            let tunnel = tunnel.and_then(|tunnel| tunnels.get(&tunnel));
            let of_one = tunnel.filter(|tunnel| found.instance() == tunnel.instance());
            let retained = found.retained || of_one.is_some_and(|tunnel| tunnel.retained);
            Some(Found { retained, ..found })
        };
        let records: Vec<_> = records.iter().filter_map(with_tunnel).collect();
        found.extend(records);
        found.extend(tunnels.into_values());
        say_places(&mut found);
        found
    }

    /// What belongs to pools: firewalls, SSH keys and Access objects.
    pub async fn of_pools(&self, priority: Priority) -> Result<Vec<Found>, CloudError> {
        let mut found = Vec::new();
        for firewall in self.hetzner.list_firewalls(priority, &self.selector()).await? {
            let (id, owner) = (firewall.id.to_string(), self.labelled(&firewall.labels));
            found.extend(of_pool(OrphanKind::Firewall, id, firewall.name, owner));
        }
        for key in self.hetzner.list_ssh_keys(priority, &self.selector()).await? {
            let (id, owner) = (key.id.to_string(), self.labelled(&key.labels));
            found.extend(of_pool(OrphanKind::SshKey, id, key.name, owner));
        }
        for app in self.cloudflare.list_access_apps(priority).await? {
            let owner = self.named(&app.name);
            found.extend(of_pool(
                OrphanKind::AccessApplication,
                app.id.to_string(),
                app.name,
                owner,
            ));
        }
        for policy in self.cloudflare.list_access_policies(priority).await? {
            let (id, owner) = (policy.id.to_string(), self.named(&policy.name));
            found.extend(of_pool(OrphanKind::AccessPolicy, id, policy.name, owner));
        }
        for token in self.cloudflare.list_service_tokens(priority).await? {
            let (id, owner) = (token.id.to_string(), self.named(&token.name));
            found.extend(of_pool(OrphanKind::ServiceToken, id, token.name, owner));
        }
        Ok(found)
    }

    /// Removes one thing, if it still is what was found; says whether it was there.
    pub async fn remove(&self, one: &Found) -> Result<bool, CloudError> {
        let now = self.look_again(one).await?;
        let same = |now: &Found| one.owner.agrees(&now.owner) && (one.retained || !now.retained);
        if !now.as_ref().is_some_and(same) {
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
                let Some(record) = named.iter().find(|record| record.id.as_str() == one.id) else {
                    return Ok(None);
                };
                // Without our comment it is known by where it leads, now.
                let target = record.content.as_deref().and_then(TunnelId::of_dns_target);
                let tunnel = match target.filter(|_| record.mark().is_none()) {
                    Some(id) => self.cloudflare.get_tunnel(priority, &id).await?,
                    None => None,
                };
                let tunnel =
                    tunnel.and_then(|tunnel| Some((tunnel.id.clone(), self.tunnel(&tunnel)?)));
                Ok(self.record(record, &tunnel.into_iter().collect()))
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
        // One on its way out needs nobody.
        if server.status == ServerStatus::Deleting {
            return None;
        }
        let found = self.marked(OrphanKind::Server, server.mark()?, server.id.to_string())?;
        Some(Found {
            name: server.name.clone(),
            protected: server.protection.delete,
            pool: server.labels.get(label::POOL).cloned(),
            created: Some(server.created),
            server_type: Some(server.server_type.name.clone()),
            location: server.location.as_ref().map(|place| place.name.clone()),
            ..found
        })
    }

    fn tunnel(&self, tunnel: &Tunnel) -> Option<Found> {
        let found = self.marked(OrphanKind::Tunnel, tunnel.mark()?, tunnel.id.to_string())?;
        Some(Found { name: tunnel.name.clone(), created: tunnel.created_at, ..found })
    }

    /// A record is ours by its comment, or by leading to a tunnel that is.
    fn record(&self, record: &DnsRecord, tunnels: &HashMap<TunnelId, Found>) -> Option<Found> {
        let id = record.id.to_string();
        if let Some(pool) = names::pool_of_record(record, self.installation) {
            return of_pool(OrphanKind::DnsRecord, id, record.name.clone(), Some(pool));
        }
        let found = if let Some(mark) = record.mark() {
            self.marked(OrphanKind::DnsRecord, mark, id)?
        } else {
            let tunnel = TunnelId::of_dns_target(record.content.as_deref()?)?;
            let tunnel = tunnels.get(&tunnel)?;
            Found { kind: OrphanKind::DnsRecord, id, created: None, ..tunnel.clone() }
        };
        Some(Found { name: record.name.clone(), ..found })
    }

    fn marked(&self, kind: OrphanKind, mark: Mark, id: String) -> Option<Found> {
        let (tag, retained) = mark.tag()?;
        let place = tag.place.as_ref().and_then(|place| {
            let (namespace, name) = place.parts()?;
            Some((namespace.to_owned(), name.to_owned()))
        });
        let owner = FoundOwner::Instance { id: tag.instance, place };
        let ours = tag.installation == self.installation;
        ours.then(|| Found { retained, ..Found::bare(kind, id, owner) })
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

/// The clocks of two clouds may differ by this much.
const CLOCKS_DIFFER: Duration = Duration::from_mins(1);

/// Retained servers, and which tunnels may be theirs. A person labels the server alone, and older
/// versions left the name of its tunnel as it was, so that a tunnel of the same id stays with it. One of
/// a later life of the instance does not: it was made after the server, whose own came before it.
struct RetainedServers {
    /// When those were made of which no other server is there, by id.
    made: HashMap<InstanceId, Vec<Timestamp>>,
    /// How many tunnels say themselves that they were retained.
    named: HashMap<InstanceId, usize>,
}

impl RetainedServers {
    fn of<'a>(servers: &[Found], tunnels: impl Iterator<Item = &'a Found>) -> Self {
        let mut made: HashMap<_, Vec<_>> = HashMap::new();
        for (id, server) in servers.iter().filter_map(|one| Some((one.instance()?, one))) {
            made.entry(id).or_default().extend(server.created.filter(|_| server.retained));
        }
        for live in servers.iter().filter(|one| !one.retained).filter_map(Found::instance) {
            made.remove(&live);
        }
        let mut named = HashMap::new();
        for id in tunnels.filter(|one| one.retained).filter_map(Found::instance) {
            *named.entry(id).or_default() += 1;
        }
        Self { made, named }
    }

    /// Whether a tunnel may be that of a retained server. What cannot be told is left alone.
    fn may_have(&self, tunnel: &Found) -> bool {
        let Some(id) = tunnel.instance() else { return false };
        let Some(made) = self.made.get(&id) else { return false };
        let before = |server: &Timestamp| {
            tunnel.created.is_none_or(|tunnel| tunnel <= *server + CLOCKS_DIFFER)
        };
        made.len() > self.named.get(&id).copied().unwrap_or_default() && made.iter().any(before)
    }
}

/// The name of a tunnel has no room for a place; what else has its id says it.
fn say_places(found: &mut [Found]) {
    let mut places = HashMap::new();
    for one in found.iter() {
        if let FoundOwner::Instance { id, place: Some(place) } = &one.owner {
            places.insert(*id, place.clone());
        }
    }
    for one in found {
        if let FoundOwner::Instance { id, place: place @ None } = &mut one.owner {
            *place = places.get(id).cloned();
        }
    }
}

fn of_pool(kind: OrphanKind, id: String, name: String, pool: Option<String>) -> Option<Found> {
    Some(Found { name, ..Found::bare(kind, id, FoundOwner::Pool(pool?)) })
}

fn number(id: &str) -> Option<u64> {
    id.parse().ok()
}

/// Adds what the servers cost a month, as the catalogue has it.
pub fn price<'a>(found: impl Iterator<Item = &'a mut Found>, catalogue: &[ServerType]) {
    for one in found.filter(|one| one.kind == OrphanKind::Server) {
        let kind = catalogue.iter().find(|kind| Some(&kind.name) == one.server_type.as_ref());
        let mut prices = kind.into_iter().flat_map(|kind| &kind.prices);
        let price = prices.find(|price| Some(&price.location) == one.location.as_ref());
        let amount = price.and_then(|price| price.price_monthly.gross.parse::<f64>().ok());
        one.monthly_cost = amount.map(|amount| format!("{amount:.2}"));
    }
}
