//! One customer's server, as a pure matter: what is wanted, what was seen, and what to do about the
//! difference. Each managed thing is one file here that states all three; [`plan`] puts them in order.
//!
//! Nothing here knows Kubernetes' API or HTTP: the reads that fill [`Observed`] and the writes that
//! carry out a [`Step`] are in [`crate::controller::instance`].

pub mod agent;
mod config_issues;
pub mod copies;
pub mod credentials;
pub mod dashboard;
pub mod deletion;
pub mod desired_state;
pub mod failed_document;
pub mod first_boot;
#[cfg(test)]
mod fixtures;
pub mod forecast;
pub mod from_status;
pub mod handover;
mod host_health;
pub mod observed;
mod older_agents;
pub mod placeholders;
pub mod places;
pub mod plan;
pub mod programs;
pub mod records;
pub mod refer;
pub mod removal;
pub mod replacement;
pub mod rotation;
pub mod routes;
pub mod secrets;
pub mod server;
pub mod status;
pub mod step;
#[cfg(test)]
mod tests;
pub mod tunnel;
mod versions;
pub mod wanted;
pub mod write_rate;

pub use observed::Observed;
pub use places::RefusedPlaces;
pub use plan::{Part, Plan};
pub use removal::Removal;
pub use step::Step;
pub use wanted::Wanted;
