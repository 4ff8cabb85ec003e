//! The two routes: ingress rules of the tunnel and the DNS records that lead to it.

use moorage_wire::{
    Sha256,
    bootstrap::{AGENT_SOCKET_PATH, GATEWAY_PORT},
};

use super::{
    Observed, Part, Step, Wanted,
    observed::AgentSight,
    plan::{SOON, Timing},
    wanted::Subject,
};
use crate::{
    api::conditions::{ConditionType::RoutesReady, Verdict, reason},
    cloudflare::{
        DnsPatch, DnsRecord, IngressRule, NewDnsRecord, RecordType, TunnelConfiguration, TunnelId,
    },
    names,
};

/// The ingress rules: dashboard, management API, and nothing else.
pub fn configuration(subject: &Subject) -> TunnelConfiguration {
    let rule = |hostname: Option<String>, service: String| IngressRule {
        hostname,
        path: None,
        service,
        origin_request: None,
    };
    let ingress = vec![
        rule(Some(subject.dashboard_host()), format!("http://127.0.0.1:{GATEWAY_PORT}")),
        rule(Some(subject.management_host()), format!("unix:{AGENT_SOCKET_PATH}")),
        rule(None, "http_status:404".to_owned()),
    ];
    TunnelConfiguration { ingress, ..TunnelConfiguration::default() }
}

/// The digest by which rules that were applied are remembered.
pub fn digest(configuration: &TunnelConfiguration) -> Sha256 {
    // Only our own rules count: Cloudflare adds defaults of its own around them.
    Sha256::of(&serde_json::to_vec(&configuration.ingress).unwrap_or_default())
}

/// Rules first, records second: a name must never lead to a tunnel that has no rules.
pub fn plan(wanted: &Wanted, seen: &Observed, timing: Timing) -> Part {
    let Some(tunnel) = &seen.tunnel else {
        return Part::wait(Verdict::unknown(RoutesReady, reason::WAITING, "Waits for the tunnel"), SOON);
    };
    let mut part = Part {
        passable: true,
        verdicts: vec![Verdict::yes(RoutesReady, reason::READY, "Both host names lead to the server")],
        ..Part::default()
    };
    let rules = configuration(&wanted.subject);
    match rules_step(seen, tunnel.id.clone(), rules, timing) {
        Some(step @ Step::PutRoutes(..)) => {
            part.verdicts = vec![Verdict::no(RoutesReady, reason::PROGRESSING, "The routes are being set")];
            part.steps.push(step);
        }
        step => part.steps.extend(step),
    }
    let records = records_step(&wanted.subject, &tunnel.id, &seen.records);
    if records.is_some() {
        part.verdicts = vec![Verdict::no(RoutesReady, reason::PROGRESSING, "The DNS records are being set")];
    }
    part.steps.extend(records);
    part
}

fn rules_step(seen: &Observed, tunnel: TunnelId, rules: TunnelConfiguration, timing: Timing) -> Option<Step> {
    let wanted = digest(&rules);
    match seen.tunnel_memory.rules {
        Some((known, _)) if known != wanted => Some(Step::PutRoutes(tunnel, rules)),
        Some((_, at)) => {
            let due = seen.now.duration_since(at).unsigned_abs() >= timing.routes;
            due.then_some(Step::CheckRoutes(tunnel, rules))
        }
        // An agent that answers through the tunnel shows that there are rules; a comparison is enough.
        None if matches!(seen.agent, AgentSight::Reported(_)) => Some(Step::CheckRoutes(tunnel, rules)),
        None => Some(Step::PutRoutes(tunnel, rules)),
    }
}

/// What has to be made or corrected so that both names lead to the tunnel.
pub fn records_step(subject: &Subject, tunnel: &TunnelId, records: &[DnsRecord]) -> Option<Step> {
    let comment = names::record_comment(
        subject.installation,
        subject.instance,
        &subject.namespace,
        &subject.name,
    );
    let (mut posts, mut patches) = (Vec::new(), Vec::new());
    for host in subject.hosts() {
        match records.iter().find(|record| record.name == host) {
            None => posts.push(NewDnsRecord::tunnel_cname(host, tunnel, comment.clone())),
            Some(record) if !leads_to(record, tunnel) => patches.push(DnsPatch {
                id: record.id.clone(),
                content: Some(tunnel.dns_target()),
                proxied: Some(true),
                comment: None,
            }),
            Some(_) => {}
        }
    }
    let nothing = posts.is_empty() && patches.is_empty();
    (!nothing).then_some(Step::EnsureRecords { posts, patches })
}

fn leads_to(record: &DnsRecord, tunnel: &TunnelId) -> bool {
    record.record_type == RecordType::Cname
        && record.content.as_deref() == Some(tunnel.dns_target().as_str())
        && record.proxied == Some(true)
}
