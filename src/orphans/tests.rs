use super::*;
use proptest::prelude::*;
use rstest::rstest;

const DAY: i64 = 24 * 3600;

fn id(byte: u8) -> InstanceId {
    InstanceId::from_bytes([byte; 16])
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn server(number: u8, place: Option<(&str, &str)>) -> Found {
    Found {
        kind: OrphanKind::Server,
        id: number.to_string(),
        name: format!("ada-{number}"),
        owner: FoundOwner::Instance {
            id: id(number),
            place: place.map(|(namespace, name)| (namespace.to_owned(), name.to_owned())),
        },
        created: None,
        server_type: Some("cx33".to_owned()),
        monthly_cost: None,
    }
}

fn tunnel(number: u8) -> Found {
    Found { kind: OrphanKind::Tunnel, server_type: None, ..server(number, None) }
}

fn given(before: Option<&OrphansStatus>, now: i64) -> Circumstances<'_> {
    let (policy, age) = (OrphanPolicy::Delete, DEFAULT_AGE);
    Circumstances { before, policy, age, doubt: None, now: at(now) }
}

fn ids(delete: &[Found]) -> Vec<&str> {
    delete.iter().map(|one| one.id.as_str()).collect()
}

fn places(list: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    list.iter().map(|(namespace, name)| ((*namespace).to_owned(), (*name).to_owned())).collect()
}

#[rstest]
#[case::by_its_id(Accounted { ids: [id(1)].into(), ..Accounted::default() })]
#[case::by_its_place(Accounted { places: places(&[("tenants", "ada")]), ..Accounted::default() })]
#[case::by_the_status(Accounted { servers: ["1".to_owned()].into(), ..Accounted::default() })]
fn what_an_instance_has_is_no_orphan_and_neither_is_what_has_the_same_id(
    #[case] accounted: Accounted,
) {
    let found = [server(1, Some(("tenants", "ada"))), tunnel(1)];
    let plan = plan(&found, &accounted, &given(None, 0));
    assert_eq!(plan, OrphanPlan { status: None, delete: vec![] });
}

#[test]
fn a_legacy_tunnel_is_accounted_for_by_the_status_that_names_it() {
    let accounted = Accounted { tunnels: ["1".to_owned()].into(), ..Accounted::default() };
    let plan = plan(&[tunnel(1), tunnel(2)], &accounted, &given(None, 0));
    assert_eq!(plan.status.unwrap().count, 1);
}

#[test]
fn an_orphan_is_told_at_once_and_deleted_after_a_day_whatever_restarts() {
    let (found, nobody) = ([server(1, Some(("tenants", "ada")))], Accounted::default());
    let first = plan(&found, &nobody, &given(None, 0));
    assert_eq!(first.delete, []);
    let told = first.status.unwrap();
    assert_eq!((told.count, told.first[0].owner.as_str()), (1, "tenants/ada"));
    let early = plan(&found, &nobody, &given(Some(&told), DAY - 1));
    assert_eq!(early.delete, []);
    assert_eq!(early.status.as_ref(), Some(&told), "nothing new is written meanwhile");
    let due = plan(&found, &nobody, &given(Some(&told), DAY));
    assert_eq!(ids(&due.delete), ["1"]);
    // One that comes back has to be an orphan for a day again.
    let accounted = Accounted { ids: [id(1)].into(), ..Accounted::default() };
    let back = plan(&found, &accounted, &given(Some(&told), DAY)).status;
    assert_eq!(back, None);
    assert_eq!(plan(&found, &nobody, &given(back.as_ref(), 2 * DAY)).delete, []);
}

#[rstest]
#[case::only_report(OrphanPolicy::Report, None)]
#[case::not_all_are_known(OrphanPolicy::Delete, Some(Doubt::InstancesUnknown))]
#[case::many_are_missing(OrphanPolicy::Delete, Some(Doubt::MassDisappearance))]
#[case::another_project(OrphanPolicy::Delete, Some(Doubt::PoolNotReady))]
fn in_doubt_orphans_are_told_and_stay(
    #[case] policy: OrphanPolicy,
    #[case] doubt: Option<Doubt>,
) {
    let (found, nobody) = ([server(1, None)], Accounted::default());
    let before = plan(&found, &nobody, &given(None, 0)).status;
    let given = Circumstances { policy, doubt, ..given(before.as_ref(), 9 * DAY) };
    let plan = plan(&found, &nobody, &given);
    assert_eq!(plan.delete, []);
    assert_eq!(plan.status.unwrap().count, 1);
}

#[test]
fn what_was_retained_is_never_an_orphan() {
    let retained = Found { owner: FoundOwner::Retained, ..server(1, None) };
    assert_eq!(plan(&[retained], &Accounted::default(), &given(None, 0)).status, None);
}

#[test]
fn what_belongs_to_a_pool_is_an_orphan_when_the_pool_is_gone() {
    let of = |pool: &str| Found {
        kind: OrphanKind::Firewall,
        owner: FoundOwner::Pool(pool.to_owned()),
        ..server(1, None)
    };
    let accounted = Accounted { pools: ["eu-1".to_owned()].into(), ..Accounted::default() };
    assert_eq!(plan(&[of("eu-1")], &accounted, &given(None, 0)).status, None);
    assert!(plan(&[of("eu-2")], &accounted, &given(None, 0)).status.is_some());
}

#[test]
fn a_time_in_the_future_makes_nothing_older() {
    let (found, nobody) = ([server(1, None)], Accounted::default());
    let mut before = plan(&found, &nobody, &given(None, 0)).status.unwrap();
    before.first[0].first_seen = at(50 * DAY).to_string();
    assert_eq!(plan(&found, &nobody, &given(Some(&before), 2 * DAY)).delete, []);
}

proptest! {
    /// Whatever is there: what is deleted is an old orphan, few are at once, and what is accounted for
    /// is left alone.
    #[test]
    fn few_are_deleted_at_once_and_only_old_orphans(
        count in 0_u8..120,
        known in proptest::collection::btree_set(0_u8..120, 0..60),
        retained in proptest::collection::btree_set(0_u8..120, 0..20),
        age in 0_i64..3 * DAY,
        deletes in any::<bool>(),
    ) {
        let found: Vec<_> = (0..count)
            .map(|number| {
                let mut one = server(number, None);
                if retained.contains(&number) {
                    one.owner = FoundOwner::Retained;
                }
                one
            })
            .collect();
        let ids = known.iter().map(|number| id(*number)).collect();
        let accounted = Accounted { ids, ..Accounted::default() };
        let before = plan(&found, &accounted, &given(None, 0)).status;
        let policy = if deletes { OrphanPolicy::Delete } else { OrphanPolicy::Report };
        let given = Circumstances { policy, ..given(before.as_ref(), age) };
        let plan = plan(&found, &accounted, &given);
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
