//! What holds of every plan, wherever the world stands.

use moorage_wire::CredentialName;
use proptest::prelude::*;

use crate::{
    api::instance::Phase,
    instance::{
        Observed, Step, Wanted,
        credentials::CredentialStep,
        credentials::{Delivery, delivery},
        fixtures::{SECOND_EPOCH, agent_keys, nothing, plan_of, status_of, walk, wanted},
        forecast::Model,
        observed::{AgentState, Disappearance, ServerState, TunnelMemory},
        records::EnsureRecords,
        rotation::RotationStep,
        routes::RoutesStep,
        server::ServerStep,
        tunnel::TunnelStep,
        wanted::Subject,
    },
    names,
    ownership::instance_id,
};

/// A place on the way to ready, and what befell the world there.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each may befall the world or not")]
struct Start {
    steps: usize,
    forgetful: bool,
    server_lost: bool,
    tunnel_lost: bool,
    records_lost: usize,
    status_lost: bool,
    receipts_lost: bool,
    agent_silent: bool,
    secret_back: bool,
    rotating: bool,
    mass: bool,
    accepted: bool,
}

prop_compose! {
    fn start()(
        steps in 0_usize..16,
        (forgetful, server_lost, tunnel_lost, status_lost, receipts_lost) in any::<(bool, bool, bool, bool, bool)>(),
        (agent_silent, secret_back, rotating, mass, accepted) in any::<(bool, bool, bool, bool, bool)>(),
        records_lost in 0_usize..=2,
    ) -> Start {
        Start { steps, forgetful, server_lost, tunnel_lost, records_lost, status_lost, receipts_lost, agent_silent, secret_back, rotating, mass, accepted }
    }
}

fn asking() -> Wanted {
    wanted().with_two_credentials()
}

impl Start {
    fn world(&self, wanted: &Wanted) -> Observed {
        let keys = agent_keys();
        let mut model =
            Model { wanted, placeholders: &keys, observed: nothing().with_both_values() };
        let mut left = self.steps;
        'way: for _ in 0..40 {
            let plan = plan_of(wanted, &model.observed);
            for step in &plan.steps {
                if left == 0 {
                    break 'way;
                }
                left -= 1;
                model.carry_out(step);
            }
            if plan.steps.is_empty() && !model.write_status(&plan) && model.happen().is_none() {
                break;
            }
        }
        self.befall(Observed { fresh_epoch: Some(SECOND_EPOCH), ..model.observed })
    }

    fn befall(&self, mut observed: Observed) -> Observed {
        if self.forgetful {
            observed.tunnel_memory = TunnelMemory::default();
        }
        if self.server_lost && observed.server.present().is_some() {
            observed = observed.with_lost_server();
        }
        if self.tunnel_lost && observed.server.present().is_none() {
            observed.tunnel = None;
        }
        observed.records.truncate(2 - self.records_lost);
        if self.status_lost {
            observed.status.credentials.clear();
        }
        if let AgentState::Reported(view) = &mut observed.agent {
            let holds_new_token = !view.report.receipts.is_empty() && !self.agent_silent;
            if let (true, Some(tunnel)) =
                (self.rotating && holds_new_token, &mut observed.status.tunnel)
            {
                // By a process that died in the middle.
                tunnel.rotating = true;
                observed.tunnel_memory.rotated = None;
            }
            if self.receipts_lost {
                view.report.receipts.clear();
                view.report.consumed.clear();
            }
            if self.agent_silent {
                // It starts over, so whatever was rotated was so for another.
                observed.agent = AgentState::NotAsked;
                observed.status.agent = None;
                observed.tunnel_memory.rotated = None;
            }
        }
        if self.secret_back {
            observed = observed.with_both_values();
        }
        if self.mass {
            observed.disappearance = Disappearance { missing: 9, total: 10 };
        }
        Observed { accepted_loss: self.accepted, ..observed }
    }
}

fn is_recorded(observed: &Observed, name: &CredentialName) -> bool {
    let epoch = observed.epoch.map(|epoch| epoch.to_string());
    observed
        .status
        .credentials
        .iter()
        .any(|known| known.name == name.as_str() && Some(&known.epoch) == epoch.as_ref())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn the_same_is_planned_for_the_same(start in start()) {
        let wanted = asking();
        let (first, second) = (start.world(&wanted), start.world(&wanted));
        let (first, second) = (plan_of(&wanted, &first), plan_of(&wanted, &second));
        prop_assert_eq!(first.steps, second.steps);
        prop_assert_eq!(first.verdicts, second.verdicts);
        prop_assert_eq!(first.requeue_after, second.requeue_after);
    }

    #[test]
    fn a_server_is_made_only_for_a_recorded_epoch(start in start()) {
        let wanted = asking();
        let observed = start.world(&wanted);
        if plan_of(&wanted, &observed).steps.contains(&Step::Server(ServerStep::Create)) {
            prop_assert_eq!(&observed.server, &ServerState::None);
            let recorded = observed.status.server.as_ref().map(|server| server.epoch.clone());
            prop_assert_eq!(recorded, observed.epoch.map(|epoch| epoch.to_string()));
            prop_assert!(observed.tunnel.is_some());
            prop_assert_eq!(observed.tunnel_memory.bootstrapped, observed.epoch);
        }
    }

    #[test]
    fn no_server_is_deleted_that_no_person_named(start in start()) {
        let wanted = asking();
        let plan = plan_of(&wanted, &start.world(&wanted));
        prop_assert!(!plan.steps.iter().any(|step| matches!(step, Step::Server(ServerStep::Delete(_)))));
    }

    #[test]
    fn no_step_touches_what_is_anothers(
        start in start(),
        (server, tunnel, records) in any::<(bool, bool, bool)>(),
        rebuild in any::<bool>(),
    ) {
        let mut observed = start.world(&asking());
        let present = observed.server.present().map_or(0, |server| server.id.0);
        let wanted = if rebuild { asking().with_rebuild_of(present) } else { asking() };
        let bob = Subject {
            name: "bob".to_owned(),
            instance: instance_id(wanted.subject.installation, "tenants", "bob"),
            ..wanted.subject.clone()
        };
        if let (true, ServerState::Present(observed)) = (server, &mut observed.server) {
            observed.labels = bob.server_identity(SECOND_EPOCH).labels();
            observed.public_net.firewalls.clear();
        }
        if let (true, Some(observed)) = (tunnel, &mut observed.tunnel) {
            observed.name = names::tunnel(bob.installation, bob.instance);
        }
        for record in observed.records.iter_mut().filter(|_| records) {
            record.comment = Some(bob.record_comment());
            record.content = Some("astray.example.net".to_owned());
        }
        for step in plan_of(&wanted, &observed).steps {
            let theirs = match &step {
                Step::Server(ServerStep::Delete(_) | ServerStep::AttachFirewall(..) | ServerStep::Label(..)) => server,
                Step::Tunnel(TunnelStep::Bootstrap(_) | TunnelStep::Rename(_))
                | Step::Rotation(RotationStep::Rotate(_))
                | Step::Routes(RoutesStep::Put(..) | RoutesStep::Check(..)) => tunnel,
                Step::Records(EnsureRecords { patches, .. }) => records && !patches.is_empty(),
                _ => false,
            };
            prop_assert!(!theirs, "{step}");
        }
    }

    #[test]
    fn nothing_is_made_while_too_much_is_gone(start in start()) {
        let wanted = asking();
        let observed = start.world(&wanted);
        if observed.server == ServerState::Gone && observed.disappearance.is_mass() && !observed.accepted_loss {
            prop_assert_eq!(plan_of(&wanted, &observed).steps, vec![]);
        }
    }

    #[test]
    fn no_life_ends_while_too_much_is_gone(start in start(), rebuild in any::<bool>()) {
        let observed = Start { mass: true, accepted: false, ..start }.world(&asking());
        let present = observed.server.present().map_or(0, |server| server.id.0);
        let wanted = if rebuild { asking().with_rebuild_of(present) } else { asking() };
        for step in plan_of(&wanted, &observed).steps {
            prop_assert!(!matches!(step, Step::Server(ServerStep::Delete(_))), "{step}");
            let next = matches!(step, Step::Server(ServerStep::RecordEpoch(_) | ServerStep::Create) | Step::Tunnel(TunnelStep::Bootstrap(_)));
            prop_assert!(!(next && observed.server == ServerState::Gone), "{step}");
        }
    }

    #[test]
    fn a_secret_is_deleted_only_with_recorded_receipts(start in start()) {
        let wanted = asking();
        let observed = start.world(&wanted);
        let plan = plan_of(&wanted, &observed);
        for step in &plan.steps {
            let Step::Credentials(CredentialStep::DeleteSecret { name, .. }) = step else { continue };
            let bundle = observed.bundles.iter().find(|bundle| bundle.secret == *name).unwrap();
            for credential in bundle.values.keys() {
                prop_assert!(is_recorded(&observed, credential), "{credential} of {name} has no receipt");
                let request = wanted.credentials.iter().find(|request| request.name == *credential).unwrap();
                prop_assert_eq!(delivery(request, &observed, observed.view()), Delivery::Delivered);
            }
        }
    }

    #[test]
    fn the_agent_is_spoken_to_only_after_it_has_reported(start in start()) {
        let wanted = asking();
        let observed = start.world(&wanted);
        let spoken = plan_of(&wanted, &observed).steps.iter().any(Step::needs_agent);
        prop_assert!(!spoken || observed.agent.view().is_some());
    }

    #[test]
    fn the_steps_lead_to_ready_from_everywhere(start in start()) {
        let wanted = asking();
        // What only a person can undo is not part of this, nor is what cannot be sealed again.
        let start = Start { mass: false, secret_back: true, ..start };
        let end = walk(&wanted, start.world(&wanted), |_| false);
        prop_assert_eq!(plan_of(&wanted, &end).steps, vec![]);
        prop_assert_eq!(status_of(&wanted, &end).phase, Some(Phase::Ready), "{:?}", end.status.conditions);
        prop_assert!(end.bundles.is_empty(), "no Secret is left behind");
        prop_assert!(wanted.credential_names().all(|name| is_recorded(&end, name)));
    }

    #[test]
    fn exactly_one_of_the_three_words_of_kstatus_holds(start in start()) {
        let wanted = asking();
        let status = status_of(&wanted, &start.world(&wanted));
        let holds = |kind: &&&str| status.conditions.iter().any(|known| known.type_ == **kind && known.status == "True");
        prop_assert_eq!(["Ready", "Reconciling", "Stalled"].iter().filter(holds).count(), 1);
    }
}
