//! What the Hetzner and the Cloudflare client share: tokens, errors, redaction, the call
//! budget and the HTTP transport.
//!
//! Nothing here knows an endpoint or a resource of either cloud; those live in
//! [`crate::hetzner`] and [`crate::cloudflare`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod budget;
pub mod error;
pub mod observe;
pub mod redact;
pub mod secret;
pub mod transport;

mod id;
mod open_enum;
#[cfg(test)]
pub(crate) mod test_server;

use std::fmt;

pub use budget::{Budget, BudgetLeft, BudgetPlan, BudgetRegistry, Flow, Priority};
pub use error::{Classification, CloudError, Conflict, ErrorKind, InvalidField, Outcome};
pub use id::InvalidId;
pub(crate) use id::{is_opaque_id, is_uuid, numeric_id, text_id};
pub use observe::{CallObserver, NoObserver, StatusClass};
pub(crate) use open_enum::open_enum;
pub use secret::{ApiToken, InvalidToken, SecretText};
pub use transport::{ClientConfig, ConfigError};

/// A cloud the operator talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cloud {
    /// Servers, firewalls and SSH keys.
    Hetzner,
    /// Tunnels, DNS records and Access.
    Cloudflare,
}

impl Cloud {
    /// The name in metrics labels and errors: `hetzner` or `cloudflare`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hetzner => "hetzner",
            Self::Cloudflare => "cloudflare",
        }
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a delete call found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deletion<T = ()> {
    /// The cloud took the deletion; it may still be going on.
    Accepted(T),
    /// The cloud itself said that there is no such object (never inferred from a proxy's 404).
    AlreadyGone,
}
