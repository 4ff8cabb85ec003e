//! `--spend`: the cheapest wanted server, made as Moorage makes it, timed, and deleted until it is gone.

use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    HetznerTarget,
    finding::{Check, Finding},
    hetzner::{Place, SCOPE, place},
    run_name::LABEL,
    write::{Run, firewall},
};
use crate::{
    cloud::{CloudError, Conflict, ErrorKind, Priority, SecretText},
    hetzner::{
        AppliedFirewall, CreateServer, CreateSshKey, CreatedServer, FirewallId, FirewallStatus,
        HetznerApi as _, LabelSelector, Labels, Server, ServerStatus, ServerType, SshKeyId,
        blames_the_place, openssh_ed25519,
    },
};

/// A server can be made, and what it does at first.
pub const SERVER: Check = Check { id: "spend.server", title: "Server" };

/// Hetzner's take 10 to 60 s.
const PATIENCE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_secs(1);

/// A wanted type in a wanted location.
#[derive(Debug, Clone, PartialEq)]
struct Offer {
    kind: String,
    location: String,
    /// An hour, in the project's currency; nothing less is billed.
    hour: f64,
}

/// What was seen of the server.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    offer: Offer,
    has_root_password: bool,
    /// How the firewall stood in the first answer; `None` if it was missing there.
    firewall_at_first: Option<FirewallStatus>,
    firewall_after: Option<Duration>,
    statuses: Vec<ServerStatus>,
    running_after: Option<Duration>,
    /// Why the action that makes it failed.
    failure: Option<String>,
}

pub(super) async fn check(run: &Run<'_>, target: &HetznerTarget) -> Finding {
    let types = match target.client.server_types(Priority::Normal).await {
        Ok(types) => types,
        Err(error) => return SERVER.refused(&error, SCOPE),
    };
    let offers = offers(&target.wanted, &types, Timestamp::now());
    if offers.is_empty() {
        return SERVER.unknown("Not tried: no wanted server can be ordered, see hetzner.offers");
    }
    let Some(public_key) = public_key_without_owner() else {
        return SERVER.fail("The system has no randomness", "Look at the machine");
    };
    let (firewall, key) = match prepare(run, target, public_key).await {
        Ok(prepared) => prepared,
        Err(error) => return SERVER.refused(&error, SCOPE),
    };
    let mut last = None;
    for offer in offers {
        if run.stop.is_cancelled() {
            return SERVER.unknown("Not tried");
        }
        (run.progress)(&format!("making a server, {} in {}", offer.kind, offer.location));
        let begin = Instant::now();
        let request = request(run, target, &offer, (firewall, key));
        match target.client.create_server(&request).await {
            Ok(created) => {
                let seen = watch(run, target, created, (offer, firewall), begin).await;
                return judge(&seen);
            }
            Err(error) if blames_the_place(&error) => last = Some(error),
            Err(error) => return SERVER.refused(&error, SCOPE),
        }
    }
    match last {
        Some(error) => SERVER.refused(&error, SCOPE),
        None => SERVER.unknown("Not tried"),
    }
}

/// What can be ordered, the cheapest first.
fn offers(wanted: &super::hetzner::Wanted, types: &[ServerType], now: Timestamp) -> Vec<Offer> {
    let wanted_types = types.iter().filter(|kind| wanted.server_types.contains(&kind.name));
    let mut offers: Vec<_> = wanted_types
        .flat_map(|kind| wanted.locations.iter().map(move |location| (kind, location)))
        .filter(|(kind, location)| {
            matches!(place(kind, location, now), Place::Available | Place::Ending)
        })
        .map(|(kind, location)| Offer {
            kind: kind.name.clone(),
            location: location.clone(),
            hour: price(kind, location),
        })
        .collect();
    offers.sort_by(|a, b| a.hour.total_cmp(&b.hour));
    offers
}

fn price(kind: &ServerType, location: &str) -> f64 {
    let there = kind.prices.iter().find(|price| price.location == location);
    let hour = there.and_then(|price| price.price_hourly.as_ref()?.gross.parse().ok());
    // One without a price is tried last.
    hour.unwrap_or(f64::INFINITY)
}

/// The firewall and a key that nobody has: with it, Hetzner makes no root password.
async fn prepare(
    run: &Run<'_>,
    target: &HetznerTarget,
    public_key: String,
) -> Result<(FirewallId, SshKeyId), CloudError> {
    let client = &target.client;
    let wanted = firewall::of(run);
    let firewall = match client.create_firewall(&wanted).await {
        Err(error) if error.kind == ErrorKind::Conflict(Conflict::NameTaken) => {
            let ours = LabelSelector::all_of([(LABEL, "true")]);
            let found = client.list_firewalls(Priority::Normal, &ours).await?;
            found.into_iter().find(|firewall| firewall.name == wanted.name).ok_or(error)?
        }
        made => made?,
    };
    let key = CreateSshKey {
        name: run.name.to_string(),
        public_key,
        labels: Labels::from([(LABEL.to_owned(), "true".to_owned())]),
    };
    Ok((firewall.id, client.create_ssh_key(&key).await?.id))
}

/// An Ed25519 key in OpenSSH's format whose private half is dropped at once.
fn public_key_without_owner() -> Option<String> {
    let pair = Ed25519KeyPair::generate().ok()?;
    Some(openssh_ed25519(pair.public_key().as_ref()))
}

fn request(
    run: &Run<'_>,
    target: &HetznerTarget,
    offer: &Offer,
    (firewall, key): (FirewallId, SshKeyId),
) -> CreateServer {
    CreateServer {
        name: run.name.to_string(),
        server_type: offer.kind.clone(),
        image: target.wanted.image.clone(),
        location: Some(offer.location.clone()),
        labels: Labels::from([(LABEL.to_owned(), "true".to_owned())]),
        ssh_keys: vec![key],
        user_data: SecretText::new("#cloud-config\n{}\n".to_owned()),
        firewalls: vec![firewall],
        enable_ipv4: true,
        enable_ipv6: true,
    }
}

/// Looks at it until it runs behind its firewall.
async fn watch(
    run: &Run<'_>,
    target: &HetznerTarget,
    created: CreatedServer,
    (offer, firewall): (Offer, FirewallId),
    begin: Instant,
) -> Seen {
    let status = |server: &Server| {
        let ours = |applied: &&AppliedFirewall| applied.id == firewall;
        server.public_net.firewalls.iter().find(ours).map(|applied| applied.status.clone())
    };
    let mut seen = Seen {
        offer,
        has_root_password: created.has_root_password,
        firewall_at_first: status(&created.server),
        firewall_after: None,
        statuses: Vec::new(),
        running_after: None,
        failure: None,
    };
    let id = created.server.id;
    let mut server = created.server;
    loop {
        if seen.statuses.last() != Some(&server.status) {
            seen.statuses.push(server.status.clone());
        }
        if server.status == ServerStatus::Running {
            seen.running_after.get_or_insert_with(|| begin.elapsed());
        }
        if status(&server) == Some(FirewallStatus::Applied) {
            seen.firewall_after.get_or_insert_with(|| begin.elapsed());
        }
        let done = seen.running_after.is_some() && seen.firewall_after.is_some();
        if done || begin.elapsed() > PATIENCE || run.stop.is_cancelled() {
            return seen;
        }
        let failed = target.client.failed_actions(Priority::Normal, id).await.unwrap_or_default();
        if let Some(error) = failed.into_iter().find_map(|action| action.error) {
            seen.failure = Some(format!("{}: {}", error.code, error.message));
            return seen;
        }
        run.pause(PAUSE).await;
        match target.client.get_server(Priority::Normal, id).await {
            Ok(Some(next)) => server = next,
            Ok(None) => {
                seen.failure = Some("somebody deleted it".to_owned());
                return seen;
            }
            Err(_) => {}
        }
    }
}

fn judge(seen: &Seen) -> Finding {
    let Offer { kind, location, hour } = &seen.offer;
    let cents = if hour.is_finite() {
        format!("{:.1} cents and its IPv4 address", hour * 100.0)
    } else {
        "an unknown amount".to_owned()
    };
    let what = format!("{kind} in {location}, billed for an hour ({cents})");
    if let Some(failure) = &seen.failure {
        return SERVER
            .fail(format!("{what}: it was not made: {failure}"), "Run it again; then ask Hetzner");
    }
    let path = seen.statuses.iter().map(ServerStatus::as_str).collect::<Vec<_>>().join(", ");
    let Some(running) = seen.running_after else {
        return SERVER.fail(
            format!("{what}: it does not run after {} s; it was {path}", PATIENCE.as_secs()),
            "Name another server type or location first",
        );
    };
    let Some(protected) = seen.firewall_after else {
        return SERVER.fail(
            format!("{what}: it runs, and its firewall is not in force"),
            "Ask Hetzner: servers of this project would be open",
        );
    };
    let first = seen.firewall_at_first.as_ref().map_or("missing", FirewallStatus::as_str);
    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    let detail = format!(
        "{what}: {path}; running after {}; its firewall {first} at first, applied after {}",
        seconds(running),
        seconds(protected)
    );
    if seen.has_root_password {
        return SERVER.warn(
            format!("{detail}; a root password was made in spite of an SSH key"),
            "Nothing: no password opens SSH on these servers",
        );
    }
    SERVER.pass(format!("{detail}; no root password"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict::{self, Fail, Pass, Warn};
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use rstest::rstest;
    use serde_json::json;

    fn healthy() -> Seen {
        let offer = Offer { kind: "cx23".to_owned(), location: "fsn1".to_owned(), hour: 0.006 };
        Seen {
            offer,
            has_root_password: false,
            firewall_at_first: Some(FirewallStatus::Pending),
            firewall_after: Some(Duration::from_secs(2)),
            statuses: vec![ServerStatus::Initializing, ServerStatus::Running],
            running_after: Some(Duration::from_secs(14)),
            failure: None,
        }
    }

    #[rstest]
    #[case::healthy(|_: &mut Seen| (), Pass, "0.6 cents")]
    #[case::password(|seen: &mut Seen| seen.has_root_password = true, Warn, "root password")]
    #[case::never_runs(|seen: &mut Seen| seen.running_after = None, Fail, "does not run")]
    #[case::open(|seen: &mut Seen| seen.firewall_after = None, Fail, "not in force")]
    #[case::failed(|seen: &mut Seen| seen.failure = Some("server_error: no".to_owned()), Fail, "server_error")]
    #[case::no_price(|seen: &mut Seen| seen.offer.hour = f64::INFINITY, Pass, "unknown amount")]
    fn a_server_is_judged_by_how_it_began(
        #[case] change: fn(&mut Seen),
        #[case] verdict: Verdict,
        #[case] says: &str,
    ) {
        let mut seen = healthy();
        change(&mut seen);
        let finding = judge(&seen);
        assert_eq!(finding.verdict, verdict, "{finding:?}");
        assert!(finding.detail.contains(says), "{finding:?}");
    }

    #[test]
    fn the_cheapest_that_can_be_ordered_is_made() {
        let kind = |name: &str, hour: &str, available: bool| {
            json!({
                "name": name, "architecture": "x86",
                "locations": [{"name": "fsn1", "available": available}],
                "prices": [{
                    "location": "fsn1", "price_hourly": {"gross": hour}, "price_monthly": {"gross": "5"},
                }],
            })
        };
        let types = json!([
            kind("dear", "0.02", true),
            kind("sold-out", "0.001", false),
            kind("cheap", "0.01", true),
            kind("unwanted", "0.001", true),
        ]);
        let wanted = crate::doctor::hetzner::Wanted {
            server_types: ["dear", "sold-out", "cheap"].map(str::to_owned).to_vec(),
            locations: vec!["fsn1".to_owned(), "nbg1".to_owned()],
            image: "debian-13".to_owned(),
            ssh_keys: None,
        };
        let types: Vec<ServerType> = serde_json::from_value(types).unwrap();
        let offers = offers(&wanted, &types, Timestamp::UNIX_EPOCH);
        let names: Vec<_> = offers.iter().map(|offer| offer.kind.as_str()).collect();
        assert_eq!(names, ["cheap", "dear"]);
    }

    #[test]
    fn a_key_without_owner_is_one_in_openssh_form() {
        let key = public_key_without_owner().unwrap();
        let blob = STANDARD.decode(key.strip_prefix("ssh-ed25519 ").unwrap()).unwrap();
        assert_eq!((blob.len(), &blob[4..15]), (51, &b"ssh-ed25519"[..]));
    }
}
