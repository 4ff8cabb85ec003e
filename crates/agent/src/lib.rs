//! The Moorage agent: the management service on each customer's server. It is a reconciler: it holds
//! one desired-state document and sealed credentials, and converges the server to them.

pub mod accounts;
mod agent;
mod api;
pub mod artifacts;
mod audits;
mod connector;
mod converge;
mod conversation;
mod core;
mod desired;
mod disk;
mod failure;
pub mod handover;
mod identity;
pub mod installer;
mod layout;
mod listen;
mod lockout;
mod nonces;
mod openclaw;
mod probe;
mod report;
mod secret_text;
mod server;
mod settings;
mod signed;
mod tunnel;
mod vault;
pub mod worker;

pub use agent::{Agent, StartError};
pub use conversation::Client;
pub use disk::Disk;
pub use layout::Layout;
pub use listen::{Listen, UnixSocket};
pub use settings::{GATEWAY, OpenClawProgram, Programs, Settings, Timing};
