//! The edge, the connector, the process backend and the stand-in for OpenClaw, each as the processes
//! that they are.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
mod connector;
mod edge;
mod openclaw;
mod origin;
mod process;
mod program;
mod ready_file;
mod registration;
mod tunnel;
