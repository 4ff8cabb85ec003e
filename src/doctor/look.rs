//! Asks everybody, reads only, and hands what was seen to the checks.

use jiff::Timestamp;

use super::{
    CloudflareTarget, Finding, HetznerTarget, Target, artifacts, cloudflare, edge, hetzner,
    operator, web::Web,
};
use crate::{
    certificate_roots::system_roots,
    cloud::{Cloud, Priority},
    cloudflare::{AccountObjects, DnsApi as _},
    hetzner::{HetznerApi as _, LabelSelector},
};

/// How many files are asked for at once.
const FILES_AT_ONCE: usize = 4;

/// Looks at everything. Nothing is changed anywhere. `progress` is told what takes a while.
pub async fn look(target: &Target, web: &Web, progress: &(dyn Fn(&str) + Sync)) -> Vec<Finding> {
    let mut findings = machine(target, web).await;
    let mut wanted_architectures = Vec::new();
    if let Some(target) = &target.hetzner {
        progress("asking Hetzner");
        let seen = look_at_hetzner(target).await;
        wanted_architectures = hetzner::architectures(&target.wanted, &seen);
        findings.extend(hetzner::judge(&target.wanted, &seen));
    }
    if let Some(target) = &target.cloudflare {
        progress("asking Cloudflare");
        findings.extend(cloudflare_and_edge(target).await);
    }
    if !target.artifacts.is_empty() {
        progress("asking for the files of the releases");
        findings.extend(look_at_artifacts(target, web).await);
    }
    findings.extend(artifacts::architectures(&wanted_architectures, &target.released));
    findings
}

async fn machine(target: &Target, web: &Web) -> Vec<Finding> {
    let found = system_roots();
    let mut findings = vec![operator::roots(found.count, &found.problems, web.has_extra_roots())];
    let hetzner = target.hetzner.as_ref().map(|target| (Cloud::Hetzner, &target.endpoint));
    let cloudflare = target.cloudflare.as_ref().map(|target| (Cloud::Cloudflare, &target.endpoint));
    let mut reached = Vec::new();
    for (cloud, endpoint) in hetzner.into_iter().chain(cloudflare) {
        let seen = web.reach(endpoint).await;
        findings.push(operator::reached(cloud, &seen));
        reached.push(seen);
    }
    if !reached.is_empty() {
        findings.push(operator::clock(&reached));
    }
    findings
}

async fn look_at_hetzner(target: &HetznerTarget) -> hetzner::Seen {
    let client = &target.client;
    let allowance = client.allowance().await;
    let rest = if allowance.is_ok() {
        let all = LabelSelector::all_of([]);
        let (types, locations, images, primary_ips, ssh_keys) = tokio::join!(
            client.server_types(Priority::Normal),
            client.locations(),
            client.system_images(&target.wanted.image),
            client.primary_ips(),
            client.list_ssh_keys(Priority::Normal, &all),
        );
        let ssh_keys = ssh_keys.map(|keys| keys.len());
        Some(hetzner::Rest { types, locations, images, primary_ips, ssh_keys })
    } else {
        None
    };
    hetzner::Seen { allowance, rest, now: Timestamp::now() }
}

async fn cloudflare_and_edge(target: &CloudflareTarget) -> Vec<Finding> {
    let seen = look_at_cloudflare(target).await;
    let mut findings = cloudflare::judge(&target.wanted, &seen);
    let domain = cloudflare::domain(&target.wanted, &seen);
    let edge = match cloudflare::no_zone(&seen) {
        Some(cause) => Err(cause),
        None => Ok(look_at_edge(target).await),
    };
    findings.extend(edge::judge(domain.as_deref(), edge.as_ref().map_err(|cause| *cause)));
    findings
}

async fn look_at_cloudflare(target: &CloudflareTarget) -> cloudflare::Seen {
    let client = &target.client;
    let token = client.verify_token().await;
    let rest = if token.is_ok() {
        let (zone, organization, apps, policies, service_tokens, tunnels, dns_records) = tokio::join!(
            client.get_zone(Priority::Normal, &target.zone),
            client.organization(),
            client.count(AccountObjects::AccessApps),
            client.count(AccountObjects::AccessPolicies),
            client.count(AccountObjects::ServiceTokens),
            client.count(AccountObjects::Tunnels),
            client.count_dns_records(&target.zone),
        );
        Some(cloudflare::Rest {
            zone,
            organization,
            apps,
            policies,
            service_tokens,
            tunnels,
            dns_records,
        })
    } else {
        None
    };
    cloudflare::Seen { token, rest, now: Timestamp::now() }
}

async fn look_at_edge(target: &CloudflareTarget) -> edge::Seen {
    let (client, zone) = (&target.client, &target.zone);
    let (certificates, ssl, websockets, browser_check, bots) = tokio::join!(
        client.certificate_packs(zone),
        client.zone_setting(zone, "ssl"),
        client.zone_setting(zone, "websockets"),
        client.zone_setting(zone, "browser_check"),
        client.bot_management(zone),
    );
    edge::Seen { certificates, ssl, websockets, browser_check, bots }
}

async fn look_at_artifacts(target: &Target, web: &Web) -> Vec<Finding> {
    use futures::StreamExt as _;
    let seen = futures::stream::iter(&target.artifacts)
        .map(async |artifact| artifacts::judge(artifact, &web.head(&artifact.url).await))
        .buffered(FILES_AT_ONCE);
    seen.collect().await
}
