//! Builders for tests: what is wanted, and what is seen at every stage of a bring-up. A stage is
//! reached by carrying out the steps before it in the model of [`super::forecast`].

use std::time::Duration;

use jiff::Timestamp;
use moorage_wire::{
    CredentialName, CredentialType, Epoch, Failure, InstallationId, Program, Secret, Sha256,
    desired::{Artifact, Artifacts},
    envelope::Envelope,
    failure::{FailureCode, Stage},
    report::{ConvergenceState, FailedDigest, FailureReason},
    signature::AgentKey,
};

use super::{
    Observed, Plan, Step, Wanted,
    credentials::CredentialStep,
    dashboard::DashboardStep,
    forecast::Model,
    handover::HandOverStep,
    observed::{AgentKeys, AgentState, AgentView, ServerState},
    plan::{self, Timing},
    rotation::RotationStep,
    routes::RoutesStep,
    server::ServerStep,
    status,
    tunnel::TunnelStep,
    wanted::{Placement, Prospect, Release, Subject},
};
use crate::{
    api::{
        OpenClawInstanceStatus, annotation::Rebuild, instance::DeletionPolicy,
        release::Architecture,
    },
    cloudflare::AccountId,
    credentials::{
        bundle::{Bundle, HandedIn, Scope},
        refusal::Refusal,
        secret_source::{CredentialRequest, CredentialSource, SealedTo, SecretVersion},
        test_keys,
    },
};

pub(super) const INSTALLATION: InstallationId = InstallationId::from_bytes([0xbb; 8]);
pub(super) const FIRST_EPOCH: Epoch = Epoch::from_bytes([1; 8]);
pub(super) const SECOND_EPOCH: Epoch = Epoch::from_bytes([2; 8]);
pub(super) const SECRET: &str = "ada-keys";
pub(super) const TIMING: Timing =
    Timing { report: Duration::from_mins(5), routes: Duration::from_hours(1) };

/// The moment at which everything is seen, unless a test says otherwise.
pub(super) fn now() -> Timestamp {
    "2026-09-01T12:00:00Z".parse().unwrap()
}

pub(super) fn name(text: &str) -> CredentialName {
    text.parse().unwrap()
}

pub(super) fn agent_keys() -> AgentKeys {
    let public_key = AgentKey::from_seed(&Secret::from([5; 32])).public_key();
    AgentKeys { public_key, certificate: test_keys::key(1).certificate().clone() }
}

/// A ciphertext that differs from those with other numbers and that nobody can open.
pub(super) fn envelope(number: u8) -> Envelope {
    let key_and_tag = [number; 256 + 16];
    Envelope::from_bytes([&256_u16.to_be_bytes()[..], &key_and_tag].concat()).unwrap()
}

/// An instance that asks for nothing special.
pub(super) fn wanted() -> Wanted {
    let artifact = |what: &str| Artifact {
        version: "1".to_owned(),
        url: format!("https://artifacts.example/{what}"),
        sha256: Sha256::of(what.as_bytes()),
        size: 1,
    };
    let artifacts = Artifacts {
        release: "2026.9.6-1".to_owned(),
        openclaw: artifact("openclaw"),
        node: artifact("node"),
        cloudflared: artifact("cloudflared"),
        agent: artifact("agent"),
    };
    Wanted {
        subject: subject(),
        account: AccountId::parse("0123456789abcdef0123456789abcdef").unwrap(),
        placements: vec![Placement {
            server_type: "cx33".to_owned(),
            location: "fsn1".to_owned(),
            prospect: Prospect::Open,
        }],
        firewall: crate::hetzner::FirewallId(5),
        image: "debian-13".to_owned(),
        ipv4: true,
        ssh: None,
        connector_protocol: crate::api::pool::ConnectorProtocol::Http2,
        config: serde_json::Map::new(),
        release: Release {
            name: "2026.9.6-1".to_owned(),
            artifacts,
            architecture: Architecture::X86,
            integrations: Vec::new(),
        },
        credentials: Vec::new(),
        credential_refusals: Vec::new(),
        approved_pairings: std::collections::BTreeSet::new(),
        gateway_generation: crate::master_key::GatewayGeneration(0),
        dashboard_secret: None,
        retry: None,
        rebuild: Rebuild::No,
    }
}

pub(super) fn subject() -> Subject {
    Subject {
        namespace: "tenants".to_owned(),
        name: "ada".to_owned(),
        uid: "u-1".to_owned(),
        created: "2026-09-01T11:00:00Z".parse().unwrap(),
        instance: crate::ownership::instance_id(INSTALLATION, "tenants", "ada"),
        installation: INSTALLATION,
        pool: "eu-1".to_owned(),
        hostname: "ada".to_owned(),
        domain: "example.com".to_owned(),
        deletion_policy: DeletionPolicy::Delete,
    }
}

impl Wanted {
    pub(super) fn with_credential(mut self, name: &str, kind: CredentialType) -> Self {
        let source =
            CredentialSource::SecretKey { secret: SECRET.to_owned(), key: name.to_owned() };
        let sealed_to = SealedTo::Operator;
        self.credentials.push(CredentialRequest {
            name: name.parse().unwrap(),
            kind,
            source,
            sealed_to,
        });
        self
    }

    /// Two credentials out of one Secret.
    pub(super) fn with_two_credentials(self) -> Self {
        self.with_credential("anthropic", CredentialType::AnthropicApiKey)
            .with_credential("telegram", CredentialType::TelegramBotToken)
    }

    pub(super) fn with_rebuild_of(self, server: u64) -> Self {
        Self { rebuild: Rebuild::Server(server), ..self }
    }

    pub(super) fn with_dashboard_secret(self) -> Self {
        Self { dashboard_secret: Some("ada-dashboard".to_owned()), ..self }
    }

    pub(super) fn with_config(self, config: serde_json::Value) -> Self {
        let serde_json::Value::Object(config) = config else {
            panic!("a configuration is an object")
        };
        Self { config, ..self }
    }
}

/// What is seen before anything was done.
pub(super) fn nothing() -> Observed {
    Observed { now: now(), fresh_epoch: Some(FIRST_EPOCH), ..Observed::default() }
}

/// What is seen after all steps that lead to ready were done.
pub(super) fn ready(wanted: &Wanted) -> Observed {
    walk(wanted, nothing(), |_| false)
}

/// What is seen when `stop` says of the next plan that it is far enough.
pub(super) fn before(wanted: &Wanted, stop: impl Fn(&Step) -> bool) -> Observed {
    walk(wanted, nothing(), stop)
}

/// Carries out what is planned, step by step, until `stop` or until nothing more happens. Then a new
/// epoch is at hand for whoever needs one.
pub(super) fn walk(wanted: &Wanted, observed: Observed, stop: impl Fn(&Step) -> bool) -> Observed {
    let keys = agent_keys();
    let mut model = Model { wanted, placeholders: &keys, observed };
    for _ in 0..40 {
        let plan = plan_of(wanted, &model.observed);
        for step in &plan.steps {
            if stop(step) {
                return Observed { fresh_epoch: Some(SECOND_EPOCH), ..model.observed };
            }
            model.carry_out(step);
        }
        model.report();
        if plan.steps.is_empty() && !model.write_status(&plan) && model.happen().is_none() {
            break;
        }
    }
    Observed { fresh_epoch: Some(SECOND_EPOCH), ..model.observed }
}

pub(super) fn plan_of(wanted: &Wanted, observed: &Observed) -> Plan {
    plan::plan(wanted, observed, TIMING)
}

/// The status that a pass would write without carrying anything out.
pub(super) fn status_of(wanted: &Wanted, observed: &Observed) -> OpenClawInstanceStatus {
    status_after(wanted, observed, None)
}

/// The status after a step that could not be done.
pub(super) fn status_after(
    wanted: &Wanted,
    observed: &Observed,
    problem: Option<crate::problem::Problem>,
) -> OpenClawInstanceStatus {
    let outcome = status::Outcome { verdicts: plan_of(wanted, observed).verdicts, problem };
    status::of_pass(wanted, observed, &outcome, Some("key-1"), Some(1))
}

/// The kinds of steps, without what is in them.
pub(super) fn kinds(plan: &Plan) -> Vec<&'static str> {
    plan.steps.iter().map(kind).collect()
}

pub(super) fn kind(step: &Step) -> &'static str {
    match step {
        Step::Server(ServerStep::RecordEpoch(_)) => "RecordEpoch",
        Step::Server(ServerStep::Create) => "CreateServer",
        Step::Server(ServerStep::Label(..)) => "LabelServer",
        Step::Server(ServerStep::AttachFirewall(..)) => "AttachFirewall",
        Step::Server(ServerStep::Delete(_)) => "DeleteServer",
        Step::Server(ServerStep::PowerOn(_)) => "PowerOnServer",
        Step::Server(ServerStep::GiveUp(_)) => "GiveUpServer",
        Step::Tunnel(TunnelStep::Create) => "CreateTunnel",
        Step::Tunnel(TunnelStep::Bootstrap(_)) => "BootstrapTunnel",
        Step::Tunnel(TunnelStep::Rename(_)) => "RenameTunnel",
        Step::Routes(RoutesStep::Put(..)) => "PutRoutes",
        Step::Routes(RoutesStep::Check(..)) => "CheckRoutes",
        Step::Records(_) => "EnsureRecords",
        Step::Strays(_) => "DeleteRecords",
        Step::HandOver(HandOverStep::Begin) => "BeginHandOver",
        Step::HandOver(HandOverStep::TakeOver) => "TakeOver",
        Step::HandOver(HandOverStep::End) => "EndHandOver",
        Step::Credentials(CredentialStep::Deliver(_)) => "DeliverCredential",
        Step::Credentials(CredentialStep::DeliverGatewayToken) => "DeliverGatewayToken",
        Step::Credentials(CredentialStep::DeleteSecret { .. }) => "DeleteSecret",
        Step::Rotation(RotationStep::DeliverToken) => "DeliverTunnelToken",
        Step::Rotation(RotationStep::Rotate(_)) => "RotateTunnel",
        Step::DesiredState(_) => "PutDesired",
        Step::Dashboard(DashboardStep::Record(_)) => "RecordDashboardSecret",
        Step::Dashboard(DashboardStep::Write { .. }) => "WriteDashboardSecret",
        Step::Dashboard(DashboardStep::Delete { .. }) => "DeleteDashboardSecret",
    }
}

impl Observed {
    /// A Secret that was made at `created` with these values in it, by credential.
    pub(super) fn with_secret(mut self, created: &str, values: &[(&str, u8)]) -> Self {
        let version =
            SecretVersion { uid: format!("uid of {created}"), resource_version: "7".to_owned() };
        let value = |(credential, number): &(&str, u8)| {
            let handed_in = HandedIn {
                name: name(credential),
                kind: kind_of(credential),
                sealed_to: SealedTo::Operator,
                scope: Scope { namespace: "tenants".to_owned(), name: SECRET.to_owned() },
                envelope: envelope(*number),
                sealed_with: None,
                sealed_by: created.parse().unwrap(),
                place: format!("Key {credential} of Secret {SECRET}"),
            };
            (name(credential), Ok(handed_in))
        };
        let values: std::collections::BTreeMap<_, _> = values.iter().map(value).collect();
        self.handed_in.extend(values.clone());
        self.bundles = vec![Bundle {
            secret: SECRET.to_owned(),
            version: Some(version),
            values,
            unused: None,
        }];
        self
    }

    /// A Secret that is as it should be, from before everything else.
    pub(super) fn with_both_values(self) -> Self {
        self.with_secret("2026-09-01T11:30:00Z", &[("anthropic", 1), ("telegram", 2)])
    }

    pub(super) fn without_secret(mut self, credentials: &[&str]) -> Self {
        for credential in credentials {
            let refusal = Refusal::NotFound { secret: SECRET.to_owned() };
            self.handed_in.insert(name(credential), Err(refusal));
        }
        self.bundles.clear();
        self
    }

    pub(super) fn with_refusal(mut self, credential: &str, refusal: &Refusal) -> Self {
        self.handed_in.insert(name(credential), Err(refusal.clone()));
        for bundle in &mut self.bundles {
            bundle.values.insert(name(credential), Err(refusal.clone()));
        }
        self
    }

    pub(super) fn with_lost_server(self) -> Self {
        Self { server: ServerState::Gone, agent: AgentState::NotAsked, ..self }
    }

    pub(super) fn without_tunnel(self) -> Self {
        Self { tunnel: None, ..self }
    }

    pub(super) fn at(self, now: &str) -> Self {
        Self { now: now.parse().unwrap(), ..self }
    }

    pub(super) fn view(&self) -> &AgentView {
        self.agent.view().expect("the agent has reported")
    }

    pub(super) fn view_mut(&mut self) -> &mut AgentView {
        match &mut self.agent {
            AgentState::Reported(view) => view,
            other => panic!("the agent has not reported: {other:?}"),
        }
    }

    pub(super) fn with_view(mut self, change: impl FnOnce(&mut AgentView)) -> Self {
        change(self.view_mut());
        self
    }

    /// The agent tried the document that it has, in vain.
    pub(super) fn with_failed_config(
        self,
        state: ConvergenceState,
        reason: FailureReason,
        path: Option<&str>,
    ) -> Self {
        self.with_view(|view| {
            let digest = view.report.desired.digest.expect("the agent has a document");
            view.report.desired.state = state;
            view.report.desired.failed.push(FailedDigest {
                digest,
                reason,
                message: "in whatever words".into(),
                failure: Some(
                    Failure::new(Stage::Configuration, FailureCode::ConfigRejected)
                        .of(Program::Openclaw),
                ),
                path: path.map(Into::into),
                issues: Vec::new(),
                at: now(),
            });
        })
    }
}

fn kind_of(credential: &str) -> CredentialType {
    match credential {
        "telegram" => CredentialType::TelegramBotToken,
        _ => CredentialType::AnthropicApiKey,
    }
}
