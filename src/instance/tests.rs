//! Tests of the planner and of the status, by topic.

mod architecture;
mod bring_up;
mod credentials;
mod deletion;
mod desired_state;
mod loss;
mod machine;
mod programs;
mod properties;
mod status;
mod tunnel;
