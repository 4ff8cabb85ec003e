//! What stands behind the servers of the simulated clouds: processes or containers, and the programs that
//! stand in for cloudflared and OpenClaw on them.
//!
//! The clouds start and stop servers through [`VpsBackend`](moorage_sim_clouds::VpsBackend) and know
//! nothing of this crate.

pub mod connector;
mod json_lines;
pub mod openclaw;
pub mod terminal;
pub mod vps;
