//! Who is who: the installation, the instance, the epoch of its server, and the public keys of the
//! two sides. All are fixed-size and written as lower-case hexadecimal, so that they fit into
//! Hetzner label values (63 characters) and Cloudflare names and comments as they are.

use std::{fmt, str::FromStr};

use crate::{
    digest::Sha256,
    lower_hex::{self, IdError},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Wraps raw bytes, for example from a random source.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// In the order of the text.
            pub fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                lower_hex::parse($what, text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_id! {
    /// One installation of the operator, made once beside the master key: 16 hexadecimal characters.
    InstallationId, 8, "installation id"
}
hex_id! {
    /// One `OpenClawInstance`: 32 hexadecimal characters. The operator computes it; earlier versions drew
    /// it at random.
    InstanceId, 16, "instance id"
}
hex_id! {
    /// One server of an instance, random: a rebuilt server has another epoch. 16 hexadecimal characters.
    Epoch, 8, "epoch"
}
hex_id! {
    /// The Ed25519 key that an agent signs its answers and receipts with (RFC 8032, 32 bytes).
    AgentPublicKey, 32, "agent public key"
}
hex_id! {
    /// The Ed25519 key that the operator signs its calls to one instance with (RFC 8032, 32 bytes).
    OperatorPublicKey, 32, "operator public key"
}

impl AgentPublicKey {
    /// SHA-256 of the key, by which the operator names the agent that it talks to.
    pub fn fingerprint(&self) -> Sha256 {
        Sha256::of(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_a_round_trip_through_text() {
        let id = InstanceId::from_bytes([0xa7; 16]);
        assert_eq!(id.to_string().parse::<InstanceId>(), Ok(id));
    }

    #[test]
    fn wrong_length_upper_case_and_non_ascii_are_refused() {
        for text in ["", "a7", &"A7".repeat(8), &"zz".repeat(8), "ééééé€"] {
            assert!(text.parse::<Epoch>().is_err(), "{text} was taken");
        }
    }
}
