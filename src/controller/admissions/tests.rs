//! Who is admitted while instances and pools come and go.

use super::*;
use crate::clock::SystemClock;
use serde_json::json;

fn admissions() -> Admissions {
    Admissions::new(Arc::new(SystemClock), InstallationId::from_bytes([1; 8]))
}

fn instance(namespace: &str, name: &str) -> OpenClawInstance {
    let spec = json!({"pool": "eu-1", "hostname": "ada"});
    let mut instance = OpenClawInstance::new(name, serde_json::from_value(spec).unwrap());
    instance.metadata.namespace = Some(namespace.to_owned());
    instance.metadata.uid = Some(name.to_owned());
    instance
}

fn applicant(namespace: &str, name: &str, created: i64) -> Applicant {
    Applicant {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: name.to_owned(),
        created: Timestamp::from_second(created).unwrap(),
        pool: "eu-1".to_owned(),
        hostname: "ada".to_owned(),
        granted: false,
        let_in: false,
        begun: false,
        resting: false,
        leaving: false,
        ended: false,
    }
}

fn pool(allowed: &[&str]) -> HostingPoolSpec {
    let token = json!({"name": "token"});
    serde_json::from_value(json!({
        "hetzner": {"tokenSecretRef": token, "serverTypes": ["cx33"], "locations": ["fsn1"]},
        "cloudflare": {"tokenSecretRef": token, "accountId": "1".repeat(32), "zoneId": "2".repeat(32), "domain": "example.com"},
        "capacity": 3, "allowedNamespaces": allowed,
    }))
    .unwrap()
}

#[test]
fn who_was_let_in_keeps_its_name_before_an_older_one() {
    let all = Arc::new(Mutex::new(vec![applicant("tenants", "young", 2)]));
    let admissions = admissions();
    let known = Arc::clone(&all);
    admissions.follow(Vec::new(), move || (known.lock().clone(), Vec::new()));
    admissions.set_pool("eu-1", &pool(&["*"]), false);
    assert_eq!(admissions.admit(&instance("tenants", "young")), Some(Ok(())));
    all.lock().push(applicant("team-b", "old", 1));
    let old = admissions.admit(&instance("team-b", "old"));
    assert_eq!(old, Some(Err(Denied::HostnameTaken)));
    assert_eq!(admissions.admit(&instance("tenants", "young")), Some(Ok(())));
}

#[test]
fn an_ended_instance_counts_for_nothing() {
    let all = Arc::new(Mutex::new(vec![applicant("tenants", "ada", 1)]));
    let admissions = admissions();
    let known = Arc::clone(&all);
    admissions.follow(Vec::new(), move || (known.lock().clone(), Vec::new()));
    admissions.set_pool("eu-1", &pool(&["*"]), false);
    let ada = instance("tenants", "ada");
    assert_eq!(admissions.admit(&ada), Some(Ok(())));
    admissions.grant(&ada, true);
    let ended = Applicant { resting: true, ended: true, ..applicant("tenants", "ada", 1) };
    *all.lock() = vec![ended, applicant("team-b", "bob", 2)];
    // It has the same host name.
    assert_eq!(admissions.admit(&instance("team-b", "bob")), Some(Ok(())));
    assert!(!admissions.counts("eu-1", "tenants", "ada"));
}

/// Else whoever prepares many, each let in while it names no release, and suspends them all, would have
/// them begin past the hourly rate.
#[test]
fn one_that_rests_gives_up_the_place_that_it_was_let_into() {
    let one = |resting| vec![Applicant { resting, ..applicant("tenants", "ada", 2) }];
    let all = Arc::new(Mutex::new(one(false)));
    let (admissions, known) = (admissions(), Arc::clone(&all));
    admissions.follow(Vec::new(), move || (known.lock().clone(), Vec::new()));
    admissions.set_pool("eu-1", &pool(&["*"]), false);
    let ada = instance("tenants", "ada");
    assert_eq!(admissions.admit(&ada), Some(Ok(())));
    *all.lock() = one(true);
    admissions.state.lock().made = None;
    assert_eq!(admissions.admit(&ada), Some(Err(Denied::Resting)));
    // An older one wants the same host name meanwhile.
    let mut both = one(false);
    both.push(applicant("team-b", "old", 1));
    *all.lock() = both;
    admissions.state.lock().made = None;
    assert_eq!(admissions.admit(&ada), Some(Err(Denied::HostnameTaken)));
}

#[test]
fn a_life_that_was_counted_is_not_held_up_by_its_own_count() {
    let admissions = admissions();
    admissions.follow(Vec::new(), || (vec![applicant("tenants", "ada", 1)], Vec::new()));
    let limited = HostingPoolSpec { max_instances_per_namespace: Some(1), ..pool(&["*"]) };
    admissions.set_pool("eu-1", &limited, false);
    let ada = instance("tenants", "ada");
    let id = moorage_wire::InstanceId::from_bytes([7; 16]);
    let home = || Home {
        pool: "eu-1".to_owned(),
        namespace: "tenants".to_owned(),
        name: "ada".to_owned(),
    };
    for _ in 0..5 {
        admissions.begin(&instance("tenants", "gone"), id, home());
    }
    assert_eq!(admissions.admit(&ada), Some(Ok(())));
    admissions.begin(&ada, id, home());
    assert_eq!(admissions.admit(&ada), Some(Ok(())), "the sixth life is its own");
    admissions.state.lock().counted.clear();
    admissions.state.lock().made = None;
    assert_eq!(admissions.admit(&ada), Some(Err(Denied::ServerRate(6))));
}

/// Of a tunnel without records only its id is known, and the instance is gone.
#[test]
fn whose_life_began_here_is_known_when_the_instance_is_gone() {
    let admissions = admissions();
    let id = moorage_wire::InstanceId::from_bytes([7; 16]);
    let mut tunnel = crate::admission::Standing::new(id);
    tunnel.live.tunnels = 1;
    let standing = PoolStanding { pool: "eu-1".to_owned(), all: vec![Arc::new(tunnel)] };
    admissions.follow(Vec::new(), move || {
        (vec![applicant("tenants", "next", 1)], vec![standing.clone()])
    });
    let limited = HostingPoolSpec { max_instances_per_namespace: Some(1), ..pool(&["*"]) };
    admissions.set_pool("eu-1", &limited, false);
    let home =
        Home { pool: "eu-1".to_owned(), namespace: "tenants".to_owned(), name: "gone".to_owned() };
    admissions.begin(&instance("tenants", "gone"), id, home);
    let refused = Denied::NamespaceQuota { most: 1, left: 1 };
    assert_eq!(admissions.admit(&instance("tenants", "next")), Some(Err(refused)));
}

#[test]
fn a_pools_new_rules_hold_at_once() {
    let admissions = admissions();
    admissions.follow(Vec::new(), || (vec![applicant("tenants", "ada", 1)], Vec::new()));
    admissions.set_pool("eu-1", &pool(&[]), false);
    assert_eq!(
        admissions.admit(&instance("tenants", "ada")),
        Some(Err(Denied::NamespaceNotAllowed))
    );
    assert!(!admissions.counts("eu-1", "tenants", "ada"));
    admissions.take_changed();
    admissions.set_pool("eu-1", &pool(&["tenants"]), false);
    let ada = ("tenants".to_owned(), "ada".to_owned());
    assert!(admissions.take_changed().contains(&ada));
    assert!(admissions.counts("eu-1", "tenants", "ada"));
}

#[test]
fn one_that_cannot_be_read_counts_where_it_is_allowed() {
    let admissions = admissions();
    admissions.follow(vec!["tenants".to_owned(), "team-x".to_owned()], Default::default);
    admissions.set_pool("eu-1", &pool(&["tenants", "unwatched"]), false);
    assert!(admissions.counts("eu-1", "tenants", "malformed"));
    assert!(!admissions.counts("eu-1", "team-x", "malformed"));
    assert!(!admissions.counts("eu-1", "unwatched", "anything"));
}
