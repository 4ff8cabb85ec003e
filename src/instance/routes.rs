//! The two routes: ingress rules of the tunnel and the DNS records that lead to it.

use moorage_wire::{
    Sha256,
    bootstrap::{AGENT_SOCKET_PATH, GATEWAY_PORT},
};

use super::{
    Observed, Part, Step, Wanted,
    observed::AgentState,
    plan::{SOON, Timing},
    wanted::{Refused, Subject},
};
use crate::{
    api::conditions::{ConditionType::RoutesReady, Reason, Verdict},
    cloudflare::{
        DnsPatch, DnsRecord, IngressRule, NewDnsRecord, RecordType, TunnelConfiguration, TunnelId,
    },
    inventory::InstanceView,
    ownership::{Marked as _, Owner, Ownership, Place},
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
pub fn plan(wanted: &Wanted, observed: &Observed, timing: Timing) -> Part {
    let Some(tunnel) = &observed.tunnel else {
        return Part::wait(
            Verdict::unknown(RoutesReady, Reason::Waiting, "Waits for the tunnel"),
            SOON,
        );
    };
    let mut part = Part {
        passable: true,
        verdicts: vec![Verdict::yes(
            RoutesReady,
            Reason::Ready,
            "Both host names lead to the server",
        )],
        ..Part::default()
    };
    let rules = configuration(&wanted.subject);
    match rules_step(observed, tunnel.id.clone(), rules, timing) {
        Some(step @ Step::PutRoutes(..)) => {
            part.verdicts =
                vec![Verdict::no(RoutesReady, Reason::Progressing, "The routes are being set")];
            part.steps.push(step);
        }
        step => part.steps.extend(step),
    }
    let records = records_step(&wanted.subject, &tunnel.id, &observed.records);
    if records.is_some() {
        part.verdicts =
            vec![Verdict::no(RoutesReady, Reason::Progressing, "The DNS records are being set")];
    }
    part.steps.extend(records);
    part
}

fn rules_step(
    observed: &Observed,
    tunnel: TunnelId,
    rules: TunnelConfiguration,
    timing: Timing,
) -> Option<Step> {
    let wanted = digest(&rules);
    match observed.tunnel_memory.rules {
        Some((known, _)) if known != wanted => Some(Step::PutRoutes(tunnel, rules)),
        Some((_, at)) => {
            let due = observed.now.duration_since(at).unsigned_abs() >= timing.routes;
            due.then_some(Step::CheckRoutes(tunnel, rules))
        }
        // An agent that answers through the tunnel shows that there are rules; a comparison is enough.
        None if matches!(observed.agent, AgentState::Reported(_)) => {
            Some(Step::CheckRoutes(tunnel, rules))
        }
        None => Some(Step::PutRoutes(tunnel, rules)),
    }
}

/// What has to be made or corrected so that both names lead to the tunnel.
pub fn records_step(subject: &Subject, tunnel: &TunnelId, records: &[DnsRecord]) -> Option<Step> {
    let comment = subject.record_comment();
    let (mut posts, mut patches) = (Vec::new(), Vec::new());
    for host in subject.hosts() {
        match records.iter().find(|record| record.name == host) {
            None => posts.push(NewDnsRecord::tunnel_cname(host, tunnel, comment.clone())),
            Some(record) => {
                let (astray, nameless) = (!leads_to(record, tunnel), record.mark().is_none());
                if astray || nameless {
                    patches.push(DnsPatch {
                        id: record.id.clone(),
                        content: astray.then(|| tunnel.dns_target()),
                        proxied: astray.then_some(true),
                        // Without it the record is known only as long as the tunnel is.
                        comment: nameless.then(|| comment.clone()),
                    });
                }
            }
        }
    }
    let nothing = posts.is_empty() && patches.is_empty();
    (!nothing).then_some(Step::EnsureRecords { posts, patches })
}

/// Why the instance cannot have its host names, if something that is not its own stands there.
pub fn taken(owner: &Owner, view: &InstanceView) -> Option<Refused> {
    let tunnels: Vec<_> = view.tunnels.iter().map(|tunnel| tunnel.id.clone()).collect();
    let (record, whose) = view
        .records
        .iter()
        .map(|record| (record, owner.record(record, &tunnels)))
        .find(|(_, whose)| !whose.is_ours())?;
    let host = &record.name;
    let of = |place: Option<Place>| {
        place.map_or_else(|| "an instance".to_owned(), |place| format!("instance {place}"))
    };
    let (reason, message) = match whose {
        Ownership::Ours => return None,
        Ownership::Retained(place) => (
            Reason::Retained,
            format!(
                "The DNS record at {host} was kept for the server of {}, which was deleted with deletionPolicy Retain. Remove the record when that server is no longer needed, or make this instance with another hostname",
                of(place)
            ),
        ),
        Ownership::FormerInstallation { installation, place } => (
            Reason::ForeignDnsRecord,
            format!(
                "The DNS record at {host} is of {} of another Moorage installation, {installation}, and is left untouched. If that was this cluster before it was lost, restore its Secret moorage-master-key and the instance finds its server again; else make this one with another hostname",
                of(place)
            ),
        ),
        Ownership::AnotherInstance { place, .. } => (
            Reason::ForeignDnsRecord,
            format!(
                "The DNS record at {host} is of {} of this installation, and is left untouched. Delete that instance first (apply its manifest again if it is gone already), or make this one with another hostname",
                of(place)
            ),
        ),
        Ownership::Foreign => (Reason::ForeignDnsRecord, foreign(record)),
    };
    Some(Refused::terminal(reason, message))
}

/// A record that nothing shows to be Moorage's.
fn foreign(record: &DnsRecord) -> String {
    let DnsRecord { name, record_type, .. } = record;
    let content = record.content.as_deref().unwrap_or_default();
    let advice = if content.ends_with(".cfargotunnel.com") {
        "If that tunnel is of a lost Moorage, see what it serves before you remove it; else make the instance with another hostname"
    } else {
        "If nobody needs it, remove it, or make the instance with another hostname"
    };
    format!(
        "There is a DNS record at {name} ({record_type} {content}) that is not this instance's, and it is left untouched. {advice}"
    )
}

fn leads_to(record: &DnsRecord, tunnel: &TunnelId) -> bool {
    record.record_type == RecordType::Cname
        && record.content.as_deref() == Some(tunnel.dns_target().as_str())
        && record.proxied == Some(true)
}
