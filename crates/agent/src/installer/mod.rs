//! The installer: the one place on a server that holds root's powers, behind a private Unix socket
//! with fixed verbs. The agent is its only client.

pub mod client;
pub mod confirmation;
pub mod order;
pub mod protocol;
