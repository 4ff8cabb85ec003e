//! The edge, the connector, the process backend and the stand-in for OpenClaw, each as the processes
//! that they are.

mod common;
mod edge;
mod openclaw;
mod process;
