//! A world in which the executor can die a thousand times a second. The real controller of instances
//! runs on a model of the API server, the clouds, the agents, time and chance: one seed decides what
//! people do, which call fails, whose answer is lost, and where a process dies. What must always hold is
//! checked at every write.
//!
//! `make simulate SEEDS=N` lives N lives and says how many it lives a second; a seed that breaks
//! something is printed and can be replayed with `SEED=…`, step by step. For that the same sources are
//! compiled once more, optimised, in `crates/simulation`.
//!
//! Not here: the watches of the API server, the queue, and the controllers of pools and releases.

mod agents;
mod broken;
mod cloudflare;
mod cluster;
mod dice;
mod hetzner;
mod invariants;
mod life;
mod link;
pub(crate) mod lives;
mod needs;
mod new_servers;
mod process;
mod stand_ins;
mod tenants;
mod tests;
mod world;
