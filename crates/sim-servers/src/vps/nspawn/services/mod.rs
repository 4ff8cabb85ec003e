//! What servers reach in the lab's internet: a name server, the mirrors of Debian's packages and of the
//! npm registry, the artifact server, Cloudflare's edge and the metadata service. All of it listens in the cloud's
//! namespace and runs in the simulator.

pub(super) mod artifacts;
mod metadata;
mod mirror;
mod names;
mod registry;
mod relay;

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::artifacts::Artifacts;
use self::mirror::Mirror;
use super::Machines;
use super::machine::Host;
use super::network::{ARTIFACTS, EDGE, METADATA, SERVICES};
use moorage_sim_clouds::listener;

pub use self::names::ARTIFACTS_NAME;

const HTTP: u16 = 80;
const HTTPS: u16 = 443;
const DNS: u16 = 53;
/// Where connectors dial Cloudflare.
pub(super) const EDGE_PORT: u16 = 7844;

/// The services that listen in the cloud's namespace.
pub(super) struct Services {
    artifacts: Arc<Artifacts>,
    stop: CancellationToken,
    tasks: Mutex<JoinSet<()>>,
}

impl Services {
    /// Starts all of them.
    pub(super) fn start(host: &Arc<Host>, machines: Machines) -> io::Result<Self> {
        let artifacts = Arc::new(Artifacts::of(host.options.artifacts.clone()));
        let mirror = Mirror::read(&host.options.rootfs.join("lab.json"))?;
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let mut http = |address: Ipv4Addr, router: Router| -> io::Result<()> {
            let listener = host.network.listen((address, HTTP).into())?;
            tasks.spawn(listener::accept(listener, router, stop.clone()));
            Ok(())
        };
        http(SERVICES, mirror::router(mirror))?;
        http(ARTIFACTS, artifacts::router(artifacts.clone()))?;
        http(METADATA, metadata::router(machines))?;
        let registry = host.network.listen((SERVICES, HTTPS).into())?;
        let router = registry::router(&host.options.npm_registry)?;
        let tls = host.options.tls.clone();
        tasks.spawn(until(stop.clone(), registry::serve(registry, tls, router)));
        let names = host.network.datagrams((SERVICES, DNS).into())?;
        tasks.spawn(until(stop.clone(), names::serve(names)));
        let edge = host.network.listen((EDGE, EDGE_PORT).into())?;
        tasks.spawn(until(stop.clone(), relay::serve(edge, host.options.connector_edge)));
        Ok(Self { artifacts, stop, tasks: Mutex::new(tasks) })
    }

    /// The artifact server, for its faults.
    pub(super) fn artifacts(&self) -> Arc<Artifacts> {
        self.artifacts.clone()
    }

    pub(super) async fn stop(&self) {
        self.stop.cancel();
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        while tasks.join_next().await.is_some() {}
    }
}

async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    let _ = stop.run_until_cancelled(work).await;
}
