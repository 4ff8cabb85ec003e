//! What runs while the power is on: how it hears its buttons, and how it ended.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

use super::monitor::Monitor;
use super::{guest_agent, inside, qemu};

/// How systemd-nspawn ends when its container wants to be started again.
const REBOOT: i32 = 133;

/// What can be pressed while the power is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Button {
    /// The power is cut.
    Cut,
    /// The system is asked to power off.
    Shutdown,
    /// The system is asked to reboot.
    Reboot,
}

/// How it ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Off,
    Again,
    Failed(ExitStatus),
}

/// A container or virtual machine that was started.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    line: Line,
}

#[derive(Debug)]
enum Line {
    /// Stops at signals.
    Container,
    VirtualMachine {
        monitor: Monitor,
        agent: PathBuf,
    },
}

impl Running {
    /// The container that this process is, or will be.
    pub(super) fn container(child: Child) -> Self {
        Self { child, line: Line::Container }
    }

    /// The virtual machine that this process is, or will be.
    pub(super) fn virtual_machine(child: Child, folder: &Path) -> Self {
        let monitor = Monitor::of(folder.join(qemu::MONITOR_SOCKET));
        Self {
            child,
            line: Line::VirtualMachine { monitor, agent: folder.join(qemu::AGENT_SOCKET) },
        }
    }

    /// The process that was started.
    pub(super) fn process(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until it ends by itself. May be dropped and called again.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// What that end means.
    pub(super) async fn ended(self, status: ExitStatus) -> io::Result<Ended> {
        Ok(match self.line {
            Line::Container if status.code() == Some(REBOOT) => Ended::Again,
            _ if !status.success() => Ended::Failed(status),
            Line::Container => Ended::Off,
            Line::VirtualMachine { monitor, .. } => {
                if monitor.reboots().await? {
                    Ended::Again
                } else {
                    Ended::Off
                }
            }
        })
    }

    /// Passes a press on, other than of the power cut; whether it was heard. A system that is not up
    /// yet does not hear.
    pub(super) async fn press(&self, button: Button) -> bool {
        match (&self.line, button) {
            (_, Button::Cut) => false,
            // systemd-nspawn passes it on as the signal to power off.
            (Line::Container, Button::Shutdown) => signal(supervisor(&self.child), Signal::TERM),
            // As Ctrl-Alt-Del.
            (Line::Container, Button::Reboot) => {
                let leader = self.process().and_then(inside::leader);
                signal(leader.and_then(Pid::from_raw), Signal::INT)
            }
            (Line::VirtualMachine { monitor, .. }, Button::Shutdown) => monitor.press(),
            (Line::VirtualMachine { agent, .. }, Button::Reboot) => {
                guest_agent::reboot(agent).await.is_ok()
            }
        }
    }

    /// Kills systemd-nspawn or QEMU, with which the kernel ends the whole process namespace. What a
    /// virtual machine has not written to its disk is lost.
    pub(super) async fn cut(mut self) {
        match supervisor(&self.child) {
            Some(supervisor) => {
                // It may have ended since.
                let _ = kill_process(supervisor, Signal::KILL);
                let _ = self.child.wait().await;
            }
            // It has not come that far.
            None => drop(self.child.kill().await),
        }
    }
}

fn signal(process: Option<Pid>, signal: Signal) -> bool {
    process.is_some_and(|process| kill_process(process, signal).is_ok())
}

/// systemd-nspawn or QEMU, the only child of what was started.
fn supervisor(child: &Child) -> Option<Pid> {
    let supervisor = child.id().and_then(inside::only_child)?;
    Pid::from_raw(i32::try_from(supervisor).ok()?)
}
