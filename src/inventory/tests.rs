//! Tests of sweeps and of what is noted between them.

use super::{fakes::Fakes, *};
use crate::{
    clock::SystemClock,
    cloudflare::{NewDnsRecord, TunnelId},
    hetzner::Labels,
    instance::placeholders::new_record,
    ownership::Recorded,
};

const OURS: InstallationId = InstallationId::from_bytes([1; 8]);
const ADA: InstanceId = InstanceId::from_bytes([2; 16]);
const BOB: InstanceId = InstanceId::from_bytes([3; 16]);

/// Who asks, with the host names that it has.
fn of(instance: InstanceId, hostname: &str) -> Owner {
    Owner {
        installation: OURS,
        instance,
        namespace: "tenants".to_owned(),
        name: "x".to_owned(),
        hostname: hostname.to_owned(),
        domain: "example.com".to_owned(),
        recorded: Recorded::default(),
    }
}

fn ada() -> Owner {
    of(ADA, "ada")
}

fn server(id: u64, owner: InstanceId, installation: InstallationId) -> Server {
    let labels = Labels::from([
        (label::INSTALLATION.to_owned(), installation.to_string()),
        (label::INSTANCE.to_owned(), owner.to_string()),
    ]);
    let document = serde_json::json!({
        "id": id, "name": format!("server-{id}"), "status": "running", "created": "2026-01-01T00:00:00Z",
        "labels": labels, "server_type": {"name": "cx33"},
    });
    serde_json::from_value(document).unwrap()
}

fn tunnel_id() -> TunnelId {
    TunnelId::parse("6ff42ae2-765d-4adf-8112-31c55c1551ef").unwrap()
}

fn tunnel(owner: InstanceId) -> Tunnel {
    let name = names::tunnel(OURS, owner);
    Tunnel { id: tunnel_id(), name, status: None, created_at: None, deleted_at: None }
}

fn record(host: &str, owner: Option<InstanceId>) -> DnsRecord {
    let comment = owner.map(|owner| names::record_comment(OURS, owner, "tenants", "x"));
    new_record(&NewDnsRecord::tunnel_cname(host, &tunnel_id(), comment.unwrap_or_default()))
}

fn inventory(clouds: &Arc<Fakes>) -> Inventory {
    let zone = ZoneId::parse("zone").unwrap();
    Inventory::new(clouds.clone(), clouds.clone(), zone, OURS, Arc::new(SystemClock))
}

async fn swept(clouds: &Arc<Fakes>) -> Inventory {
    let inventory = inventory(clouds);
    inventory.sweep().await.unwrap();
    inventory.take_changed();
    inventory
}

#[tokio::test]
async fn a_sweep_shows_an_instances_own_and_its_names() {
    let (clouds, _questions) = Fakes::new();
    {
        let mut state = clouds.state();
        state.servers = vec![server(1, ADA, OURS), server(2, BOB, OURS)];
        state.tunnels = vec![tunnel(ADA)];
        state.records = vec![
            record("ada.example.com", None),
            record("moved.example.com", Some(ADA)),
            record("bob.example.com", Some(BOB)),
            record("www.example.com", None),
        ];
    }
    let inventory = inventory(&clouds);
    let before = inventory.view(&ada());
    assert!(
        !before.swept && before.servers.is_empty(),
        "before the first sweep nothing can be called missing"
    );
    assert_eq!(inventory.swept(), None);

    inventory.sweep().await.unwrap();
    let view = inventory.view(&ada());
    assert!(view.swept);
    assert_eq!(view.servers.iter().map(|server| server.id.0).collect::<Vec<_>>(), [1]);
    assert_eq!(view.tunnels.len(), 1);
    let mut names: Vec<_> = view.records.iter().map(|record| record.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["ada.example.com", "moved.example.com"]);
    assert_eq!(inventory.take_changed().instances, BTreeSet::from([ADA, BOB]));
    assert_eq!(inventory.take_changed().instances, BTreeSet::new());
    assert!(
        clouds.state().selectors[0].contains(&OURS.to_string()),
        "{:?}",
        clouds.state().selectors
    );
}

#[tokio::test]
async fn a_server_of_another_installation_is_nobodys() {
    let (clouds, _questions) = Fakes::new();
    clouds.state().servers = vec![server(1, ADA, InstallationId::from_bytes([9; 8]))];
    let inventory = inventory(&clouds);
    inventory.sweep().await.unwrap();
    assert_eq!(inventory.view(&ada()).servers, []);
    assert_eq!(inventory.take_changed().instances, BTreeSet::new());
}

#[tokio::test]
async fn what_stands_under_a_name_is_found_whatever_its_id() {
    let (clouds, _questions) = Fakes::new();
    let placed = |mut server: Server, namespace: &str| {
        server.labels.insert(label::NAMESPACE.to_owned(), namespace.to_owned());
        server.labels.insert(label::NAME.to_owned(), "x".to_owned());
        server
    };
    let retained = |mut server: Server| {
        server.labels.insert(label::RETAINED.to_owned(), "true".to_owned());
        server
    };
    {
        let mut state = clouds.state();
        state.servers = vec![
            placed(server(1, ADA, OURS), "tenants"),
            placed(server(2, BOB, OURS), "team-b"),
            retained(placed(server(3, BOB, OURS), "tenants")),
            placed(server(4, BOB, InstallationId::from_bytes([9; 8])), "tenants"),
        ];
        state.records = vec![record("ada.example.com", Some(BOB))];
    }
    let mut leaving = placed(server(5, BOB, OURS), "tenants");
    leaving.status = crate::hetzner::ServerStatus::Deleting;
    clouds.state().servers.push(leaving);
    let inventory = swept(&clouds).await;
    let named = inventory.named("tenants", "x");
    assert_eq!((named.servers, named.records), (vec![(ServerId(1), ADA)], vec![]));
    assert_eq!(inventory.named("tenants", "y"), Named::default());
    // Without a server the records tell, but not if the id is that of another's server.
    inventory.forget_server(ServerId(1));
    assert_eq!(inventory.named("tenants", "x"), Named::default());
    inventory.forget_server(ServerId(2));
    inventory.forget_server(ServerId(4));
    inventory.forget_server(ServerId(5));
    assert_eq!(inventory.named("tenants", "x").records, [BOB]);
}

#[tokio::test]
async fn only_those_of_which_something_changed_are_told() {
    let (clouds, _questions) = Fakes::new();
    clouds.state().servers = vec![server(1, ADA, OURS), server(2, BOB, OURS)];
    let inventory = swept(&clouds).await;
    inventory.sweep().await.unwrap();
    assert_eq!(inventory.take_changed().instances, BTreeSet::new(), "nothing changed");
    clouds.state().servers.retain(|server| server.id.0 == 2);
    inventory.sweep().await.unwrap();
    assert_eq!(inventory.take_changed().instances, BTreeSet::from([ADA]), "a server went");
    clouds.state().records = vec![record("bob.example.com", Some(BOB))];
    inventory.sweep().await.unwrap();
    assert_eq!(inventory.take_changed().instances, BTreeSet::from([BOB]), "a record came");
}

#[tokio::test]
async fn what_changed_during_a_sweep_is_newer_than_it() {
    let (clouds, mut questions) = Fakes::with_answers(1);
    {
        let mut state = clouds.state();
        state.servers = vec![server(1, ADA, OURS)];
        state.tunnels = vec![tunnel(ADA)];
        state.records = vec![record("ada.example.com", Some(ADA))];
    }
    let inventory = swept(&clouds).await;
    questions.recv().await.unwrap();

    let (swept, ()) = tokio::join!(inventory.sweep(), async {
        questions.recv().await.unwrap();
        inventory.forget_server(ServerId(1));
        inventory.note_server(server(7, BOB, OURS));
        inventory.forget_tunnel(&tunnel_id());
        inventory.forget_record(&record("ada.example.com", None).id);
        inventory.note_record(record("bob.example.com", Some(BOB)));
        clouds.answers.add_permits(1);
    });
    swept.unwrap();
    let view = inventory.view(&ada());
    assert_eq!((view.servers.len(), view.tunnels.len(), view.records.len()), (0, 0, 0));
    let bob = inventory.view(&of(BOB, "bob"));
    assert_eq!((bob.servers.len(), bob.records.len()), (1, 1));

    clouds.answers.add_permits(1);
    inventory.sweep().await.unwrap();
    assert_eq!(inventory.view(&ada()).servers.len(), 1, "the next sweep is believed again");
    assert_eq!(inventory.view(&of(BOB, "ada")).servers.len(), 0);
}

#[tokio::test]
async fn a_sweep_that_fails_changes_nothing() {
    let (clouds, _questions) = Fakes::new();
    clouds.state().servers = vec![server(1, ADA, OURS)];
    let inventory = swept(&clouds).await;
    let at = inventory.swept();
    {
        let mut state = clouds.state();
        state.down = true;
        state.servers.clear();
    }
    inventory.sweep().await.unwrap_err();
    assert_eq!(inventory.view(&ada()).servers.len(), 1);
    assert_eq!(inventory.swept(), at);
    assert_eq!(inventory.take_changed().instances, BTreeSet::new());
}

#[tokio::test]
async fn missing_servers_are_counted() {
    let (clouds, _questions) = Fakes::new();
    clouds.state().servers = vec![server(1, ADA, OURS)];
    let inventory = swept(&clouds).await;
    assert_eq!(inventory.missing_servers([ServerId(1), ServerId(2), ServerId(3)].iter()), 2);
}

#[tokio::test]
async fn the_anchor_is_a_swept_record_of_ours_and_stays() {
    let (clouds, _questions) = Fakes::new();
    clouds.state().records = vec![record("aaa.example.com", None)];
    let inventory = swept(&clouds).await;
    assert_eq!(inventory.anchor(), None, "somebody else's record may lead anywhere");
    inventory.note_record(record("bob.example.com", Some(BOB)));
    assert_eq!(inventory.anchor(), None, "it may not resolve yet");
    clouds.state().records.push(record("bob.example.com", Some(BOB)));
    inventory.sweep().await.unwrap();
    assert_eq!(inventory.anchor().as_deref(), Some("bob.example.com"));
    // A name that sorts before all others is no reason to ask for it.
    inventory.note_record(record("0.example.com", Some(ADA)));
    clouds.state().records.push(record("0.example.com", Some(ADA)));
    inventory.sweep().await.unwrap();
    assert_eq!(inventory.anchor().as_deref(), Some("bob.example.com"));
    clouds.state().records.retain(|record| record.name != "bob.example.com");
    inventory.sweep().await.unwrap();
    assert_eq!(inventory.anchor().as_deref(), Some("0.example.com"));
}

#[tokio::test]
async fn a_pools_own_record_is_the_anchor_once_it_is_known() {
    let (clouds, _questions) = Fakes::new();
    let made = |host: &str, comment: String, minutes_ago: i64| DnsRecord {
        comment: Some(comment),
        created_on: Some(Timestamp::now() - jiff::SignedDuration::from_mins(minutes_ago)),
        ..record(host, None)
    };
    let of_instance = |minutes| {
        made("ada.example.com", names::record_comment(OURS, ADA, "tenants", "x"), minutes)
    };
    let of_pool = |minutes| made("pool.example.com", names::pool_comment(OURS, "eu-1"), minutes);
    clouds.state().records = vec![of_instance(1), of_pool(1)];
    let inventory = swept(&clouds).await;
    assert_eq!(inventory.anchor(), None, "neither may be known yet");
    clouds.state().records = vec![of_instance(60), of_pool(3)];
    inventory.sweep().await.unwrap();
    assert_eq!(inventory.anchor().as_deref(), Some("pool.example.com"));
    let exposed = DnsRecord { proxied: Some(false), ..of_pool(9) };
    clouds.state().records = vec![of_instance(60), exposed];
    inventory.sweep().await.unwrap();
    assert_eq!(inventory.anchor().as_deref(), Some("ada.example.com"));
}

#[tokio::test]
async fn one_round_of_lists_confirms_all_who_wait_for_it() {
    let (clouds, mut questions) = Fakes::new();
    clouds.state().servers = vec![server(1, ADA, OURS), server(2, BOB, OURS)];
    let inventory = inventory(&clouds);
    let many = (0..100).map(|number| InstanceId::from_bytes([number; 16]));
    let all = futures::future::join_all(many.map(|instance| inventory.confirm(instance))).await;
    assert!(all.iter().all(|answer| answer.as_ref().is_ok_and(|seen| seen.servers.len() >= 2)));
    let mut asked = 0;
    while questions.try_recv().is_ok() {
        asked += 1;
    }
    assert_eq!(asked, 1, "lists of tunnels");
    assert_eq!(clouds.state().selectors.len(), 3, "lists of servers, 40 instances each");
}

#[tokio::test]
async fn a_confirmation_shows_the_clouds_after_it_was_asked_for() {
    let (clouds, _questions) = Fakes::with_answers(0);
    clouds.state().servers = vec![server(1, ADA, OURS)];
    let inventory = Arc::new(inventory(&clouds));
    let first = tokio::spawn({
        let inventory = Arc::clone(&inventory);
        async move { inventory.confirm(ADA).await }
    });
    // Its lists are under way when the server goes.
    while clouds.state().selectors.is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let second = tokio::spawn({
        let inventory = Arc::clone(&inventory);
        async move { inventory.confirm(ADA).await }
    });
    tokio::task::yield_now().await;
    clouds.state().servers.clear();
    clouds.answers.add_permits(2);
    assert_eq!(first.await.unwrap().unwrap().servers.len(), 1);
    assert!(second.await.unwrap().unwrap().servers.is_empty());
}

#[tokio::test]
async fn whoever_waits_for_a_round_that_was_given_up_asks_itself() {
    let (clouds, _questions) = Fakes::with_answers(0);
    let inventory = Arc::new(inventory(&clouds));
    let ask = |instance| {
        let inventory = Arc::clone(&inventory);
        tokio::spawn(async move { inventory.confirm(instance).await })
    };
    let (first, second) = (ask(ADA), ask(BOB));
    while clouds.state().selectors.is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    first.abort();
    clouds.answers.add_permits(2);
    assert!(second.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_cloud_that_does_not_answer_confirms_nothing() {
    let (clouds, _questions) = Fakes::new();
    clouds.state().down = true;
    assert!(inventory(&clouds).confirm(ADA).await.is_err());
}

/// How many servers stand under an id, then tunnels and records, then those of the retained.
type Under = (usize, (u32, u32), (u32, u32));

fn under(inventory: &Inventory, id: InstanceId) -> Option<Under> {
    let all = inventory.standing();
    let one = all.iter().find(|one| one.instance == id)?;
    let of = |routes: crate::admission::Routes| (routes.tunnels, routes.records);
    Some((one.servers.len(), of(one.live), of(one.retained)))
}

#[tokio::test]
async fn what_stands_under_an_id_follows_every_change() {
    let (clouds, _questions) = Fakes::new();
    {
        let mut state = clouds.state();
        state.servers =
            vec![server(1, ADA, OURS), server(9, BOB, InstallationId::from_bytes([9; 8]))];
        state.tunnels = vec![tunnel(ADA)];
        state.records = vec![record("ada.example.com", Some(ADA)), record("www.example.com", None)];
    }
    let inventory = swept(&clouds).await;
    assert_eq!(under(&inventory, ADA), Some((1, (1, 1), (0, 0))));
    assert_eq!(under(&inventory, BOB), None);
    let all = inventory.standing();
    assert_eq!((all[0].namespace.as_deref(), all[0].name.as_deref()), (Some("tenants"), Some("x")));

    // What was made, what changed its owner, what went, what goes.
    inventory.note_record(record("ada-mgmt.example.com", Some(ADA)));
    assert_eq!(under(&inventory, ADA), Some((1, (1, 2), (0, 0))));
    let name = names::retained_tunnel(OURS, ADA, &tunnel_id());
    inventory.note_tunnel(Tunnel { name, ..tunnel(ADA) });
    assert_eq!(under(&inventory, ADA), Some((1, (0, 2), (1, 0))));
    inventory.note_record(record("ada.example.com", Some(BOB)));
    assert_eq!(under(&inventory, BOB), Some((0, (0, 1), (0, 0))));
    let leaving = Server { status: ServerStatus::Deleting, ..server(1, ADA, OURS) };
    inventory.note_server(leaving);
    assert_eq!(under(&inventory, ADA), Some((0, (0, 1), (1, 0))));
    inventory.forget_tunnel(&tunnel_id());
    inventory.forget_record(&record("ada-mgmt.example.com", None).id);
    assert_eq!(under(&inventory, ADA), None);

    // The next sweep is believed again.
    inventory.sweep().await.unwrap();
    assert_eq!(under(&inventory, ADA), Some((1, (1, 1), (0, 0))));
    assert_eq!(under(&inventory, BOB), None);
}

#[tokio::test]
async fn a_comment_without_room_for_the_name_still_says_the_namespace() {
    let (clouds, _questions) = Fakes::new();
    let comment = names::record_comment(OURS, ADA, "tenants", &"a".repeat(63));
    let cut = DnsRecord { comment: Some(comment), ..record("ada.example.com", None) };
    clouds.state().records = vec![cut];
    let inventory = swept(&clouds).await;
    let all = inventory.standing();
    assert_eq!((all[0].namespace.as_deref(), all[0].name.as_deref()), (Some("tenants"), None));
}
