//! `moorage release bundle` and `moorage release build`.

#![allow(clippy::doc_markdown, reason = "the comments of options are their help")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use url::Url;

use super::{
    super::seal::is_dns_subdomain,
    integrations::{IntegrationOptions, Packer},
    options::{NpmArgs, PinnedArgs},
};
use crate::{
    api::release::Architecture,
    release::{
        Progress, ReleaseError,
        bundle::{Bundle, NODE, OPENCLAW, Recipe, SBOM, read_json, write_json},
        digest::Digest,
        folder::ReleaseFolder,
        host_architecture,
        manifest::{Artifact, Artifacts, Release},
        program,
        source::{self, Source},
    },
};

/// Make OpenClaw's and Node.js's archives only, in the cache
///
/// Prints the folder with openclaw.tar.gz, node.tar.gz, sbom.cdx.json and bundle.json (versions,
/// SHA-256, sizes). Does nothing if it is there already. `build` uses the same cache.
#[derive(Args)]
pub(super) struct BundleArgs {
    /// Pack a plugin that is pinned for this OpenClaw, and print its file instead; may be repeated
    #[arg(long = "plugin", value_name = "NAME")]
    plugins: Vec<String>,
    #[command(flatten)]
    pinned: PinnedArgs,
    #[command(flatten)]
    bundle: BundleOptions,
}

/// Make all files of a release and print its manifest
///
/// Writes the archives of OpenClaw and Node.js, cloudflared, the agent, one archive for each integration
/// (the plugins that are pinned with `lock-plugin`, and the skills that are named), a CycloneDX bill of materials
/// (NAME.cdx.json) and the manifest (NAME.yaml) into a folder, and the manifest to standard output. Serve
/// the folder at --base-url, then apply the manifest. The same pins give the same bytes.
///
/// A SOURCE is a file, or URL#sha256=<64 hexadecimal characters>, which is fetched and checked.
#[derive(Args)]
pub(super) struct BuildArgs {
    #[command(flatten)]
    pinned: PinnedArgs,
    #[command(flatten)]
    bundle: BundleOptions,
    /// Name of the OpenClawRelease; <version of OpenClaw>-1 by default
    #[arg(long)]
    name: Option<String>,
    /// cloudflared for Linux; what programs.yaml pins by default
    #[arg(long, value_name = "SOURCE")]
    cloudflared: Option<Source>,
    /// Its version; what it says itself, or programs.yaml, by default
    #[arg(long, value_name = "VERSION")]
    cloudflared_version: Option<String>,
    /// The moorage-agent for the servers
    #[arg(long, value_name = "SOURCE")]
    agent: Source,
    /// Its version; what it says itself by default
    #[arg(long, value_name = "VERSION")]
    agent_version: Option<String>,
    #[command(flatten)]
    integrations: IntegrationOptions,
    /// Where servers will fetch the files
    #[arg(long, value_name = "URL")]
    base_url: Url,
    /// Folder for the files, made if it is missing
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

/// What both make a bundle from.
#[derive(Args)]
pub(super) struct BundleOptions {
    /// Archive of Node.js (.tar.gz, from nodejs.org or npm's node-linux-*); what programs.yaml pins by
    /// default
    #[arg(long, value_name = "SOURCE", requires = "node_version")]
    node: Option<Source>,
    /// Version of that Node.js
    #[arg(long, value_name = "VERSION", requires = "node")]
    node_version: Option<String>,
    /// A Node.js of the same version that runs on this machine, to build for servers of another
    /// architecture
    #[arg(long, value_name = "FILE")]
    build_node: Option<PathBuf>,
    /// Keep source maps and type declarations of OpenClaw's dependencies, which servers never read
    #[arg(long)]
    no_prune: bool,
    #[command(flatten)]
    npm: NpmArgs,
}

impl BundleArgs {
    pub(super) async fn run(self, progress: Progress<'_>) -> Result<String, ReleaseError> {
        let folder = self.pinned.read()?;
        let (bundle, _) = self.bundle.get(&folder, &self.pinned, progress).await?;
        if self.plugins.is_empty() {
            return Ok(format!("{}\n", bundle.display()));
        }
        let packer = Packer {
            folder: &folder,
            architecture: self.pinned.architecture(),
            bundle: &self.bundle,
            made: &bundle,
        };
        packer.files(&self.plugins, progress).await
    }
}

impl BundleOptions {
    pub(super) fn npm(&self) -> &NpmArgs {
        &self.npm
    }

    /// A Node.js that runs here, where that of the servers does not.
    pub(super) fn build_node(&self) -> Option<&Path> {
        self.build_node.as_deref()
    }

    pub(super) async fn get(
        &self,
        folder: &ReleaseFolder,
        pinned: &PinnedArgs,
        progress: Progress<'_>,
    ) -> Result<(PathBuf, Bundle), ReleaseError> {
        let architecture = pinned.architecture();
        let not_pinned =
            || ReleaseError::NotPinned { program: "node", architecture: architecture.as_str() };
        let programs = &folder.programs;
        let source = self.node.clone().or_else(|| programs.node.source(architecture));
        let source = source.ok_or_else(not_pinned)?;
        let node = source.get(&self.downloads()?, progress).await?;
        let recipe = Recipe {
            folder,
            architecture,
            node,
            node_version: self.node_version.as_deref().unwrap_or(&programs.node.version),
            build_node: self.build_node.as_deref(),
            npm: &self.npm.find()?,
            prune: !self.no_prune,
        };
        recipe.get(&self.npm.cache()?.join("bundles"), progress)
    }

    fn downloads(&self) -> Result<PathBuf, ReleaseError> {
        Ok(self.npm.cache()?.join("downloads"))
    }
}

impl BuildArgs {
    pub(super) async fn run(self, progress: Progress<'_>) -> Result<String, ReleaseError> {
        let folder = self.pinned.read()?;
        // What can be wrong without waiting is told before anything is made.
        let mut release = self.release(&folder)?;
        let (agent, cloudflared) = self.programs(&folder, progress).await?;
        let (bundle, made) = self.bundle.get(&folder, &self.pinned, progress).await?;
        fs::create_dir_all(&self.output).map_err(ReleaseError::writing(&self.output))?;
        let put = |program, version: &str, from: &Path, digest| {
            let artifact = Artifact { program, version: version.to_owned(), digest };
            self.put(from, &artifact, &release, progress).map(|()| artifact)
        };
        let artifacts = Artifacts {
            openclaw: put(
                "openclaw",
                &made.openclaw.version,
                &bundle.join(OPENCLAW),
                made.openclaw.digest,
            )?,
            node: put("node", &made.node.version, &bundle.join(NODE), made.node.digest)?,
            cloudflared: put(
                "cloudflared",
                &cloudflared.version,
                &cloudflared.path,
                cloudflared.digest,
            )?,
            agent: put("agent", &agent.version, &agent.path, agent.digest)?,
        };
        let mut bill = read_json(&bundle.join(SBOM))?;
        let packer = Packer {
            folder: &folder,
            architecture: release.architecture,
            bundle: &self.bundle,
            made: &bundle,
        };
        let output = &self.output;
        self.integrations.pack(&packer, output, &mut release, &mut bill, progress).await?;
        let name = &release.name;
        write_json(&self.output.join(format!("{name}.cdx.json")), &bill)?;
        let manifest = release.manifest(&artifacts)?;
        let path = self.output.join(format!("{name}.yaml"));
        fs::write(&path, &manifest).map_err(ReleaseError::writing(&path))?;
        progress(&format!("done: serve {} at {}", self.output.display(), release.base_url));
        Ok(manifest)
    }

    fn release(&self, folder: &ReleaseFolder) -> Result<Release, ReleaseError> {
        let name = self.name.clone();
        let name = name.unwrap_or_else(|| format!("{}-1", folder.lockfile.version()));
        if !is_dns_subdomain(&name) || name.len() > 253 {
            return Err(ReleaseError::Invalid(format!(
                "--name {name} must have only a-z, 0-9, - and ., as names in Kubernetes do"
            )));
        }
        Ok(Release {
            name,
            architecture: self.pinned.architecture(),
            base_url: base(&self.base_url)?,
            integrations: self.integrations.unpinned(folder)?,
        })
    }

    async fn programs(
        &self,
        folder: &ReleaseFolder,
        progress: Progress<'_>,
    ) -> Result<(Ready, Ready), ReleaseError> {
        let architecture = self.pinned.architecture();
        let downloads = self.bundle.downloads()?;
        let pinned = folder.programs.cloudflared.as_ref();
        let not_pinned = || ReleaseError::NotPinned {
            program: "cloudflared",
            architecture: architecture.as_str(),
        };
        let (source, version) = if let Some(source) = &self.cloudflared {
            (source.clone(), self.cloudflared_version.clone())
        } else {
            let source = pinned.and_then(|pinned| pinned.source(architecture));
            (source.ok_or_else(not_pinned)?, pinned.map(|pinned| pinned.version.clone()))
        };
        let agent = self.agent.get(&downloads, progress).await?;
        let agent = Ready::check("agent", agent, self.agent_version.clone(), architecture)?;
        let cloudflared = source.get(&downloads, progress).await?;
        let cloudflared = Ready::check("cloudflared", cloudflared, version, architecture)?;
        Ok((agent, cloudflared))
    }

    /// Copies a file to the output under its name.
    fn put(
        &self,
        from: &Path,
        artifact: &Artifact,
        release: &Release,
        progress: Progress<'_>,
    ) -> Result<(), ReleaseError> {
        let to = self.output.join(artifact.file_name(release.architecture));
        progress(&format!("writing {} ({} KB)", to.display(), artifact.digest.size / 1000));
        let found = source::copy(from, &to)?.sha256;
        let wanted = artifact.digest.sha256;
        if found != wanted {
            // It changed since it was looked at, or the cache is damaged.
            fs::remove_file(&to).map_err(ReleaseError::writing(&to))?;
            return Err(ReleaseError::WrongDigest {
                from: from.display().to_string(),
                wanted,
                found,
            });
        }
        Ok(())
    }
}

/// A program that was looked at.
struct Ready {
    path: PathBuf,
    digest: Digest,
    version: String,
}

impl Ready {
    fn check(
        program: &'static str,
        (path, digest): (PathBuf, Digest),
        version: Option<String>,
        architecture: Architecture,
    ) -> Result<Self, ReleaseError> {
        program::check(&path, architecture)?;
        let unknown = |why: String| ReleaseError::UnknownVersion { program, why };
        let version = match version {
            Some(version) => version,
            None if host_architecture() == Some(architecture) => {
                program::version(&path).map_err(unknown)?
            }
            None => return Err(unknown("it is for another architecture".to_owned())),
        };
        Ok(Self { path, digest, version })
    }
}

/// An address that names can be appended to.
fn base(url: &Url) -> Result<Url, ReleaseError> {
    if !matches!(url.scheme(), "http" | "https")
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err(ReleaseError::Invalid(format!(
            "--base-url {url} must be http or https, without ? and #"
        )));
    }
    let mut url = url.clone();
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}
