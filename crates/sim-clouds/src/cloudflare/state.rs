//! Everything behind the Cloudflare API: tokens and users, accounts, zones.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::access_apps::App;
use super::access_policies::Policy;
use super::connections::TunnelEvent;
use super::dns_records::Record;
use super::envelope::now;
use super::service_tokens::{ServiceToken, ServiceTokenView};
use super::setup::{TokenSetup, ZoneSetup};
use super::tunnels::{Tunnel, TunnelView};
use crate::ids::hex32;
use crate::ratelimit::{Window, WindowLimit};
use moorage_sim_tunnel::ingress::IngressConfig;

/// Events that a slow listener may miss before it is told that it lagged.
const EVENT_BUFFER: usize = 4096;

/// An account as the admin API makes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccountSpec {
    /// An API token for this account; it is added to those that are there.
    pub token: String,
    /// Whose token it is: tokens of one user share the rate limit. The account's id when left out.
    pub user: Option<String>,
    /// Zones of the account; those that are there stay.
    #[serde(default)]
    pub zones: Vec<ZoneSpec>,
    /// The account's limits; Cloudflare's own when left out.
    #[serde(default)]
    pub limits: Limits,
    /// What the token is.
    #[serde(default)]
    pub token_setup: TokenSetup,
    /// Whether the account has a Zero Trust organization, without which Access refuses everything.
    #[serde(default = "yes")]
    pub zero_trust: bool,
    /// The user's rate limit; unchanged when left out.
    pub rate_limit: Option<WindowLimit>,
}

fn yes() -> bool {
    true
}

/// A zone as the admin API makes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ZoneSpec {
    pub id: String,
    pub name: String,
    #[serde(default)]
    pub plan: Plan,
    /// How it is set up.
    #[serde(default)]
    pub setup: ZoneSetup,
}

/// The plan of a zone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plan {
    /// 200 records, 200 operations in a batch, comments of 100 characters.
    #[default]
    Free,
    /// 3,500 records, 3,500 operations in a batch, comments of 500 characters.
    Pro,
    /// As `pro`.
    Business,
    /// As `pro`.
    Enterprise,
}

impl Plan {
    pub(crate) fn records(self) -> usize {
        if self == Self::Free { 200 } else { 3500 }
    }

    pub(crate) fn batch_operations(self) -> usize {
        if self == Self::Free { 200 } else { 3500 }
    }

    pub(crate) fn comment_length(self) -> usize {
        if self == Self::Free { 100 } else { 500 }
    }
}

/// How many of each an account may have.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Live tunnels.
    pub tunnels: usize,
    pub service_tokens: usize,
    pub access_apps: usize,
    pub access_policies: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { tunnels: 1000, service_tokens: 50, access_apps: 500, access_policies: 500 }
    }
}

/// What a token opens.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) token_id: String,
    pub(crate) setup: TokenSetup,
    /// Tokens of one user share the rate limit.
    pub(crate) user: String,
    /// The account that the token was made with: its name in journal and faults.
    pub(crate) tenant: String,
    pub(crate) accounts: BTreeSet<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    tokens: HashMap<String, Grant>,
    users: BTreeMap<String, Window>,
    pub(crate) accounts: BTreeMap<String, Account>,
    pub(crate) zones: BTreeMap<String, Zone>,
}

#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) id: String,
    pub(crate) created_on: Timestamp,
    pub(crate) limits: Limits,
    pub(crate) zero_trust: bool,
    pub(crate) tunnels: BTreeMap<String, Tunnel>,
    pub(crate) apps: BTreeMap<String, App>,
    pub(crate) policies: BTreeMap<String, Policy>,
    pub(crate) service_tokens: BTreeMap<String, ServiceToken>,
}

#[derive(Debug)]
pub(crate) struct Zone {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) plan: Plan,
    pub(crate) setup: ZoneSetup,
    pub(crate) account: String,
    pub(crate) created_on: Timestamp,
    pub(crate) records: BTreeMap<String, Record>,
}

/// The Cloudflare half of a world. Clones share it.
#[derive(Debug, Clone)]
pub struct CloudflareState {
    pub(crate) inner: Arc<Mutex<Inner>>,
    pub(crate) events: broadcast::Sender<TunnelEvent>,
}

impl Default for CloudflareState {
    fn default() -> Self {
        Self { inner: Arc::default(), events: broadcast::Sender::new(EVENT_BUFFER) }
    }
}

impl CloudflareState {
    /// Creates an account or adds a token, zones and limits to the one that is there. `Err` says
    /// what is in the way.
    pub fn put_account(&self, id: &str, spec: &AccountSpec) -> Result<(), String> {
        let mut inner = self.inner.lock();
        let user = spec.user.clone().unwrap_or_else(|| id.to_owned());
        if inner.tokens.get(&spec.token).is_some_and(|grant| grant.user != user) {
            return Err("the token belongs to another user".to_owned());
        }
        for zone in &spec.zones {
            let clash = |other: &Zone| {
                (other.id == zone.id) != (other.name == zone.name) || other.account != id
            };
            let same = |other: &&Zone| other.id == zone.id || other.name == zone.name;
            if inner.zones.values().filter(same).any(clash) {
                return Err(format!("zone {} or its name {} is taken", zone.id, zone.name));
            }
        }
        let grant = inner.tokens.entry(spec.token.clone()).or_insert_with(|| Grant {
            token_id: hex32(),
            setup: spec.token_setup.clone(),
            user: user.clone(),
            tenant: id.to_owned(),
            accounts: BTreeSet::new(),
        });
        grant.accounts.insert(id.to_owned());
        grant.setup = spec.token_setup.clone();
        match spec.rate_limit {
            Some(limit) => drop(inner.users.insert(user, Window::new(limit, Instant::now()))),
            None => drop(
                inner
                    .users
                    .entry(user)
                    .or_insert_with(|| Window::new(WindowLimit::default(), Instant::now())),
            ),
        }
        let account = inner.accounts.entry(id.to_owned()).or_insert_with(|| Account {
            id: id.to_owned(),
            created_on: now(),
            limits: spec.limits,
            zero_trust: spec.zero_trust,
            tunnels: BTreeMap::new(),
            apps: BTreeMap::new(),
            policies: BTreeMap::new(),
            service_tokens: BTreeMap::new(),
        });
        account.limits = spec.limits;
        account.zero_trust = spec.zero_trust;
        for zone in &spec.zones {
            let entry = inner.zones.entry(zone.id.clone()).or_insert_with(|| Zone {
                id: zone.id.clone(),
                name: zone.name.to_ascii_lowercase(),
                plan: zone.plan,
                setup: zone.setup.clone(),
                account: id.to_owned(),
                created_on: now(),
                records: BTreeMap::new(),
            });
            entry.plan = zone.plan;
            entry.setup = zone.setup.clone();
        }
        Ok(())
    }

    /// Forgets an account with its zones and the tokens that open nothing else. False when there is
    /// none of that id.
    pub fn remove_account(&self, id: &str) -> bool {
        let mut inner = self.inner.lock();
        let Some(account) = inner.accounts.remove(id) else {
            return false;
        };
        inner.zones.retain(|_, zone| zone.account != id);
        inner.tokens.retain(|_, grant| {
            grant.accounts.remove(id);
            !grant.accounts.is_empty()
        });
        drop(inner);
        for tunnel in account.tunnels.into_keys() {
            self.emit(TunnelEvent::TunnelDeleted(tunnel));
        }
        true
    }

    /// What `token` opens.
    pub(crate) fn grant(&self, token: &str) -> Option<Grant> {
        self.inner.lock().tokens.get(token).cloned()
    }

    /// Counts a request of `user`. `Err` says how long all calls stay blocked.
    pub(crate) fn take_request(&self, user: &str, scale: f64) -> Result<(), Duration> {
        let mut inner = self.inner.lock();
        inner.users.get_mut(user).map_or(Ok(()), |window| window.take(Instant::now(), scale))
    }

    /// Tells the edge. Nobody listening is fine.
    pub(crate) fn emit(&self, event: TunnelEvent) {
        let _ = self.events.send(event);
    }

    /// What `GET /admin/state` shows.
    pub(crate) fn dump(&self) -> BTreeMap<String, AccountDump> {
        let inner = self.inner.lock();
        let dump = |account: &Account| AccountDump {
            tunnels: account
                .tunnels
                .values()
                .map(|tunnel| TunnelDump {
                    tunnel: tunnel.view(),
                    version: tunnel.config.as_ref().map(|config| config.version),
                    config: tunnel.config.as_ref().map(|config| config.document.clone()),
                })
                .collect(),
            access_apps: account.apps.values().cloned().collect(),
            access_policies: account.policies.values().cloned().collect(),
            service_tokens: account.service_tokens.values().map(ServiceToken::view).collect(),
            zones: inner
                .zones
                .values()
                .filter(|zone| zone.account == account.id)
                .map(|zone| ZoneDump {
                    id: zone.id.clone(),
                    name: zone.name.clone(),
                    plan: zone.plan,
                    records: zone.records.values().cloned().collect(),
                })
                .collect(),
        };
        inner.accounts.iter().map(|(id, account)| (id.clone(), dump(account))).collect()
    }
}

/// What `GET /admin/state` shows of an account.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AccountDump {
    tunnels: Vec<TunnelDump>,
    zones: Vec<ZoneDump>,
    access_apps: Vec<App>,
    access_policies: Vec<Policy>,
    service_tokens: Vec<ServiceTokenView>,
}

#[derive(Debug, Serialize)]
struct TunnelDump {
    #[serde(flatten)]
    tunnel: TunnelView,
    version: Option<u64>,
    config: Option<IngressConfig>,
}

#[derive(Debug, Serialize)]
struct ZoneDump {
    id: String,
    name: String,
    plan: Plan,
    records: Vec<Record>,
}
