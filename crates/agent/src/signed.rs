//! A signed call of the operator, kept or passed on with all that it takes to verify it again. The agent
//! takes such calls and passes them on; the installer and the worker trust them because of their
//! signature alone.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{HeaderMap, HeaderValue, Method, header::HeaderName};
use moorage_wire::{
    AgentPublicKey, Sha256,
    bootstrap::Operator,
    signature::{self, Peers, RequestParts, SIGNATURE, SIGNATURE_INPUT, SignatureError},
};
use serde::{Deserialize, Serialize};

/// A signed `PUT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SignedCall {
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

/// What a call says, once its signature was found to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The nonce that the operator signed with. Whether it is a fresh one is not known here.
    pub nonce: String,
    /// The body as it was sent.
    pub body: Vec<u8>,
}

impl SignedCall {
    /// Keeps what is needed of a call: its headers (`If-Match` among them), the agent's own public key,
    /// and the body as it was sent.
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

    /// The digest of the body, not verified. `None` if it is not base64.
    pub fn digest(&self) -> Option<Sha256> {
        BASE64.decode(&self.body).ok().map(|body| Sha256::of(&body))
    }

    /// Verifies that `operator` signed this as a `PUT` of `path`, for this server.
    pub fn verify(&self, operator: &Operator, path: &str) -> Result<Verified, SignatureError> {
        let body = BASE64.decode(&self.body).map_err(|_| SignatureError::Invalid)?;
        let peers = Peers {
            instance: operator.instance_id,
            epoch: operator.epoch,
            agent: Some(self.agent_key),
        };
        let parts = RequestParts {
            method: Method::PUT.as_str(),
            path,
            query: "",
            if_match: self.if_match.as_deref(),
            body: &body,
        };
        let header = |text: &str| HeaderValue::from_str(text).map_err(|_| SignatureError::Missing);
        let headers = HeaderMap::from_iter([
            (SIGNATURE_INPUT, header(&self.signature_input)?),
            (SIGNATURE, header(&self.signature)?),
        ]);
        let nonce = signature::verify_request(&operator.operator_key, &peers, &headers, &parts)?;
        Ok(Verified { nonce: nonce.to_owned(), body })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use moorage_wire::{
        Epoch, InstanceId, Secret,
        signature::{AgentKey, OperatorKey, sign_request},
    };

    use super::*;

    const NONCE: &str = "00112233445566778899aabbccddeeff";
    const PATH: &str = "/v1/desired";

    fn operator_key() -> OperatorKey {
        OperatorKey::from_seed(&Secret::from([1; 32]))
    }

    pub(crate) fn operator() -> Operator {
        Operator {
            instance_id: InstanceId::from_bytes([1; 16]),
            epoch: Epoch::from_bytes([2; 8]),
            operator_key: operator_key().public_key(),
        }
    }

    fn agent_key() -> AgentPublicKey {
        AgentKey::from_seed(&Secret::from([2; 32])).public_key()
    }

    /// A call of this server's operator.
    pub(crate) fn call(path: &str, nonce: &str, if_match: Option<&str>, body: &[u8]) -> SignedCall {
        call_by(&operator_key(), path, nonce, if_match, body)
    }

    fn call_by(
        signer: &OperatorKey,
        path: &str,
        nonce: &str,
        if_match: Option<&str>,
        body: &[u8],
    ) -> SignedCall {
        let operator = operator();
        let peers = Peers {
            instance: operator.instance_id,
            epoch: operator.epoch,
            agent: Some(agent_key()),
        };
        let parts = RequestParts { method: "PUT", path, query: "", if_match, body };
        let mut headers = sign_request(signer, &peers, nonce, &parts).unwrap();
        if let Some(value) = if_match {
            headers.insert(http::header::IF_MATCH, HeaderValue::from_str(value).unwrap());
        }
        SignedCall::new(&headers, agent_key(), body).unwrap()
    }

    #[test]
    fn a_call_survives_its_journey() {
        for if_match in [None, Some("\"none\"")] {
            let call = call(PATH, NONCE, if_match, b"body");
            let text = serde_json::to_string(&call).unwrap();
            let call: SignedCall = serde_json::from_str(&text).unwrap();
            let verified = call.verify(&operator(), PATH).unwrap();
            assert_eq!(verified, Verified { nonce: NONCE.to_owned(), body: b"body".to_vec() });
            assert_eq!(call.digest(), Some(Sha256::of(b"body")));
        }
    }

    #[test]
    fn whatever_is_changed_about_a_call_breaks_it() {
        let good = call(PATH, NONCE, Some("\"none\""), b"body");
        let stranger = OperatorKey::from_seed(&Secret::from([9; 32]));
        let broken = [
            SignedCall { body: BASE64.encode(b"body "), ..good.clone() },
            SignedCall { body: "-".to_owned(), ..good.clone() },
            SignedCall { if_match: None, ..good.clone() },
            SignedCall { agent_key: AgentPublicKey::from_bytes([3; 32]), ..good.clone() },
            SignedCall { signature_input: "moorage=()".to_owned(), ..good.clone() },
            SignedCall { signature: "a\nb".to_owned(), ..good.clone() },
            call_by(&stranger, PATH, NONCE, None, b"body"),
            call("/v1/credentials/x", NONCE, None, b"body"),
        ];
        for broken in broken {
            assert!(broken.verify(&operator(), PATH).is_err(), "{broken:?}");
        }
        let others = [
            Operator { epoch: Epoch::from_bytes([3; 8]), ..operator() },
            Operator { instance_id: InstanceId::from_bytes([3; 16]), ..operator() },
            Operator { operator_key: stranger.public_key(), ..operator() },
        ];
        for other in others {
            assert!(good.verify(&other, PATH).is_err(), "for another server: {other:?}");
        }
    }
}
