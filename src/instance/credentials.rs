//! The customer's credentials: each handed over once, receipted, and its Secret deleted.

use std::fmt;

use jiff::Timestamp;
use moorage_wire::{
    CredentialName, CredentialType, Receipt, Sha256, credential::GATEWAY_TOKEN, report::Consumed,
};

use super::{
    Observed, Part, Wanted,
    observed::{AgentState, AgentView},
    placeholders::receipt,
    plan::Timing,
    step::{Own, PartStep},
};
use crate::{
    api::{
        conditions::{ConditionType::CredentialsDelivered, Reason, Verdict},
        instance::CredentialStatus,
    },
    credentials::{
        bundle::Bundle,
        refusal::Refusal,
        secret_source::{CredentialRequest, CredentialSource, SecretVersion},
    },
};

/// One thing to do about credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialStep {
    /// Hand a customer's value to the agent.
    Deliver(CredentialName),
    /// Hand the gateway's token to the agent.
    DeliverGatewayToken,
    /// Delete a Secret all of whose values are receipted.
    DeleteSecret {
        name: String,
        /// The exact object that was read.
        version: SecretVersion,
        /// The credentials whose consumed ciphertext came back.
        recreated: Vec<CredentialName>,
    },
}

/// What became of a value that was to be handed over.
#[derive(Debug)]
pub enum DeliveryOutcome {
    /// The agent stores it.
    Stored(Receipt),
    /// The agent consumed exactly this before.
    Consumed(Consumed),
    /// The agent refuses it, with these words.
    Refused(CredentialName, String),
    /// It was not sent: something is wrong with it.
    Unfit(CredentialName, Refusal),
    Nothing,
}

/// What a step did about credentials.
#[derive(Debug)]
pub enum CredentialOutcome {
    /// What became of a value.
    Delivery(DeliveryOutcome),
    SecretDeleted {
        name: String,
        /// The credentials whose values were in it.
        credentials: Vec<CredentialName>,
        /// Those of them whose consumed ciphertext had come back.
        recreated: Vec<CredentialName>,
    },
}

impl PartStep for CredentialStep {
    type Outcome = CredentialOutcome;

    fn touches_only_own(&self, _: &Own<'_>) -> bool {
        true
    }

    fn needs_agent(&self) -> bool {
        matches!(self, Self::Deliver(_) | Self::DeliverGatewayToken)
    }

    fn foresee(&self, wanted: &Wanted, observed: &Observed) -> CredentialOutcome {
        match self {
            Self::Deliver(name) => {
                CredentialOutcome::Delivery(match observed.handed_in.get(name) {
                    Some(Ok(value)) => {
                        foresee_stored(observed, name.clone(), value.kind, value.envelope.sha256())
                    }
                    Some(Err(_)) | None => DeliveryOutcome::Nothing,
                })
            }
            Self::DeliverGatewayToken => {
                let (kind, source) = (CredentialType::GatewayToken, observed.own_tokens);
                let source = source.map(|own| own.gateway);
                CredentialOutcome::Delivery(foresee_own(observed, GATEWAY_TOKEN, kind, source))
            }
            Self::DeleteSecret { name, recreated, .. } => CredentialOutcome::SecretDeleted {
                name: name.clone(),
                credentials: credentials_of(wanted, name),
                recreated: recreated.clone(),
            },
        }
    }

    fn note(outcome: CredentialOutcome, observed: &mut Observed) {
        match outcome {
            CredentialOutcome::Delivery(outcome) => note_delivery(outcome, observed),
            CredentialOutcome::SecretDeleted { name, credentials, recreated } => {
                observed.bundles.retain(|bundle| bundle.secret != name);
                observed.handed_in.retain(|credential, _| !credentials.contains(credential));
                for known in &mut observed.status.credentials {
                    let again = recreated.iter().any(|one| one.as_str() == known.name);
                    known.recreated += u32::from(again);
                }
            }
        }
    }
}

impl fmt::Display for CredentialStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deliver(name) => write!(formatter, "deliver credential {name} to the server"),
            Self::DeliverGatewayToken => {
                formatter.write_str("deliver the dashboard's token to the server")
            }
            Self::DeleteSecret { name, recreated, .. } if recreated.is_empty() => {
                write!(formatter, "delete Secret {name}: every value in it is stored on the server")
            }
            Self::DeleteSecret { name, .. } => {
                write!(formatter, "delete Secret {name} again: its values were delivered before")
            }
        }
    }
}

/// Notes what became of a value, whoever's it is.
pub(super) fn note_delivery(outcome: DeliveryOutcome, observed: &mut Observed) {
    match (outcome, &mut observed.agent) {
        (DeliveryOutcome::Stored(receipt), AgentState::Reported(view)) => {
            view.report.receipts.retain(|known| known.credential != receipt.credential);
            view.report.receipts.push(receipt);
        }
        (DeliveryOutcome::Consumed(consumed), AgentState::Reported(view)) => {
            view.report.consumed.push(consumed);
        }
        (DeliveryOutcome::Refused(name, words), _) => {
            observed.agent_refused.insert(name, words);
        }
        (DeliveryOutcome::Unfit(name, refusal), _) => {
            observed.handed_in.insert(name, Err(refusal));
        }
        (
            DeliveryOutcome::Nothing | DeliveryOutcome::Stored(_) | DeliveryOutcome::Consumed(_),
            _,
        ) => {}
    }
}

/// The delivery of one of Moorage's own tokens, if it works.
pub(super) fn foresee_own(
    observed: &Observed,
    name: &str,
    kind: CredentialType,
    source: Option<Sha256>,
) -> DeliveryOutcome {
    match (name.parse(), source) {
        (Ok(name), Some(source)) => foresee_stored(observed, name, kind, source),
        _ => DeliveryOutcome::Nothing,
    }
}

fn foresee_stored(
    observed: &Observed,
    credential: CredentialName,
    kind: CredentialType,
    source: Sha256,
) -> DeliveryOutcome {
    let Some(view) = observed.agent.view() else { return DeliveryOutcome::Nothing };
    let server = (view.report.identity.instance_id, view.report.identity.epoch);
    DeliveryOutcome::Stored(receipt(server, credential, kind, source, observed.now))
}

/// The credentials whose values a Secret holds.
pub fn credentials_of(wanted: &Wanted, secret: &str) -> Vec<CredentialName> {
    let from_it = |request: &&CredentialRequest| matches!(&request.source, CredentialSource::SecretKey { secret: name, .. } if name == secret);
    wanted.credentials.iter().filter(from_it).map(|request| request.name.clone()).collect()
}

/// A consumed ciphertext that came back so often is left to whatever brings it back.
pub const RECREATED_LIMIT: u32 = 2;

/// How one credential is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The agent stores exactly what was handed in, or nothing new was handed in since.
    Delivered,
    /// There is a value that the agent never saw.
    Due,
    /// The server that had it is gone, or it was removed and named again: a new sealing is needed.
    Again,
    /// Something is wrong with what was handed in.
    Refused(Refusal),
    /// The agent does not take it; its words.
    RefusedByAgent(String),
}

/// How one credential is.
pub fn delivery(request: &CredentialRequest, observed: &Observed, view: &AgentView) -> Delivery {
    let name = &request.name;
    let stored = view.receipt(name);
    if let Some(words) = observed.agent_refused.get(name) {
        return Delivery::RefusedByAgent(words.clone());
    }
    match observed.handed_in.get(name) {
        Some(Ok(value)) => {
            let source = value.envelope.sha256();
            match stored {
                Some(receipt) if receipt.source_sha256 == source => Delivery::Delivered,
                Some(_) if view.consumed(name, &source) => Delivery::Delivered,
                None if view.consumed(name, &source) => Delivery::Again,
                _ => Delivery::Due,
            }
        }
        // Nothing there is the normal state after a delivery.
        Some(Err(Refusal::NotFound { .. } | Refusal::KeyMissing { .. })) | None
            if stored.is_some() =>
        {
            Delivery::Delivered
        }
        Some(Err(Refusal::NotFound { .. })) if was_delivered(observed, name) => Delivery::Again,
        Some(Err(refusal)) => Delivery::Refused(refusal.clone()),
        None => Delivery::Again,
    }
}

fn was_delivered(observed: &Observed, name: &CredentialName) -> bool {
    observed.status.credentials.iter().any(|known| known.name == name.as_str())
}

/// Hands over what is due, then deletes the Secrets that have nothing undelivered in them.
pub fn plan(wanted: &Wanted, observed: &Observed, _: Timing) -> Part {
    let (Some(view), Some(own)) = (observed.agent.view(), observed.own_tokens) else {
        return Part::default();
    };
    let gateway = GATEWAY_TOKEN.parse().ok().and_then(|name| view.receipt(&name));
    let mut steps = Vec::new();
    if gateway.is_none_or(|receipt| receipt.source_sha256 != own.gateway) {
        steps.push(CredentialStep::DeliverGatewayToken.into());
    }
    let deliveries =
        wanted.credentials.iter().map(|request| (request, delivery(request, observed, view)));
    let deliveries: Vec<_> = deliveries.collect();
    let due = deliveries.iter().filter(|(_, delivery)| *delivery == Delivery::Due);
    steps.extend(due.map(|(request, _)| CredentialStep::Deliver(request.name.clone()).into()));
    if !steps.is_empty() {
        let verdict = Verdict::no(
            CredentialsDelivered,
            Reason::Progressing,
            "Credentials are being delivered",
        );
        return Part { steps, verdicts: vec![verdict], ..Part::default() };
    }
    let mut verdict = verdict(wanted, observed, &deliveries);
    for bundle in &observed.bundles {
        match secret_step(bundle, observed, view) {
            Some(SecretFate::Delete(step)) => steps.push(step.into()),
            Some(SecretFate::LeaveAlone) if verdict.reason == Reason::Delivered => {
                verdict = Verdict::yes(
                    CredentialsDelivered,
                    Reason::RecreatedBySource,
                    format!(
                        "All credentials are stored; Secret {} was deleted {RECREATED_LIMIT} times and something brings it back: remove it from its source",
                        bundle.secret
                    ),
                );
            }
            Some(SecretFate::LeaveAlone) | None => {}
        }
    }
    Part { steps, verdicts: vec![verdict], passable: true, requeue_after: None }
}

fn verdict(
    wanted: &Wanted,
    observed: &Observed,
    deliveries: &[(&CredentialRequest, Delivery)],
) -> Verdict {
    let mut problems: Vec<(Reason, String)> = wanted
        .credential_refusals
        .iter()
        .map(|refusal| (refusal.reason(), refusal.to_string()))
        .collect();
    let mut again = Vec::new();
    for (request, delivery) in deliveries {
        match delivery {
            Delivery::Refused(refusal) => problems.push((refusal.reason(), refusal.to_string())),
            Delivery::RefusedByAgent(words) => {
                problems.push((Reason::AgentRefused, format!("{}: {words}", request.name)));
            }
            Delivery::Again => again.push(request.name.as_str()),
            Delivery::Delivered | Delivery::Due => {}
        }
    }
    if !again.is_empty() {
        let message = format!(
            "This server does not have {}; seal it again with `moorage seal` and apply it",
            again.join(", ")
        );
        problems.push((Reason::RedeliveryRequired, message));
    }
    let unused = observed.bundles.iter().filter_map(|bundle| bundle.unused.as_ref());
    problems.extend(unused.map(|refusal| (refusal.reason(), refusal.to_string())));
    problems.dedup();
    match problems.first() {
        None => Verdict::yes(
            CredentialsDelivered,
            Reason::Delivered,
            "All credentials are stored on the server",
        ),
        Some((reason, _)) => {
            let messages: Vec<_> = problems.iter().map(|(_, message)| message.as_str()).collect();
            Verdict::no(CredentialsDelivered, *reason, messages.join("; "))
        }
    }
}

enum SecretFate {
    Delete(CredentialStep),
    LeaveAlone,
}

/// A Secret goes when every value in it is receipted in the status and the agent still knows it, be it
/// that it was replaced since. One that keeps coming back is left alone.
fn secret_step(bundle: &Bundle, observed: &Observed, view: &AgentView) -> Option<SecretFate> {
    let epoch = observed.epoch?.to_string();
    let recorded = |name: &CredentialName| {
        observed
            .status
            .credentials
            .iter()
            .find(|known| known.name == name.as_str() && known.epoch == epoch)
    };
    let version = bundle.deletion(|name, source| {
        recorded(name).is_some_and(|known| {
            let stored = view.receipt(name).is_some_and(|receipt| receipt.source_sha256 == *source);
            (stored && known.ciphertext_sha256 == source.to_string()) || view.consumed(name, source)
        })
    })?;
    let values =
        bundle.values.iter().filter_map(|(name, value)| Some((name, value.as_ref().ok()?)));
    let came_back = values.filter_map(|(name, value)| {
        let known = recorded(name)?;
        (value.sealed_by > delivered_at(known)).then_some((name.clone(), known.recreated))
    });
    let came_back: Vec<_> = came_back.collect();
    if came_back.iter().any(|(_, times)| *times >= RECREATED_LIMIT) {
        return Some(SecretFate::LeaveAlone);
    }
    Some(SecretFate::Delete(CredentialStep::DeleteSecret {
        name: bundle.secret.clone(),
        version: version.clone(),
        recreated: came_back.into_iter().map(|(name, _)| name).collect(),
    }))
}

fn delivered_at(known: &CredentialStatus) -> Timestamp {
    // A record that cannot be read counts as new: then nothing is taken for having come back.
    known.delivered_at.parse().unwrap_or(Timestamp::MAX)
}

/// The records of deliveries as they should stand in the status: what the agent has receipted, dated
/// by the operator's clock, because a server's may be wrong.
pub fn records(wanted: &Wanted, observed: &Observed) -> Vec<CredentialStatus> {
    let known = |name: &CredentialName| {
        observed.status.credentials.iter().find(|known| known.name == name.as_str()).cloned()
    };
    let record = |name: &CredentialName| {
        let Some(view) = observed.agent.view() else { return known(name) };
        let Some(receipt) = view.receipt(name) else { return known(name) };
        let (source, epoch) = (receipt.source_sha256.to_string(), receipt.epoch.to_string());
        let same =
            known(name).filter(|known| known.ciphertext_sha256 == source && known.epoch == epoch);
        Some(same.unwrap_or_else(|| CredentialStatus {
            name: name.to_string(),
            delivered_at: observed.now.to_string(),
            ciphertext_sha256: source,
            epoch,
            recreated: 0,
        }))
    };
    let mut records: Vec<_> = wanted.credential_names().filter_map(record).collect();
    records.sort_by(|left, right| left.name.cmp(&right.name));
    records
}
