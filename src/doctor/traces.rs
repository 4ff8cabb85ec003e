//! What runs have made in the clouds, by its name, and its removal. A run looks for its own at the end, so
//! that also what a lost answer made goes, and for that of earlier ones, which were killed, at the beginning.

use std::{fmt, time::Duration};

use jiff::Timestamp;

use super::{
    CloudflareTarget, HetznerTarget, Target,
    finding::{Check, Finding},
    run_name::{COMMENT, LABEL, RunName},
};
use crate::{
    cloud::{CloudError, ErrorKind, Priority},
    cloudflare::{
        AccessApi as _, AccessAppId, AccessPolicyId, DnsApi as _, DnsBatch, DnsRecord, RecordId,
        ServiceTokenId, TunnelApi as _, TunnelId,
    },
    hetzner::{FirewallId, HetznerApi as _, LabelSelector, ServerId, SshKeyId},
};

/// What earlier runs left.
pub const LEFTOVERS: Check = Check { id: "write.leftovers", title: "Objects of earlier runs" };
/// What this run made is gone.
pub const CLEANUP: Check = Check { id: "write.cleanup", title: "Objects of this run" };

/// A run that began so recently may be under way.
const MAY_RUN: Duration = Duration::from_secs(15 * 60);
/// A server takes seconds to go, and its firewall a while longer to notice.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_secs(1);

/// Something that a run made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    run: RunName,
    what: Object,
}

/// In the order in which they can go.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Object {
    Server(ServerId),
    Firewall(FirewallId),
    SshKey(SshKeyId),
    App(AccessAppId),
    Policy(AccessPolicyId),
    ServiceToken(ServiceTokenId),
    Record(RecordId),
    Tunnel(TunnelId),
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.what {
            Object::Server(_) => "server",
            Object::Firewall(_) => "firewall",
            Object::SshKey(_) => "SSH key",
            Object::App(_) => "Access application",
            Object::Policy(_) => "Access policy",
            Object::ServiceToken(_) => "Access service token",
            Object::Record(_) => "DNS record",
            Object::Tunnel(_) => "tunnel",
        };
        write!(f, "{kind} {}", self.run)
    }
}

/// Everything that runs have made in the target's clouds.
pub async fn find(target: &Target) -> Result<Vec<Trace>, CloudError> {
    let mut found = match &target.hetzner {
        Some(hetzner) => at_hetzner(hetzner).await?,
        None => Vec::new(),
    };
    if let Some(cloudflare) = &target.cloudflare {
        found.extend(at_cloudflare(cloudflare).await?);
    }
    Ok(found)
}

/// The label alone is no proof: the name has to be of our form as well.
async fn at_hetzner(target: &HetznerTarget) -> Result<Vec<Trace>, CloudError> {
    let (client, ours) = (&target.client, LabelSelector::all_of([(LABEL, "true")]));
    let (servers, firewalls, keys) = tokio::join!(
        client.list_servers(Priority::Delete, &ours),
        client.list_firewalls(Priority::Delete, &ours),
        client.list_ssh_keys(Priority::Delete, &ours),
    );
    let mut found = Vec::new();
    let mut note = |name: &str, what| found.extend(trace(name, what));
    servers?.iter().for_each(|server| note(&server.name, Object::Server(server.id)));
    firewalls?.iter().for_each(|firewall| note(&firewall.name, Object::Firewall(firewall.id)));
    keys?.iter().for_each(|key| note(&key.name, Object::SshKey(key.id)));
    Ok(found)
}

async fn at_cloudflare(target: &CloudflareTarget) -> Result<Vec<Trace>, CloudError> {
    let (client, prefix) = (&target.client, super::run_name::PREFIX);
    let (apps, policies, tokens, records, tunnels) = tokio::join!(
        client.list_access_apps(Priority::Delete),
        client.list_access_policies(Priority::Delete),
        client.list_service_tokens(Priority::Delete),
        client.list_dns_records(Priority::Delete, &target.zone, COMMENT),
        client.list_tunnels(Priority::Delete, prefix),
    );
    let mut found = Vec::new();
    let mut note = |name: &str, what| found.extend(trace(name, what));
    let unseen = |error: &CloudError| {
        matches!(error.kind, ErrorKind::NotEnabled | ErrorKind::Forbidden { .. })
    };
    // What the token may not see, it has not made.
    for app in seen(apps, unseen)? {
        note(&app.name, Object::App(app.id));
    }
    for policy in seen(policies, unseen)? {
        note(&policy.name, Object::Policy(policy.id));
    }
    for token in seen(tokens, unseen)? {
        note(&token.name, Object::ServiceToken(token.id));
    }
    for record in seen(records, unseen)? {
        note(label_of(&record), Object::Record(record.id.clone()));
    }
    for tunnel in seen(tunnels, unseen)? {
        note(&tunnel.name, Object::Tunnel(tunnel.id));
    }
    Ok(found)
}

fn seen<T>(
    listed: Result<Vec<T>, CloudError>,
    unseen: impl Fn(&CloudError) -> bool,
) -> Result<Vec<T>, CloudError> {
    match listed {
        Err(error) if unseen(&error) => Ok(Vec::new()),
        listed => listed,
    }
}

/// The first label of our record; nothing of one that leads somewhere else by now.
fn label_of(record: &DnsRecord) -> &str {
    let target = record.content.as_deref().and_then(TunnelId::of_dns_target);
    let is_ours = record.comment.as_deref() == Some(COMMENT) && target.is_some();
    let label = record.name.split('.').next().filter(|_| is_ours);
    label.unwrap_or_default()
}

fn trace(name: &str, what: Object) -> Option<Trace> {
    RunName::of(name).map(|run| Trace { run, what })
}

/// Removes what runs have left that are surely over.
pub async fn remove_leftovers(target: &Target, now: Timestamp) -> Finding {
    let found = match find(target).await {
        Ok(found) => found,
        Err(error) => {
            return LEFTOVERS.fail(error.to_string(), "Run it again when the cloud answers");
        }
    };
    let (recent, old): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|trace| trace.run.age(now) < MAY_RUN);
    let left = remove(target, &old).await;
    if !left.is_empty() {
        return LEFTOVERS.fail(format!("Left by earlier runs: {}", listed(&left)), BY_HAND);
    }
    match (recent.is_empty(), old.len()) {
        (false, _) => LEFTOVERS.warn(
            format!("Another run is under way, or was killed just now: {}", listed(&recent)),
            "Nothing, or run --write again in a quarter of an hour, which deletes them",
        ),
        (true, 0) => LEFTOVERS.pass("There are none"),
        (true, count) => LEFTOVERS.pass(format!("{count} were deleted: {}", listed(&old))),
    }
}

/// Removes what this run has made.
pub async fn clean_up(target: &Target, run: RunName) -> Finding {
    let found = match find(target).await {
        Ok(found) => found,
        Err(error) => return CLEANUP.fail(format!("They cannot be listed: {error}"), BY_HAND),
    };
    let made: Vec<_> = found.into_iter().filter(|trace| trace.run == run).collect();
    let left = remove(target, &made).await;
    if left.is_empty() {
        let one = if made.len() == 1 { "object was" } else { "objects were" };
        return CLEANUP.pass(format!("{} {one} deleted", made.len()));
    }
    CLEANUP.fail(format!("Still there: {}", listed(&left)), BY_HAND)
}

const BY_HAND: &str = "Delete moorage-doctor-* by hand in the consoles, or run --write again in a quarter of an hour. A server costs money until it is deleted";

fn listed(traces: &[Trace]) -> String {
    traces.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Removes them in order, and gives what could not be removed.
async fn remove(target: &Target, traces: &[Trace]) -> Vec<Trace> {
    let mut left = Vec::new();
    for trace in traces {
        if let Err(error) = remove_one(target, &trace.what).await {
            tracing::debug!(%trace, %error, "a trace cannot be removed");
            left.push(trace.clone());
        }
    }
    left
}

/// Waits while something else still uses it, and until a server is confirmed to be gone.
async fn remove_one(target: &Target, what: &Object) -> Result<(), CloudError> {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let removed = attempt(target, what).await;
        let again = match &removed {
            Ok(gone) => !gone,
            Err(error) => matches!(
                error.kind,
                ErrorKind::ResourceInUse
                    | ErrorKind::Locked
                    | ErrorKind::Transient { .. }
                    | ErrorKind::Timeout { .. }
            ),
        };
        if !again || tokio::time::Instant::now() > end {
            return removed.map(|_| ());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether it is gone.
async fn attempt(target: &Target, what: &Object) -> Result<bool, CloudError> {
    if let Some(HetznerTarget { client, .. }) = &target.hetzner {
        match what {
            Object::Server(id) => {
                client.delete_server(*id).await?;
                return Ok(client.get_server(Priority::Delete, *id).await?.is_none());
            }
            Object::Firewall(id) => return client.delete_firewall(*id).await.map(|_| true),
            Object::SshKey(id) => return client.delete_ssh_key(*id).await.map(|_| true),
            _ => {}
        }
    }
    let Some(CloudflareTarget { client, zone, .. }) = &target.cloudflare else { return Ok(true) };
    match what {
        Object::App(id) => client.delete_access_app(id).await.map(|_| true),
        Object::Policy(id) => client.delete_access_policy(id).await.map(|_| true),
        Object::ServiceToken(id) => client.delete_service_token(id).await.map(|_| true),
        Object::Record(id) => {
            let batch = DnsBatch { deletes: vec![id.clone()], ..DnsBatch::default() };
            match client.dns_batch(zone, &batch).await {
                Err(error) if error.kind == ErrorKind::NotFound => Ok(true),
                deleted => deleted.map(|_| true),
            }
        }
        Object::Tunnel(id) => client.delete_tunnel(id).await.map(|_| true),
        Object::Server(_) | Object::Firewall(_) | Object::SshKey(_) => Ok(true),
    }
}
