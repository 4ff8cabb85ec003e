//! Removals: one thing to do so that nothing of a deleted instance remains, by the part that does it. What
//! a removal is, how it reads, what it may touch and what it changes stands in the file of its part.
//!
//! They are not [steps](super::step): a step needs what the instance wants, resolved with its pool and
//! release, and a deletion has to work without. How a removal is carried out is in
//! [`crate::controller::instance`], in the file of the same name.

use std::fmt;

use super::{
    deletion::{OwnRemains, Remains},
    records::RecordsRemoval,
    secrets::SecretsRemoval,
    server::ServerRemoval,
    step::one_of_parts,
    tunnel::TunnelRemoval,
};
use crate::ownership::Owner;

/// What the removals of all parts have in common. Each must be harmless when it is repeated.
///
/// Their `Display` is what `moorage plan` prints.
pub trait PartRemoval: fmt::Display {
    /// Whether everything that it deletes or changes is the instance's own.
    fn touches_only_own(&self, own: &OwnRemains<'_>) -> bool;

    /// Its effect on what remains, if it works.
    fn note(&self, remains: &mut Remains);
}

one_of_parts! {
    /// One thing to do so that nothing remains.
    Removal, with_removal:
    Server(ServerRemoval),
    Tunnel(TunnelRemoval),
    /// Of the DNS records.
    Records(RecordsRemoval),
    /// Of the Secrets that are bound to it.
    Secrets(SecretsRemoval),
}

impl Removal {
    /// See [`PartRemoval::touches_only_own`].
    pub fn touches_only_own(&self, owner: &Owner, remains: &Remains) -> bool {
        with_removal!(self, removal => removal.touches_only_own(&remains.own(owner)))
    }

    /// See [`PartRemoval::note`].
    pub fn note(&self, remains: &mut Remains) {
        with_removal!(self, removal => removal.note(remains));
    }
}

impl fmt::Display for Removal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        with_removal!(self, removal => removal.fmt(formatter))
    }
}
