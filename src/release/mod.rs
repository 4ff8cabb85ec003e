//! Making a release: from a folder of pins in the repository to the files that servers install, their
//! bill of materials and the `OpenClawRelease` that approves them.
//!
//! What reads a command line and prints is in `cli`; what unpacks on a server is the agent's.

pub mod archive;
pub mod bundle;
pub mod digest;
mod error;
pub mod folder;
pub mod lock;
pub mod lockfile;
pub mod manifest;
mod node;
pub mod npm;
mod npm_cache;
pub mod openclaw;
pub mod plugin;
pub mod program;
pub mod sbom;
pub mod skill;
pub mod source;
#[cfg(test)]
mod testing;

pub use error::ReleaseError;

use crate::api::release::Architecture;

/// Takes one line that says what is being done.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// The architecture of this machine, if servers have it too.
pub fn host_architecture() -> Option<Architecture> {
    match std::env::consts::ARCH {
        "x86_64" => Some(Architecture::X86),
        "aarch64" => Some(Architecture::Arm),
        _ => None,
    }
}

/// As Node.js and npm call it.
fn node_architecture(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86 => "x64",
        Architecture::Arm => "arm64",
    }
}
