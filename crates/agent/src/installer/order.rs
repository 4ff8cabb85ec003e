//! The operator's word for an artifact, passed on by the agent and believed by the installer only
//! because of its signature: the signed `PUT /v1/desired`, with all that is needed to verify it again.
//!
//! The nonce of the call is verified as part of the signature, but not for freshness: whether a
//! document is the newest is the agent's business. What an agent gone bad can do with old orders is
//! to go back to artifacts that this instance's operator once approved.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{HeaderMap, HeaderValue, Method, header::HeaderName};
use moorage_wire::{
    AgentPublicKey, Sha256,
    bootstrap::Bootstrap,
    desired::{Artifact, Artifacts},
    path,
    signature::{self, Peers, RequestParts, SIGNATURE, SIGNATURE_INPUT, SignatureError},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A signed `PUT /v1/desired`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SignedOrder {
    /// The header `Signature-Input`; the nonce is in it.
    signature_input: String,
    /// The header `Signature`.
    signature: String,
    /// The header `If-Match`, if it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    if_match: Option<String>,
    /// The key of the agent that the call was for; the signature covers its fingerprint.
    agent_key: AgentPublicKey,
    /// The body, base64.
    body: String,
}

/// An order that is not to be followed.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum OrderError {
    /// Not the operator's, or for another instance, epoch or agent.
    #[error("the order is not the operator's for this server: {0}")]
    Signature(#[from] SignatureError),
    /// Signed, but no desired state that this installer understands.
    #[error("the order names no artifacts: see line {line}, column {column}")]
    Document {
        /// Line, from 1; zero if the body is not base64.
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
    /// The pinned artifacts.
    pub artifacts: Artifacts,
    /// The pinned integrations.
    pub integrations: Vec<Artifact>,
    /// Lets what failed be tried again when it changes.
    pub retry: Option<String>,
}

/// What the installer needs of a desired state. Other fields are not its business, newer ones included.
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

impl SignedOrder {
    /// Keeps what is needed of a call that passed the agent's gates: its headers (`If-Match` among
    /// them), the agent's own public key, and the body as it was sent.
    pub fn new(
        headers: &HeaderMap,
        agent_key: AgentPublicKey,
        body: &[u8],
    ) -> Result<Self, SignatureError> {
        let text = |name: HeaderName| {
            let value = headers.get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        Ok(Self {
            signature_input: text(SIGNATURE_INPUT).ok_or(SignatureError::Missing)?,
            signature: text(SIGNATURE).ok_or(SignatureError::Missing)?,
            if_match: text(http::header::IF_MATCH),
            agent_key,
            body: BASE64.encode(body),
        })
    }

    /// The digest of the document, not verified. `None` if the body is not base64.
    pub fn document(&self) -> Option<Sha256> {
        BASE64.decode(&self.body).ok().map(|body| Sha256::of(&body))
    }

    /// Verifies the signature against what user-data left on the server, then reads the artifacts.
    pub fn verify(&self, bootstrap: &Bootstrap) -> Result<VerifiedOrder, OrderError> {
        let garbled = OrderError::Document { line: 0, column: 0 };
        let body = BASE64.decode(&self.body).map_err(|_| garbled)?;
        let peers = Peers {
            instance: bootstrap.instance_id,
            epoch: bootstrap.epoch,
            agent: Some(self.agent_key),
        };
        let parts = RequestParts {
            method: Method::PUT.as_str(),
            path: path::DESIRED,
            query: "",
            if_match: self.if_match.as_deref(),
            body: &body,
        };
        let header = |text: &str| HeaderValue::from_str(text).map_err(|_| SignatureError::Missing);
        let headers = HeaderMap::from_iter([
            (SIGNATURE_INPUT, header(&self.signature_input)?),
            (SIGNATURE, header(&self.signature)?),
        ]);
        signature::verify_request(&bootstrap.operator_key, &peers, &headers, &parts)?;
        let pinned: Pinned = serde_json::from_slice(&body)
            .map_err(|error| OrderError::Document { line: error.line(), column: error.column() })?;
        let document = Sha256::of(&body);
        let integrations = pinned.integrations.into_iter().filter_map(|one| one.artifact).collect();
        Ok(VerifiedOrder {
            document,
            artifacts: pinned.artifacts,
            integrations,
            retry: pinned.retry,
        })
    }
}

#[cfg(test)]
mod tests {
    use moorage_wire::{
        Epoch, InstanceId, Secret,
        bootstrap::EnrolmentKeyText,
        signature::{AgentKey, OperatorKey, sign_request},
    };
    use serde_json::json;

    use super::*;

    const NONCE: &str = "00112233445566778899aabbccddeeff";

    fn operator() -> OperatorKey {
        OperatorKey::from_seed(&Secret::from([1; 32]))
    }

    fn bootstrap() -> Bootstrap {
        Bootstrap {
            instance_id: InstanceId::from_bytes([1; 16]),
            epoch: Epoch::from_bytes([2; 8]),
            operator_key: operator().public_key(),
            bearer_sha256: Sha256::of(b""),
            enrolment_key: EnrolmentKeyText::new(String::new()),
        }
    }

    fn agent_key() -> AgentPublicKey {
        AgentKey::from_seed(&Secret::from([2; 32])).public_key()
    }

    fn body() -> Vec<u8> {
        let artifact = |name: &str| {
            json!({"version": "1", "url": format!("https://x.example/{name}"),
                   "sha256": "07".repeat(32), "size": 3})
        };
        let artifacts = json!({"release": "r", "openclaw": artifact("o"), "node": artifact("n"),
                               "cloudflared": artifact("c"), "agent": artifact("a")});
        let state = json!({"config": {}, "credentials": [], "artifacts": artifacts, "retry": "2",
                           "aFieldOfTomorrow": 1});
        serde_json::to_vec(&state).unwrap()
    }

    fn order(signer: &OperatorKey, path: &str, if_match: Option<&str>, body: &[u8]) -> SignedOrder {
        let bootstrap = bootstrap();
        let peers = Peers {
            instance: bootstrap.instance_id,
            epoch: bootstrap.epoch,
            agent: Some(agent_key()),
        };
        let parts = RequestParts { method: "PUT", path, query: "", if_match, body };
        let mut headers = sign_request(signer, &peers, NONCE, &parts).unwrap();
        if let Some(value) = if_match {
            headers.insert(http::header::IF_MATCH, HeaderValue::from_str(value).unwrap());
        }
        SignedOrder::new(&headers, agent_key(), body).unwrap()
    }

    #[test]
    fn an_order_survives_its_journey_and_names_its_artifacts() {
        for if_match in [None, Some("\"none\"")] {
            let order = order(&operator(), path::DESIRED, if_match, &body());
            let text = serde_json::to_string(&order).unwrap();
            let order: SignedOrder = serde_json::from_str(&text).unwrap();
            let verified = order.verify(&bootstrap()).unwrap();
            assert_eq!(verified.document, Sha256::of(&body()));
            assert_eq!(order.document(), Some(verified.document));
            assert_eq!(verified.artifacts.node.url, "https://x.example/n");
            assert_eq!(verified.retry.as_deref(), Some("2"));
        }
    }

    #[test]
    fn whatever_is_changed_about_an_order_breaks_it() {
        let good = order(&operator(), path::DESIRED, Some("\"none\""), &body());
        let mut other_body = body();
        other_body.push(b' ');
        let stranger = OperatorKey::from_seed(&Secret::from([9; 32]));
        let broken = [
            SignedOrder { body: BASE64.encode(other_body), ..good.clone() },
            SignedOrder { if_match: None, ..good.clone() },
            SignedOrder { agent_key: AgentPublicKey::from_bytes([3; 32]), ..good.clone() },
            SignedOrder { signature_input: "moorage=()".to_owned(), ..good.clone() },
            SignedOrder { signature: "a\nb".to_owned(), ..good.clone() },
            order(&stranger, path::DESIRED, None, &body()),
            order(&operator(), "/v1/credentials/x", None, &body()),
        ];
        for broken in broken {
            let refusal = broken.verify(&bootstrap()).unwrap_err();
            assert!(matches!(refusal, OrderError::Signature(_)), "{broken:?}: {refusal}");
        }
        let rebuilt = Bootstrap { epoch: Epoch::from_bytes([3; 8]), ..bootstrap() };
        assert!(good.verify(&rebuilt).is_err(), "an order for the server before this one");
    }

    #[test]
    fn a_signed_document_without_artifacts_is_refused_without_repeating_it() {
        let order = order(&operator(), path::DESIRED, None, br#"{"hidden": 1}"#);
        let refusal = order.verify(&bootstrap()).unwrap_err();
        assert!(matches!(refusal, OrderError::Document { line: 1, .. }));
        assert!(!refusal.to_string().contains("hidden"));
    }
}
