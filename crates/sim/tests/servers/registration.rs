//! Who is let in by the edge, and how connections come, go and come back, with each kind of connector.

use std::time::{Duration, Instant};

use moorage_sim_clouds::edge::{Edge, EdgeAddresses};
use moorage_sim_servers::connector::VERSION;
use rstest::rstest;
use rustix::process::Signal;

use crate::common::{ACCOUNT, Lab, PATIENCE, TUNNEL, eventually, rules};
use crate::connector::{Connector, Kind};
use crate::origin::Origin;

/// How long a connector that nothing holds may take to stop on a busy machine: less than the 30 s that
/// it gives to what runs in it.
const STOP: Duration = Duration::from_secs(20);

/// Whether a visitor of `ada.example.com` reaches the origin.
async fn works(client: &reqwest::Client) -> bool {
    let response = client.get("https://ada.example.com/headers").send().await;
    response.is_ok_and(|response| response.status() == 200)
}

#[rstest]
#[case::cloudflared(Kind::Cloudflared)]
#[case::stand_in(Kind::StandIn)]
#[tokio::test]
async fn a_connector_says_who_it_is(#[case] kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let origin = Origin::start().await;
    let (lab, connector) = Lab::tunnelled(kind, &origin.service()).await;
    let known = lab.registry.connectors(TUNNEL);
    assert_eq!(known.len(), 1);
    assert_eq!(connector.ready(200).await["connectorId"], known[0].client_id);
    assert!(known[0].arch.starts_with("linux_"), "{known:?}");
    assert_eq!(known[0].origin_ip, Some("127.0.0.1".parse().unwrap()));
    // Nobody shall take the stand-in for the real one.
    assert_eq!(known[0].version == VERSION, kind == Kind::StandIn, "{known:?}");
    assert_eq!(known[0].features.is_empty(), kind == Kind::StandIn, "{known:?}");
}

#[rstest]
#[case::cloudflared(Kind::Cloudflared)]
#[case::stand_in(Kind::StandIn)]
#[tokio::test]
async fn no_visitor_meets_a_connector_without_rules(#[case] kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let origin = Origin::start().await;
    let lab = Lab::start().await;
    lab.registry.set_rules(TUNNEL, rules(&[("ada.example.com", &origin.service())]));
    lab.registry.add_route("ada.example.com", TUNNEL);
    let client = lab.client(&["ada.example.com"]);
    let _connector = lab.connector(kind, &lab.token("token", b"first"));
    let begin = Instant::now();
    let mut status = 530;
    while status == 530 {
        assert!(begin.elapsed() < PATIENCE, "the tunnel does not come up");
        let response = client.get("https://ada.example.com/headers").send().await.unwrap();
        status = response.status().as_u16();
    }
    assert_eq!(status, 200);
}

#[rstest]
#[case::cloudflared(Kind::Cloudflared)]
#[case::stand_in(Kind::StandIn)]
#[tokio::test]
async fn a_refused_connector_comes_up_when_its_token_becomes_right(#[case] kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let lab = Lab::start().await;
    let mut connector = lab.connector(kind, &lab.token("token", b"later"));
    lab.refusals(2).await;
    connector.ready(503).await;
    assert!(connector.lives());
    lab.registry.rotate(TUNNEL, b"later");
    connector.ready(200).await;
}

#[rstest]
#[case::cloudflared(Kind::Cloudflared)]
#[case::stand_in(Kind::StandIn)]
#[tokio::test]
async fn a_connector_of_an_unknown_tunnel_keeps_trying(#[case] kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let lab = Lab::start().await;
    lab.registry.delete_tunnel(TUNNEL);
    let mut connector = lab.connector(kind, &lab.token("token", b"first"));
    lab.refusals(2).await;
    assert!(connector.lives());
    lab.registry.add_tunnel(ACCOUNT, TUNNEL, b"first");
    connector.ready(200).await;
}

#[rstest]
#[case::cloudflared(Kind::Cloudflared)]
#[case::stand_in(Kind::StandIn)]
#[tokio::test]
async fn a_rotated_token_keeps_its_connection_until_it_is_closed(#[case] kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let origin = Origin::start().await;
    let (lab, mut old) = Lab::tunnelled(kind, &origin.service()).await;
    let client = lab.client(&["ada.example.com"]);
    lab.registry.rotate(TUNNEL, b"second");
    assert!(works(&client).await, "the rotation cut the live connection");
    assert_eq!(lab.edge.connections_of(TUNNEL), 1);

    lab.registry.close_connections(TUNNEL);
    lab.connections(0).await;
    old.ready(503).await;
    assert!(!works(&client).await);

    let _new = lab.connector(kind, &lab.token("new-token", b"second"));
    lab.connections(1).await;
    assert!(works(&client).await);
    // The old one goes on trying, in vain.
    let refused = lab.registry.refusals();
    lab.refusals(refused + 1).await;
    old.ready(503).await;
    assert!(old.lives());
    assert_eq!(lab.edge.connections_of(TUNNEL), 1);
}

#[rstest]
#[case::cloudflared(Kind::Cloudflared)]
#[case::stand_in(Kind::StandIn)]
#[tokio::test]
async fn a_connector_reconnects_after_the_edge_closed_its_connection(#[case] kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let origin = Origin::start().await;
    let (lab, connector) = Lab::tunnelled(kind, &origin.service()).await;
    let before = connector.ready(200).await;
    lab.registry.close_connections(TUNNEL);
    assert_eq!(lab.registry.connectors(TUNNEL), []);
    eventually("a new connection", async || {
        (lab.registry.connectors(TUNNEL).len() == 1).then_some(())
    })
    .await;
    lab.connections(1).await;
    let client = lab.client(&["ada.example.com"]);
    assert!(works(&client).await);
    assert_eq!(connector.ready(200).await["connectorId"], before["connectorId"]);
}

#[rstest]
#[case::cloudflared(Kind::Cloudflared)]
#[case::stand_in(Kind::StandIn)]
#[tokio::test]
async fn a_connector_comes_back_to_an_edge_that_started_again(#[case] kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let origin = Origin::start().await;
    let (mut lab, connector) = Lab::tunnelled(kind, &origin.service()).await;
    let client = lab.client(&["ada.example.com"]);
    let addresses =
        EdgeAddresses { visitors: lab.edge.visitors(), connectors: lab.edge.connectors() };
    lab.edge.shutdown().await;
    connector.ready(503).await;
    lab.edge = Edge::start(lab.registry.clone(), addresses, lab.folder.path()).await.unwrap();
    lab.connections(1).await;
    connector.ready(200).await;
    // The same authority is trusted, by the connector and by the visitor.
    eventually("the visitor", async || works(&client).await.then_some(())).await;
}

#[rstest]
#[case::cloudflared(Kind::Cloudflared)]
#[case::stand_in(Kind::StandIn)]
#[tokio::test]
async fn one_of_two_connectors_stops_without_losing_a_request(#[case] kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let origin = Origin::start().await;
    let (lab, first) = Lab::tunnelled(kind, &origin.service()).await;
    let second = lab.connector(kind, &lab.token("token", b"first"));
    lab.connections(2).await;
    second.ready(200).await;
    let client = lab.client(&["ada.example.com"]);
    let visits = async {
        for _ in 0..100 {
            assert!(works(&client).await, "a request was lost");
        }
    };
    let (stopped, ()) = tokio::join!(first.stop(), visits);
    assert!(stopped < STOP, "{stopped:?}");
    lab.connections(1).await;
    assert!(works(&client).await);
}

#[rstest]
#[case::cloudflared(Kind::Cloudflared)]
#[case::stand_in(Kind::StandIn)]
#[tokio::test]
async fn a_connector_stops_at_once_and_leaves_no_connection(#[case] kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let origin = Origin::start().await;
    let (lab, connector) = Lab::tunnelled(kind, &origin.service()).await;
    let stopped = connector.stop().await;
    assert!(stopped < STOP, "{stopped:?}");
    lab.connections(0).await;
    assert_eq!(lab.registry.connectors(TUNNEL), []);
}

#[rstest]
#[case::cloudflared(Kind::Cloudflared)]
#[case::stand_in(Kind::StandIn)]
#[tokio::test]
async fn a_connector_that_stops_finishes_what_runs(#[case] kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let origin = Origin::start().await;
    let (lab, connector) = Lab::tunnelled(kind, &origin.service()).await;
    let client = lab.client(&["ada.example.com"]);
    let visit = tokio::spawn(client.get("https://ada.example.com/held").send());
    origin.gate.arrived.notified().await;
    let release = async {
        lab.connections(0).await;
        assert!(!works(&client).await, "a connection that goes takes new visitors");
        origin.gate.release.notify_one();
    };
    tokio::join!(connector.stop(), release);
    let response = visit.await.unwrap().unwrap();
    assert_eq!(response.text().await.unwrap(), "released");
}

#[rstest]
#[case::cloudflared(Kind::Cloudflared)]
#[case::stand_in(Kind::StandIn)]
#[tokio::test]
async fn the_edge_gives_up_a_connector_that_does_not_answer(#[case] kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let origin = Origin::start().await;
    let (lab, connector) = Lab::tunnelled(kind, &origin.service()).await;
    connector.signal(Signal::STOP);
    lab.connections(0).await;
    connector.signal(Signal::CONT);
    lab.connections(1).await;
}

#[tokio::test]
async fn all_connections_of_a_connector_carry_visitors() {
    let kind = Kind::Cloudflared;
    if !kind.is_here() {
        return;
    }
    let origin = Origin::start().await;
    let (lab, first) = Lab::tunnelled(kind, &origin.service()).await;
    first.stop().await;
    let token = lab.token("token", b"first");
    let edge = lab.edge.connectors();
    let connector = Connector::with_connections(kind, edge, lab.edge.ca_file(), &token, 2);
    lab.connections(2).await;
    let known = lab.registry.connectors(TUNNEL);
    assert_eq!(known[0].client_id, known[1].client_id);
    let client = lab.client(&["ada.example.com"]);
    // Each visitor takes the next connection.
    for _ in 0..4 {
        assert!(works(&client).await);
    }
    assert!(connector.stop().await < STOP);
}
