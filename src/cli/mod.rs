//! The commands of `moorage` that a person runs at a terminal, one file each.

pub mod crds;
pub mod seal;
