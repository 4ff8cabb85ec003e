//! Receipts: the agent's signed word that exactly these bytes are stored on its server. Only a
//! receipt lets the operator delete a Secret.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    bounded,
    credential::{CredentialName, CredentialType},
    digest::Sha256,
    framing::frame,
    identity::{AgentPublicKey, Epoch, InstanceId},
    signature::AgentKey,
};

const CONTEXT: &str = "moorage receipt v1";

/// Proof that a credential is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// The instance whose server stores the credential.
    pub instance_id: InstanceId,
    /// The epoch of that server.
    pub epoch: Epoch,
    /// The credential that is stored.
    pub credential: CredentialName,
    /// Its type, as checked by the agent.
    pub r#type: CredentialType,
    /// SHA-256 of the decoded ciphertext that the customer handed in.
    pub source_sha256: Sha256,
    /// When the file was on disk, by the server's clock.
    pub stored_at: Timestamp,
    /// Ed25519 over all of the above, standard base64.
    #[serde(deserialize_with = "bounded::text::<_, 128>")]
    pub signature: String,
}

impl Receipt {
    /// A receipt with the agent's signature over all other fields.
    pub fn sign(
        key: &AgentKey,
        (instance_id, epoch): (InstanceId, Epoch),
        (credential, r#type): (CredentialName, CredentialType),
        source_sha256: Sha256,
        stored_at: Timestamp,
    ) -> Self {
        let mut receipt = Self {
            instance_id,
            epoch,
            credential,
            r#type,
            source_sha256,
            stored_at,
            signature: String::new(),
        };
        receipt.signature = BASE64.encode(key.sign(&receipt.signed_bytes()));
        receipt
    }

    /// Whether the agent with this key signed exactly these fields.
    pub fn verify(&self, key: &AgentPublicKey) -> Result<(), BadReceipt> {
        let signature = BASE64.decode(&self.signature).map_err(|_| BadReceipt)?;
        key.verify(&self.signed_bytes(), &signature).map_err(|_| BadReceipt)
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let fields: [&[u8]; 6] = [
            self.instance_id.as_bytes(),
            self.epoch.as_bytes(),
            self.credential.as_str().as_bytes(),
            self.r#type.as_str().as_bytes(),
            self.source_sha256.as_bytes(),
            &self.stored_at.as_nanosecond().to_be_bytes(),
        ];
        frame(CONTEXT, &fields)
    }
}

/// A receipt whose signature is not the enrolled agent's.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the receipt is not signed by the enrolled agent")]
pub struct BadReceipt;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn a_receipt_for_other_bytes_is_refused() {
        let key = AgentKey::from_seed(&Secret::from([5; 32]));
        let server = (InstanceId::from_bytes([1; 16]), Epoch::from_bytes([2; 8]));
        let what = ("anthropic".parse().unwrap(), CredentialType::AnthropicApiKey);
        let receipt =
            Receipt::sign(&key, server, what, Sha256::of(b"sealed"), Timestamp::UNIX_EPOCH);
        assert_eq!(receipt.verify(&key.public_key()), Ok(()));

        let forged = Receipt { source_sha256: Sha256::of(b"other"), ..receipt.clone() };
        assert_eq!(forged.verify(&key.public_key()), Err(BadReceipt));
        let stranger = AgentKey::from_seed(&Secret::from([6; 32]));
        assert_eq!(receipt.verify(&stranger.public_key()), Err(BadReceipt));
    }
}
