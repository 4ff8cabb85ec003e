//! From the customer's envelope to one that only the agent opens. Plaintext exists inside these
//! functions alone and is zeroized when they return.

use moorage_wire::{
    CredentialName, CredentialType, Epoch, InstanceId, Secret, Sha256,
    credential::{Binding, GATEWAY_TOKEN, SealedCredential, TUNNEL_TOKEN},
    envelope::EnvelopeError,
    sealing::SealingCertificate,
};

use super::{
    bundle::HandedIn,
    hints,
    key_ring::{KeyRing, UnsealFailure, Unsealed},
    refusal::Refusal,
    secret_source::SealedTo,
};
use crate::master_key::{GatewayToken, TunnelRunToken};

/// The agent that a value goes to.
#[derive(Clone, Copy)]
pub struct Recipient<'a> {
    /// What it opens values with, as verified at enrolment.
    pub certificate: &'a SealingCertificate,
    /// The instance that it serves.
    pub instance: InstanceId,
    /// The epoch of its server.
    pub epoch: Epoch,
}

/// A value ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// The credential that it is.
    pub name: CredentialName,
    /// The body of the call to the agent.
    pub credential: SealedCredential,
    /// The key of the ring that opened the customer's envelope; none for a value passed on unread.
    pub opened_with: Option<Sha256>,
}

/// Prepares what a customer handed in, in the way that it was sealed.
pub fn prepare(
    handed_in: &HandedIn,
    ring: &KeyRing,
    to: &Recipient<'_>,
) -> Result<Parcel, Refusal> {
    match handed_in.sealed_to {
        SealedTo::Operator => reseal(handed_in, ring, to),
        SealedTo::Agent => Ok(pass_on(handed_in)),
    }
}

/// Which key of the ring a value needs, without keeping its plaintext; `None` for a value that none
/// opens, that is not of its type, or that is sealed to an agent: none of them is delivered with one.
pub fn needed_key(handed_in: &HandedIn, ring: &KeyRing) -> Option<Sha256> {
    let opens = handed_in.sealed_to == SealedTo::Operator;
    let unsealed = opens.then(|| ring.unseal(&handed_in.envelope, &handed_in.scope.label()).ok());
    let unsealed = unsealed.flatten();
    let deliverable = |value: &Unsealed| {
        let (kind, plaintext) = (handed_in.kind, &value.plaintext);
        kind.check(plaintext.expose()).is_ok() || kind.trimmed(plaintext).is_some()
    };
    unsealed.filter(deliverable).map(|unsealed| unsealed.key)
}

/// Opens, checks and seals again for the agent.
fn reseal(handed_in: &HandedIn, ring: &KeyRing, to: &Recipient<'_>) -> Result<Parcel, Refusal> {
    let label = handed_in.scope.label();
    let place = || handed_in.place.clone();
    let unsealed = ring.unseal(&handed_in.envelope, &label).map_err(|_| {
        match ring.explain(handed_in.sealed_with, handed_in.sealed_by) {
            UnsealFailure::KeyExpired { not_served_after, destroyed } => {
                Refusal::KeyExpired { place: place(), not_served_after, destroyed }
            }
            failure => Refusal::WrongKeyOrLabel { place: place(), label: label.clone(), failure },
        }
    })?;
    let (name, kind) = (&handed_in.name, handed_in.kind);
    let plaintext = kind.trimmed(&unsealed.plaintext).unwrap_or(unsealed.plaintext);
    kind.check(plaintext.expose()).map_err(|error| {
        let hint = hints::hint(kind, &plaintext);
        Refusal::InvalidFormat { place: place(), error, hint }
    })?;
    let source_sha256 = handed_in.envelope.sha256();
    let credential = seal(&plaintext, name, kind, source_sha256, to)
        .map_err(|_| Refusal::SealingFailed { place: place() })?;
    Ok(Parcel { name: name.clone(), credential, opened_with: Some(unsealed.key) })
}

/// Blind courier: the envelope goes to the agent as it is, bound to the name it was sealed for. The
/// agent checks the format.
fn pass_on(handed_in: &HandedIn) -> Parcel {
    let scope = handed_in.scope.clone();
    let binding = Binding::BlindCourier { namespace: scope.namespace, name: scope.name };
    let envelope = handed_in.envelope.clone();
    let credential = SealedCredential { r#type: handed_in.kind, envelope, binding };
    Parcel { name: handed_in.name.clone(), credential, opened_with: None }
}

/// A credential that Moorage derives itself.
#[derive(Debug, Clone, Copy)]
pub enum OwnCredential<'a> {
    /// For cloudflared.
    Tunnel(&'a TunnelRunToken),
    /// For `OpenClaw`'s gateway.
    Gateway(&'a GatewayToken),
}

impl OwnCredential<'_> {
    fn parts(&self) -> (&'static str, CredentialType, &Secret) {
        match self {
            Self::Tunnel(token) => (TUNNEL_TOKEN, CredentialType::TunnelToken, token.secret()),
            Self::Gateway(token) => (GATEWAY_TOKEN, CredentialType::GatewayToken, token.secret()),
        }
    }

    /// What receipts and records name: there is no customer's ciphertext, so it is the digest of the
    /// token itself. The token has 256 bits of entropy, so the digest gives nothing away, and sealing
    /// the same token twice is recognised as the same.
    pub fn source_sha256(&self) -> Sha256 {
        Sha256::of(self.parts().2.expose())
    }
}

/// Seals one of Moorage's own credentials for the agent.
///
/// # Panics
/// Never: Moorage's own names are credential names.
pub fn prepare_own(own: OwnCredential<'_>, to: &Recipient<'_>) -> Result<Parcel, Refusal> {
    let (name, kind, value) = own.parts();
    let place = || format!("Moorage's own credential {name}");
    let failed = |_| Refusal::SealingFailed { place: place() };
    kind.check(value.expose()).map_err(|error| Refusal::InvalidFormat {
        place: place(),
        error,
        hint: None,
    })?;
    let name: CredentialName = name.parse().expect("Moorage's own names are credential names");
    let credential = seal(value, &name, kind, own.source_sha256(), to).map_err(failed)?;
    Ok(Parcel { name, credential, opened_with: None })
}

fn seal(
    value: &Secret,
    name: &CredentialName,
    kind: CredentialType,
    source_sha256: Sha256,
    to: &Recipient<'_>,
) -> Result<SealedCredential, EnvelopeError> {
    let binding = Binding::Courier { source_sha256 };
    let label = binding.label(to.instance, to.epoch, name, kind);
    let envelope = to.certificate.seal(value, &label)?;
    Ok(SealedCredential { r#type: kind, envelope, binding })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::conditions::Reason,
        credentials::{
            bundle::Scope,
            key_ring::Tombstone,
            test_keys::{self, ANTHROPIC, ring_key},
        },
        master_key::{GatewayGeneration, GatewayLife, MasterKey, TunnelGeneration},
    };
    use moorage_wire::InstallationId;

    const INSTANCE: [u8; 16] = [1; 16];
    const EPOCH: [u8; 8] = [2; 8];

    /// Key 0 is the operator's, key 1 the agent's, key 2 a stranger's.
    fn ring() -> KeyRing {
        KeyRing::new([ring_key(0, "2026-01-01T00:00:00Z")], [])
    }

    fn handed_in(value: &str, sealed_to: usize, label: &str) -> HandedIn {
        let certificate = test_keys::key(sealed_to).certificate().clone();
        HandedIn {
            name: "anthropic".parse().unwrap(),
            kind: CredentialType::AnthropicApiKey,
            sealed_to: SealedTo::Operator,
            scope: Scope { namespace: "tenants".into(), name: "ada-keys".into() },
            envelope: certificate.seal(&value.to_owned().into(), label).unwrap(),
            sealed_with: None,
            sealed_by: "2026-01-02T00:00:00Z".parse().unwrap(),
            place: "Key anthropic of Secret ada-keys".into(),
        }
    }

    #[test]
    fn a_line_end_behind_a_key_is_not_part_of_it() {
        let value = handed_in(&format!("{ANTHROPIC}\n"), 0, "tenants/ada-keys");
        let parcel = with_agent(|to| prepare(&value, &ring(), to)).unwrap();
        assert_eq!(open(&parcel).unwrap().expose(), ANTHROPIC.as_bytes());
        // The receipt names what the customer sealed.
        assert_eq!(parcel.credential.source_sha256(), value.envelope.sha256());
        assert!(needed_key(&value, &ring()).is_some());
    }

    fn with_agent<T>(use_recipient: impl FnOnce(&Recipient<'_>) -> T) -> T {
        let agent = test_keys::key(1);
        let (instance, epoch) = (InstanceId::from_bytes(INSTANCE), Epoch::from_bytes(EPOCH));
        use_recipient(&Recipient { certificate: agent.certificate(), instance, epoch })
    }

    /// What the agent does with a parcel.
    fn open(parcel: &Parcel) -> Option<Secret> {
        let (instance, epoch) = (InstanceId::from_bytes(INSTANCE), Epoch::from_bytes(EPOCH));
        let label = parcel.credential.label(instance, epoch, &parcel.name);
        test_keys::key(1).unseal(&parcel.credential.envelope, &label).ok()
    }

    #[test]
    fn a_value_arrives_at_the_agent_under_the_name_of_its_source() {
        let value = handed_in(ANTHROPIC, 0, "tenants/ada-keys");
        let parcel = with_agent(|agent| prepare(&value, &ring(), agent)).unwrap();
        assert_eq!(open(&parcel).unwrap().expose(), ANTHROPIC.as_bytes());
        assert_eq!(parcel.credential.source_sha256(), value.envelope.sha256());
        assert_eq!(parcel.opened_with, Some(test_keys::key(0).certificate().fingerprint()));
        assert_eq!(needed_key(&value, &ring()), parcel.opened_with);
    }

    #[test]
    fn a_parcel_opens_for_its_name_and_server_alone() {
        let value = handed_in(ANTHROPIC, 0, "tenants/ada-keys");
        let parcel = with_agent(|agent| prepare(&value, &ring(), agent)).unwrap();
        let renamed = Parcel { name: "other".parse().unwrap(), ..parcel.clone() };
        assert!(open(&renamed).is_none());
        let mut other_source = parcel.clone();
        other_source.credential.binding = Binding::Courier { source_sha256: Sha256::of(b"other") };
        assert!(open(&other_source).is_none());
        let mut other_type = parcel;
        other_type.credential.r#type = CredentialType::OpenAiApiKey;
        assert!(open(&other_type).is_none());
    }

    #[test]
    fn a_value_sealed_for_another_name_or_key_is_refused() {
        let other_name = handed_in(ANTHROPIC, 0, "tenants/bob-keys");
        let other_key = handed_in(ANTHROPIC, 2, "tenants/ada-keys");
        for value in [other_name, other_key] {
            let refusal = with_agent(|agent| prepare(&value, &ring(), agent)).unwrap_err();
            assert_eq!(refusal.reason(), Reason::CannotUnseal);
            assert_eq!(needed_key(&value, &ring()), None);
        }
    }

    #[test]
    fn a_value_sealed_to_a_destroyed_key_says_so() {
        let destroyed = test_keys::key(2).certificate().fingerprint();
        let tombstone = Tombstone {
            fingerprint: destroyed,
            created: "2025-01-01T00:00:00Z".parse().unwrap(),
            not_served_after: "2025-02-01T00:00:00Z".parse().unwrap(),
            destroyed: "2025-03-05T00:00:00Z".parse().unwrap(),
        };
        let ring = KeyRing::new(ring().keys().to_vec(), [tombstone]);
        let mut value = handed_in(ANTHROPIC, 2, "tenants/ada-keys");
        value.sealed_with = Some(destroyed);
        let refusal = with_agent(|agent| prepare(&value, &ring, agent)).unwrap_err();
        assert_eq!(refusal.reason(), Reason::KeyExpired);
        assert!(refusal.to_string().contains("2025-03-05"), "{refusal}");
    }

    #[test]
    fn a_value_of_the_wrong_format_is_refused_unquoted() {
        let value = handed_in("not-an-anthropic-key", 0, "tenants/ada-keys");
        let refusal = with_agent(|agent| prepare(&value, &ring(), agent)).unwrap_err();
        assert_eq!(refusal.reason(), Reason::InvalidFormat);
        assert!(!refusal.to_string().contains("not-an-anthropic"), "{refusal}");
    }

    #[test]
    fn a_blind_value_passes_unread_and_opens_at_the_agent() {
        let mut value = handed_in(ANTHROPIC, 1, "tenants/ada-keys");
        value.sealed_to = SealedTo::Agent;
        let empty = KeyRing::default();
        let parcel = with_agent(|agent| prepare(&value, &empty, agent)).unwrap();
        assert_eq!(parcel.credential.envelope, value.envelope);
        assert_eq!(parcel.credential.source_sha256(), value.envelope.sha256());
        assert_eq!(open(&parcel).unwrap().expose(), ANTHROPIC.as_bytes());
        assert_eq!(needed_key(&value, &empty), None);
    }

    #[test]
    fn moorages_own_tokens_keep_their_identity_when_sealed_again() {
        let installation = InstallationId::from_bytes([7; 8]);
        let mut key = [9; 32];
        key[0] = 1;
        let master = MasterKey::new(Secret::from(key), installation).unwrap();
        let (instance, epoch) = (InstanceId::from_bytes(INSTANCE), Epoch::from_bytes(EPOCH));
        let run = |generation| {
            let secret = master.tunnel_secret(instance, epoch, TunnelGeneration(generation));
            secret.run_token("account", "tunnel")
        };
        let seal = |token: &TunnelRunToken| {
            with_agent(|agent| prepare_own(OwnCredential::Tunnel(token), agent)).unwrap()
        };
        let (first, again, rotated) = (seal(&run(0)), seal(&run(0)), seal(&run(1)));
        assert_eq!(open(&first).unwrap().expose(), run(0).secret().expose());
        assert_eq!(first.credential.source_sha256(), again.credential.source_sha256());
        assert_ne!(first.credential.envelope, again.credential.envelope);
        assert_ne!(first.credential.source_sha256(), rotated.credential.source_sha256());

        let life = GatewayLife::Server(epoch);
        let token = master.gateway_token(instance, life, GatewayGeneration(0));
        let gateway = with_agent(|agent| prepare_own(OwnCredential::Gateway(&token), agent));
        let gateway = gateway.unwrap();
        assert_eq!(gateway.name.as_str(), GATEWAY_TOKEN);
        assert_eq!(open(&gateway).unwrap().expose(), token.secret().expose());
    }
}
