//! A DNS record, and how long until it is known.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{net::lookup_host, time::Instant};

use super::Run;
use crate::{
    cloud::Priority,
    cloudflare::{DnsApi as _, DnsBatch, NewDnsRecord, TunnelId},
    doctor::{
        CloudflareTarget,
        finding::{Check, Finding, Scope},
        name_server,
        run_name::COMMENT,
    },
};

/// A DNS record can be made, and names of the zone resolve.
pub const RECORD: Check = Check { id: "write.dns-record", title: "DNS record" };

const EDIT: Scope = Scope::Required("Zone: DNS: Edit");
/// Cloudflare's own servers know a record within seconds.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(500);

/// A host name that leads to the edge.
pub(super) struct Host {
    pub(super) name: String,
    /// Addresses of the edge, as the zone's own servers say.
    pub(super) addresses: Vec<IpAddr>,
}

/// The finding, and the host if it is known.
pub(super) async fn check(
    run: &Run<'_>,
    target: &CloudflareTarget,
    tunnel: &TunnelId,
) -> (Finding, Option<Host>) {
    let (domain, name_servers) = match target.client.get_zone(Priority::Normal, &target.zone).await
    {
        Ok(Some(zone)) => (zone.name, zone.name_servers.unwrap_or_default()),
        Ok(None) => return (RECORD.unknown("Not tried: the token sees no such zone"), None),
        Err(error) => return (RECORD.refused(&error, EDIT), None),
    };
    let name = format!("{}.{domain}", run.name);
    let post = NewDnsRecord::tunnel_cname(&name, tunnel, COMMENT);
    let batch = DnsBatch { posts: vec![post], ..DnsBatch::default() };
    if let Err(error) = target.client.dns_batch(&target.zone, &batch).await {
        return (RECORD.refused(&error, EDIT), None);
    }
    let made = Instant::now();
    let servers = match run.ways.name_server {
        Some(server) => vec![server],
        None => addresses_of(&name_servers).await,
    };
    let addresses = match known_at(run, &servers, &name, made).await {
        Ok(addresses) => addresses,
        Err(finding) => return (finding, None),
    };
    let at_servers = made.elapsed();
    let host = Some(Host { name: name.clone(), addresses });
    let seconds = |elapsed: Duration| format!("{:.1} s", elapsed.as_secs_f64());
    let at_servers = seconds(at_servers);
    if run.ways.edge.is_some() {
        let detail = format!("Known to the name server after {at_servers}");
        return (RECORD.pass(detail), host);
    }
    if !resolves(run, &name, made).await {
        let waited = seconds(made.elapsed());
        let finding = RECORD.warn(
            format!("The zone's servers knew it after {at_servers}, the resolver of this machine not within {waited}"),
            "Look at that resolver: the operator reaches its servers only by names that are known",
        );
        return (finding, host);
    }
    let detail = format!(
        "Known to the zone's servers after {at_servers}, to the resolver of this machine after {}",
        seconds(made.elapsed())
    );
    (RECORD.pass(detail), host)
}

async fn addresses_of(names: &[String]) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    for name in names {
        if let Ok(found) = lookup_host((name.as_str(), 53)).await {
            all.extend(found.filter(SocketAddr::is_ipv4));
        }
    }
    all
}

/// The addresses that one of the zone's servers gives, as soon as it does.
async fn known_at(
    run: &Run<'_>,
    servers: &[SocketAddr],
    name: &str,
    made: Instant,
) -> Result<Vec<IpAddr>, Finding> {
    const REMEDY: &str = "Let DNS (UDP 53) to Cloudflare's name servers pass, or try from another machine; the operator itself does not need this";
    let mut last = "the zone names no server that can be asked".to_owned();
    let mut answered = false;
    while made.elapsed() < PATIENCE && !run.stop.is_cancelled() {
        for server in servers {
            match name_server::addresses(*server, name).await {
                Ok(addresses) if !addresses.is_empty() => return Ok(addresses),
                Ok(_) => answered = true,
                Err(error) => last = format!("{server}: {error}"),
            }
        }
        if servers.is_empty() {
            break;
        }
        run.pause(PAUSE).await;
    }
    if answered {
        return Err(RECORD.fail(
            format!("The zone's servers do not know it after {} s", made.elapsed().as_secs()),
            "Look at the zone in Cloudflare's dashboard: another account may answer for it",
        ));
    }
    let mut finding = RECORD.unknown(format!("It was made, but {last}"));
    finding.remedy = Some(REMEDY.to_owned());
    Err(finding)
}

async fn resolves(run: &Run<'_>, name: &str, made: Instant) -> bool {
    while made.elapsed() < PATIENCE && !run.stop.is_cancelled() {
        if lookup_host((name, 443)).await.is_ok_and(|mut found| found.next().is_some()) {
            return true;
        }
        run.pause(PAUSE).await;
    }
    false
}
