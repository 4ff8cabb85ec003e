//! `moorage-sim guard`: becomes another program that the kernel kills when the simulator dies, however
//! it dies.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// What the guard needs.
#[derive(Debug, Clone, clap::Args)]
pub struct GuardOptions {
    /// The simulator's process id
    #[arg(long)]
    pub parent: i32,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// Becomes the program. Returns only when that failed.
pub fn run(options: &GuardOptions) -> io::Error {
    // Survives execve, as the program is not setuid.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    // The simulator may have died before the line above.
    if getppid() != Pid::from_raw(options.parent) {
        return io::Error::other("the simulator is gone");
    }
    let Some((program, arguments)) = options.command.split_first() else {
        return io::ErrorKind::InvalidInput.into();
    };
    std::process::Command::new(program).args(arguments).exec()
}
