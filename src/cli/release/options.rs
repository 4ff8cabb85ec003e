//! Options that the subcommands of `moorage release` share.

#![allow(clippy::doc_markdown, reason = "the comments of options are their help")]

use std::{env, path::PathBuf};

use clap::{Args, ValueEnum};
use url::Url;

use crate::{
    api::release::Architecture,
    release::{ReleaseError, folder::ReleaseFolder, npm::Npm},
};

/// Which release, for which servers.
#[derive(Args)]
pub(super) struct PinnedArgs {
    /// Version of OpenClaw: the name of a folder that `moorage release lock` made
    #[arg(long, value_name = "VERSION")]
    openclaw: String,
    /// Where these folders are
    #[arg(long, value_name = "DIR", default_value = "releases")]
    releases: PathBuf,
    /// Architecture of the servers
    #[arg(long, value_enum, default_value = "x86")]
    architecture: ArchitectureArg,
}

/// As the API spells it.
#[derive(Clone, Copy, ValueEnum)]
enum ArchitectureArg {
    X86,
    Arm,
}

impl PinnedArgs {
    pub(super) fn read(&self) -> Result<ReleaseFolder, ReleaseError> {
        let folder = self.releases.join(&self.openclaw);
        if !folder.is_dir() {
            return Err(ReleaseError::Invalid(format!(
                "{} does not exist: make it with `moorage release lock --openclaw {}`, or name its parent with --releases",
                folder.display(),
                self.openclaw,
            )));
        }
        ReleaseFolder::read(&folder)
    }

    pub(super) fn architecture(&self) -> Architecture {
        match self.architecture {
            ArchitectureArg::X86 => Architecture::X86,
            ArchitectureArg::Arm => Architecture::Arm,
        }
    }
}

/// How npm is run.
#[derive(Args)]
pub(super) struct NpmArgs {
    /// npm-cli.js of npm 10 or later; that of the npm on PATH by default
    #[arg(long, value_name = "FILE")]
    npm: Option<PathBuf>,
    /// A mirror of the npm registry
    #[arg(long, value_name = "URL")]
    registry: Option<Url>,
    /// Where downloads and finished bundles are kept; ~/.cache/moorage by default
    #[arg(long, env = "MOORAGE_CACHE", value_name = "DIR")]
    cache: Option<PathBuf>,
}

impl NpmArgs {
    pub(super) fn find(&self) -> Result<Npm, ReleaseError> {
        let cli = match &self.npm {
            Some(cli) => cli.clone(),
            None => Npm::find()?,
        };
        Ok(Npm { cli, cache: self.cache()?.join("npm"), registry: self.registry.clone() })
    }

    pub(super) fn registry(&self) -> Option<&Url> {
        self.registry.as_ref()
    }

    /// Absolute, since programs are run with it in folders of their own.
    pub(super) fn cache(&self) -> Result<PathBuf, ReleaseError> {
        let folder = |name, below: &str| {
            let path = env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
            path.map(|path| path.join(below))
        };
        let cache = self.cache.clone();
        let cache = cache
            .or_else(|| folder("XDG_CACHE_HOME", "moorage"))
            .or_else(|| folder("HOME", ".cache/moorage"));
        let none = || ReleaseError::Invalid("there is no home folder: give --cache".to_owned());
        let cache = cache.ok_or_else(none)?;
        std::path::absolute(&cache).map_err(ReleaseError::reading(cache))
    }
}
