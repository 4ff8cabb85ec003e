//! The subcommands of the program.

pub(crate) mod installer;
pub(crate) mod worker;
