//! What only a look at a project needs: images, locations, and how much is left of the rate limit.

use serde::Deserialize;

use jiff::Timestamp;

use super::Architecture;

/// What the headers and totals of an answer tell about a project.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowance {
    /// How many servers the project has.
    pub servers: Option<u64>,
    /// Calls that are left of the rate limit.
    pub remaining: Option<u64>,
    /// Calls that the rate limit has when it is full.
    pub limit: Option<u64>,
}

/// An image that servers can boot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Image {
    /// Such as `debian-13`; snapshots have none.
    #[serde(default)]
    pub name: Option<String>,
    /// The processor that it is for.
    pub architecture: Architecture,
    /// Since when it is going away, if it is.
    #[serde(default)]
    pub deprecated: Option<Timestamp>,
    /// `available`, or not.
    #[serde(default)]
    pub status: Option<String>,
}

/// Where servers can stand.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Location {
    /// Such as `fsn1`.
    pub name: String,
}
