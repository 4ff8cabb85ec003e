//! Cloudflare v4: tunnels, DNS records, Access, zones; and what the edge asks of them.
//!
//! Source: the vendor's API reference, <https://developers.cloudflare.com/api/>.

mod access_apps;
mod access_check;
mod access_policies;
mod configurations;
mod connections;
mod dns;
mod dns_batch;
mod dns_records;
mod envelope;
mod service_tokens;
mod setup;
mod state;
mod tunnels;
mod zones;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};

pub use access_check::AccessDecision;
pub use connections::{ConnectionLease, ConnectorInfo, RegisterError, TunnelEvent};
pub(crate) use envelope::{ApiError, Caller};
pub use setup::{TokenOwner, TokenSetup, ZoneSetup};
pub(crate) use state::AccountDump;
pub use state::{AccountSpec, CloudflareState, Limits, Plan, ZoneSpec};

use crate::gateway;
use crate::world::World;

/// The API below `/client/v4`.
pub(crate) fn router(world: &Arc<World>) -> Router {
    let account = Router::new()
        .route("/", get(zones::get_account))
        .route("/cfd_tunnel", get(tunnels::list).post(tunnels::create))
        .route(
            "/cfd_tunnel/{tunnel}",
            get(tunnels::get).patch(tunnels::update).delete(tunnels::delete),
        )
        .route("/cfd_tunnel/{tunnel}/token", get(tunnels::token))
        .route(
            "/cfd_tunnel/{tunnel}/connections",
            get(connections::list).delete(connections::delete),
        )
        .route(
            "/cfd_tunnel/{tunnel}/configurations",
            get(configurations::get).put(configurations::put),
        )
        .route("/tokens/verify", get(setup::verify_account_token))
        .route("/access/organizations", get(setup::organization))
        .route("/access/apps", get(access_apps::list).post(access_apps::create))
        .route(
            "/access/apps/{app}",
            get(access_apps::get).put(access_apps::update).delete(access_apps::delete),
        )
        .route("/access/policies", get(access_policies::list).post(access_policies::create))
        .route(
            "/access/policies/{policy}",
            get(access_policies::get).put(access_policies::update).delete(access_policies::delete),
        )
        .route("/access/service_tokens", get(service_tokens::list).post(service_tokens::create))
        .route(
            "/access/service_tokens/{token}",
            get(service_tokens::get).put(service_tokens::update).delete(service_tokens::delete),
        )
        .route("/access/service_tokens/{token}/rotate", post(service_tokens::rotate))
        .route("/access/service_tokens/{token}/refresh", post(service_tokens::refresh));
    let api = Router::new()
        .route("/user/tokens/verify", get(setup::verify_user_token))
        .route("/accounts", get(zones::list_accounts))
        .nest("/accounts/{account}", account)
        .route("/zones", get(zones::list))
        .route("/zones/{zone}", get(zones::get))
        .route("/zones/{zone}/ssl/certificate_packs", get(setup::certificate_packs))
        .route("/zones/{zone}/settings/{setting}", get(setup::setting))
        .route("/zones/{zone}/bot_management", get(setup::bot_management))
        .route("/zones/{zone}/dns_records", get(dns::list).post(dns::create))
        .route("/zones/{zone}/dns_records/batch", post(dns_batch::run))
        .route(
            "/zones/{zone}/dns_records/{record}",
            get(dns::get).put(dns::replace).patch(dns::update).delete(dns::delete),
        )
        .fallback(async || ApiError::no_route())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed());
    Router::new()
        .nest(gateway::CLOUDFLARE_BASE, api)
        .fallback(async || ApiError::no_route())
        .layer(middleware::from_fn_with_state(Arc::clone(world), gateway::cloudflare))
}
