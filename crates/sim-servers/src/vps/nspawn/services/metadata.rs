//! The metadata service of Hetzner: tells each server, known by its address, about itself.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;

use crate::vps::nspawn::{Machines, by_address};
use moorage_sim_clouds::ServerBoot;

type Peer = ConnectInfo<SocketAddr>;

pub(super) fn router(machines: Machines) -> Router {
    Router::new()
        .route("/hetzner/v1/metadata", get(document))
        .route("/hetzner/v1/metadata/{key}", get(hetzner))
        .route("/hetzner/v1/userdata", get(user_data))
        .route("/latest/meta-data/{key}", get(hetzner))
        .route("/latest/user-data", get(user_data))
        .with_state(machines)
}

fn fact(boot: &ServerBoot, key: &str) -> Option<String> {
    Some(match key {
        "hostname" | "local-hostname" => boot.name.clone(),
        "instance-id" => boot.id.to_string(),
        "public-ipv4" => boot.ipv4.map(|ip| ip.to_string()).unwrap_or_default(),
        "local-ipv4" => String::new(),
        "region" => "eu-central".to_owned(),
        "availability-zone" => "fsn1-dc14".to_owned(),
        "public-keys" => "[]".to_owned(),
        _ => return None,
    })
}

async fn document(State(machines): State<Machines>, ConnectInfo(peer): Peer) -> Response {
    let Some(boot) = by_address(&machines, peer.ip()) else { return unknown() };
    let keys = ["availability-zone", "hostname", "instance-id", "public-ipv4", "region"];
    let lines = keys.iter().filter_map(|key| Some(format!("{key}: {}\n", fact(&boot, key)?)));
    lines.collect::<String>().into_response()
}

async fn hetzner(
    State(machines): State<Machines>,
    ConnectInfo(peer): Peer,
    Path(key): Path<String>,
) -> Response {
    let boot = by_address(&machines, peer.ip());
    boot.and_then(|boot| fact(&boot, &key)).map_or_else(unknown, IntoResponse::into_response)
}

async fn user_data(State(machines): State<Machines>, ConnectInfo(peer): Peer) -> Response {
    by_address(&machines, peer.ip()).map_or_else(unknown, |boot| boot.user_data.into_response())
}

fn unknown() -> Response {
    StatusCode::NOT_FOUND.into_response()
}
