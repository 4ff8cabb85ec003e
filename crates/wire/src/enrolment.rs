//! Enrolment: how the operator learns an agent's keys over a path that it does not trust. The agent
//! authenticates both of its keys with the one-time key from its user-data.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    bootstrap::EnrolmentKeyText,
    bounded,
    digest::Sha256,
    framing::frame,
    identity::{AgentPublicKey, Epoch, InstanceId},
    lower_hex::{self, IdError},
    sealing::LONGEST_PEM,
    secret::Secret,
    signature::AgentKey,
};

const TUNNEL_CONTEXT: &str = "moorage tunnel certificate v1";
const ANSWER_CONTEXT: &str = "moorage enrolment answer v1";
const PROOF_CONTEXT: &str = "moorage identity proof v1";

/// The one-time key, 32 bytes.
pub struct EnrolmentKey(Secret);

impl EnrolmentKey {
    /// Wraps the derived key.
    pub fn new(key: Secret) -> Self {
        Self(key)
    }

    /// Parses the text of the bootstrap document.
    pub fn from_text(text: &EnrolmentKeyText) -> Result<Self, IdError> {
        lower_hex::parse("enrolment key", text.expose())
            .map(|bytes: [u8; 32]| Self(Secret::from(bytes)))
    }

    /// The text for the bootstrap document.
    pub fn to_text(&self) -> EnrolmentKeyText {
        EnrolmentKeyText::new(hex::encode(self.0.expose()))
    }

    fn mac(&self, context: &str, fields: &[&[u8]]) -> Sha256 {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.expose());
        let tag = hmac::sign(&key, &frame(context, fields));
        let mut bytes = [0; 32];
        bytes.copy_from_slice(tag.as_ref());
        Sha256::from_bytes(bytes)
    }

    fn verify(&self, context: &str, fields: &[&[u8]], tag: &Sha256) -> Result<(), EnrolmentError> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.expose());
        hmac::verify(&key, &frame(context, fields), tag.as_bytes())
            .map_err(|_| EnrolmentError::BadProof)
    }
}

/// The agent's own keys, with a proof that survives the one-time key: an HMAC under it, made at
/// enrolment and kept. An operator that lost its status learns the keys again from this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentIdentity {
    /// The instance that the agent serves.
    pub instance_id: InstanceId,
    /// The epoch of its server.
    pub epoch: Epoch,
    /// Signs answers and receipts.
    pub public_key: AgentPublicKey,
    /// PEM of the self-signed RSA certificate that values for this server are sealed to. Its key is the
    /// worker's; of older agents, their own.
    #[serde(deserialize_with = "bounded::text::<_, LONGEST_PEM>")]
    pub sealing_certificate: String,
    /// HMAC over all of the above.
    pub proof: Sha256,
    /// What the tunnel's token is sealed to, for that is nothing for the worker. Absent from older agents,
    /// which open everything with one key. Whoever leaves it out on the way gains nothing: the token is
    /// then sealed to what is proven above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_certificate: Option<TunnelCertificate>,
}

/// A certificate of the process that talks to the network, in its own signed word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelCertificate {
    /// PEM of the self-signed RSA certificate.
    #[serde(deserialize_with = "bounded::text::<_, LONGEST_PEM>")]
    pub certificate: String,
    /// Ed25519 by the agent's key over instance, epoch and certificate, standard base64.
    #[serde(deserialize_with = "bounded::text::<_, 128>")]
    pub signature: String,
}

impl TunnelCertificate {
    /// Signs the certificate with the agent's key, for this server alone.
    pub fn sign(key: &AgentKey, server: (InstanceId, Epoch), certificate: String) -> Self {
        let signature = BASE64.encode(key.sign(&tunnel_bytes(server, &certificate)));
        Self { certificate, signature }
    }

    fn verify(
        &self,
        key: &AgentPublicKey,
        server: (InstanceId, Epoch),
    ) -> Result<(), EnrolmentError> {
        let signature = BASE64.decode(&self.signature).map_err(|_| EnrolmentError::BadProof)?;
        let signed = tunnel_bytes(server, &self.certificate);
        key.verify(&signed, &signature).map_err(|_| EnrolmentError::BadProof)
    }
}

fn tunnel_bytes((instance, epoch): (InstanceId, Epoch), certificate: &str) -> Vec<u8> {
    let fields = [&instance.as_bytes()[..], epoch.as_bytes(), certificate.as_bytes()];
    frame(TUNNEL_CONTEXT, &fields)
}

impl AgentIdentity {
    /// Describes the agent's keys and proves them with the one-time key.
    pub fn new(
        key: &EnrolmentKey,
        instance_id: InstanceId,
        epoch: Epoch,
        public_key: AgentPublicKey,
        sealing_certificate: String,
    ) -> Self {
        let mut identity = Self {
            instance_id,
            epoch,
            public_key,
            sealing_certificate,
            proof: Sha256::of(&[]),
            tunnel_certificate: None,
        };
        identity.proof = key.mac(PROOF_CONTEXT, &identity.fields());
        identity
    }

    /// The proof of the same keys under another one-time key.
    pub fn proof_under(&self, key: &EnrolmentKey) -> Sha256 {
        key.mac(PROOF_CONTEXT, &self.fields())
    }

    /// Adds the agent's own certificate.
    #[must_use]
    pub fn with_tunnel_certificate(self, key: &AgentKey, certificate: String) -> Self {
        let server = (self.instance_id, self.epoch);
        let tunnel_certificate = Some(TunnelCertificate::sign(key, server, certificate));
        Self { tunnel_certificate, ..self }
    }

    /// What the tunnel's token is sealed to, as the holder of `key` says.
    pub fn tunnel_certificate_of(
        &self,
        key: &AgentPublicKey,
    ) -> Result<Option<&str>, EnrolmentError> {
        let Some(own) = &self.tunnel_certificate else { return Ok(None) };
        own.verify(key, (self.instance_id, self.epoch))?;
        Ok(Some(&own.certificate))
    }

    fn fields(&self) -> [&[u8]; 4] {
        [
            self.instance_id.as_bytes(),
            self.epoch.as_bytes(),
            self.public_key.as_bytes(),
            self.sealing_certificate.as_bytes(),
        ]
    }

    /// Checks the proof and that the keys belong to the instance and epoch that are expected.
    pub fn verify(
        &self,
        key: &EnrolmentKey,
        instance_id: InstanceId,
        epoch: Epoch,
    ) -> Result<(), EnrolmentError> {
        if (self.instance_id, self.epoch) != (instance_id, epoch) {
            return Err(EnrolmentError::OtherServer);
        }
        key.verify(PROOF_CONTEXT, &self.fields(), &self.proof)?;
        self.tunnel_certificate_of(&self.public_key).map(drop)
    }
}

/// The answer of `GET /v1/enrolment?challenge=…`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrolmentAnswer {
    #[serde(flatten)]
    pub identity: AgentIdentity,
    /// Before enrolment: HMAC over the operator's challenge and the identity, so that an old answer
    /// cannot be played back. Absent once the one-time key is erased; then the answer is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge_proof: Option<Sha256>,
}

impl EnrolmentAnswer {
    /// Answers a challenge while the one-time key is still there.
    pub fn fresh(key: &EnrolmentKey, identity: AgentIdentity, challenge: &str) -> Self {
        let proof = key.mac(ANSWER_CONTEXT, &answer_fields(&identity, challenge));
        Self { identity, challenge_proof: Some(proof) }
    }

    /// Checks both proofs against the challenge that the operator sent.
    pub fn verify(
        &self,
        key: &EnrolmentKey,
        challenge: &str,
        instance_id: InstanceId,
        epoch: Epoch,
    ) -> Result<(), EnrolmentError> {
        self.identity.verify(key, instance_id, epoch)?;
        let proof = self.challenge_proof.as_ref().ok_or(EnrolmentError::BadProof)?;
        key.verify(ANSWER_CONTEXT, &answer_fields(&self.identity, challenge), proof)
    }
}

fn answer_fields<'a>(identity: &'a AgentIdentity, challenge: &'a str) -> [&'a [u8]; 2] {
    [challenge.as_bytes(), identity.proof.as_bytes()]
}

/// Why an enrolment answer is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EnrolmentError {
    /// The proof does not fit the one-time key: somebody on the way exchanged a key, or replayed.
    #[error("the proof of the agent's keys is wrong")]
    BadProof,
    /// The answer is of another instance or epoch.
    #[error("the answer comes from another server than the one that was made")]
    OtherServer,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(key: &EnrolmentKey) -> AgentIdentity {
        let public_key = AgentPublicKey::from_bytes([3; 32]);
        let (instance, epoch) = (InstanceId::from_bytes([1; 16]), Epoch::from_bytes([2; 8]));
        AgentIdentity::new(key, instance, epoch, public_key, "certificate".into())
    }

    fn key(byte: u8) -> EnrolmentKey {
        EnrolmentKey::new(Secret::from([byte; 32]))
    }

    #[test]
    fn a_correct_answer_is_accepted() {
        let answer = EnrolmentAnswer::fresh(&key(9), identity(&key(9)), "challenge");
        let (instance, epoch) = (answer.identity.instance_id, answer.identity.epoch);
        assert_eq!(answer.verify(&key(9), "challenge", instance, epoch), Ok(()));
    }

    #[test]
    fn the_tunnel_certificate_is_signed_and_optional() {
        let signing = AgentKey::from_seed(&Secret::from([3; 32]));
        let (instance, epoch) = (InstanceId::from_bytes([1; 16]), Epoch::from_bytes([2; 8]));
        let public = signing.public_key();
        let identity = AgentIdentity::new(&key(9), instance, epoch, public, "worker's".into());
        let full = identity.clone().with_tunnel_certificate(&signing, "agent's".into());
        for identity in [&identity, &full] {
            assert_eq!(identity.verify(&key(9), instance, epoch), Ok(()));
        }
        assert_eq!(full.tunnel_certificate_of(&public), Ok(Some("agent's")));
        assert_eq!(identity.tunnel_certificate_of(&public), Ok(None));

        let own = full.tunnel_certificate.clone().unwrap();
        let stranger = AgentKey::from_seed(&Secret::from([4; 32]));
        for forged in [
            TunnelCertificate { certificate: "of the attacker".into(), ..own.clone() },
            TunnelCertificate { signature: "AAAA".into(), ..own },
            TunnelCertificate::sign(&stranger, (instance, epoch), "agent's".into()),
            TunnelCertificate::sign(&signing, (instance, Epoch::from_bytes([9; 8])), "x".into()),
        ] {
            let forged = AgentIdentity { tunnel_certificate: Some(forged), ..full.clone() };
            assert_eq!(forged.verify(&key(9), instance, epoch), Err(EnrolmentError::BadProof));
            assert_eq!(forged.tunnel_certificate_of(&public), Err(EnrolmentError::BadProof));
        }
    }

    #[test]
    fn a_wrong_key_challenge_or_server_is_refused() {
        let honest = EnrolmentAnswer::fresh(&key(9), identity(&key(9)), "challenge");
        let (instance, epoch) = (honest.identity.instance_id, honest.identity.epoch);
        let mut exchanged = honest.clone();
        exchanged.identity.sealing_certificate = "of the attacker".into();
        let bad = Err(EnrolmentError::BadProof);
        assert_eq!(exchanged.verify(&key(9), "challenge", instance, epoch), bad);
        assert_eq!(honest.verify(&key(9), "another", instance, epoch), bad);
        assert_eq!(honest.verify(&key(8), "challenge", instance, epoch), bad);
        let other = Epoch::from_bytes([7; 8]);
        assert_eq!(
            honest.verify(&key(9), "challenge", instance, other),
            Err(EnrolmentError::OtherServer)
        );
    }
}
