use std::time::Duration;

use moorage_wire::InstanceId;
use rstest::rstest;

use super::{
    removal::{Pace, is_kept},
    *,
};
use crate::{
    api::pool::OrphanKind,
    cloudflare::{DnsRecord, NewDnsRecord, TunnelId},
    instance::placeholders::new_record,
    inventory::fakes::Fakes,
    names,
    orphans::FoundOwner,
};

const OURS: InstallationId = InstallationId::from_bytes([1; 8]);
const THEIRS: InstallationId = InstallationId::from_bytes([2; 8]);

fn found(kind: OrphanKind, owner: FoundOwner, retained: bool) -> Found {
    Found {
        kind,
        id: "1".to_owned(),
        name: "ada".to_owned(),
        owner,
        retained,
        protected: false,
        pool: (kind == OrphanKind::Server).then(|| "eu-1".to_owned()),
        created: None,
        server_type: None,
        location: None,
        monthly_cost: (kind == OrphanKind::Server).then(|| "7.50".to_owned()),
    }
}

fn ada() -> FoundOwner {
    let place = Some(("tenants".to_owned(), "ada".to_owned()));
    FoundOwner::Instance { id: InstanceId::from_bytes([1; 16]), place }
}

#[test]
fn what_was_retained_and_what_it_needs_stays_unless_asked_for() {
    let pool = |name: &str| FoundOwner::Pool(name.to_owned());
    let all = [
        found(OrphanKind::Server, ada(), true),
        found(OrphanKind::Server, ada(), false),
        found(OrphanKind::Firewall, pool("eu-1"), false),
        found(OrphanKind::Firewall, pool("eu-2"), false),
    ];
    let kept = |too| all.iter().map(|one| is_kept(one, &all, too)).collect::<Vec<_>>();
    assert_eq!(kept(false), [true, false, true, false]);
    assert_eq!(kept(true), [false; 4]);
}

/// A record of ada's in an installation.
fn record_of(installation: InstallationId) -> DnsRecord {
    let tunnel = TunnelId::parse("6ff42ae2-765d-4adf-8112-31c55c1551ef").unwrap();
    let id = InstanceId::from_bytes([1; 16]);
    let comment = names::record_comment(installation, id, "tenants", "ada");
    new_record(&NewDnsRecord::tunnel_cname("ada.example.com", &tunnel, comment))
}

/// What becomes of a record while the cloud cannot be reached, and what is said of it.
#[rstest]
#[case::it_is_still_there(Some(OURS), Outcome::Deleted, 1)]
#[case::it_has_gone(None, Outcome::Changed, 0)]
#[case::it_is_somebody_elses(Some(THEIRS), Outcome::Changed, 0)]
#[tokio::test]
async fn only_what_was_deleted_is_said_to_be(
    #[case] meanwhile: Option<InstallationId>,
    #[case] expected: Outcome,
    #[case] deletions: usize,
) {
    let (clouds, _) = Fakes::new();
    let zone = ZoneId::parse("zone").unwrap();
    let place = Place { hetzner: &*clouds, cloudflare: &*clouds, zone: &zone, installation: OURS };
    let targets = place.instances(&[], &[], &[record_of(OURS)]);
    assert_eq!(targets.len(), 1);
    clouds.state().down = true;
    let pace = Pace { pause: Duration::from_millis(1), patience: Duration::from_mins(1) };
    let removal = Removal { place: &place, pace, progress: &|_| () };
    // Polled second: the first attempt has failed by then.
    let change = async {
        let mut state = clouds.state();
        state.down = false;
        state.records.extend(meanwhile.map(record_of));
    };
    let (outcomes, ()) = futures::future::join(removal.run(&targets), change).await;
    assert_eq!(outcomes, [expected]);
    assert_eq!(clouds.state().batches.len(), deletions);
}

#[test]
fn the_list_says_what_became_of_each_and_what_is_left_costs() {
    let all = [
        found(OrphanKind::Server, ada(), false),
        found(OrphanKind::Server, ada(), true),
        found(OrphanKind::Tunnel, ada(), false),
    ];
    let outcomes = [Outcome::Deleted, Outcome::Kept, Outcome::Failed("in use".to_owned())];
    let rows: Vec<_> = all.iter().zip(&outcomes).collect();
    let text = render::text(&rows, true);
    for part in [
        "Server  1  ada  tenants/ada  deleted",
        "tenants/ada  kept: retained",
        "failed: in use",
        "1 deleted, 2 left, 1 of them kept.",
        "cost 7.50 a month",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let installation = InstallationId::from_bytes([7; 8]);
    let json: serde_json::Value =
        serde_json::from_str(&render::json(installation, &rows).unwrap()).unwrap();
    assert_eq!(json["installation"], installation.to_string());
    assert_eq!(json["objects"][2]["error"], "in use");
    assert_eq!(json["objects"][0]["outcome"], "Deleted");
}

#[test]
fn a_token_is_given_in_a_file_alone() {
    use clap::CommandFactory as _;
    let command = crate::cli::Cli::command();
    let cleanup = command.find_subcommand("cleanup").unwrap();
    let names: Vec<_> = cleanup.get_opts().filter_map(|option| option.get_long()).collect();
    let tokens: Vec<_> = names.into_iter().filter(|name| name.contains("token")).collect();
    assert_eq!(tokens, ["hetzner-token-file", "cloudflare-token-file"]);
}
