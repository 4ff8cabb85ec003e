//! The installer as the agent meets it: the real one in this process, on its real socket and on real
//! files, with a stand-in for systemd and for the agents that it starts; and the fetching of artifacts
//! from servers that are slow, gone or lying.
#![allow(clippy::unwrap_used, clippy::doc_markdown)]

mod artifacts;
mod bus;
mod crash;
mod fetch;
mod order;
mod process;
mod program;
mod protocol;
mod server;
mod updates;
