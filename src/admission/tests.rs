//! Tests of who is admitted.

mod standing;

use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn applicant(namespace: &str, name: &str, hostname: &str, created: i64) -> Applicant {
    Applicant {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: name.to_owned(),
        created: Timestamp::from_second(created).unwrap(),
        pool: "eu-1".to_owned(),
        hostname: hostname.to_owned(),
        granted: false,
        let_in: false,
        begun: false,
        resting: false,
        leaving: false,
        ended: false,
    }
}

fn granted(one: Applicant) -> Applicant {
    Applicant { granted: true, ..one }
}

fn rules(allowed: &[&str], capacity: u32) -> Rules {
    Rules {
        zone: "zone".to_owned(),
        account: "account".to_owned(),
        allowed_namespaces: allowed.iter().map(ToString::to_string).collect(),
        reserved_hostnames: vec!["www".to_owned()],
        capacity,
        per_namespace: None,
        closed: false,
    }
}

fn verdict(register: &Register, name: &str) -> Option<Result<(), Denied>> {
    ["a", "b", "c", "x", "tenants", "team-x"]
        .into_iter()
        .find_map(|namespace| register.verdict(namespace, name, name))
}

fn counts(register: &Register, name: &str) -> bool {
    ["a", "b", "c", "x", "tenants", "team-x"]
        .into_iter()
        .any(|namespace| register.counts(namespace, name) == Some(true))
}

fn register(applicants: &[Applicant], rules: Rules) -> Register {
    let population = Population { applicants: applicants.to_vec(), ..Population::default() };
    Register::of(&population, &HashMap::from([("eu-1".to_owned(), rules)]))
}

#[test]
fn whoever_begins_lives_in_a_loop_has_to_wait() {
    let of = |begun: u32, quota: Option<u32>, one: Applicant| {
        let population = Population {
            applicants: vec![one],
            begun: HashMap::from([(("eu-1".to_owned(), "a".to_owned()), begun)]),
            ..Population::default()
        };
        let rules = Rules { per_namespace: quota, ..rules(&["*"], 50) };
        let register = Register::of(&population, &HashMap::from([("eu-1".to_owned(), rules)]));
        verdict(&register, "next").unwrap()
    };
    let next = || applicant("a", "next", "next", 1);
    assert_eq!(of(5, Some(1), next()), Ok(()));
    assert_eq!(of(6, Some(1), next()), Err(Denied::ServerRate(6)));
    assert_eq!(of(39, Some(20), next()), Ok(()));
    assert_eq!(of(40, Some(20), next()), Err(Denied::ServerRate(40)));
    assert_eq!(of(40, None, next()), Ok(()), "nobody asked for a limit");
    let begun = Applicant { begun: true, ..granted(next()) };
    assert_eq!(of(40, Some(20), begun), Ok(()), "its own server is made again");
    let let_in = Applicant { let_in: true, ..next() };
    assert_eq!(of(40, Some(20), let_in), Err(Denied::ServerRate(40)), "nothing of it was counted");
    let counted = Applicant { begun: true, let_in: true, ..next() };
    assert_eq!(of(40, Some(20), counted), Ok(()), "it was counted already");
    // It has a tunnel that is left of an instance of its name, and nothing else.
    assert_eq!(of(40, Some(20), granted(next())), Err(Denied::ServerRate(40)));
}

#[test]
fn whoever_is_not_allowed_takes_no_name_and_no_place() {
    let squat = applicant("team-x", "squat", "victim", 1);
    let victim = applicant("tenants", "victim", "victim", 2);
    let register = register(&[squat, victim], rules(&["tenants"], 1));
    assert_eq!(verdict(&register, "squat"), Some(Err(Denied::NamespaceNotAllowed)));
    assert_eq!(verdict(&register, "victim"), Some(Ok(())));
    assert!(!counts(&register, "squat"));
}

#[test]
fn a_name_that_was_granted_stays_granted() {
    let old = applicant("team-x", "old", "ada", 1);
    let has_it = granted(applicant("tenants", "has-it", "ada", 2));
    // The namespace of the older one is allowed later, or it was restored with its old date.
    let register = register(&[old, has_it], rules(&["*"], 5));
    assert_eq!(verdict(&register, "old"), Some(Err(Denied::HostnameTaken)));
    assert_eq!(verdict(&register, "has-it"), Some(Ok(())));
}

#[test]
fn who_was_let_in_comes_first_while_it_is_allowed() {
    let old = applicant("tenants", "old", "ada", 1);
    let let_in = Applicant { let_in: true, ..applicant("team-x", "let-in", "ada", 2) };
    let both = [old, let_in];
    let allowed = register(&both, rules(&["*"], 5));
    assert_eq!(verdict(&allowed, "let-in"), Some(Ok(())));
    assert_eq!(verdict(&allowed, "old"), Some(Err(Denied::HostnameTaken)));
    let not_any_more = register(&both, rules(&["tenants"], 5));
    assert_eq!(verdict(&not_any_more, "old"), Some(Ok(())));
    assert!(!counts(&not_any_more, "let-in"));
}

#[test]
fn who_has_something_keeps_its_place_when_no_longer_allowed() {
    let old = granted(applicant("team-x", "old", "ada", 1));
    let new = applicant("tenants", "new", "ada", 2);
    let other = applicant("tenants", "other", "bob", 3);
    let register = register(&[old, new, other], rules(&["tenants"], 1));
    assert_eq!(verdict(&register, "old"), Some(Err(Denied::NamespaceNotAllowed)));
    assert!(counts(&register, "old"));
    assert_eq!(verdict(&register, "new"), Some(Err(Denied::HostnameTaken)));
    assert_eq!(verdict(&register, "other"), Some(Err(Denied::PoolFull { capacity: 1, left: 0 })));
}

#[test]
fn the_older_comes_first_and_then_the_lower_uid() {
    let all = [
        applicant("a", "younger", "ada", 2),
        applicant("a", "b-same-second", "ada", 1),
        applicant("a", "a-same-second", "ada", 1),
    ];
    let register = register(&all, rules(&["*"], 5));
    assert_eq!(verdict(&register, "a-same-second"), Some(Ok(())));
    for later in ["b-same-second", "younger"] {
        assert_eq!(verdict(&register, later), Some(Err(Denied::HostnameTaken)), "{later}");
    }
}

#[test]
fn whoever_is_refused_for_one_thing_holds_nothing_else() {
    let limited = Rules { per_namespace: Some(1), ..rules(&["*"], 5) };
    let all = [
        applicant("a", "first", "one", 1),
        applicant("a", "over-quota", "wanted", 2),
        applicant("b", "other", "wanted", 3),
    ];
    let register = register(&all, limited);
    assert_eq!(
        verdict(&register, "over-quota"),
        Some(Err(Denied::NamespaceQuota { most: 1, left: 0 }))
    );
    assert_eq!(verdict(&register, "other"), Some(Ok(())));
}

#[test]
fn a_deleted_pool_is_held_by_those_with_something_only() {
    let has = granted(applicant("a", "has", "ada", 2));
    let new = applicant("a", "new", "bob", 1);
    let register = register(&[has, new], Rules { closed: true, ..rules(&["*"], 5) });
    assert_eq!(verdict(&register, "has"), Some(Ok(())));
    assert_eq!(verdict(&register, "new"), Some(Err(Denied::PoolClosed)));
    assert!(counts(&register, "has") && !counts(&register, "new"));
}

#[test]
fn an_instance_at_rest_counts_for_nothing() {
    let resting = |one| Applicant { resting: true, ..one };
    let from_the_start = resting(applicant("a", "from-the-start", "ada", 1));
    let with_a_server = resting(granted(applicant("a", "with-a-server", "bob", 1)));
    let new = [applicant("b", "new-ada", "ada", 2), applicant("b", "new-bob", "bob", 2)];
    let all: Vec<_> = [from_the_start, with_a_server].into_iter().chain(new).collect();
    let register = register(&all, rules(&["*"], 5));
    assert_eq!(verdict(&register, "new-ada"), Some(Ok(())));
    assert_eq!(verdict(&register, "new-bob"), Some(Err(Denied::HostnameTaken)));
    assert!(counts(&register, "with-a-server") && !counts(&register, "from-the-start"));
}

#[test]
fn a_name_is_taken_in_its_zone_whatever_the_pool() {
    let other_pool = |pool: &str, one| Applicant { pool: pool.to_owned(), ..one };
    let all = [
        applicant("a", "first", "ada", 1),
        other_pool("eu-2", applicant("a", "same-zone", "ada", 2)),
        other_pool("us-1", applicant("a", "other-zone", "ada", 2)),
        other_pool("typo", applicant("a", "nowhere", "eve", 2)),
    ];
    let other_zone = Rules { zone: "other".to_owned(), ..rules(&["*"], 5) };
    let pools = [("eu-1", rules(&["*"], 5)), ("eu-2", rules(&["*"], 5)), ("us-1", other_zone)];
    let pools = pools.into_iter().map(|(name, rules)| (name.to_owned(), rules)).collect();
    let population = Population { applicants: all.to_vec(), ..Population::default() };
    let register = Register::of(&population, &pools);
    assert_eq!(verdict(&register, "same-zone"), Some(Err(Denied::HostnameTaken)));
    assert_eq!(verdict(&register, "other-zone"), Some(Ok(())));
    assert_eq!(verdict(&register, "nowhere"), Some(Err(Denied::NoPool)));
}

#[rstest]
#[case("ada", true)]
#[case("a-1", true)]
#[case("", false)]
#[case("-a", false)]
#[case("a-", false)]
#[case("a.b", false)]
#[case("Ada", false)]
#[case("ada-mgmt", false)]
fn a_host_name_is_one_label_that_leaves_room(#[case] text: &str, #[case] valid: bool) {
    assert_eq!(is_hostname(text), valid);
}

fn applicants() -> impl Strategy<Value = Vec<Applicant>> {
    let one = (0..4_usize, 0..4_usize, 0..3_i64, any::<bool>(), any::<bool>());
    proptest::collection::vec(one, 0..12).prop_map(|all| {
        let one = |(number, (namespace, host, created, granted, resting))| Applicant {
            granted,
            resting,
            ..applicant(
                ["a", "b", "c", "x"][namespace],
                &format!("u{number}"),
                ["h", "i", "j", "www"][host],
                created,
            )
        };
        all.into_iter().enumerate().map(one).collect()
    })
}

proptest! {
    #[test]
    fn no_name_is_held_twice_and_nothing_depends_on_the_order(all in applicants(), capacity in 0_u32..6) {
        let rules = rules(&["a", "b", "c"], capacity);
        let forwards = register(&all, rules.clone());
        let mut names = HashMap::new();
        for one in all.iter().filter(|one| verdict(&forwards, &one.uid) == Some(Ok(()))) {
            prop_assert!(names.insert(&one.hostname, &one.uid).is_none(), "{}", one.hostname);
            prop_assert!(one.namespace != "x" && one.hostname != "www");
        }
        let backwards: Vec<_> = all.iter().rev().cloned().collect();
        prop_assert_eq!(&forwards, &register(&backwards, rules));
    }

    #[test]
    fn what_has_something_stays_admitted(
        all in applicants(), more in applicants(), capacity in 0_u32..6
    ) {
        let rules = rules(&["a", "b", "c"], capacity);
        let before = register(&all, rules.clone());
        let now = all.iter().map(|one| Applicant {
            granted: one.granted || verdict(&before, &one.uid) == Some(Ok(())), ..one.clone()
        });
        // Those who come have nothing, however old they are.
        let come = more.into_iter().map(|one| Applicant {
            uid: format!("new-{}", one.uid), name: format!("new-{}", one.name), granted: false, ..one
        });
        let everybody: Vec<_> = now.chain(come).collect();
        let after = register(&everybody, rules);
        for one in all.iter().filter(|one| verdict(&before, &one.uid) == Some(Ok(()))) {
            prop_assert!(counts(&after, &one.uid), "{:?}", one);
            let refused = verdict(&after, &one.uid) != Some(Ok(()));
            // Two that had the same name before anybody looked are an accident of their own.
            let twin = all.iter().any(|other| other.uid != one.uid && other.granted && other.hostname == one.hostname);
            prop_assert!(!refused || twin, "{:?}", one);
        }
    }
}
