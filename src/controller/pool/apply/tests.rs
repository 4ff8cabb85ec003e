#![allow(clippy::unwrap_used)] // Helpers of tests, outside of test functions.

use moorage_wire::InstallationId;
use rstest::rstest;
use serde_json::json;

use super::*;
use crate::pool::spec;
use crate::{
    api::{HostingPoolStatus, annotation::Mark},
    cloudflare::{AccessDestination, AccountId, Zone, ZoneAccount, ZoneId},
    controller::{
        pool::{deletion::Deletion, fakes::Fakes},
        status,
    },
    hetzner::{Direction, Firewall, FirewallRule, Labels, Protocol, ServerType, SshKey},
    pool::status::{Findings, of_pass},
    problem::{Problem, Retry},
};

const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFirst";

fn spec() -> HostingPoolSpec {
    serde_json::from_value(json!({
        "hetzner": {
            "tokenSecretRef": { "name": "hetzner" },
            "serverTypes": ["cx33"],
            "locations": ["fsn1"],
            "ssh": { "user": "ops", "keys": [KEY], "allowFrom": ["203.0.113.7/32"] },
        },
        "cloudflare": {
            "tokenSecretRef": { "name": "cloudflare" },
            "accountId": ACCOUNT,
            "zoneId": "fedcba9876543210fedcba9876543210",
            "domain": "example.com",
        },
        "capacity": 10,
    }))
    .unwrap()
}

fn catalogue(names: &[&str]) -> Vec<ServerType> {
    let kind =
        |name: &&str| json!({"name": name, "architecture": "x86", "locations": [{"name": "fsn1"}]});
    names.iter().map(|name| serde_json::from_value(kind(name)).unwrap()).collect()
}

/// A pool over in-memory clouds, with what its status says.
struct World {
    fakes: Fakes,
    spec: HostingPoolSpec,
    status: HostingPoolStatus,
    has_instances: bool,
    retry: Option<Mark>,
    offers: Option<Arc<Offers>>,
}

impl World {
    fn new() -> Self {
        let fakes = Fakes::default();
        fakes.state().server_types = catalogue(&["cx33"]);
        fakes.state().zone = Some(Zone {
            id: ZoneId::parse("fedcba9876543210fedcba9876543210").unwrap(),
            name: "example.com".to_owned(),
            status: None,
            paused: false,
            kind: None,
            name_servers: None,
            plan: None,
            created_on: None,
            account: ZoneAccount { id: AccountId::parse(ACCOUNT).unwrap() },
        });
        let status = HostingPoolStatus::default();
        Self { fakes, spec: spec(), status, has_instances: true, retry: None, offers: None }
    }

    fn identity() -> PoolIdentity {
        PoolIdentity::new("eu-1", InstallationId::from_bytes([7; 8]))
    }

    fn clouds(&self) -> Clouds<'_> {
        Clouds { hetzner: &self.fakes, cloudflare: &self.fakes }
    }

    /// One pass; says whether it would have written the status.
    async fn pass(&mut self, thorough: bool) -> (Outcome, bool) {
        let identity = Self::identity();
        let parsed = spec::parse_spec(&self.spec).unwrap();
        let stored = AccessSecret::read(&self.fakes).await.unwrap();
        let recorded = self.status.firewall_id.map(FirewallId);
        let pass = Pass {
            clouds: self.clouds(),
            secret: &self.fakes,
            identity: &identity,
            spec: &self.spec,
            parsed: &parsed,
            marker: Marker {
                recorded,
                has_instances: self.has_instances,
                retry: self.retry.as_ref(),
            },
            recorded_access: self.status.access.as_ref(),
            stored: &stored,
            offers: self.offers.as_ref(),
            thorough,
            now: Timestamp::UNIX_EPOCH,
            namespace: "moorage-system",
        };
        let outcome = pass.run().await;
        let findings = Findings {
            generation: Some(1),
            firewall: outcome.firewall,
            access: outcome.access.clone(),
            instances: 1,
            certificate: None,
            master_key: super::super::fakes::master_key(),
            unaccounted: crate::pool::Unaccounted::default(),
            deleting: false,
            problem: outcome.problem.as_ref(),
            serving: false,
            offers: outcome.offers.as_deref(),
            usage: None,
        };
        self.offers.clone_from(&outcome.offers);
        let wanted = of_pass(&self.status, &findings, Timestamp::UNIX_EPOCH);
        let differs = status::differs(Some(&self.status), &wanted);
        self.status = wanted;
        (outcome, differs)
    }

    async fn tear_down(&self) -> Result<(), Problem> {
        let identity = Self::identity();
        let token_secret = |_: &CloudError| "Secret".to_owned();
        let zone = ZoneId::parse("fedcba9876543210fedcba9876543210").unwrap();
        let (clouds, secret) = (self.clouds(), &self.fakes);
        let deletion = Deletion {
            clouds,
            secret,
            identity: &identity,
            zone: &zone,
            domain: "example.com",
            token_secret: &token_secret,
        };
        deletion.run().await
    }

    fn writes(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.fakes.state().writes)
    }

    fn reads(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.fakes.state().reads)
    }
}

fn reason(outcome: &Outcome) -> Option<Reason> {
    outcome.problem.as_ref().map(|problem| problem.reason)
}

#[tokio::test]
async fn the_second_pass_writes_nothing() {
    let mut world = World::new();
    let (first, written) = world.pass(true).await;
    assert_eq!(first.problem, None);
    assert!(written);
    assert_eq!(
        world.writes(),
        [
            "create_firewall",
            "create_ssh_key",
            "create_service_token",
            "store_secret",
            "create_access_policy",
            "create_access_app",
            "dns_batch",
        ]
    );
    let facilities = first.facilities().unwrap();
    let firewall = world.fakes.state().firewalls[0].clone();
    assert_eq!(facilities.firewall, firewall.id);
    assert_eq!(firewall.labels, World::identity().labels());
    assert_eq!(firewall.rules.len(), 1);
    assert_eq!(firewall.rules[0].source_ips, ["203.0.113.7/32"]);
    let app = world.fakes.state().apps[0].clone();
    assert_eq!(app.destinations, Some(vec![AccessDestination::public("*-mgmt.example.com")]));
    assert!(world.fakes.state().stored_token_works());

    for thorough in [true, false] {
        world.reads();
        let (again, written) = world.pass(thorough).await;
        assert_eq!((again.problem, written), (None, false));
        assert_eq!(world.writes(), [""; 0]);
        let calls = if thorough { 8 } else { 3 };
        assert_eq!(world.reads().len(), calls);
    }
}

#[tokio::test]
async fn an_unknown_server_type_blocks_no_instance() {
    let mut world = World::new();
    world.pass(true).await;
    let ready = |world: &World| {
        let ready = world.status.conditions.iter().find(|known| known.type_ == "Ready").unwrap();
        (ready.status.clone(), ready.reason.clone())
    };
    let is = |status: &str, reason: Reason| (status.to_owned(), reason.to_string());
    assert_eq!(ready(&world), is("True", Reason::Ready));
    world.spec.hetzner.server_types.push("cx34".parse().unwrap());
    for (catalogue, verdict) in [
        (catalogue(&["cx33"]), is("True", Reason::NotOffered)),
        (catalogue(&["cx23"]), is("False", Reason::InvalidSpec)),
        (catalogue(&["cx33", "cx34"]), is("True", Reason::Ready)),
    ] {
        world.fakes.state().server_types = catalogue;
        for thorough in [true, false] {
            let (outcome, _) = world.pass(thorough).await;
            assert!(outcome.facilities().is_ok());
            assert_eq!(ready(&world), verdict, "thorough: {thorough}");
        }
    }
}

#[tokio::test]
async fn without_ssh_nothing_comes_in_and_nobody_has_the_key() {
    let mut world = World::new();
    world.spec.hetzner.ssh = None;
    let (outcome, _) = world.pass(true).await;
    assert_eq!(outcome.problem, None);
    assert_eq!(world.fakes.state().firewalls[0].rules, []);
    let keys = world.fakes.state().ssh_keys.clone();
    assert_eq!(outcome.ssh_keys, [keys[0].id]);
    assert_ne!(keys[0].public_key, KEY);
}

/// Any single write may fail, before or after it took effect: the next passes end at the same state,
/// with nothing made twice.
#[rstest]
#[tokio::test]
async fn a_failure_of_any_write_leaves_no_orphan(
    #[values(0, 1, 2, 3, 4, 5, 6)] number: usize,
    #[values(false, true)] took_effect: bool,
) {
    let mut world = World::new();
    world.fakes.state().fail_write = Some((number, took_effect));
    let (failed, _) = world.pass(true).await;
    assert!(failed.problem.is_some());
    assert!(failed.facilities().is_err());
    let (healed, _) = world.pass(true).await;
    assert_eq!(healed.problem, None);
    let (quiet, written) = world.pass(true).await;
    assert_eq!((quiet.problem, written), (None, false));
    let state = world.fakes.state();
    let counts = [
        state.firewalls.len(),
        state.ssh_keys.len(),
        state.tokens.len(),
        state.policies.len(),
        state.apps.len(),
        state.records.len(),
    ];
    assert_eq!(counts, [1; 6]);
    assert!(state.stored_token_works());
    let headers = healed.headers.unwrap();
    let (client_id, secret) = state.stored.clone().unwrap();
    assert_eq!(headers.client_id, client_id);
    assert_eq!(headers.client_secret.expose_str(), Some(secret.as_str()));
}

#[tokio::test]
async fn rules_that_someone_opened_are_closed_again() {
    let mut world = World::new();
    world.pass(true).await;
    let open = FirewallRule {
        direction: Direction::In,
        protocol: Protocol::Tcp,
        port: Some("1-65535".to_owned()),
        source_ips: vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()],
        destination_ips: Vec::new(),
        description: None,
    };
    world.fakes.state().firewalls[0].rules.push(open);
    world.writes();
    let (outcome, written) = world.pass(false).await;
    assert_eq!((outcome.problem, written), (None, false));
    assert_eq!(world.writes(), ["set_firewall_rules"]);
    assert_eq!(world.fakes.state().firewalls[0].rules.len(), 1);
}

#[tokio::test]
async fn a_token_of_another_project_blocks_the_pool_and_makes_nothing() {
    let mut world = World::new();
    world.pass(true).await;
    let recorded = world.status.firewall_id;
    world.fakes.state().firewalls.clear();
    world.writes();
    let (outcome, _) = world.pass(true).await;
    assert_eq!(reason(&outcome), Some(Reason::ProjectChanged));
    assert_eq!(outcome.facilities().err().unwrap().reason, Reason::ProjectChanged);
    assert_eq!(world.writes(), [""; 0]);
    assert_eq!(world.status.firewall_id, recorded, "the marker must not be forgotten");

    world.retry = Some(Mark::new("1"));
    assert_eq!(recorded, Some(1));
    let (outcome, written) = world.pass(true).await;
    assert_eq!((outcome.problem, written), (None, true));
    assert_ne!(world.status.firewall_id, recorded);
}

#[tokio::test]
async fn a_stranger_with_the_firewalls_name_is_left_alone() {
    let mut world = World::new();
    let (name, labels) = (World::identity().object_name(), Labels::new());
    let stranger =
        Firewall { id: FirewallId(99), name, labels, rules: Vec::new(), applied_to: Vec::new() };
    world.fakes.state().firewalls.push(stranger.clone());
    let (outcome, _) = world.pass(true).await;
    assert_eq!(reason(&outcome), Some(Reason::CloudRejected));
    assert_eq!(world.fakes.state().firewalls, [stranger]);
    assert_eq!(world.status.firewall_id, None);
}

#[tokio::test]
async fn a_persons_public_key_is_used_and_never_deleted() {
    let mut world = World::new();
    let theirs = SshKey {
        id: SshKeyId(50),
        name: "ada".to_owned(),
        fingerprint: String::new(),
        public_key: KEY.to_owned(),
        labels: Labels::new(),
    };
    world.fakes.state().ssh_keys.push(theirs.clone());
    let (outcome, _) = world.pass(true).await;
    assert_eq!(outcome.ssh_keys, [SshKeyId(50)]);
    while world.tear_down().await.is_err() {}
    assert_eq!(world.fakes.state().ssh_keys, [theirs]);
}

#[tokio::test]
async fn a_lost_secret_gets_a_new_one_for_the_same_token() {
    let mut world = World::new();
    world.pass(true).await;
    world.fakes.state().stored = None;
    world.writes();
    let (outcome, written) = world.pass(false).await;
    assert_eq!((outcome.problem, written), (None, false));
    assert_eq!(world.writes(), ["rotate_service_token", "store_secret"]);
    assert!(world.fakes.state().stored_token_works());
}

#[tokio::test]
async fn a_foreign_secret_is_neither_read_nor_replaced() {
    let mut world = World::new();
    world.fakes.state().foreign_secret = true;
    let (outcome, _) = world.pass(true).await;
    assert_eq!(reason(&outcome), Some(Reason::ForeignSecret));
    assert!(world.fakes.state().tokens.is_empty());
}

#[tokio::test]
async fn an_application_that_lost_its_policy_is_repaired_by_a_glance() {
    let mut world = World::new();
    world.pass(true).await;
    world.fakes.state().apps[0].policies = Some(Vec::new());
    world.writes();
    let (outcome, _) = world.pass(false).await;
    assert_eq!(outcome.problem, None);
    assert_eq!(world.writes(), ["update_access_app"]);
}

#[tokio::test]
async fn a_refused_token_stalls_the_pool_and_names_the_secret() {
    let mut world = World::new();
    world.fakes.state().refuse = Some((Cloud::Cloudflare, ErrorKind::Unauthorized));
    let (outcome, _) = world.pass(true).await;
    let problem = outcome.problem.unwrap();
    assert_eq!((problem.reason, problem.retry), (Reason::Unauthorized, Retry::Slowly));
    assert!(problem.message.contains("Secret moorage-system/cloudflare (key token)"));
    assert!(world.status.conditions.iter().any(|condition| condition.type_ == "Stalled"));
}

#[tokio::test]
async fn a_zone_of_another_name_is_an_invalid_spec() {
    let mut world = World::new();
    world.spec.cloudflare.domain = "example.org".parse().unwrap();
    let (outcome, _) = world.pass(true).await;
    assert_eq!(reason(&outcome), Some(Reason::InvalidSpec));
    assert_eq!(world.writes(), [""; 0]);
}

#[tokio::test]
async fn a_deletion_ends_only_when_a_pass_finds_nothing_left() {
    let mut world = World::new();
    world.pass(true).await;
    world.writes();
    let first = world.tear_down().await.unwrap_err();
    assert_eq!(first.reason, Reason::Deleting);
    assert_eq!(
        world.writes(),
        [
            "dns_batch",
            "delete_access_app",
            "delete_access_policy",
            "delete_service_token",
            "delete_ssh_key",
            "delete_firewall",
        ]
    );
    world.tear_down().await.unwrap();
    assert_eq!(world.writes(), [""; 0]);
    assert_eq!(world.fakes.state().stored, None);
}

#[tokio::test]
async fn servers_of_the_pool_keep_its_objects() {
    let mut world = World::new();
    world.pass(true).await;
    world.writes();
    let server = serde_json::from_value(json!({
        "id": 1, "name": "moorage-ada", "status": "running", "created": "2026-01-01T00:00:00Z",
        "labels": World::identity().labels(), "server_type": { "name": "cx33" },
    }));
    world.fakes.state().servers.push(server.unwrap());
    let problem = world.tear_down().await.unwrap_err();
    assert!(problem.message.contains("moorage-ada"), "{}", problem.message);
    assert_eq!(world.writes(), [""; 0]);
}

#[rstest]
#[case(ErrorKind::Unauthorized)]
#[case(ErrorKind::Transient { maybe_applied: false })]
#[tokio::test]
async fn a_cloud_that_gives_no_answer_is_not_an_empty_one(#[case] kind: ErrorKind) {
    let mut world = World::new();
    world.pass(true).await;
    world.fakes.state().refuse = Some((Cloud::Hetzner, kind));
    assert!(world.tear_down().await.is_err());
    assert_eq!(world.fakes.state().firewalls.len(), 1);
}
