//! The installer: the one place on a server that holds root's powers, behind a private Unix socket
//! with fixed verbs. The agent is its only client.

mod audit;
pub mod client;
pub mod confirmation;
pub mod enrolment_key;
pub mod operator;
pub mod order;
pub mod protocol;
pub mod roll_back;
pub mod server;
pub mod settings;
pub mod systemd;
pub mod token;
pub mod units;
pub mod update;
mod verbs;
