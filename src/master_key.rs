//! The master key and every key that is derived from it. Nothing derived is stored in the cluster:
//! HKDF-SHA256 (RFC 5869) gives it again whenever it is needed. Pure; where the master key itself
//! comes from is in `master_key_store`.
//!
//! The `info` of a derivation names its purpose and what it is for, each part preceded by its
//! length, so that no two derivations can coincide. Changing any of it locks the operator out of the
//! servers that run: the tests below pin every output.

use std::{fmt, str::FromStr};

use aws_lc_rs::hkdf;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use moorage_wire::{
    Epoch, InstallationId, InstanceId, Secret, Sha256, enrolment::EnrolmentKey,
    signature::OperatorKey,
};
use serde::Serialize;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::credentials::wrapping_key::WrappingKey;

/// Length of the master key and of every derived key, in bytes.
pub const KEY_BYTES: usize = 32;
/// A fixed, public salt: the master key is uniformly random, so the salt only separates domains.
const SALT: &[u8] = b"moorage master key v1";

/// The 32 bytes that all of Moorage's own keys derive from.
pub struct MasterKey {
    key: Secret,
    id: MasterKeyId,
    installation: InstallationId,
}

/// A text or file that is no master key. The message never contains it.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum InvalidMasterKey {
    /// Neither 32 raw bytes nor the base64 of 32 bytes.
    #[error("a master key is {KEY_BYTES} random bytes, raw or in base64")]
    Length,
    /// All bytes are alike: a placeholder, or a device that gave nothing.
    #[error("the master key is one byte repeated, so it is not random")]
    NotRandom,
}

impl MasterKey {
    /// Takes the key's bytes, raw.
    pub fn new(key: Secret, installation: InstallationId) -> Result<Self, InvalidMasterKey> {
        if key.len() != KEY_BYTES {
            return Err(InvalidMasterKey::Length);
        }
        if key.expose().iter().all(|byte| *byte == key.expose()[0]) {
            return Err(InvalidMasterKey::NotRandom);
        }
        let mut master = Self { key, id: MasterKeyId(String::new()), installation };
        let public = Sha256::of(master.derive("master key id", &[]).expose());
        master.id = MasterKeyId(public.to_string()[..MasterKeyId::LENGTH].to_owned());
        Ok(master)
    }

    /// Parses what a file or a Secret holds: 32 raw bytes, or their standard base64 with white space
    /// around it. The two have different lengths, so nothing has to be guessed.
    pub fn parse(bytes: &Secret, installation: InstallationId) -> Result<Self, InvalidMasterKey> {
        if bytes.len() == KEY_BYTES {
            return Self::new(Secret::new(bytes.expose().to_vec()), installation);
        }
        let mut decoded = Zeroizing::new([0; KEY_BYTES + 2]);
        let length = STANDARD
            .decode_slice(bytes.expose().trim_ascii(), decoded.as_mut())
            .map_err(|_| InvalidMasterKey::Length)?;
        Self::new(Secret::new(decoded[..length].to_vec()), installation)
    }

    /// The key's name, safe to show and to record beside each server.
    pub fn id(&self) -> &MasterKeyId {
        &self.id
    }

    /// The installation that the key was made for, the root of every ownership label.
    pub fn installation(&self) -> InstallationId {
        self.installation
    }

    /// Signs the operator's calls to the server of one epoch.
    pub fn operator_key(&self, instance: InstanceId, epoch: Epoch) -> OperatorKey {
        OperatorKey::from_seed(&self.for_server("operator signing key", instance, epoch))
    }

    /// Opens the first gate of the agent on the server of one epoch.
    pub fn bearer_token(&self, instance: InstanceId, epoch: Epoch) -> BearerToken {
        BearerToken(url_safe(&self.for_server("bearer token", instance, epoch)))
    }

    /// Authenticates the agent's first answer.
    pub fn enrolment_key(&self, instance: InstanceId, epoch: Epoch) -> EnrolmentKey {
        EnrolmentKey::new(self.for_server("enrolment key", instance, epoch))
    }

    /// The secret of the instance's tunnel while the server of `epoch` uses it.
    pub fn tunnel_secret(
        &self,
        instance: InstanceId,
        epoch: Epoch,
        generation: TunnelGeneration,
    ) -> TunnelSecret {
        let generation = generation.0.to_be_bytes();
        let context: [&[u8]; 3] = [instance.as_bytes(), epoch.as_bytes(), &generation];
        TunnelSecret(self.derive("tunnel secret", &context))
    }

    /// The token of `OpenClaw`'s gateway.
    pub fn gateway_token(
        &self,
        instance: InstanceId,
        life: GatewayLife,
        generation: GatewayGeneration,
    ) -> GatewayToken {
        let generation = generation.0.to_be_bytes();
        GatewayToken(url_safe(&match life {
            GatewayLife::Instance => {
                self.derive("gateway token", &[instance.as_bytes(), &generation])
            }
            GatewayLife::Server(epoch) => {
                let context: [&[u8]; 3] = [instance.as_bytes(), epoch.as_bytes(), &generation];
                self.derive("gateway token of a server", &context)
            }
        }))
    }

    /// Wraps the sealing keys that are stored in the cluster.
    pub fn wrapping_key(&self) -> WrappingKey {
        WrappingKey::new(&self.derive("sealing key wrapping", &[]))
    }

    fn for_server(&self, purpose: &str, instance: InstanceId, epoch: Epoch) -> Secret {
        self.derive(purpose, &[instance.as_bytes(), epoch.as_bytes()])
    }

    fn derive(&self, purpose: &str, context: &[&[u8]]) -> Secret {
        let mut info = Vec::new();
        for part in std::iter::once(purpose.as_bytes()).chain(context.iter().copied()) {
            info.extend_from_slice(&(part.len() as u64).to_be_bytes());
            info.extend_from_slice(part);
        }
        let mut output = vec![0; KEY_BYTES];
        hkdf::Salt::new(hkdf::HKDF_SHA256, SALT)
            .extract(self.key.expose())
            .expand(&[&info], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut output))
            .expect("HKDF-SHA256 gives up to 8160 bytes and 32 are asked for");
        Secret::new(output)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "MasterKey({}, installation {})", self.id, self.installation)
    }
}

/// Names a master key: 16 hexadecimal characters of the SHA-256 of a value derived from it for this
/// alone. Says nothing about the key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct MasterKeyId(String);

/// A text that is not a master key id.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("a master key id is 16 lower-case hexadecimal characters")]
pub struct InvalidMasterKeyId;

impl MasterKeyId {
    const LENGTH: usize = 16;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MasterKeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for MasterKeyId {
    type Err = InvalidMasterKeyId;

    fn from_str(text: &str) -> Result<Self, InvalidMasterKeyId> {
        let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == Self::LENGTH && text.bytes().all(hexadecimal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidMasterKeyId)
        }
    }
}

/// Counts the rotations of a tunnel's secret within one epoch: 0 stands in user-data, later ones
/// reach the server sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TunnelGeneration(pub u32);

impl TunnelGeneration {
    /// The one that user-data carries.
    pub const BOOTSTRAP: Self = Self(0);
    /// The one that a server ends with after bring-up.
    pub const FIRST_ROTATED: Self = Self(1);

    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// For how long a gateway token of one generation is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatewayLife {
    /// As long as the instance has an id that was drawn at random, which no second life of its name can
    /// have. Only tokens from before ids were computed are bound so.
    Instance,
    /// As long as the server of this epoch: a second life of the same name has the same id.
    Server(Epoch),
}

/// Counts the rotations of a gateway token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GatewayGeneration(pub u32);

/// The token in `Authorization: Bearer`: 43 characters of base64url.
#[derive(Debug)]
pub struct BearerToken(Secret);

impl BearerToken {
    /// The text for the header.
    pub fn secret(&self) -> &Secret {
        &self.0
    }

    /// SHA-256 of the text: all that user-data and the agent know of it.
    pub fn sha256(&self) -> Sha256 {
        Sha256::of(self.0.expose())
    }
}

/// The secret that Cloudflare and cloudflared share for one tunnel: 32 bytes.
#[derive(Debug)]
pub struct TunnelSecret(Secret);

impl TunnelSecret {
    /// Wraps a secret that was derived.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Secret::from(bytes))
    }

    /// Standard base64, as Cloudflare's API takes it in `tunnel_secret`.
    pub fn to_base64(&self) -> Secret {
        Secret::from(STANDARD.encode(self.0.expose()))
    }

    /// The token for `cloudflared tunnel run`.
    ///
    /// # Panics
    /// Never: strings are always representable in JSON.
    pub fn run_token(&self, account: &str, tunnel: &str) -> TunnelRunToken {
        #[derive(Serialize)]
        struct Credentials<'a> {
            a: &'a str,
            t: &'a str,
            s: &'a str,
        }
        let secret = Zeroizing::new(STANDARD.encode(self.0.expose()));
        let credentials = Credentials { a: account, t: tunnel, s: &secret };
        // Room for everything, so that growing leaves no copy of the secret behind.
        let mut json = Zeroizing::new(Vec::with_capacity(6 * (account.len() + tunnel.len()) + 128));
        serde_json::to_writer(&mut *json, &credentials).expect("three strings are always JSON");
        TunnelRunToken(Secret::from(STANDARD.encode(&*json)))
    }
}

/// What `cloudflared tunnel run --token` takes: the base64 of `{"a":account,"t":tunnel,"s":secret}`.
#[derive(Debug)]
pub struct TunnelRunToken(Secret);

impl TunnelRunToken {
    pub fn secret(&self) -> &Secret {
        &self.0
    }
}

/// The token that opens an `OpenClaw` dashboard: 43 characters of base64url.
#[derive(Debug)]
pub struct GatewayToken(Secret);

impl GatewayToken {
    pub fn secret(&self) -> &Secret {
        &self.0
    }
}

fn url_safe(key: &Secret) -> Secret {
    Secret::from(URL_SAFE_NO_PAD.encode(key.expose()))
}

#[cfg(test)]
mod tests;
