//! The Secrets that are bound to an instance: what is left of them goes with it, whatever becomes of its
//! server. How their values are delivered is in [`super::credentials`].

use std::fmt;

use super::{
    deletion::{OwnRemains, Remains},
    removal::PartRemoval,
};
use crate::cluster::BoundSecret;

/// Delete Secrets that were meant for a deleted instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretsRemoval(pub Vec<BoundSecret>);

impl PartRemoval for SecretsRemoval {
    /// They are found by what binds them to the instance, and deleted at exactly that version.
    fn touches_only_own(&self, _: &OwnRemains<'_>) -> bool {
        true
    }

    fn note(&self, remains: &mut Remains) {
        remains.secrets.retain(|secret| !self.0.contains(secret));
    }
}

impl fmt::Display for SecretsRemoval {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|secret| secret.name.as_str()).collect();
        write!(formatter, "delete the Secrets {}", names.join(", "))
    }
}

/// What a deletion does with the Secrets, if there are any.
pub fn removal(secrets: &[BoundSecret]) -> Option<SecretsRemoval> {
    (!secrets.is_empty()).then(|| SecretsRemoval(secrets.to_vec()))
}
