//! cloudflared as servers of the lab get it: the real one, or where that is missing the simulator's
//! connector in its place.

use std::{
    env, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use super::NoLab;

/// What the simulator's connector has in its version.
const STAND_IN: &str = "stand-in";

/// The real cloudflared, or what stands in for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloudflared {
    pub program: PathBuf,
    /// What it says of itself.
    pub version: String,
}

impl Cloudflared {
    /// What `make` names as `MOORAGE_LAB_CLOUDFLARED`, or else the real one, `CLOUDFLARED_BIN`. Says it
    /// loudly when it is the stand-in.
    pub fn from_env() -> Result<Self, NoLab> {
        let named = |variable| env::var_os(variable).filter(|value| value != "none");
        let program = named("MOORAGE_LAB_CLOUDFLARED").or_else(|| named("CLOUDFLARED_BIN"));
        let program = program.ok_or_else(|| {
            let how = "MOORAGE_LAB_CLOUDFLARED nor CLOUDFLARED_BIN names one: see `make lab`";
            NoLab(format!("there is no cloudflared: neither {how}"))
        })?;
        let program = PathBuf::from(program);
        let found = Self::at(&program)
            .map_err(|error| NoLab(format!("{} is no cloudflared: {error}", program.display())))?;
        if found.version.contains(STAND_IN) {
            eprintln!("cloudflared is missing: the simulator's connector stands in");
        }
        Ok(found)
    }

    /// Has a program say its version.
    pub fn at(program: &Path) -> io::Result<Self> {
        // The simulator is the connector when it is called so.
        let output = Command::new(program).arg0("cloudflared").arg("--version").output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let version = version_in(&said).filter(|_| output.status.success());
        let version = version.ok_or_else(|| io::Error::other(format!("it says `{}`", said.trim())));
        Ok(Self { program: program.to_owned(), version: version?.to_owned() })
    }
}

/// The version in what cloudflared or its stand-in says.
fn version_in(said: &str) -> Option<&str> {
    let said = said.strip_prefix("cloudflared ")?;
    said.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_what_the_program_says() {
        let real = "cloudflared version 2026.8.2 (built 2026-08-20-1200 UTC)\n";
        assert_eq!(version_in(real), Some("2026.8.2"));
        let stand_in = "cloudflared 0.1.0+moorage-sim-stand-in\n";
        assert_eq!(version_in(stand_in), Some("0.1.0+moorage-sim-stand-in"));
        assert_eq!(version_in("busybox 1.37"), None);
    }
}
