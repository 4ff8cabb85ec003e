//! A real Kubernetes control plane, the simulated clouds and the operator, as processes on loopback
//! for as long as a test or the demo runs. What they are made to do is the caller's business.
//!
//! Nothing outlives its owner: processes end on drop, and when this process dies in any other way
//! the kernel kills them.

mod address;
mod chart;
mod container;
mod control_plane;
mod describe;
mod gateway;
mod kubectl;
mod lab;
mod operator;
mod proc;
mod process;
mod release;
mod scenario;
mod simulator;
mod skip;
mod tools;
mod wait;

pub use address::free_address;
pub use chart::{install_chart, install_chart_with, uninstall_chart};
pub use container::Container;
pub use control_plane::{Audit, Components, ControlPlane, StartError};
pub use describe::conditions;
pub use gateway::{Challenge, Device, GatewayClient, GatewayError, GatewayRefusal};
pub use kubectl::kubectl;
pub use lab::{
    CloudInit, Cloudflared, Executed, LabError, LabParts, LabServer, LabServerState, NoLab, Press,
    Probed,
};
pub use operator::{
    Operator, OperatorOptions, OperatorSource, service_account_kubeconfig, service_account_token,
};
pub use proc::{Signal, children_of, runs, signal, size_in_status};
pub use process::{Ending, Process};
pub use release::ReleaseFolder;
pub use scenario::{Pace, Scenario, Stage, run_scenarios};
pub use simulator::{
    RequestCount, Simulator, SimulatorEndpoints, SimulatorError, SimulatorOptions,
};
pub use skip::{or_skip, skip, skip_without_cloudflared};
pub use tools::{MissingTool, Tool, Tools};
pub use wait::{NotInTime, eventually, wait_until};
