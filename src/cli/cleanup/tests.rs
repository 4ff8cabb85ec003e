use moorage_wire::InstanceId;

use super::{removal::is_kept, *};
use crate::{api::pool::OrphanKind, orphans::FoundOwner};

fn found(kind: OrphanKind, owner: FoundOwner, retained: bool) -> Found {
    Found {
        kind,
        id: "1".to_owned(),
        name: "ada".to_owned(),
        owner,
        retained,
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
