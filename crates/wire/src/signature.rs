//! Signed requests and answers: a fixed profile of RFC 9421 (HTTP Message Signatures) with Ed25519.
//! What is covered is not negotiable, so nothing has to be parsed before it is verified: both sides
//! build the signature base from the message itself and compare.
//!
//! A request covers method, path, query, body digest, instance, epoch, the agent's key and the
//! `If-Match` header; its freshness is a nonce that the agent gave, so no clock is involved. An
//! answer covers status, body digest, instance, epoch, the next nonce, and the request's own nonce.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;

use crate::{
    digest::Sha256,
    identity::{AgentPublicKey, Epoch, InstanceId, OperatorPublicKey},
    secret::Secret,
};

/// RFC 9421 `Signature-Input`.
pub const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");
/// RFC 9421 `Signature`.
pub const SIGNATURE: HeaderName = HeaderName::from_static("signature");
/// RFC 9530 `Content-Digest`.
pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
/// The nonce for the next request, in every answer of the agent.
pub const NEXT_NONCE: HeaderName = HeaderName::from_static("moorage-next-nonce");

/// A signature that is missing or does not hold.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum SignatureError {
    /// A header is missing or is not of the profile.
    #[error("the message is not signed")]
    Missing,
    /// The signature is wrong, or of another message, key, instance or epoch.
    #[error("the signature does not hold")]
    Invalid,
}

macro_rules! signing_key {
    ($(#[$doc:meta])* $name:ident, $public:ident) => {
        $(#[$doc])*
        pub struct $name(Ed25519KeyPair);

        impl $name {
            /// Derives the pair from its 32-byte seed (RFC 8032).
            ///
            /// # Panics
            /// If the seed is not 32 bytes long.
            pub fn from_seed(seed: &Secret) -> Self {
                let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose());
                Self(pair.expect("an Ed25519 seed is 32 bytes long"))
            }

            /// The key that verifies what this one signs.
            pub fn public_key(&self) -> $public {
                let mut bytes = [0; 32];
                bytes.copy_from_slice(self.0.public_key().as_ref());
                $public::from_bytes(bytes)
            }

            /// Ed25519 over these bytes, which their own context has to keep apart from others.
            pub fn sign(&self, message: &[u8]) -> Vec<u8> {
                self.0.sign(message).as_ref().to_vec()
            }
        }

        impl $public {
            /// Verifies an Ed25519 signature.
            pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
                UnparsedPublicKey::new(&ED25519, self.as_bytes())
                    .verify(message, signature)
                    .map_err(|_| SignatureError::Invalid)
            }
        }
    };
}

signing_key! {
    /// The operator's signing key for one instance.
    OperatorKey, OperatorPublicKey
}
signing_key! {
    /// An agent's signing key.
    AgentKey, AgentPublicKey
}

/// The two ends that a message is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peers {
    /// Whose server it is.
    pub instance: InstanceId,
    /// The epoch of its server.
    pub epoch: Epoch,
    /// The agent's key; `None` only while the operator asks for it.
    pub agent: Option<AgentPublicKey>,
}

/// What of a request is signed.
#[derive(Debug, Clone, Copy)]
pub struct RequestParts<'a> {
    /// In upper case, as on the wire.
    pub method: &'a str,
    /// Absolute, without host and query.
    pub path: &'a str,
    /// Query without the question mark, empty if there is none.
    pub query: &'a str,
    /// Value of `If-Match`, if sent.
    pub if_match: Option<&'a str>,
    /// The body, empty if there is none.
    pub body: &'a [u8],
}

/// What of an answer is signed.
#[derive(Debug, Clone, Copy)]
pub struct AnswerParts<'a> {
    /// Three digits.
    pub status: u16,
    /// The nonce for the next request.
    pub next_nonce: &'a str,
    /// The exact bytes of the body.
    pub body: &'a [u8],
}

struct Base {
    components: Vec<(&'static str, String)>,
    tag: &'static str,
}

impl Base {
    fn request(peers: &Peers, parts: &RequestParts<'_>) -> Self {
        let mut components = vec![
            ("@method", parts.method.to_owned()),
            ("@path", parts.path.to_owned()),
            ("@query", format!("?{}", parts.query)),
            ("content-digest", content_digest(parts.body)),
            ("moorage-instance", peers.instance.to_string()),
            ("moorage-epoch", peers.epoch.to_string()),
        ];
        if let Some(agent) = &peers.agent {
            components.push(("moorage-agent", agent.fingerprint().to_string()));
        }
        if let Some(digest) = parts.if_match {
            components.push(("if-match", digest.to_owned()));
        }
        Self { components, tag: "moorage-request" }
    }

    fn answer(peers: &Peers, parts: &AnswerParts<'_>) -> Self {
        let components = vec![
            ("@status", parts.status.to_string()),
            ("content-digest", content_digest(parts.body)),
            ("moorage-instance", peers.instance.to_string()),
            ("moorage-epoch", peers.epoch.to_string()),
            ("moorage-next-nonce", parts.next_nonce.to_owned()),
        ];
        Self { components, tag: "moorage-answer" }
    }

    /// `Signature-Input` without its label (RFC 9421, section 2.3).
    fn params(&self, nonce: &str) -> String {
        let names: Vec<_> = self.components.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let (names, tag) = (names.join(" "), self.tag);
        format!("({names});nonce=\"{nonce}\";alg=\"ed25519\";tag=\"{tag}\"")
    }

    /// The signature base (RFC 9421, section 2.5).
    fn bytes(&self, nonce: &str) -> Vec<u8> {
        let lines = self.components.iter().map(|(name, value)| format!("\"{name}\": {value}\n"));
        let mut base: String = lines.collect();
        base.push_str("\"@signature-params\": ");
        base.push_str(&self.params(nonce));
        base.into_bytes()
    }

    fn headers(&self, nonce: &str, body: &[u8], signature: &[u8]) -> HeaderMap {
        let value = |text: String| {
            // Nonces are hexadecimal and all else is ours.
            HeaderValue::try_from(text).expect("signature headers are printable ASCII")
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_DIGEST, value(content_digest(body)));
        headers.insert(SIGNATURE_INPUT, value(format!("moorage={}", self.params(nonce))));
        headers.insert(SIGNATURE, value(format!("moorage=:{}:", BASE64.encode(signature))));
        headers
    }
}

/// RFC 9530: `sha-256=:base64:`.
fn content_digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", BASE64.encode(Sha256::of(body).as_bytes()))
}

/// A nonce is hexadecimal, so that it needs no quoting anywhere.
fn is_nonce(text: &str) -> bool {
    (16..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a str, SignatureError> {
    let value = headers.get(name).ok_or(SignatureError::Missing)?;
    value.to_str().map_err(|_| SignatureError::Missing)
}

fn signature_of(headers: &HeaderMap) -> Result<Vec<u8>, SignatureError> {
    let text = header(headers, &SIGNATURE)?;
    let encoded = text.strip_prefix("moorage=:").and_then(|rest| rest.strip_suffix(':'));
    BASE64.decode(encoded.ok_or(SignatureError::Missing)?).map_err(|_| SignatureError::Missing)
}

/// The nonce that a message claims, before anything about it is verified.
pub fn claimed_nonce(headers: &HeaderMap) -> Result<&str, SignatureError> {
    let input = header(headers, &SIGNATURE_INPUT)?;
    let rest = input.split_once(";nonce=\"").ok_or(SignatureError::Missing)?.1;
    let nonce = rest.split_once('"').ok_or(SignatureError::Missing)?.0;
    if is_nonce(nonce) { Ok(nonce) } else { Err(SignatureError::Missing) }
}

/// Signs a request of the operator; the result is to be added to its headers.
pub fn sign_request(
    key: &OperatorKey,
    peers: &Peers,
    nonce: &str,
    parts: &RequestParts<'_>,
) -> Result<HeaderMap, SignatureError> {
    if !is_nonce(nonce) {
        return Err(SignatureError::Missing);
    }
    let base = Base::request(peers, parts);
    let signature = key.sign(&base.bytes(nonce));
    Ok(base.headers(nonce, parts.body, &signature))
}

/// Verifies a request and gives its nonce, which the caller must then check and use up.
pub fn verify_request<'a>(
    key: &OperatorPublicKey,
    peers: &Peers,
    headers: &'a HeaderMap,
    parts: &RequestParts<'_>,
) -> Result<&'a str, SignatureError> {
    let nonce = claimed_nonce(headers)?;
    let base = Base::request(peers, parts).bytes(nonce);
    key.verify(&base, &signature_of(headers)?)?;
    Ok(nonce)
}

/// Signs an answer of the agent to the request that carried `nonce`.
pub fn sign_answer(
    key: &AgentKey,
    peers: &Peers,
    nonce: &str,
    parts: &AnswerParts<'_>,
) -> HeaderMap {
    let base = Base::answer(peers, parts);
    let signature = key.sign(&base.bytes(nonce));
    base.headers(nonce, parts.body, &signature)
}

/// Verifies that an answer is the agent's, and to the request that carried `nonce`.
pub fn verify_answer(
    key: &AgentPublicKey,
    peers: &Peers,
    nonce: &str,
    headers: &HeaderMap,
    parts: &AnswerParts<'_>,
) -> Result<(), SignatureError> {
    let base = Base::answer(peers, parts).bytes(nonce);
    key.verify(&base, &signature_of(headers)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "00112233445566778899aabbccddeeff";

    fn peers(agent: &AgentKey) -> Peers {
        Peers {
            instance: InstanceId::from_bytes([1; 16]),
            epoch: Epoch::from_bytes([2; 8]),
            agent: Some(agent.public_key()),
        }
    }

    fn keys() -> (OperatorKey, AgentKey) {
        let seed = |byte| Secret::from([byte; 32]);
        (OperatorKey::from_seed(&seed(1)), AgentKey::from_seed(&seed(2)))
    }

    const PARTS: RequestParts<'static> = RequestParts {
        method: "PUT",
        path: "/v1/desired",
        query: "",
        if_match: Some("\"abc\""),
        body: b"{}",
    };

    #[test]
    fn a_signed_request_verifies_and_yields_its_nonce() {
        let (operator, agent) = keys();
        let headers = sign_request(&operator, &peers(&agent), NONCE, &PARTS).unwrap();
        let nonce = verify_request(&operator.public_key(), &peers(&agent), &headers, &PARTS);
        assert_eq!(nonce, Ok(NONCE));
    }

    #[test]
    fn every_covered_part_of_a_request_matters() {
        let (operator, agent) = keys();
        let headers = sign_request(&operator, &peers(&agent), NONCE, &PARTS).unwrap();
        let changed = [
            RequestParts { method: "GET", ..PARTS },
            RequestParts { path: "/v1/report", ..PARTS },
            RequestParts { query: "a=b", ..PARTS },
            RequestParts { if_match: None, ..PARTS },
            RequestParts { if_match: Some("\"abd\""), ..PARTS },
            RequestParts { body: b"{ }", ..PARTS },
        ];
        for parts in changed {
            let verified = verify_request(&operator.public_key(), &peers(&agent), &headers, &parts);
            assert_eq!(verified, Err(SignatureError::Invalid), "{parts:?}");
        }
        let others = [
            Peers { instance: InstanceId::from_bytes([9; 16]), ..peers(&agent) },
            Peers { epoch: Epoch::from_bytes([9; 8]), ..peers(&agent) },
            Peers { agent: None, ..peers(&agent) },
        ];
        for peers in others {
            let verified = verify_request(&operator.public_key(), &peers, &headers, &PARTS);
            assert_eq!(verified, Err(SignatureError::Invalid), "{peers:?}");
        }
        let mut replayed = headers.clone();
        let input = headers[SIGNATURE_INPUT].to_str().unwrap().replace("0011", "1100");
        replayed.insert(SIGNATURE_INPUT, input.parse().unwrap());
        let verified = verify_request(&operator.public_key(), &peers(&agent), &replayed, &PARTS);
        assert_eq!(verified, Err(SignatureError::Invalid));
    }

    #[test]
    fn an_answer_is_bound_to_its_request() {
        let (_, agent) = keys();
        let parts = AnswerParts { status: 200, next_nonce: "aa", body: b"{}" };
        let headers = sign_answer(&agent, &peers(&agent), NONCE, &parts);
        let verify = |nonce: &str, parts: &AnswerParts<'_>| {
            verify_answer(&agent.public_key(), &peers(&agent), nonce, &headers, parts)
        };
        assert_eq!(verify(NONCE, &parts), Ok(()));
        let invalid = Err(SignatureError::Invalid);
        assert_eq!(verify(&NONCE.replace("00", "ff"), &parts), invalid);
        assert_eq!(verify(NONCE, &AnswerParts { status: 201, ..parts }), invalid);
        assert_eq!(verify(NONCE, &AnswerParts { next_nonce: "bb", ..parts }), invalid);
        assert_eq!(verify(NONCE, &AnswerParts { body: b"[]", ..parts }), invalid);
    }

    #[test]
    fn the_signature_base_is_that_of_rfc_9421() {
        let (_, agent) = keys();
        let base = Base::request(&peers(&agent), &RequestParts { if_match: None, ..PARTS });
        let text = String::from_utf8(base.bytes(NONCE)).unwrap();
        let expected = concat!(
            "\"@method\": PUT\n",
            "\"@path\": /v1/desired\n",
            "\"@query\": ?\n",
            "\"content-digest\": sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:\n",
        );
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with(";alg=\"ed25519\";tag=\"moorage-request\""), "{text}");
    }

    #[test]
    fn a_message_without_a_well_formed_nonce_is_not_signed() {
        let mut headers = HeaderMap::new();
        assert_eq!(claimed_nonce(&headers), Err(SignatureError::Missing));
        headers.insert(SIGNATURE_INPUT, "moorage=();nonce=\"not hex at all!!\"".parse().unwrap());
        assert_eq!(claimed_nonce(&headers), Err(SignatureError::Missing));
    }
}
