//! What the installer takes from an order: a signed `PUT /v1/desired`, passed on by the agent and believed
//! because of its signature. The nonce is verified as part of the signature, but not for freshness: what
//! an agent gone bad can do with old orders is to go back to artifacts that this instance's operator once
//! approved.

use moorage_wire::{
    Sha256,
    bootstrap::Operator,
    desired::{Artifact, Artifacts},
    path,
    signature::SignatureError,
};
use serde::Deserialize;
use thiserror::Error;

use crate::signed::SignedCall;

/// An order that is not to be followed.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum OrderError {
    /// Not the operator's, or for another instance, epoch or agent.
    #[error("the order is not the operator's for this server: {0}")]
    Signature(#[from] SignatureError),
    /// Signed, but no desired state that this installer understands.
    #[error("the order names no artifacts: see line {line}, column {column}")]
    Document {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
}

/// An order whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedOrder {
    /// The digest of the document.
    pub document: Sha256,
    /// The programs that the release pins.
    pub artifacts: Artifacts,
    /// The artifacts of integrations that the release pins.
    pub integrations: Vec<Artifact>,
    /// When it changes, what failed is retried.
    pub retry: Option<String>,
}

/// What the installer needs of a desired state. It ignores other fields, newer ones included.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pinned {
    artifacts: Artifacts,
    #[serde(default)]
    integrations: Vec<PinnedIntegration>,
    #[serde(default)]
    retry: Option<String>,
}

#[derive(Deserialize)]
struct PinnedIntegration {
    artifact: Option<Artifact>,
}

impl VerifiedOrder {
    /// Verifies the signature, then reads the artifacts.
    pub fn of(order: &SignedCall, operator: &Operator) -> Result<Self, OrderError> {
        let body = order.verify(operator, path::DESIRED)?.body;
        let pinned: Pinned = serde_json::from_slice(&body)
            .map_err(|error| OrderError::Document { line: error.line(), column: error.column() })?;
        let document = Sha256::of(&body);
        let integrations = pinned.integrations.into_iter().filter_map(|one| one.artifact).collect();
        Ok(Self { document, artifacts: pinned.artifacts, integrations, retry: pinned.retry })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::signed::tests::{call, operator};

    const NONCE: &str = "00112233445566778899aabbccddeeff";

    #[test]
    fn an_order_names_its_artifacts() {
        let artifact = |name: &str| {
            json!({"version": "1", "url": format!("https://x.example/{name}"),
                   "sha256": "07".repeat(32), "size": 3})
        };
        let artifacts = json!({"release": "r", "openclaw": artifact("o"), "node": artifact("n"),
                               "cloudflared": artifact("c"), "agent": artifact("a")});
        let state = json!({"config": {}, "credentials": [], "artifacts": artifacts, "retry": "2",
                           "aFieldOfTomorrow": 1});
        let body = serde_json::to_vec(&state).unwrap();
        let order = call(path::DESIRED, NONCE, None, &body);
        let verified = VerifiedOrder::of(&order, &operator()).unwrap();
        assert_eq!(verified.document, Sha256::of(&body));
        assert_eq!(verified.artifacts.node.url, "https://x.example/n");
        assert_eq!(verified.retry.as_deref(), Some("2"));
        let elsewhere = call("/v1/credentials/x", NONCE, None, &body);
        let refusal = VerifiedOrder::of(&elsewhere, &operator()).unwrap_err();
        assert!(matches!(refusal, OrderError::Signature(_)), "{refusal}");
    }

    #[test]
    fn a_signed_document_without_artifacts_is_refused() {
        let order = call(path::DESIRED, NONCE, None, br#"{"hidden": 1}"#);
        let refusal = VerifiedOrder::of(&order, &operator()).unwrap_err();
        assert!(matches!(refusal, OrderError::Document { line: 1, .. }));
        assert!(!refusal.to_string().contains("hidden"));
    }
}
