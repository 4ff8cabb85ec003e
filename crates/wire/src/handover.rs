//! Handover: the key that an agent obeys names the next one. The document is signed by both: by the
//! old key, since nobody else may say who comes next, and by the new one, so that an agent never ends
//! with a key that nobody has. It carries the public half and hashes only; the values that it
//! announces are derived from the next master key and are nowhere in it.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};

use crate::{
    digest::Sha256,
    framing::frame,
    identity::{Epoch, InstanceId, OperatorPublicKey},
    signature::{OperatorKey, SignatureError},
};

const CONTEXT: &str = "moorage hand-over v1";

/// Body of `PUT /v1/handover`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HandOver {
    /// The instance of the server.
    pub instance_id: InstanceId,
    /// The epoch of the server.
    pub epoch: Epoch,
    /// The key that the agent obeys.
    pub from: OperatorPublicKey,
    /// The key that it obeys as well from now on, and alone once that has called.
    pub to: OperatorPublicKey,
    /// SHA-256 of the bearer token that comes with the next key.
    pub bearer_sha256: Sha256,
    /// The proof of the agent's identity under the enrolment key that comes with the next key, so that an
    /// operator with the next key alone recognises the agent.
    pub identity_proof: Sha256,
    /// Ed25519 over all of the above by the key `from`, standard base64.
    from_signature: String,
    /// The same by the key `to`.
    to_signature: String,
}

/// What a handover says, before it is signed.
#[derive(Debug, Clone, Copy)]
pub struct Successor {
    /// See [`HandOver::bearer_sha256`].
    pub bearer_sha256: Sha256,
    /// See [`HandOver::identity_proof`].
    pub identity_proof: Sha256,
}

impl HandOver {
    /// Signs a handover of the server of one epoch.
    pub fn sign(
        (instance_id, epoch): (InstanceId, Epoch),
        from: &OperatorKey,
        to: &OperatorKey,
        successor: Successor,
    ) -> Self {
        let mut document = Self {
            instance_id,
            epoch,
            from: from.public_key(),
            to: to.public_key(),
            bearer_sha256: successor.bearer_sha256,
            identity_proof: successor.identity_proof,
            from_signature: String::new(),
            to_signature: String::new(),
        };
        let bytes = document.signed_bytes();
        document.from_signature = BASE64.encode(from.sign(&bytes));
        document.to_signature = BASE64.encode(to.sign(&bytes));
        document
    }

    /// Checks both signatures, and that it is for this server and from the key that it obeys.
    pub fn verify(
        &self,
        (instance_id, epoch): (InstanceId, Epoch),
        obeyed: &OperatorPublicKey,
    ) -> Result<(), SignatureError> {
        let server = (self.instance_id, self.epoch) == (instance_id, epoch);
        if !server || self.from != *obeyed || self.to == self.from {
            return Err(SignatureError::Invalid);
        }
        let bytes = self.signed_bytes();
        let decode = |text: &str| BASE64.decode(text).map_err(|_| SignatureError::Missing);
        self.from.verify(&bytes, &decode(&self.from_signature)?)?;
        self.to.verify(&bytes, &decode(&self.to_signature)?)
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let fields: [&[u8]; 6] = [
            self.instance_id.as_bytes(),
            self.epoch.as_bytes(),
            self.from.as_bytes(),
            self.to.as_bytes(),
            self.bearer_sha256.as_bytes(),
            self.identity_proof.as_bytes(),
        ];
        frame(CONTEXT, &fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn key(byte: u8) -> OperatorKey {
        OperatorKey::from_seed(&Secret::from([byte; 32]))
    }

    const SERVER: (InstanceId, Epoch) =
        (InstanceId::from_bytes([1; 16]), Epoch::from_bytes([2; 8]));

    fn document() -> HandOver {
        let successor =
            Successor { bearer_sha256: Sha256::of(b"b"), identity_proof: Sha256::of(b"p") };
        HandOver::sign(SERVER, &key(1), &key(2), successor)
    }

    #[test]
    fn a_hand_over_holds_for_its_server_and_the_key_that_is_obeyed() {
        let text = serde_json::to_string(&document()).unwrap();
        let document: HandOver = serde_json::from_str(&text).unwrap();
        assert_eq!(document.verify(SERVER, &key(1).public_key()), Ok(()));
        assert!(document.verify(SERVER, &key(2).public_key()).is_err(), "it was done before");
        assert!(document.verify(SERVER, &key(3).public_key()).is_err());
        let elsewhere = (SERVER.0, Epoch::from_bytes([3; 8]));
        assert!(document.verify(elsewhere, &key(1).public_key()).is_err());
    }

    #[test]
    fn whatever_is_changed_about_a_hand_over_breaks_it() {
        let good = document();
        let other = HandOver::sign(
            SERVER,
            &key(1),
            &key(3),
            Successor { bearer_sha256: good.bearer_sha256, identity_proof: good.identity_proof },
        );
        let broken = [
            HandOver { to: key(3).public_key(), ..good.clone() },
            HandOver { to: good.from, ..good.clone() },
            HandOver { bearer_sha256: Sha256::of(b"x"), ..good.clone() },
            HandOver { identity_proof: Sha256::of(b"x"), ..good.clone() },
            HandOver { epoch: Epoch::from_bytes([9; 8]), ..good.clone() },
            HandOver { to_signature: other.to_signature.clone(), ..good.clone() },
            HandOver { from_signature: good.to_signature.clone(), ..good.clone() },
            HandOver { to_signature: good.from_signature.clone(), ..good.clone() },
            HandOver { from_signature: "%".to_owned(), ..good.clone() },
        ];
        for broken in broken {
            assert!(broken.verify(SERVER, &key(1).public_key()).is_err(), "{broken:?}");
        }
    }
}
