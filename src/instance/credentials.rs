//! The customer's credentials: each handed over once, receipted, and its Secret deleted.

use jiff::Timestamp;
use moorage_wire::{CredentialName, credential::GATEWAY_TOKEN};

use super::{Observed, Part, Step, Wanted, observed::AgentView, plan::Timing};
use crate::{
    api::{
        conditions::{ConditionType::CredentialsDelivered, Reason, Verdict},
        instance::CredentialStatus,
    },
    credentials::{bundle::Bundle, refusal::Refusal, secret_source::CredentialRequest},
};

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
        steps.push(Step::DeliverGatewayToken);
    }
    let deliveries =
        wanted.credentials.iter().map(|request| (request, delivery(request, observed, view)));
    let deliveries: Vec<_> = deliveries.collect();
    let due = deliveries.iter().filter(|(_, delivery)| *delivery == Delivery::Due);
    steps.extend(due.map(|(request, _)| Step::DeliverCredential(request.name.clone())));
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
            Some(SecretFate::Delete(step)) => steps.push(step),
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
    Delete(Step),
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
    Some(SecretFate::Delete(Step::DeleteSecret {
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
