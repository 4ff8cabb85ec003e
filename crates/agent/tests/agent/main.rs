//! The agent as its operator meets it: the real server in this process (and, in `process`, the real
//! program), with stand-ins for the installer, OpenClaw and cloudflared around it.
#![allow(clippy::unwrap_used, clippy::doc_markdown)]

mod audit;
mod clock;
mod convergence;
mod crash;
mod credentials;
mod enrolment;
mod gates;
mod handover;
mod installer;
mod integrations;
mod logs;
mod machine;
mod malice;
mod messenger;
mod operator;
mod pairings;
mod power_cuts;
mod process;
mod programs;
mod real;
mod room;
mod tunnel;
mod world;
