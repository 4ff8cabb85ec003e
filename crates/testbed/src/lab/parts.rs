//! What the lab needs of the machine that it runs on.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::or_skip;

/// What booting servers as containers needs, made by `hack/lab.sh`.
#[derive(Debug, Clone)]
pub struct LabParts {
    pub rootfs: PathBuf,
}

/// The lab cannot run here.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct NoLab(pub(super) String);

impl LabParts {
    /// What `hack/lab.sh --env` says, for root.
    pub fn from_env() -> Result<Self, NoLab> {
        if !rustix::process::geteuid().is_root() {
            return Err(NoLab("not root, which booting containers needs".to_owned()));
        }
        let rootfs = std::env::var_os("MOORAGE_ROOTFS").map(PathBuf::from).ok_or_else(|| {
            let how = "env=$(hack/lab.sh --env) && eval \"$env\"";
            NoLab(format!("MOORAGE_ROOTFS names no root filesystem: run `{how}`"))
        })?;
        let programs = ["systemd-nspawn", "ip", "nsenter", "mkfs.ext4", "qemu-system-x86_64"];
        match programs.into_iter().find(|program| !is_installed(program)) {
            Some(missing) => Err(NoLab(format!("{missing} is missing: run hack/lab.sh"))),
            None => Ok(Self { rootfs }),
        }
    }

    /// For tests: `None`, said as [`skip`](crate::skip) does, where the lab cannot run.
    pub fn for_test() -> Option<Self> {
        or_skip(Self::from_env())
    }

    /// Arguments of `moorage-sim serve`.
    pub fn simulator_arguments(&self, artifacts: Option<&Path>) -> Vec<String> {
        let mut arguments =
            vec!["--backend=nspawn".to_owned(), format!("--rootfs={}", self.rootfs.display())];
        arguments.extend(artifacts.map(|folder| format!("--artifacts={}", folder.display())));
        arguments
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|folder| folder.join(program).is_file())
}
