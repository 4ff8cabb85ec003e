//! Tests of the planner and of the status, by topic.

mod architecture;
mod bring_up;
mod copies;
mod credentials;
mod dashboard;
mod deletion;
mod desired_state;
mod host_health;
mod identity;
mod loss;
mod older_agents;
mod pinned;
mod programs;
mod properties;
mod setbacks;
mod status;
mod tunnel;
