//! Where the edge is dialled. A management host name is new when it is first asked for, and a
//! resolver that answers "no such name" says so for minutes; so the address of a name that is known
//! to resolve is dialled instead, and TLS and HTTP still name the instance's own host.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
};

use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// How the edge is dialled.
#[derive(Debug, Clone, Default)]
pub struct EdgeDialing {
    /// Dial this address whatever the host is called; `None` to look names up.
    pub address: Option<SocketAddr>,
    /// PEM certificates to trust beside the system's.
    pub extra_roots: Option<Vec<u8>>,
}

/// Resolves the names of hosts for the HTTP client.
pub(super) struct EdgeResolver {
    address: Option<SocketAddr>,
    /// Whose address stands for a host's, while calls to it are under way.
    anchors: Mutex<HashMap<String, Anchored>>,
}

struct Anchored {
    anchor: String,
    calls: usize,
}

/// The host is dialled by its anchor while this lives.
pub(super) struct Dialled<'a> {
    resolver: &'a EdgeResolver,
    host: Option<String>,
}

impl EdgeResolver {
    pub(super) fn new(address: Option<SocketAddr>) -> Self {
        Self { address, anchors: Mutex::default() }
    }

    /// Whether names are looked up at all.
    pub(super) fn looks_names_up(&self) -> bool {
        self.address.is_none()
    }

    /// Dials `host` by the address of `anchor`, if there is one.
    pub(super) fn route(&self, host: &str, anchor: Option<&str>) -> Dialled<'_> {
        let Some(anchor) = anchor else { return Dialled { resolver: self, host: None } };
        let mut anchors = self.anchors.lock();
        let entry = anchors.entry(host.to_owned());
        let anchored = entry.or_insert_with(|| Anchored { anchor: String::new(), calls: 0 });
        anchor.clone_into(&mut anchored.anchor);
        anchored.calls += 1;
        Dialled { resolver: self, host: Some(host.to_owned()) }
    }

    fn name_for(&self, host: &str) -> String {
        let anchors = self.anchors.lock();
        anchors.get(host).map_or_else(|| host.to_owned(), |anchored| anchored.anchor.clone())
    }
}

impl Drop for Dialled<'_> {
    fn drop(&mut self) {
        let Some(host) = self.host.take() else { return };
        if let Entry::Occupied(mut anchored) = self.resolver.anchors.lock().entry(host) {
            anchored.get_mut().calls -= 1;
            if anchored.get().calls == 0 {
                anchored.remove();
            }
        }
    }
}

impl Resolve for EdgeResolver {
    fn resolve(&self, name: Name) -> Resolving {
        if let Some(address) = self.address {
            return Box::pin(async move { Ok(Box::new(std::iter::once(address)) as Addrs) });
        }
        let name = self.name_for(name.as_str());
        Box::pin(async move {
            // Port 0 stands for the port of the URL.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            let found = found.map_err(|error| format!("{name} cannot be looked up: {error}"))?;
            Ok(Box::new(found.collect::<Vec<_>>().into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn resolve(resolver: &EdgeResolver, name: &str) -> Vec<SocketAddr> {
        match resolver.resolve(name.parse().unwrap()).await {
            Ok(found) => found.collect(),
            Err(error) => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn a_host_is_dialled_by_its_anchors_address() {
        let resolver = EdgeResolver::new(None);
        let host = "ada-mgmt.pool.invalid";
        let first = resolver.route(host, Some("127.0.0.1"));
        let second = resolver.route(host, Some("127.0.0.1"));
        drop(first);
        assert_eq!(resolve(&resolver, host).await, ["127.0.0.1:0".parse().unwrap()]);
        drop(second);
        assert_eq!(resolver.name_for(host), host);
        assert!(resolver.anchors.lock().is_empty(), "what is not called takes no memory");
    }

    #[tokio::test]
    async fn a_fixed_address_is_dialled_for_every_host() {
        let address = "127.0.0.1:8443".parse().unwrap();
        let resolver = EdgeResolver::new(Some(address));
        let _dialled = resolver.route("ada-mgmt.pool.invalid", Some("anchor.invalid"));
        assert_eq!(resolve(&resolver, "ada-mgmt.pool.invalid").await, [address]);
    }
}
