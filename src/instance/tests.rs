//! Tests of the planner and of the status, by topic.

mod architecture;
mod bring_up;
mod copies;
mod credentials;
mod dashboard;
mod deletion;
mod desired_state;
mod failed_document;
mod host_health;
mod identity;
mod loss;
mod older_agents;
mod pinned;
mod programs;
mod properties;
mod status;
mod tunnel;
