//! One pool, as a pure matter: what its shared cloud objects should be, what to do about the difference, and
//! what its status says. One file for each managed thing; [`supply`] is what
//! instances get of it all.
//!
//! The reads and writes are in [`crate::controller::pool`], and what is kept of a pool while the operator
//! runs in [`crate::controller::pool_runtime`].

pub mod access;
pub mod anchor;
pub mod firewall;
pub mod identity;
mod offers;
pub mod outcome;
pub mod spec;
pub mod ssh_keys;
pub mod status;
pub mod supply;
pub mod zone;

pub use offers::{Offer, Offers};
pub use outcome::{Facilities, Outcome, Unaccounted};
