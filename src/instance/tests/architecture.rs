//! Releases for one processor and servers with another.

use moorage_wire::Sha256;

use crate::{
    api::{annotation::Rebuild, conditions::Reason, instance::Phase, release::Architecture},
    hetzner,
    instance::{
        Observed, Wanted,
        fixtures::{self, FIRST_EPOCH, kinds, nothing, plan_of, ready, status_of, walk, wanted},
        observed::ServerState,
        wanted::Prospect,
    },
};

fn without_placement(mut wanted: Wanted) -> Wanted {
    wanted.placements.iter_mut().for_each(|place| place.prospect = Prospect::WrongArchitecture);
    wanted
}

#[test]
fn a_server_gets_no_programs_for_another_processor() {
    let mut wanted = wanted().with_two_credentials();
    let mut observed = walk(&wanted, nothing().with_both_values(), |_| false);
    let ServerState::Present(server) = &mut observed.server else { panic!("there is a server") };
    server.server_type.architecture = Some(hetzner::Architecture::X86);
    wanted.release.artifacts.openclaw.sha256 = Sha256::of(b"another");
    assert_eq!(kinds(&plan_of(&wanted, &observed)), ["PutDesired"]);
    wanted.release.architecture = Architecture::Arm;
    assert_eq!(kinds(&plan_of(&wanted, &observed)), [""; 0]);
    let status = status_of(&wanted, &observed);
    for part in ["ConfigApplied", "UpToDate"] {
        let condition = status.conditions.iter().find(|known| known.type_ == part).unwrap();
        assert_eq!(condition.reason, Reason::ArchitectureMismatch, "{part}");
        assert_eq!(condition.status, "False", "{part}");
    }
    let observed = observed.with_secret("2026-09-02T00:00:00Z", &[("anthropic", 9)]);
    assert_eq!(kinds(&plan_of(&wanted, &observed)), ["DeliverCredential"]);
}

#[test]
fn nothing_is_made_for_a_release_that_no_type_runs() {
    let wanted = without_placement(wanted());
    for epoch in [None, Some(FIRST_EPOCH)] {
        let observed = Observed { epoch, ..nothing() };
        assert_eq!(plan_of(&wanted, &observed).steps, [], "{epoch:?}");
        let status = status_of(&wanted, &observed);
        let ready = status.conditions.iter().find(|known| known.type_ == "Ready").unwrap();
        assert_eq!(ready.reason, Reason::ArchitectureMismatch);
        assert_eq!(status.phase, Some(Phase::Stalled));
    }
}

#[test]
fn a_server_that_could_not_be_recreated_is_not_deleted() {
    let mut wanted = without_placement(wanted());
    let observed = ready(&fixtures::wanted());
    wanted.rebuild = Rebuild::Server(observed.server.present().unwrap().id.0);
    assert_eq!(plan_of(&wanted, &observed).steps, []);
}
