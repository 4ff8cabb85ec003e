use std::sync::LazyLock;

use proptest::prelude::*;
use rstest::rstest;

use super::{
    account::{Accounts, CONTESTED, Claim, UNCLAIMED, UNWATCHED},
    *,
};

const DAY: i64 = 24 * 3600;

fn id(byte: u8) -> InstanceId {
    InstanceId::from_bytes([byte; 16])
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn ada() -> (String, String) {
    ("tenants".to_owned(), "ada".to_owned())
}

fn server(number: u8) -> Found {
    Found {
        kind: OrphanKind::Server,
        id: number.to_string(),
        name: format!("ada-{number}"),
        owner: FoundOwner::Instance { id: id(number), place: Some(ada()) },
        retained: false,
        protected: false,
        pool: Some("eu-1".to_owned()),
        created: None,
        server_type: Some("cx33".to_owned()),
        location: Some("fsn1".to_owned()),
        monthly_cost: Some("7.50".to_owned()),
    }
}

fn tunnel(number: u8) -> Found {
    let owner = FoundOwner::Instance { id: id(number), place: None };
    let (kind, monthly_cost, pool) = (OrphanKind::Tunnel, None, None);
    Found { kind, owner, monthly_cost, pool, server_type: None, ..server(number) }
}

/// tenants/ada with id 1 and server 1.
fn claim() -> Claim {
    Claim {
        place: ada(),
        pool: "eu-1".to_owned(),
        ids: vec![id(1)],
        started: true,
        server: Some("1".to_owned()),
        tunnel: None,
    }
}

fn with(claims: impl IntoIterator<Item = Claim>) -> Accounts {
    let mut accounts = Accounts::new(["eu-1".to_owned()].into(), Vec::new());
    claims.into_iter().for_each(|claim| accounts.add(claim));
    accounts
}

/// Kind, id and note of what nobody accounts for, where every pool sees everything.
fn orphans_of(accounts: &Accounts, found: &[Found]) -> Vec<(String, Option<&'static str>)> {
    let orphans = accounts.orphans(found, |_, _| Some(true));
    orphans.iter().map(|one| (format!("{:?} {}", one.found.kind, one.found.id), one.kept)).collect()
}

#[test]
fn what_an_instance_has_is_no_orphan() {
    let found = [server(1), tunnel(1)];
    assert_eq!(orphans_of(&with([claim()]), &found), []);
    let nobody = orphans_of(&with([]), &found);
    assert_eq!(nobody, [("Server 1".to_owned(), None), ("Tunnel 1".to_owned(), None)]);
}

#[test]
fn a_copy_of_a_server_is_told_by_its_instance() {
    let copy = Found { id: "2".to_owned(), ..server(1) };
    assert_eq!(orphans_of(&with([claim()]), &[server(1), copy]), []);
}

#[test]
fn an_id_of_an_older_version_is_known_by_what_the_status_names() {
    let legacy = Claim { ids: vec![id(9)], ..claim() };
    assert_eq!(orphans_of(&with([legacy]), &[server(1), tunnel(1)]), []);
    let legacy = Claim { ids: vec![id(9)], server: None, tunnel: Some("1".to_owned()), ..claim() };
    assert_eq!(orphans_of(&with([legacy]), &[tunnel(1), tunnel(2)]).len(), 1);
}

#[test]
fn a_name_alone_accounts_for_nothing_and_keeps_it() {
    let other = Found { id: "2".to_owned(), ..server(2) };
    assert_eq!(
        orphans_of(&with([claim()]), &[server(1), other]),
        [("Server 2".into(), Some(CONTESTED))]
    );
}

#[test]
fn an_instance_that_looks_after_nothing_hides_nothing() {
    let idle = Claim { started: false, server: None, ..claim() };
    let found = orphans_of(&with([idle]), &[server(1)]);
    assert_eq!(found, [("Server 1".to_owned(), Some(UNCLAIMED))]);
}

#[rstest]
#[case::it_has_it(Some(true), None)]
#[case::it_cannot_be_asked(None, None)]
#[case::it_has_it_not(Some(false), Some(CONTESTED))]
fn an_instance_of_another_pool_accounts_for_what_it_sees(
    #[case] sees: Option<bool>,
    #[case] kept: Option<&str>,
) {
    let elsewhere = Claim { pool: "eu-2".to_owned(), ..claim() };
    let orphans = with([elsewhere])
        .orphans(&[server(1)], |pool, _| if pool == "eu-2" { sees } else { Some(true) });
    assert_eq!(orphans.first().and_then(|orphan| orphan.kept), kept);
    assert_eq!(orphans.is_empty(), kept.is_none());
}

#[test]
fn what_was_retained_is_never_an_orphan() {
    let retained = Found { retained: true, ..server(1) };
    assert_eq!(orphans_of(&with([]), &[retained]), []);
}

#[test]
fn an_orphan_of_an_unwatched_namespace_is_kept() {
    let accounts = Accounts::new(["eu-1".to_owned()].into(), ["team-b".to_owned()].into());
    assert_eq!(orphans_of(&accounts, &[server(1)]), [("Server 1".into(), Some(UNWATCHED))]);
}

#[test]
fn what_a_pool_has_is_an_orphan_when_the_pool_is_gone() {
    let of = |pool: &str| Found {
        kind: OrphanKind::Firewall,
        owner: FoundOwner::Pool(pool.to_owned()),
        ..server(1)
    };
    assert_eq!(orphans_of(&with([]), &[of("eu-1")]), []);
    assert_eq!(orphans_of(&with([]), &[of("eu-2")]), [("Firewall 1".into(), None)]);
}

fn orphan(number: u8) -> Orphan {
    Orphan { found: server(number), kept: None }
}

static NONE: LazyLock<HashMap<Key, Timestamp>> = LazyLock::new(HashMap::new);

fn given(before: Option<&OrphansStatus>, now: i64) -> Circumstances<'_> {
    let (policy, age) = (OrphanPolicy::Delete, DEFAULT_AGE);
    let seen = &*NONE;
    Circumstances { before, seen, total: 1, policy, age, doubt: None, now: at(now) }
}

fn ids(delete: &[Found]) -> Vec<&str> {
    delete.iter().map(|one| one.id.as_str()).collect()
}

#[test]
fn an_orphan_is_listed_at_once_and_deleted_after_a_day() {
    let orphans = [orphan(1)];
    let first = plan(&orphans, &given(None, 0));
    assert_eq!(first.delete, []);
    let told = first.status.unwrap();
    assert_eq!((told.count, told.first[0].owner.as_str()), (1, "tenants/ada"));
    assert_eq!(told.monthly_cost.as_deref(), Some("7.50"));
    // As after a restart: all that is known is the status.
    let early = plan(&orphans, &given(Some(&told), DAY - 1));
    assert_eq!(early.delete, []);
    assert_eq!(early.status.as_ref(), Some(&told), "nothing new is written meanwhile");
    assert_eq!(ids(&plan(&orphans, &given(Some(&told), DAY)).delete), ["1"]);
    // One that somebody came for has to be an orphan for a day again.
    let back = plan(&[], &given(Some(&told), DAY)).status;
    assert_eq!(back, None);
    assert_eq!(plan(&orphans, &given(back.as_ref(), 2 * DAY)).delete, []);
}

#[rstest]
#[case::only_report(OrphanPolicy::Report, None, None)]
#[case::many_are_missing(OrphanPolicy::Delete, Some(Doubt::MassDisappearance), None)]
#[case::not_ready(OrphanPolicy::Delete, Some(Doubt::PoolNotReady), None)]
#[case::contested(OrphanPolicy::Delete, None, Some(CONTESTED))]
fn in_doubt_an_orphan_is_listed_and_stays(
    #[case] policy: OrphanPolicy,
    #[case] doubt: Option<Doubt>,
    #[case] kept: Option<&'static str>,
) {
    let orphans = [Orphan { kept, ..orphan(1) }];
    let before = plan(&orphans, &given(None, 0)).status;
    let given = Circumstances { policy, doubt, ..given(before.as_ref(), 9 * DAY) };
    let plan = plan(&orphans, &given);
    assert_eq!(plan.delete, []);
    assert_eq!(plan.status.unwrap().count, 1);
}

#[test]
fn what_stays_anyway_takes_no_place_in_the_list() {
    let contested = (2..60).map(|number| Orphan { kept: Some(UNCLAIMED), ..orphan(number) });
    let before = plan(&contested.clone().collect::<Vec<_>>(), &given(None, 0)).status;
    let all: Vec<_> = contested.chain([orphan(200)]).collect();
    let told = plan(&all, &given(before.as_ref(), 60)).status.unwrap();
    assert_eq!((told.count, told.first[0].id.as_str()), (59, "200"));
    assert_eq!(ids(&plan(&all, &given(Some(&told), 60 + DAY)).delete), ["200"]);
}

#[test]
fn what_is_protected_says_so_and_takes_no_turn() {
    let protected =
        |number| Orphan { found: Found { protected: true, ..server(number) }, kept: None };
    let all: Vec<_> = (1..30).map(protected).chain([orphan(200)]).collect();
    let told = plan(&all, &given(None, 0)).status.unwrap();
    assert_eq!((told.first[0].id.as_str(), told.first[0].note.as_deref()), ("200", None));
    assert_eq!(told.first[1].note.as_deref(), Some(PROTECTED));
    assert_eq!(ids(&plan(&all, &given(Some(&told), DAY)).delete), ["200"]);
    // When the protection is off its turn comes.
    let told = plan(&[protected(1)], &given(None, 0)).status.unwrap();
    assert_eq!(ids(&plan(&[orphan(1)], &given(Some(&told), DAY)).delete), ["1"]);
}

/// Servers that somebody goes on leaving behind, and an operator that is restarted all the time.
#[test]
fn many_new_orphans_keep_no_other_from_growing_old() {
    let victim = Orphan { found: tunnel(250), kept: None };
    let mut told = plan(std::slice::from_ref(&victim), &given(None, 0)).status;
    for hour in 1..24 {
        let new = (0..100).map(orphan).chain([victim.clone()]);
        told = plan(&new.collect::<Vec<_>>(), &given(told.as_ref(), hour * 3600)).status;
    }
    let delete = plan(&[victim], &given(told.as_ref(), DAY)).delete;
    assert_eq!(ids(&delete), ["250"]);
}

#[test]
fn what_the_list_has_no_room_for_grows_old_too() {
    let all: Vec<_> = (1..60).map(orphan).collect();
    let first = plan(&all, &given(None, 0));
    let listed = first.status.as_ref().map(|told| told.first.clone()).unwrap();
    let rest: Vec<_> = all
        .into_iter()
        .filter(|one| !listed.iter().any(|listed| listed.id == one.found.id))
        .collect();
    assert!(!rest.is_empty());
    let later = Circumstances { seen: &first.seen, ..given(first.status.as_ref(), DAY) };
    assert_eq!(plan(&rest, &later).delete.len(), 1);
}

#[test]
fn a_time_in_the_future_makes_nothing_older() {
    let orphans = [orphan(1)];
    let mut before = plan(&orphans, &given(None, 0)).status.unwrap();
    before.first[0].first_seen = at(50 * DAY).to_string();
    assert_eq!(plan(&orphans, &given(Some(&before), 2 * DAY)).delete, []);
}

proptest! {
    #[test]
    fn few_are_deleted_at_once_and_only_old_orphans(
        count in 0_u8..120,
        known in proptest::collection::btree_set(0_u8..120, 0..60),
        retained in proptest::collection::btree_set(0_u8..120, 0..20),
        age in 0_i64..3 * DAY,
        deletes in any::<bool>(),
    ) {
        let found: Vec<_> = (0..count)
            .map(|number| Found { retained: retained.contains(&number), ..server(number) })
            .collect();
        let claims = known.iter().map(|number| Claim {
            place: ("tenants".to_owned(), number.to_string()),
            ids: vec![id(*number)],
            server: Some(number.to_string()),
            ..claim()
        });
        let orphans = with(claims).orphans(&found, |_, _| Some(true));
        let total = found.len();
        let before = plan(&orphans, &Circumstances { total, ..given(None, 0) }).status;
        let policy = if deletes { OrphanPolicy::Delete } else { OrphanPolicy::Report };
        let given = Circumstances { total, policy, ..given(before.as_ref(), age) };
        let plan = plan(&orphans, &given);
        prop_assert!(plan.delete.len() <= 5);
        prop_assert!(plan.delete.len() <= (found.len() / 10).max(1));
        prop_assert!(deletes || plan.delete.is_empty());
        prop_assert!(age >= DAY || plan.delete.is_empty());
        for one in &plan.delete {
            let number: u8 = one.id.parse().unwrap();
            prop_assert!(!known.contains(&number) && !retained.contains(&number));
        }
        let told = plan.status.map_or(0, |status| status.count as usize);
        let orphans = (0..count)
            .filter(|number| !known.contains(number) && !retained.contains(number))
            .count();
        prop_assert_eq!(told, orphans);
    }
}
