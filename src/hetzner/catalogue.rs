//! The catalogue of server types, as Hetzner's API writes it.

use jiff::Timestamp;
use serde::Deserialize;

use crate::cloud::open_enum;

open_enum!(
    Architecture {
        /// x86-64.
        X86 = "x86",
        /// 64-bit ARM.
        Arm = "arm",
    }
);

/// A type of server in the catalogue.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ServerType {
    /// Such as `cx33`.
    pub name: String,
    pub architecture: Architecture,
    /// Virtual processors.
    #[serde(default)]
    pub cores: u32,
    /// Memory in GB.
    #[serde(default)]
    pub memory: f64,
    /// Disk in GB.
    #[serde(default)]
    pub disk: f64,
    /// Where it is offered.
    #[serde(default)]
    pub locations: Vec<ServerTypeLocation>,
    /// Set when it will no longer be sold.
    #[serde(default)]
    pub deprecation: Option<Deprecation>,
    /// What it costs where.
    #[serde(default)]
    pub prices: Vec<ServerTypePrice>,
}

/// What a server type costs in one location.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ServerTypePrice {
    pub location: String,
    /// For an hour, which is the least that is billed.
    #[serde(default)]
    pub price_hourly: Option<Price>,
    /// For a whole month.
    pub price_monthly: Price,
}

/// An amount of the project's currency.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Price {
    /// Taxes included, as a decimal number.
    pub gross: String,
}

/// A location in which a server type is offered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ServerTypeLocation {
    /// Such as `fsn1`.
    pub name: String,
    /// In stock at the moment; absent in answers older than April 2026.
    #[serde(default)]
    pub available: Option<bool>,
    /// Favoured by Hetzner.
    #[serde(default)]
    pub recommended: Option<bool>,
    /// Set when it will no longer be sold here.
    #[serde(default)]
    pub deprecation: Option<Deprecation>,
}

/// When something stops being sold.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Deprecation {
    /// When that was said.
    pub announced: Timestamp,
    /// From when on it cannot be ordered.
    pub unavailable_after: Timestamp,
}
