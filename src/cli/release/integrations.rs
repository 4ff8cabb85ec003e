//! `moorage release lock-plugin`, and the integrations of `moorage release build`.

#![allow(clippy::doc_markdown, reason = "the comments of options are their help")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::Value;

use super::{
    build::BundleOptions,
    options::{NpmArgs, PinnedArgs},
};
use crate::{
    api::release::{ApprovedIntegration, Architecture, IntegrationArtifact, IntegrationKind},
    release::{
        Progress, ReleaseError,
        digest::Digest,
        folder::ReleaseFolder,
        manifest::{Release, integration_file_name, parsed},
        npm::Npm,
        openclaw::OpenClaw,
        plugin::{PLUGINS, Packing, PinnedPlugin, check_name},
        sbom,
        skill::Skill,
        source,
    },
};

/// Pin a plugin with its whole dependency tree, for one version of OpenClaw
///
/// Has that OpenClaw install the plugin on this machine, as servers did, and keeps what npm chose:
/// package.json and package-lock.json in releases/<version>/integrations/<plugin>. Look at the result and
/// commit it. `build` packs all plugins that are pinned so, and approves them.
#[derive(Args)]
pub(super) struct LockPluginArgs {
    /// Package and exact version, such as @openclaw/msteams@2026.9.5
    #[arg(required = true, value_name = "NAME@VERSION")]
    plugins: Vec<String>,
    #[command(flatten)]
    pinned: PinnedArgs,
    #[command(flatten)]
    bundle: BundleOptions,
}

impl LockPluginArgs {
    pub(super) async fn run(self, progress: Progress<'_>) -> Result<String, ReleaseError> {
        let wanted: Vec<_> =
            self.plugins.iter().map(|text| parse(text)).collect::<Result<_, _>>()?;
        let folder = self.pinned.read()?;
        let (bundle, _) = self.bundle.get(&folder, &self.pinned, progress).await?;
        let openclaw = OpenClaw::unpack(&bundle, self.bundle.build_node())?;
        let settings = settings(&self.bundle.npm().find()?);
        let mut said = String::new();
        for (name, version) in wanted {
            progress(&format!("OpenClaw resolves {name} {version}"));
            let pinned = PinnedPlugin::pin(&folder.path, name, version, &openclaw, &settings)?;
            let count = pinned.lockfile.all().count();
            progress(&format!("{name} {version} is pinned with {count} packages"));
            said += &path_line(&folder.path.join(PLUGINS).join(name));
        }
        Ok(said)
    }
}

fn path_line(path: &Path) -> String {
    format!("{}\n", path.display())
}

/// npm's own, where it may reach the registry.
fn settings(npm: &Npm) -> String {
    let registry = npm.registry.as_ref().map(|url| format!("registry={url}\n"));
    format!("cache={}\n{}", npm.cache.display(), registry.unwrap_or_default())
}

fn parse(text: &str) -> Result<(&str, &str), ReleaseError> {
    let invalid = || {
        ReleaseError::Invalid(format!(
            "{text} is no plugin at an exact version, such as @openclaw/msteams@2026.9.5"
        ))
    };
    let (name, version) = text.rsplit_once('@').ok_or_else(invalid)?;
    check_name(name)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-+".contains(&byte);
    let exact = version.starts_with(|first: char| first.is_ascii_digit())
        && version.split('.').count() >= 3
        && version.bytes().all(plain);
    if exact { Ok((name, version)) } else { Err(invalid()) }
}

/// What a release approves beside its programs.
#[derive(Args)]
pub(super) struct IntegrationOptions {
    /// A skill to pack and approve; may be repeated
    #[arg(long = "skill", value_name = "NAME@VERSION=DIR")]
    skills: Vec<Skill>,
    /// YAML list of further plugins and skills to approve, which servers then get from their registries
    /// with whatever they depend on at that moment: each with name, kind (Plugin or Skill), version, of
    /// plugins integrity, and allowUnpinned: true
    #[arg(long, value_name = "FILE")]
    integrations: Option<PathBuf>,
}

/// An integration whose artifact lies in the folder.
struct Packed {
    entry: ApprovedIntegration,
    file: PathBuf,
    digest: Digest,
}

/// Packs what has to be packed.
pub(super) struct Packer<'a> {
    pub(super) folder: &'a ReleaseFolder,
    pub(super) architecture: Architecture,
    pub(super) bundle: &'a BundleOptions,
    /// The folder of the finished bundle.
    pub(super) made: &'a Path,
}

impl IntegrationOptions {
    /// Those of the file, and what is wrong with the options as a whole.
    pub(super) fn unpinned(
        &self,
        folder: &ReleaseFolder,
    ) -> Result<Vec<ApprovedIntegration>, ReleaseError> {
        let unpinned = self.integrations.as_deref().map(read).transpose()?.unwrap_or_default();
        let resolved =
            unpinned.iter().find(|one| one.artifact.is_none() && one.allow_unpinned != Some(true));
        if let Some(ApprovedIntegration { name, version, .. }) = resolved {
            return Err(ReleaseError::Invalid(format!(
                "--integrations: {name} is not pinned with what it depends on: pin it with `moorage release lock-plugin {name}@{version}` or --skill, or say allowUnpinned: true"
            )));
        }
        let plugins = folder.plugins.iter().map(|plugin| plugin.name.as_str());
        let skills = self.skills.iter().map(|skill| skill.name.as_str());
        let mut names: Vec<_> =
            unpinned.iter().map(|one| one.name.as_str()).chain(plugins).chain(skills).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            None => Ok(unpinned),
            Some(pair) => Err(ReleaseError::Invalid(format!("{} is given twice", pair[0]))),
        }
    }

    /// Packs plugins and skills, puts them beside the other files, and completes release and bill of
    /// materials.
    pub(super) async fn pack(
        &self,
        packer: &Packer<'_>,
        output: &Path,
        release: &mut Release,
        bill: &mut Value,
        progress: Progress<'_>,
    ) -> Result<(), ReleaseError> {
        let scratch = tempfile::tempdir().map_err(ReleaseError::writing("a temporary folder"))?;
        let mut all = Vec::new();
        for plugin in &packer.folder.plugins {
            let made = packer.plugin(plugin, progress).await?;
            sbom::add_plugin(bill, plugin, packer.architecture, made.digest);
            all.push(made);
        }
        for (number, skill) in self.skills.iter().enumerate() {
            let file = scratch.path().join(number.to_string());
            let digest = skill.pack(&file, packer.folder.time())?;
            sbom::add_skill(bill, &skill.name, &skill.version, digest);
            let entry = approved(IntegrationKind::Skill, &skill.name, &skill.version, None)?;
            all.push(Packed { entry, file, digest });
        }
        for Packed { mut entry, file, digest } in all {
            let name = integration_file_name(&entry, digest, packer.architecture);
            let to = output.join(&name);
            progress(&format!("writing {} ({} KB)", to.display(), digest.size / 1000));
            source::copy(&file, &to)?;
            let url = release.base_url.join(&name).map_err(|error| {
                ReleaseError::Invalid(format!("{}{name} is no address: {error}", release.base_url))
            })?;
            entry.artifact = Some(IntegrationArtifact {
                url: parsed(&name, "url", url.as_str())?,
                sha256: parsed(&name, "sha256", &digest.sha256.to_string())?,
                size: digest.size,
            });
            release.integrations.push(entry);
        }
        Ok(())
    }
}

impl Packer<'_> {
    /// Packs pinned plugins by their names; the paths of their files, one on each line.
    pub(super) async fn files(
        &self,
        names: &[String],
        progress: Progress<'_>,
    ) -> Result<String, ReleaseError> {
        let mut said = String::new();
        for name in names {
            let plugin = self.folder.plugins.iter().find(|plugin| plugin.name == *name);
            let plugin = plugin.ok_or_else(|| {
                ReleaseError::Invalid(format!(
                    "{name} is not pinned: pin it with `moorage release lock-plugin {name}@VERSION`"
                ))
            })?;
            let packed = self.plugin(plugin, progress).await?;
            said += &path_line(&packed.file);
        }
        Ok(said)
    }

    async fn plugin(
        &self,
        plugin: &PinnedPlugin,
        progress: Progress<'_>,
    ) -> Result<Packed, ReleaseError> {
        let npm: &NpmArgs = self.bundle.npm();
        let cache = npm.cache()?;
        let packing = Packing {
            architecture: self.architecture,
            openclaw: self.folder.lockfile.version(),
            time: self.folder.time(),
            registry: npm.registry(),
            downloads: &cache.join("packages"),
            finished: &cache.join("integrations"),
        };
        let openclaw = || OpenClaw::unpack(self.made, self.bundle.build_node());
        let (file, digest) = plugin.pack(&packing, openclaw, progress).await?;
        let version = plugin.lockfile.version();
        let entry = approved(IntegrationKind::Plugin, &plugin.name, version, plugin.integrity())?;
        Ok(Packed { entry, file, digest })
    }
}

fn approved(
    kind: IntegrationKind,
    name: &str,
    version: &str,
    integrity: Option<&str>,
) -> Result<ApprovedIntegration, ReleaseError> {
    Ok(ApprovedIntegration {
        name: parsed(name, "name", name)?,
        kind,
        version: parsed(name, "version", version)?,
        integrity: integrity.map(|text| parsed(name, "integrity", text)).transpose()?,
        artifact: None,
        allow_unpinned: None,
    })
}

fn read(file: &Path) -> Result<Vec<ApprovedIntegration>, ReleaseError> {
    let text = fs::read_to_string(file).map_err(ReleaseError::reading(file))?;
    serde_saphyr::from_str(&text)
        .map_err(|error| ReleaseError::Malformed { path: file.to_owned(), why: error.to_string() })
}
