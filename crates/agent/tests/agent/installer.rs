//! A stand-in for the installer, which does its verbs to the machine of a test.

use std::{fs, io};

use moorage_agent::{
    Disk, Layout,
    artifacts::{Shelf, Store},
    installer::{
        enrolment_key,
        order::VerifiedOrder,
        protocol::{Answer, InstalledArtifact, Inventory, Reason, Request, Unit, UnitFailure},
    },
};
use moorage_wire::{Program, Sha256};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};

use crate::{
    machine::{Machine, Shared, migrate, read_gateway_token},
    operator::bootstrap,
};

/// Answers one request.
pub(crate) async fn install(
    stream: UnixStream,
    machine: &Shared,
    layout: &Layout,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let answer = perform(serde_json::from_str(&line)?, &mut machine.lock().unwrap(), layout);
    let mut answer = serde_json::to_vec(&answer)?;
    answer.push(b'\n');
    stream.write_all(&answer).await
}

fn perform(request: Request, machine: &mut Machine, layout: &Layout) -> Answer {
    match request {
        Request::Status { unit } => {
            machine.looks += u32::from(unit == Unit::Openclaw);
            let running = machine.running.get(&unit) == Some(&true);
            let starts = machine.starts.get(&unit).copied().unwrap_or(0);
            let failure = machine.failure.filter(|_| unit == Unit::Openclaw && running);
            let Some(failure) = failure.filter(|_| !machine.healthy) else {
                return Answer::Status { running, starts, failure: None };
            };
            if !failure.given_up {
                let restarts = failure.restarts + 1;
                machine.failure = Some(UnitFailure { restarts, ..failure });
                let data = migrate(machine, layout);
                machine.healthy = data || machine.recovers_after == Some(restarts);
            }
            return Answer::Status { running: false, starts, failure: Some(failure) };
        }
        Request::Stop { unit } => {
            machine.running.insert(unit, false);
        }
        Request::Start { unit } | Request::Restart { unit } => {
            machine.running.insert(unit, true);
            *machine.starts.entry(unit).or_default() += 1;
            match unit {
                Unit::Openclaw => {
                    let bytes = fs::read(layout.openclaw_config()).unwrap();
                    machine.openclaw_config = serde_json::from_slice(&bytes).unwrap();
                    read_gateway_token(machine, layout, true);
                    let data = migrate(machine, layout);
                    machine.healthy =
                        data && machine.openclaw_config.get("fakeUnhealthy").is_none();
                }
                Unit::Cloudflared => {
                    let token = fs::read_to_string(layout.tunnel_token()).unwrap();
                    token.trim().clone_into(&mut machine.token_running);
                }
                Unit::Agent => {}
            }
        }
        Request::WriteTunnelToken { token } => {
            fs::write(layout.tunnel_token(), format!("{token}\n")).unwrap();
        }
        Request::EraseEnrolmentKey => {
            machine.erasures += 1;
            if machine.erasures <= machine.failing_erasures {
                return Answer::failed(Reason::System, "not now");
            }
            enrolment_key::erase(&Disk::default(), layout).unwrap();
        }
        Request::HandOver { document } => {
            if let Err(error) =
                moorage_agent::handover::put_in_force(&Disk::default(), layout, &document)
            {
                return Answer::failed(Reason::BadOrder, error.to_string());
            }
        }
        Request::Installed => {
            return Answer::Installed(Inventory {
                artifacts: machine.installed.clone(),
                integrations: Store::at(&Disk::default(), layout).integrations().unwrap(),
                agent_update: None,
                failed_agents: machine.failed_agents.clone(),
            });
        }
        Request::Install { order, kind, file } => {
            let order = VerifiedOrder::of(&order, &bootstrap().operator()).unwrap();
            let sha256 = kind.pinned(&order.artifacts).sha256;
            if Sha256::of(&fs::read(file).unwrap()) != sha256 {
                return Answer::failed(Reason::WrongBytes, "other bytes");
            }
            machine.installed.push(InstalledArtifact { kind, sha256, active: false });
        }
        Request::InstallIntegration { order, sha256, file } => {
            let order = VerifiedOrder::of(&order, &bootstrap().operator()).unwrap();
            let pinned = order.integrations.iter().find(|pinned| pinned.sha256 == sha256).unwrap();
            let store = Store::open(&Disk::default(), layout).unwrap();
            if let Err(error) = store.install(Shelf::Integrations, pinned, &file) {
                return Answer::failed(Reason::BadArtifact, error.to_string());
            }
        }
        Request::RetainIntegrations { keep } => {
            Store::at(&Disk::default(), layout).retain_integrations(&keep).unwrap();
        }
        Request::Activate { kind, sha256 } => {
            activate(machine, kind, sha256);
        }
        Request::UpdateAgent { order, file } => {
            let order = VerifiedOrder::of(&order, &bootstrap().operator()).unwrap();
            assert_eq!(Sha256::of(&fs::read(file).unwrap()), order.artifacts.agent.sha256);
            machine.agents_asked_for.push(order.artifacts.agent.sha256);
        }
        Request::ConfirmAgent => {}
        other @ (Request::PowerOff | Request::Reboot) => {
            return Answer::failed(Reason::Refused, format!("not played here: {other:?}"));
        }
    }
    Answer::Done
}

fn activate(machine: &mut Machine, kind: Program, sha256: Sha256) {
    let mut found = false;
    for one in machine.installed.iter_mut().filter(|one| one.kind == kind) {
        one.active = one.sha256 == sha256;
        found |= one.active;
    }
    assert!(found, "{kind:?} {sha256} is not installed");
    machine.activated.push((kind, sha256));
}
