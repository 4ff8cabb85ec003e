//! The lab: servers that are a real Debian, and the release of real programs that they install.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use moorage_testbed::{Cloudflared, LabParts, ReleaseFolder};

/// The name of the release that the sample pool asks for.
const RELEASE: &str = "2026.9.6-1";

/// Where the programs of the release are.
#[derive(Debug, Args)]
pub(crate) struct Programs {
    /// The static moorage-agent
    #[arg(long, value_name = "FILE", env = "MOORAGE_LAB_AGENT")]
    agent: Option<PathBuf>,

    /// The archive of Node.js
    #[arg(long, value_name = "FILE", env = "MOORAGE_LAB_NODE")]
    node: Option<PathBuf>,

    /// The archive of OpenClaw
    #[arg(long, value_name = "FILE", env = "MOORAGE_LAB_OPENCLAW")]
    openclaw: Option<PathBuf>,
}

/// What servers are made from.
pub(crate) struct Debian {
    parts: LabParts,
    release: ReleaseFolder,
}

impl Programs {
    /// Pins them. An error names what is missing.
    pub(crate) fn find(&self) -> Result<Debian> {
        let parts = LabParts::from_env()?;
        let mut release = ReleaseFolder::new()?;
        for (kind, version, file, variable) in [
            ("agent", env!("CARGO_PKG_VERSION"), &self.agent, "MOORAGE_LAB_AGENT"),
            ("node", "24.0.0", &self.node, "MOORAGE_LAB_NODE"),
            ("openclaw", "2026.9.6", &self.openclaw, "MOORAGE_LAB_OPENCLAW"),
        ] {
            let file = file.as_deref().with_context(|| {
                format!("the lab has no {kind}: name it by --{kind} or {variable}")
            })?;
            release.add(kind, version, file).with_context(|| file.display().to_string())?;
        }
        let Cloudflared { program, version } = Cloudflared::from_env()?;
        release.add("cloudflared", &version, &program)?;
        Ok(Debian { parts, release })
    }
}

impl Debian {
    /// Arguments of `moorage-sim serve`.
    pub(crate) fn simulator_arguments(&self) -> Vec<String> {
        self.parts.simulator_arguments(Some(&self.release.path()))
    }

    /// Writes the manifest and says where.
    pub(crate) fn write_release(&self, folder: &Path) -> Result<PathBuf> {
        let file = folder.join("release.json");
        let release = self.release.release(RELEASE, "2026.9.6");
        std::fs::write(&file, serde_json::to_vec_pretty(&release)?)?;
        Ok(file)
    }
}
