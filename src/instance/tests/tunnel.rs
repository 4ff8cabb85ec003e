//! Tunnel, routes, DNS records, and the rotation of the tunnel's token.

use std::time::Duration;

use crate::{
    agent::AgentError,
    api::conditions::Reason,
    api::instance::Phase,
    instance::{
        Observed, Step,
        credentials::CredentialStep,
        fixtures::{TIMING, before, kinds, nothing, now, plan_of, ready, status_of, walk, wanted},
        observed::{AgentState, TunnelMemory},
        records::{DeleteRecords, EnsureRecords},
        rotation::{PATIENCE, RotationOutcome, RotationStep},
        routes,
        routes::RoutesStep,
        step::PartStep as _,
    },
};

#[test]
fn a_deleted_tunnel_of_a_live_server_is_not_replaced() {
    let wanted = wanted();
    let observed = ready(&wanted).without_tunnel();
    assert_eq!(plan_of(&wanted, &observed).steps, []);
    let status = status_of(&wanted, &observed);
    let condition = status.conditions.iter().find(|known| known.type_ == "TunnelReady").unwrap();
    assert_eq!(condition.reason, Reason::TunnelLost);
    assert!(condition.message.contains("moorage.dev/rebuild="), "{}", condition.message);
    assert_eq!(status.phase, Some(Phase::Stalled));
}

#[test]
fn a_rebuild_heals_a_lost_tunnel() {
    let wanted = wanted();
    let observed = ready(&wanted).without_tunnel();
    let id = observed.server.present().unwrap().id;
    let rebuilding = wanted.clone().with_rebuild_of(id.0);
    assert_eq!(kinds(&plan_of(&rebuilding, &observed)), ["DeleteServer"]);
    let gone = observed.with_lost_server();
    let end = walk(&wanted, gone, |_| false);
    assert_eq!(status_of(&wanted, &end).phase, Some(Phase::Ready));
}

#[test]
fn the_agent_holds_the_new_token_before_cloudflare_takes_it() {
    let wanted = wanted();
    let observed = before(&wanted, |step| matches!(step, Step::Rotation(RotationStep::Rotate(_))));
    let tunnel_token = observed.own_tokens.unwrap().tunnel;
    let held = observed.view().receipt(&crate::instance::fixtures::name("moorage-tunnel")).unwrap();
    assert_eq!(held.source_sha256, tunnel_token);
    assert_ne!(observed.view().report.cloudflared.active_token_sha256, Some(tunnel_token));
}

#[test]
fn a_rotation_is_given_time_and_then_repeated() {
    let wanted = wanted();
    let mut observed =
        before(&wanted, |step| matches!(step, Step::Rotation(RotationStep::Rotate(_))));
    observed.tunnel_memory.rotated = Some(now());
    assert!(!kinds(&plan_of(&wanted, &observed)).contains(&"RotateTunnel"));
    observed.now = now() + PATIENCE;
    assert!(kinds(&plan_of(&wanted, &observed)).contains(&"RotateTunnel"));
}

#[test]
fn a_server_that_keeps_its_old_token_is_rotated_less_often() {
    let wanted = wanted();
    let mut observed =
        before(&wanted, |step| matches!(step, Step::Rotation(RotationStep::Rotate(_))));
    let mut rotated = |passed: Duration| {
        observed.now += passed;
        // Nothing else is due.
        observed.tunnel_memory.rules.as_mut().unwrap().1 = observed.now;
        let due = kinds(&plan_of(&wanted, &observed)).contains(&"RotateTunnel");
        if due {
            let id = observed.tunnel.as_ref().unwrap().id.clone();
            RotationStep::note(RotationOutcome::Rotated(id), &mut observed);
        }
        due
    };
    let pause = Duration::from_secs(10);
    let per_hour = [0; 4].map(|_| (0..360).filter(|_| rotated(pause)).count());
    assert_eq!(per_hour, [6, 1, 1, 1]);
    // A rotation of another day is given the usual time.
    assert!(rotated(Duration::from_hours(7)));
    assert!(!rotated(pause));
    assert!(rotated(PATIENCE));
}

#[test]
fn a_rotation_that_died_half_way_is_repeated() {
    let wanted = wanted();
    let rotating = || {
        let mut observed = ready(&wanted);
        observed.status.tunnel.as_mut().unwrap().rotating = true;
        observed.tunnel_memory.rotated = None;
        observed
    };
    let observed = rotating();
    assert_eq!(kinds(&plan_of(&wanted, &observed)), ["RotateTunnel"]);
    let status = status_of(&wanted, &observed);
    assert!(status.tunnel.unwrap().rotating, "nobody has cut them");
    assert_eq!(status.phase, Some(Phase::Updating));
    // Whoever holds the old token may be why the server cannot be reached.
    let agent = AgentState::Silent(AgentError::unreachable("refused"));
    let silent = Observed { agent, ..rotating() };
    assert_eq!(kinds(&plan_of(&wanted, &silent)), ["RotateTunnel"]);
    let end = walk(&wanted, observed, |_| false);
    assert!(!status_of(&wanted, &end).tunnel.unwrap().rotating);
    assert_eq!(status_of(&wanted, &end).phase, Some(Phase::Ready));
}

#[test]
fn an_old_status_does_not_repeat_a_finished_rotation() {
    let wanted = wanted();
    for moved_on in [false, true] {
        let mut observed = if moved_on {
            ready(&wanted)
        } else {
            before(&wanted, |step| matches!(step, Step::Rotation(RotationStep::Rotate(_))))
        };
        observed.tunnel_memory.rotated = Some(observed.now);
        observed.status.tunnel.as_mut().unwrap().rotating = true;
        let planned = kinds(&plan_of(&wanted, &observed));
        assert!(!planned.contains(&"RotateTunnel"), "{planned:?}");
        assert!(!status_of(&wanted, &observed).tunnel.unwrap().rotating, "it is over");
    }
}

#[test]
fn a_rotation_ends_when_the_old_token_is_erased() {
    let wanted = wanted();
    let old = moorage_wire::Sha256::of(b"the token of user-data");
    let observed = ready(&wanted).with_view(|view| view.report.cloudflared.token_sha256.push(old));
    let plan = plan_of(&wanted, &observed);
    assert_eq!(plan.steps, []);
    assert!(plan.requeue_after.is_some_and(|requeue_after| requeue_after < Duration::from_mins(1)));
    assert_eq!(status_of(&wanted, &observed).phase, Some(Phase::Updating));
}

#[test]
fn the_rules_come_before_the_records() {
    let wanted = wanted();
    let observed = before(&wanted, |step| matches!(step, Step::Routes(RoutesStep::Put(..))));
    assert_eq!(kinds(&plan_of(&wanted, &observed)), ["PutRoutes", "EnsureRecords", "CreateServer"]);
}

#[test]
fn there_are_two_routes_and_everything_else_is_not_found() {
    let rules = routes::configuration(&wanted().subject).ingress;
    let rules: Vec<_> =
        rules.iter().map(|rule| (rule.hostname.as_deref(), rule.service.as_str())).collect();
    assert_eq!(
        rules,
        [
            (Some("ada.example.com"), "http://127.0.0.1:18789"),
            (Some("ada-mgmt.example.com"), "unix:/run/moorage/agent.sock"),
            (None, "http_status:404"),
        ]
    );
}

#[test]
fn settled_routes_are_compared_once_in_a_while() {
    let wanted = wanted();
    let mut observed = ready(&wanted);
    assert_eq!(plan_of(&wanted, &observed).steps, []);
    observed.now = now() + TIMING.routes;
    assert_eq!(kinds(&plan_of(&wanted, &observed)), ["CheckRoutes"]);
}

#[test]
fn a_new_process_compares_the_routes_of_a_running_server() {
    let wanted = wanted();
    let mut observed = ready(&wanted);
    observed.tunnel_memory = TunnelMemory::default();
    assert_eq!(kinds(&plan_of(&wanted, &observed)), ["CheckRoutes"]);
}

#[test]
fn a_missing_record_is_made_and_a_bent_one_corrected() {
    let wanted = wanted();
    let mut observed = ready(&wanted);
    observed.records.remove(0);
    observed.records[0].content = Some("elsewhere.cfargotunnel.com".to_owned());
    let plan = plan_of(&wanted, &observed);
    let [Step::Records(EnsureRecords { posts, patches })] = &plan.steps[..] else {
        panic!("{:?}", plan.steps)
    };
    let tunnel = &observed.tunnel.as_ref().unwrap().id;
    assert_eq!(
        posts.iter().map(|post| post.name.as_str()).collect::<Vec<_>>(),
        ["ada.example.com"]
    );
    assert_eq!(
        patches.iter().map(|patch| patch.content.clone()).collect::<Vec<_>>(),
        [Some(tunnel.dns_target())]
    );
    let end = walk(&wanted, observed, |_| false);
    assert_eq!(status_of(&wanted, &end).phase, Some(Phase::Ready));
}

#[test]
fn records_at_host_names_of_an_earlier_instance_go_first() {
    let wanted = wanted();
    let mut observed = ready(&wanted);
    let moved = |mut record: crate::cloudflare::DnsRecord, at: usize| {
        let id = format!("stray-{at}");
        record.id = crate::cloudflare::RecordId::parse(id).unwrap();
        record.name = record.name.replace("ada", "eve");
        record
    };
    let records = std::mem::take(&mut observed.records);
    let strays: Vec<_> = records.into_iter().zip(0..).map(|(one, at)| moved(one, at)).collect();
    let ids: Vec<_> = strays.iter().map(|record| record.id.clone()).collect();
    observed.stray_records = strays;
    let plan = plan_of(&wanted, &observed);
    assert_eq!(kinds(&plan), ["DeleteRecords", "EnsureRecords"]);
    assert_eq!(plan.steps[0], Step::Strays(DeleteRecords(ids)));
    let end = walk(&wanted, observed, |_| false);
    assert_eq!((end.stray_records, end.records.len()), (vec![], 2));
}

#[test]
fn a_record_that_is_not_proxied_is_corrected() {
    let wanted = wanted();
    let mut observed = ready(&wanted);
    observed.records[1].proxied = Some(false);
    assert_eq!(kinds(&plan_of(&wanted, &observed)), ["EnsureRecords"]);
}

#[test]
fn the_tunnel_is_not_ready_before_its_first_token_was_replaced() {
    let wanted = wanted();
    let observed = walk(&wanted, nothing(), |step| {
        *step == Step::Credentials(CredentialStep::DeliverGatewayToken)
    });
    let status = status_of(&wanted, &observed);
    let condition = status.conditions.iter().find(|known| known.type_ == "TunnelReady").unwrap();
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("Unknown", Reason::Waiting.as_str())
    );
}
