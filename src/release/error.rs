//! Why there is no release. Each message says what to do next.

use std::{io, path::PathBuf};

use moorage_wire::Sha256;
use thiserror::Error;
use url::Url;

/// Why a step of making a release failed.
#[derive(Debug, Error)]
pub enum ReleaseError {
    /// A file or folder cannot be read or written.
    #[error("{} cannot be {action}: {source}", path.display())]
    File {
        path: PathBuf,
        /// `read` or `written`.
        action: &'static str,
        source: io::Error,
    },
    /// A file of the release folder does not have its form.
    #[error("{} is not as it should be: {why}", path.display())]
    Malformed { path: PathBuf, why: String },
    /// A package that the lockfile does not pin, or pins to something else than the registry.
    #[error(
        "the lockfile does not pin {package}: {why}; delete it and run `moorage release lock` again"
    )]
    Unpinned {
        /// Its path in the tree.
        package: String,
        /// What is missing or wrong.
        why: String,
    },
    /// What npm installed is not what the lockfile says.
    #[error(
        "npm did not install the tree of the lockfile: {0}; run again, and look at npm's messages above if it stays so"
    )]
    OtherTree(String),
    /// An option that names a file or address.
    #[error("{0} is neither a file nor URL#sha256=<64 hexadecimal characters>")]
    InvalidSource(String),
    #[error("{url} cannot be fetched: {why}; run again, or fetch it yourself and name the file")]
    Fetch { url: Url, why: String },
    /// A file is not the pinned one.
    #[error(
        "{from} has SHA-256 {found}, but {wanted} is pinned: do not use it before you know why it changed"
    )]
    WrongDigest {
        /// Where it came from.
        from: String,
        wanted: Sha256,
        found: Sha256,
    },
    /// A program is for another machine, or is none.
    #[error("{} is not a program for {wanted} servers: {why}", path.display())]
    WrongProgram {
        path: PathBuf,
        /// `x86` or `arm`.
        wanted: &'static str,
        why: String,
    },
    /// A program's version cannot be asked for.
    #[error("{program} does not say its version here ({why}): give it with --{program}-version")]
    UnknownVersion {
        /// `cloudflared` or `agent`.
        program: &'static str,
        why: String,
    },
    /// A program that has to run ended in another way than it should.
    #[error("{what} failed: {why}")]
    Run { what: String, why: String },
    /// OpenClaw still wants to change its folder when it starts.
    #[error(
        "OpenClaw still changes its own folder when it starts ({0}), which it cannot on a server: this version needs another preparation"
    )]
    Unsettled(String),
    /// A path that no archive may hold.
    #[error("{} cannot be packed: {why}", path.display())]
    Unpackable { path: PathBuf, why: &'static str },
    /// There is no npm.
    #[error("npm is not on PATH: install Node.js with npm, or name npm-cli.js with --npm")]
    NoNpm,
    /// The pinned Node.js cannot run on this machine.
    #[error(
        "Node.js for {0} servers does not run on this machine: name one of the same version that does with --build-node"
    )]
    NoBuildNode(&'static str),
    /// The other Node.js is not of the pinned version.
    #[error("--build-node is version {found}, the release pins {wanted}: use that one")]
    OtherNode { wanted: String, found: String },
    /// Nothing says which program to use.
    #[error("programs.yaml pins no {program} for {architecture} servers: give --{program}")]
    NotPinned {
        /// `node` or `cloudflared`.
        program: &'static str,
        /// `x86` or `arm`.
        architecture: &'static str,
    },
    /// A name or address that the manifest cannot have.
    #[error("{0}")]
    Invalid(String),
}

impl ReleaseError {
    /// For `map_err` where `path` is read.
    pub(crate) fn reading(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::File { path, action: "read", source }
    }

    /// For `map_err` where `path` is written.
    pub(crate) fn writing(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::File { path, action: "written", source }
    }
}
