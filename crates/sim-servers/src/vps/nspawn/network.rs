//! The lab's internet: a namespace with the gateway of all servers and the addresses that they may
//! reach, and a namespace with one cable for each server. Nothing leads out of it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::namespace::{NetworkNamespace, ip};
use moorage_sim_clouds::ServerBoot;

/// The gateway of every server, as at Hetzner.
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 31, 1, 1);
/// The block of everything outside that is not a server (RFC 5737). All of it is local to the cloud's
/// namespace, so that probes can come from any address of it.
const OUTSIDE: &str = "198.51.100.0/24";
const OUTSIDE_6: &str = "2001:db8:ffff::/48";
/// Name server and package mirror.
pub(super) const SERVICES: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Cloudflare's edge, as connectors see it.
pub(super) const EDGE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// `artifacts.moorage.test`, as servers resolve it.
pub(super) const ARTIFACTS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);
/// Where Hetzner's servers ask for their metadata.
pub(super) const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// How long a probe waits when its request says nothing.
const PROBE_TIMEOUT_MS: u64 = 1500;

/// What a server is plugged in with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cable {
    /// A veth pair, whose other end is `eth0` in a namespace of the server, addresses included.
    ToNamespace,
    /// A tap device, for a server that configures its own interface.
    Tap,
}

/// The network of one simulator.
#[derive(Debug)]
pub(super) struct Network {
    cloud: NetworkNamespace,
    prefix: String,
}

impl Network {
    /// Makes the cloud's namespace. All names begin with `prefix`.
    pub(super) fn make(prefix: &str) -> io::Result<Self> {
        let cloud = NetworkNamespace::named(format!("{prefix}cloud"));
        cloud.add()?;
        cloud.within(|| {
            for (setting, value) in [
                ("ipv4/ip_forward", "1"),
                ("ipv6/conf/all/forwarding", "1"),
                ("ipv6/ip_nonlocal_bind", "1"),
                // A server cannot take another's address: replies would leave by another cable.
                ("ipv4/conf/all/rp_filter", "1"),
                ("ipv4/conf/default/rp_filter", "1"),
            ] {
                std::fs::write(format!("/proc/sys/net/{setting}"), value)?;
            }
            Ok(())
        })?;
        cloud.configure(&[
            "link set lo up".to_owned(),
            format!("route add local {OUTSIDE} dev lo"),
            format!("route add local {METADATA}/32 dev lo"),
            format!("route add local {OUTSIDE_6} dev lo"),
        ])?;
        Ok(Self { cloud, prefix: prefix.to_owned() })
    }

    /// The file that stands for the cloud's namespace, from which a program calls on servers.
    pub(super) fn outside(&self) -> PathBuf {
        self.cloud.path()
    }

    /// Where a server's network lies.
    pub(super) fn of_server(&self, id: u64) -> NetworkNamespace {
        NetworkNamespace::named(format!("{}{id}", self.prefix))
    }

    /// Where a server's tap device is: the namespace's file, and its name there.
    pub(super) fn tap(&self, id: u64) -> (PathBuf, String) {
        (self.cloud.path(), port(id))
    }

    /// Gives a server a cable, if need be with a namespace with nothing else in it: rules of an earlier
    /// boot are gone.
    pub(super) fn plug(&self, boot: &ServerBoot, cable: Cable) -> io::Result<()> {
        let server = self.of_server(boot.id);
        server.remove()?;
        let port = port(boot.id);
        let cloud = self.cloud.name();
        // The old cable may go a moment after its namespace.
        let _ = ip(&["-n", cloud, "link", "del", &port], "");
        match cable {
            Cable::ToNamespace => {
                server.add()?;
                let pair = ["type", "veth", "peer", "name", "eth0", "netns", server.name()];
                ip(&[["-n", cloud, "link", "add", &port].as_slice(), &pair].concat(), "")?;
            }
            Cable::Tap => {
                ip(&["-n", cloud, "tuntap", "add", "dev", &port, "mode", "tap"], "")?;
            }
        }
        let mut outside =
            vec![format!("link set {port} up"), format!("addr add {GATEWAY}/32 dev {port}")];
        let mut inside = vec!["link set lo up".to_owned(), "link set eth0 up".to_owned()];
        if let Some(address) = boot.ipv4 {
            outside.push(format!("route add {address}/32 dev {port}"));
            inside.push(format!("addr add {address}/32 dev eth0"));
            inside.push(format!("route add {GATEWAY}/32 dev eth0"));
            inside.push(format!("route add default via {GATEWAY} dev eth0"));
        }
        if let Some(address) = boot.ipv6 {
            let network = Ipv6Addr::from_bits(address.to_bits() >> 64 << 64);
            outside.push(format!("addr add fe80::1/64 dev {port} nodad"));
            outside.push(format!("route add {network}/64 dev {port}"));
            inside.push(format!("addr add {address}/64 dev eth0 nodad"));
            inside.push("route add default via fe80::1 dev eth0".to_owned());
        }
        self.cloud.configure(&outside)?;
        match cable {
            Cable::ToNamespace => server.configure(&inside),
            Cable::Tap => Ok(()),
        }
    }

    /// Takes the cable of a server away.
    pub(super) fn unplug(&self, id: u64) -> io::Result<()> {
        self.of_server(id).remove()?;
        // The end of a veth pair goes with the namespace.
        let _ = ip(&["-n", self.cloud.name(), "link", "del", &port(id)], "");
        Ok(())
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        self.cloud.remove()
    }

    /// Listens inside the cloud.
    pub(super) fn listen(&self, address: SocketAddr) -> io::Result<tokio::net::TcpListener> {
        let listener = self.cloud.within(|| TcpListener::bind(address)).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
        })?;
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    }

    /// Takes datagrams inside the cloud.
    pub(super) fn datagrams(&self, address: SocketAddr) -> io::Result<tokio::net::UdpSocket> {
        let socket = self.cloud.within(|| UdpSocket::bind(address))?;
        socket.set_nonblocking(true)?;
        tokio::net::UdpSocket::from_std(socket)
    }

    /// Knocks at a port from outside. Blocks for as long as the probe waits.
    pub(super) fn probe(&self, probe: &Probe) -> io::Result<Outcome> {
        self.cloud.within(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let socket = match probe.to {
                    SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
                    SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
                };
                socket.bind((probe.from, 0).into())?;
                let patience = Duration::from_millis(probe.timeout_ms);
                match tokio::time::timeout(patience, socket.connect(probe.to)).await {
                    Err(_) => Ok(Outcome::Dropped),
                    Ok(Ok(_)) => Ok(Outcome::Open),
                    Ok(Err(error)) => match error.kind() {
                        io::ErrorKind::ConnectionRefused => Ok(Outcome::Refused),
                        io::ErrorKind::HostUnreachable
                        | io::ErrorKind::NetworkUnreachable
                        | io::ErrorKind::PermissionDenied => Ok(Outcome::Unreachable),
                        io::ErrorKind::TimedOut => Ok(Outcome::Dropped),
                        _ => Err(error),
                    },
                }
            })
        })
    }
}

/// The cloud's end of a server's cable.
fn port(id: u64) -> String {
    format!("v{id}")
}

/// A knock at a port from somewhere in the internet.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Probe {
    /// An address of 198.51.100.0/24 or `2001:db8:ffff::/48`.
    from: IpAddr,
    to: SocketAddr,
    #[serde(default = "probe_timeout_ms")]
    timeout_ms: u64,
}

fn probe_timeout_ms() -> u64 {
    PROBE_TIMEOUT_MS
}

/// What came of a knock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// Something accepted the connection.
    Open,
    /// The host said that nothing listens there.
    Refused,
    /// No answer.
    Dropped,
    /// The host or a router said that it is not allowed or not there.
    Unreachable,
}
