//! Zones and accounts: read only.

use axum::extract::Path;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::envelope::{Answer, ApiError, Caller};
use super::state::{Account, Plan, Zone};
use crate::query::QueryPairs;

#[derive(Debug, Serialize)]
pub(crate) struct ZoneView {
    id: String,
    name: String,
    status: String,
    paused: bool,
    #[serde(rename = "type")]
    kind: String,
    development_mode: u32,
    name_servers: [String; 2],
    original_name_servers: Vec<String>,
    original_registrar: Option<String>,
    original_dnshost: Option<String>,
    created_on: Timestamp,
    modified_on: Timestamp,
    activated_on: Timestamp,
    account: Named,
    owner: Map<String, Value>,
    meta: Map<String, Value>,
    plan: PlanView,
    permissions: [&'static str; 2],
}

#[derive(Debug, Serialize)]
struct Named {
    id: String,
    name: String,
}

#[derive(Debug, Serialize)]
struct PlanView {
    id: Plan,
    name: String,
    price: u32,
    currency: &'static str,
    is_subscribed: bool,
    legacy_id: Plan,
}

#[derive(Debug, Serialize)]
pub(crate) struct AccountView {
    id: String,
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    settings: AccountSettings,
    created_on: Timestamp,
}

#[derive(Debug, Serialize)]
struct AccountSettings {
    enforce_twofactor: bool,
}

/// `GET /accounts`
pub(crate) async fn list_accounts(
    caller: Caller,
    query: QueryPairs,
) -> Result<Answer<Vec<AccountView>>, ApiError> {
    let inner = caller.inner();
    let accounts =
        inner.accounts.values().filter(|account| caller.grant.accounts.contains(&account.id));
    Answer::page(accounts.map(account_view).collect(), &query, 20, 50)
}

/// `GET /accounts/{account}`
pub(crate) async fn get_account(
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Answer<AccountView>, ApiError> {
    caller.account(&id, |account| Ok(Answer::ok(account_view(account))))
}

/// `GET /zones`
pub(crate) async fn list(
    caller: Caller,
    query: QueryPairs,
) -> Result<Answer<Vec<ZoneView>>, ApiError> {
    let inner = caller.inner();
    let zones = inner.zones.values().filter(|zone| {
        caller.grant.accounts.contains(&zone.account)
            && query.get("name").is_none_or(|name| zone.name.eq_ignore_ascii_case(name))
            && query.get("account.id").is_none_or(|id| zone.account == id)
            && query.get("status").is_none_or(|status| status == zone.setup.status)
    });
    Answer::page(zones.map(zone_view).collect(), &query, 20, 50)
}

/// `GET /zones/{zone}`
pub(crate) async fn get(
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Answer<ZoneView>, ApiError> {
    caller.zone(&id, |zone| Ok(Answer::ok(zone_view(zone))))
}

fn account_view(account: &Account) -> AccountView {
    AccountView {
        id: account.id.clone(),
        name: account.id.clone(),
        kind: "standard",
        settings: AccountSettings { enforce_twofactor: false },
        created_on: account.created_on,
    }
}

fn zone_view(zone: &Zone) -> ZoneView {
    ZoneView {
        id: zone.id.clone(),
        name: zone.name.clone(),
        status: zone.setup.status.clone(),
        paused: zone.setup.paused,
        kind: zone.setup.kind.clone(),
        development_mode: 0,
        name_servers: ["ada.ns.cloudflare.com".to_owned(), "bob.ns.cloudflare.com".to_owned()],
        original_name_servers: Vec::new(),
        original_registrar: None,
        original_dnshost: None,
        created_on: zone.created_on,
        modified_on: zone.created_on,
        activated_on: zone.created_on,
        account: Named { id: zone.account.clone(), name: zone.account.clone() },
        owner: Map::new(),
        meta: Map::new(),
        plan: PlanView {
            id: zone.plan,
            name: format!("{:?} Website", zone.plan),
            price: 0,
            currency: "USD",
            is_subscribed: zone.plan != Plan::Free,
            legacy_id: zone.plan,
        },
        permissions: ["#dns_records:edit", "#zone:read"],
    }
}
