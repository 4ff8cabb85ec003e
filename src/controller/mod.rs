//! The controllers: what turns a change in the cluster into a pass of observe → plan → apply → status.

pub mod backoff;
pub mod context;
pub mod guard;
pub mod instance;
pub mod pool;
pub mod queue;
pub mod references;
pub mod release;
pub mod sealing_keys;
pub mod status;
