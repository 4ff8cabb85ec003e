//! Tests of what counts though no instance accounts for it.

use std::sync::Arc;

use moorage_wire::{InstallationId, InstanceId};

use super::*;
use crate::{admission::standing::Left, ownership};

const OURS: InstallationId = InstallationId::from_bytes([1; 8]);

fn id(namespace: &str, name: &str) -> InstanceId {
    ownership::instance_id(OURS, namespace, name)
}

/// Something of this namespace and name; what is given says so.
fn standing(namespace: &str, name: &str) -> Standing {
    let mut standing = Standing::new(id(namespace, name));
    standing.namespace = Some(namespace.into());
    standing.name = Some(name.into());
    standing
}

const ROUTES: Routes = Routes { tunnels: 1, records: 2 };

fn routes(namespace: &str, name: &str) -> Standing {
    Standing { live: ROUTES, ..standing(namespace, name) }
}

fn server(pool: Option<&str>, retained: bool) -> StandingServer {
    StandingServer { pool: pool.map(Into::into), retained }
}

fn with_server(standing: Standing) -> Standing {
    Standing { servers: vec![server(Some("eu-1"), false)], ..standing }
}

fn retained(namespace: &str, name: &str) -> Standing {
    let servers = vec![server(Some("eu-1"), true)];
    Standing { servers, retained: ROUTES, ..standing(namespace, name) }
}

/// A tunnel: its name has the id alone.
fn tunnel(namespace: &str, name: &str) -> Standing {
    let mut tunnel = Standing::new(id(namespace, name));
    tunnel.live.tunnels = 1;
    tunnel
}

/// How many places are left over: of namespace `a`, and of the pool.
fn left_in(population: &Population, pool: &str, rules: &HashMap<String, Rules>) -> (u32, u32) {
    let left = Left::of(population, rules);
    let of = |count: Option<&u32>| count.copied().unwrap_or_default();
    (of(left.by_namespace.get(&(pool, "a"))), of(left.by_pool.get(pool)))
}

fn population(applicants: &[Applicant], standing: &[Standing]) -> Population {
    let all = standing.iter().cloned().map(Arc::new).collect();
    Population {
        applicants: applicants.to_vec(),
        standing: vec![PoolStanding { pool: "eu-1".to_owned(), all }],
        installation: Some(OURS),
        ..Population::default()
    }
}

fn eu_1() -> HashMap<String, Rules> {
    HashMap::from([("eu-1".to_owned(), rules(&["*"], 50))])
}

fn left(applicants: &[Applicant], standing: &[Standing]) -> (u32, u32) {
    left_in(&population(applicants, standing), "eu-1", &eu_1())
}

fn verdict_of(one: &Applicant, standing: &[Standing], rules: Rules) -> Result<(), Denied> {
    let rules = HashMap::from([("eu-1".to_owned(), rules)]);
    let register = Register::of(&population(std::slice::from_ref(one), standing), &rules);
    verdict(&register, &one.name).unwrap()
}

#[test]
fn what_no_instance_has_takes_one_place_whatever_it_is() {
    let records = Standing { live: Routes { tunnels: 0, records: 2 }, ..standing("a", "gone") };
    let server = with_server(standing("a", "gone"));
    let all = with_server(routes("a", "gone"));
    for one in [records, routes("a", "gone"), server, all, retained("a", "gone")] {
        assert_eq!(left(&[], std::slice::from_ref(&one)), (1, 1), "{one:?}");
    }
}

#[test]
fn whoever_has_tunnels_left_has_no_room_in_the_namespace() {
    let limited = || Rules { per_namespace: Some(1), ..rules(&["*"], 5) };
    let next = applicant("a", "next", "next", 2);
    let refused = Err(Denied::NamespaceQuota { most: 1, left: 1 });
    assert_eq!(verdict_of(&next, &[routes("a", "gone")], limited()), refused);
    assert_eq!(verdict_of(&next, &[routes("b", "gone")], limited()), Ok(()));
    let full = Err(Denied::PoolFull { capacity: 1, left: 1 });
    assert_eq!(verdict_of(&next, &[routes("b", "gone")], rules(&["*"], 1)), full);
    // One that comes back to its own, and one that only has the name.
    let back = applicant("a", "gone", "gone", 3);
    assert_eq!(verdict_of(&granted(back.clone()), &[routes("a", "gone")], limited()), Ok(()));
    let resting = Applicant { resting: true, ..back };
    assert_eq!(left(&[resting], &[routes("a", "gone")]), (1, 1));
}

#[test]
fn what_an_instance_just_made_is_not_counted_beside_it() {
    let let_in = Applicant { let_in: true, ..applicant("a", "ada", "ada", 1) };
    for one in [tunnel("a", "ada"), routes("a", "ada"), with_server(routes("a", "ada"))] {
        assert_eq!(left(std::slice::from_ref(&let_in), std::slice::from_ref(&one)), (0, 0));
        let granted = granted(applicant("a", "ada", "ada", 1));
        assert_eq!(left(&[granted], &[one]), (0, 0));
    }
}

#[test]
fn a_tunnel_of_no_known_namespace_counts_for_the_pool_alone() {
    let gone = tunnel("a", "gone");
    assert_eq!(left(&[], std::slice::from_ref(&gone)), (0, 1));
    // Unless this process saw its life begin.
    let mut population = population(&[], std::slice::from_ref(&gone));
    let home = Home { pool: "eu-1".to_owned(), namespace: "a".to_owned(), name: "gone".to_owned() };
    population.homes.insert(gone.instance, home);
    assert_eq!(left_in(&population, "eu-1", &eu_1()), (1, 1));
}

#[test]
fn a_name_that_was_cut_off_still_says_its_namespace() {
    let cut = Standing { name: None, ..routes("a", "gone") };
    assert_eq!(left(&[], std::slice::from_ref(&cut)), (1, 1));
    let back = granted(applicant("a", "gone", "gone", 1));
    assert_eq!(left(&[back], &[cut]), (0, 0));
}

#[test]
fn every_life_that_was_retained_counts() {
    // Three lives: a server each, and a tunnel without a server.
    let servers = vec![server(Some("eu-1"), true), server(Some("eu-1"), true)];
    let routes = Routes { tunnels: 3, records: 6 };
    let lives = Standing { servers, retained: routes, ..standing("a", "ada") };
    assert_eq!(left(&[], std::slice::from_ref(&lives)), (3, 3));
    // The next of the name does not account for them.
    let next = granted(applicant("a", "ada", "ada", 1));
    assert_eq!(left(std::slice::from_ref(&next), std::slice::from_ref(&lives)), (3, 3));
    let with_its_own = Standing { live: ROUTES, ..lives.clone() };
    assert_eq!(left(&[next], std::slice::from_ref(&with_its_own)), (3, 3));
    assert_eq!(left(&[], &[with_its_own]), (4, 4));
}

#[test]
fn one_that_leaves_and_retains_all_has_one_place_all_the_while() {
    let leaving = Applicant { leaving: true, resting: true, ..applicant("a", "ada", "ada", 1) };
    let leaving = [granted(leaving)];
    let server_only =
        Standing { live: ROUTES, retained: Routes::default(), ..retained("a", "ada") };
    for one in [with_server(routes("a", "ada")), server_only, retained("a", "ada")] {
        assert_eq!(left(&leaving, std::slice::from_ref(&one)), (0, 0), "{one:?}");
    }
    assert_eq!(left(&[], &[retained("a", "ada")]), (1, 1));
}

#[test]
fn what_a_person_keeps_for_good_counts_no_more() {
    let kept = Standing { servers: vec![server(None, true)], ..retained("a", "ada") };
    assert_eq!(left(&[], &[kept]), (0, 0));
}

#[test]
fn what_is_left_counts_in_the_pool_that_it_is_of() {
    let pools = |accounts: [&str; 2]| -> HashMap<String, Rules> {
        let of = |account: &str| Rules { account: account.to_owned(), ..rules(&["a"], 5) };
        let [one, two] = accounts;
        HashMap::from([("eu-1".to_owned(), of(one)), ("eu-2".to_owned(), of(two))])
    };
    let both = |here: Standing, there: Standing| Population {
        standing: [("eu-1", here), ("eu-2", there)]
            .map(|(pool, one)| PoolStanding { pool: pool.to_owned(), all: vec![Arc::new(one)] })
            .to_vec(),
        installation: Some(OURS),
        ..Population::default()
    };
    // One account: the tunnel is seen in both, the server is in the project of the first.
    let shared = pools(["account", "account"]);
    let one = both(with_server(routes("a", "ada")), routes("a", "ada"));
    assert_eq!(left_in(&one, "eu-1", &shared), (1, 1));
    assert_eq!(left_in(&one, "eu-2", &shared), (0, 0));
    let ada = granted(applicant("a", "ada", "ada", 1));
    let alive = Population { applicants: vec![ada], ..one };
    assert_eq!(left_in(&alive, "eu-2", &shared), (0, 0));
    // Nothing says which: it counts in both, or a tenant would have found a way around.
    let either = both(routes("a", "ada"), routes("a", "ada"));
    assert_eq!(left_in(&either, "eu-1", &shared), (1, 1));
    assert_eq!(left_in(&either, "eu-2", &shared), (1, 1));
    let mut known = either.clone();
    let home = Home { pool: "eu-2".to_owned(), namespace: "a".to_owned(), name: "ada".to_owned() };
    known.homes.insert(id("a", "ada"), home);
    assert_eq!(left_in(&known, "eu-1", &shared), (0, 0));
    assert_eq!(left_in(&known, "eu-2", &shared), (1, 1));
    // It is not the other pool's, whose tenants are others.
    let mut elsewhere = shared;
    elsewhere.insert("eu-2".to_owned(), rules(&["b"], 5));
    assert_eq!(left_in(&either, "eu-2", &elsewhere), (0, 0));
    // An instance in one account does not account for what has its id in another.
    let apart = pools(["one", "two"]);
    assert_eq!(left_in(&alive, "eu-2", &apart), (1, 1));
}

/// Else whoever suspends an instance that names no release has something to hide what is left behind.
#[test]
fn one_that_rests_and_has_nothing_covers_nothing() {
    let resting = Applicant { let_in: true, resting: true, ..applicant("a", "gone", "gone", 1) };
    assert_eq!(left(&[resting], &[with_server(routes("a", "gone"))]), (1, 1));
    let leaving =
        Applicant { let_in: true, resting: true, leaving: true, ..applicant("a", "ada", "ada", 1) };
    assert_eq!(left(&[leaving], &[retained("a", "ada")]), (1, 1));
}

#[test]
fn an_instance_covers_no_server_of_another_pool() {
    let pools = ["eu-1", "eu-2"].map(|pool| (pool.to_owned(), rules(&["*"], 5)));
    let pools = HashMap::from(pools);
    let all = with_server(routes("a", "ada"));
    let mut population = population(&[], &[all]);
    let there = PoolStanding { pool: "eu-2".to_owned(), all: vec![Arc::new(routes("a", "ada"))] };
    population.standing.push(there);
    // Removed by force in the first pool, and made again in the second, which has the same account.
    let moved = Applicant { pool: "eu-2".to_owned(), ..granted(applicant("a", "ada", "ada", 1)) };
    population.applicants.push(moved);
    assert_eq!(left_in(&population, "eu-1", &pools), (1, 1));
    assert_eq!(left_in(&population, "eu-2", &pools), (0, 0));
}
