//! Approved plugins and skills: installed by OpenClaw's own commands, out of their artifacts
//! ([`super::packed`]) or, where the release says that they need none, from their registries;
//! remembered, and removed when they are not wanted any more. What somebody else installed is left alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use moorage_wire::{
    desired::{Integration, IntegrationKind},
    failure::{FailureCode, Stage},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{WorkError, Worker, integrity};

/// A command of OpenClaw's did not install it.
const INSTALLED: (Stage, FailureCode) = (Stage::Installation, FailureCode::CommandFailed);

/// What was ever installed and not removed.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Known(Vec<Entry>);

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    integration: Integration,
    /// Whether the installation came to its end.
    installed: bool,
}

/// A plugin as `OpenClaw` lists it.
#[derive(Debug, PartialEq, Eq)]
struct Plugin {
    id: String,
    version: String,
    folder: String,
}

impl Known {
    fn has(&self, wanted: &Integration) -> bool {
        self.0.iter().any(|entry| entry.installed && is_equal(&entry.integration, wanted))
    }

    fn note(&mut self, integration: &Integration, installed: bool) {
        self.0.retain(|entry| !is_same(&entry.integration, integration));
        self.0.push(Entry { integration: integration.clone(), installed });
    }
}

fn is_same(one: &Integration, other: &Integration) -> bool {
    one.kind == other.kind && one.name == other.name
}

/// Whether the same would be installed. Where it came from does not matter, nor whether it might.
fn is_equal(one: &Integration, other: &Integration) -> bool {
    let bytes = |of: &Integration| of.artifact.as_ref().map(|artifact| artifact.sha256);
    is_same(one, other)
        && (&one.version, &one.integrity) == (&other.version, &other.integrity)
        && bytes(one) == bytes(other)
}

impl Worker {
    pub(super) async fn add_integrations(
        &self,
        wanted: &[Integration],
    ) -> Result<BTreeSet<String>, WorkError> {
        let _busy = self.busy.lock().await;
        wanted.iter().try_for_each(check)?;
        let mut known = self.known()?;
        let is_plugin = |one: &&Integration| one.kind == IntegrationKind::Plugin;
        let mut plugins = if wanted.iter().any(|one| is_plugin(&one)) {
            self.plugins().await?
        } else {
            Vec::new()
        };
        let mut changed = false;
        for integration in wanted {
            let there = match integration.kind {
                // What a registry gave is not what an artifact pins, be the version the same.
                IntegrationKind::Plugin => {
                    (integration.artifact.is_none() || known.has(integration))
                        && find(&plugins, integration)
                            .is_some_and(|plugin| plugin.version == integration.version)
                }
                IntegrationKind::Skill => {
                    known.has(integration) && self.skill_folder(&integration.name).is_dir()
                }
            };
            if !there {
                known.note(integration, false);
                self.disk.write_json(&self.layout.integrations(), &known)?;
                self.install(integration).await?;
                changed = true;
            }
            known.note(integration, true);
        }
        if changed {
            self.disk.write_json(&self.layout.integrations(), &known)?;
            plugins = self.plugins().await?;
        }
        let mut ids = BTreeSet::new();
        for integration in wanted.iter().filter(is_plugin) {
            let plugin = find(&plugins, integration).filter(|plugin| {
                // A plugin that names itself otherwise would be installed again and again.
                plugin.version == integration.version
            });
            let absent = || {
                let why = "OpenClaw does not list the plugin after its installation";
                WorkError::of_integration(integration, INSTALLED, why)
            };
            let plugin = plugin.ok_or_else(absent)?;
            if let Err(error) = self.check_installed(plugin, integration) {
                // It never gets into a configuration.
                self.uninstall(&plugin.id).await?;
                return Err(error);
            }
            ids.insert(plugin.id.clone());
        }
        Ok(ids)
    }

    pub(super) async fn remove_integrations(
        &self,
        wanted: &[Integration],
    ) -> Result<(), WorkError> {
        let _busy = self.busy.lock().await;
        let mut known = self.known()?;
        let is_surplus = |entry: &Entry| !wanted.iter().any(|one| is_same(one, &entry.integration));
        if !known.0.iter().any(is_surplus) {
            return Ok(());
        }
        let plugins = self.plugins().await?;
        for entry in known.0.iter().filter(|entry| is_surplus(entry)) {
            let integration = &entry.integration;
            match integration.kind {
                IntegrationKind::Plugin => {
                    if let Some(plugin) = find(&plugins, integration) {
                        self.uninstall(&plugin.id).await?;
                    }
                }
                IntegrationKind::Skill => self.remove_skill(&integration.name)?,
            }
            let Integration { name, .. } = integration;
            tracing::info!(target: "audit", name, "integration removed");
        }
        known.0.retain(|entry| !is_surplus(entry));
        Ok(self.disk.write_json(&self.layout.integrations(), &known)?)
    }

    fn known(&self) -> Result<Known, WorkError> {
        Ok(self.disk.read_json(&self.layout.integrations())?.unwrap_or_default())
    }

    async fn install(&self, integration: &Integration) -> Result<(), WorkError> {
        let Integration { kind, name, version, artifact, .. } = integration;
        let installed = match artifact {
            Some(artifact) => self.install_packed(integration, artifact).await,
            None if integration.is_barred() => {
                let why = "the release does not pin all of it, so that it would be resolved here";
                let code = (Stage::Installation, FailureCode::NotPinned);
                Err(WorkError::of_integration(integration, code, why))
            }
            None => self.install_unpinned(integration).await,
        };
        installed?;
        tracing::info!(
            target: "audit", ?kind, name, version, packed = artifact.is_some(), "integration installed"
        );
        Ok(())
    }

    /// From its registry, as the release allows.
    async fn install_unpinned(&self, integration: &Integration) -> Result<(), WorkError> {
        let Integration { kind, name, version, .. } = integration;
        if *kind == IntegrationKind::Skill {
            let arguments =
                ["skills", "install", name, "--version", version, "--global", "--force"];
            return self.install_with("skills install", &arguments, integration).await;
        }
        self.disk.write(&self.layout.npm_settings(), b"")?;
        let installed = match self.check_registry(integration).await {
            Ok(()) => self.install_plugin(integration).await,
            refused => refused,
        };
        self.close_npm()?;
        installed
    }

    /// With whatever npm has or reaches.
    pub(super) async fn install_plugin(&self, integration: &Integration) -> Result<(), WorkError> {
        let Integration { name, version, .. } = integration;
        let package = format!("npm:{name}@{version}");
        // `--force` and `--accept-capabilities` are the answers to questions that a person would be
        // asked: whoever approved the release gave them.
        let arguments =
            ["plugins", "install", &package, "--pin", "--force", "--accept-capabilities"];
        self.install_with("plugins install", &arguments, integration).await
    }

    pub(super) async fn install_with(
        &self,
        command: &'static str,
        arguments: &[&str],
        integration: &Integration,
    ) -> Result<(), WorkError> {
        let installed = self.program.long(command, arguments, &self.cli_config()?).await;
        installed
            .map_err(|error| WorkError::of_integration(integration, INSTALLED, error.to_string()))
    }

    fn check_installed(&self, plugin: &Plugin, integration: &Integration) -> Result<(), WorkError> {
        let folder = Path::new(&plugin.folder);
        let found = integrity::installed(&self.disk, folder, integration)?;
        integrity::check(integration, found.as_deref())?;
        match &integration.artifact {
            None => Ok(()),
            Some(artifact) => {
                let packed = self.layout.integration(artifact.sha256);
                integrity::check_tree(&self.disk, folder, &packed, integration)
            }
        }
    }

    /// Asks the registry what it would give, before anything is fetched that a running OpenClaw loads at
    /// once. OpenClaw's command line takes no pin of its own.
    async fn check_registry(&self, integration: &Integration) -> Result<(), WorkError> {
        let package = format!("{}@{}", integration.name, integration.version);
        let said = self.program.npm_view(&package, "dist.integrity").await;
        let said = said.map_err(|error| {
            let code = (Stage::Verification, FailureCode::Unreachable);
            WorkError::of_integration(integration, code, error.to_string())
        })?;
        integrity::check(integration, said.as_str())
    }

    async fn uninstall(&self, id: &str) -> Result<(), WorkError> {
        let arguments = ["plugins", "uninstall", id, "--force"];
        let config = self.cli_config()?;
        Ok(self.program.long("plugins uninstall", &arguments, &config).await?)
    }

    /// The live configuration; before the first, one that is just enough for the command line.
    fn cli_config(&self) -> Result<std::path::PathBuf, WorkError> {
        let live = self.layout.openclaw_config();
        if live.is_file() {
            return Ok(live);
        }
        let path = self.layout.client_config();
        self.disk.write_json(&path, &json!({"gateway": {"mode": "local"}}))?;
        Ok(path)
    }

    async fn plugins(&self) -> Result<Vec<Plugin>, WorkError> {
        let answer = self.program.json("plugins list", &["plugins", "list", "--json"]).await?;
        Ok(parse(&answer))
    }

    fn skill_folder(&self, name: &str) -> std::path::PathBuf {
        self.layout.openclaw_state().join("skills").join(slug(name))
    }

    /// OpenClaw has no command for it: its documentation says to remove the folder and the entry.
    fn remove_skill(&self, name: &str) -> Result<(), WorkError> {
        let folder = self.skill_folder(name);
        match fs::remove_dir_all(&folder) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(WorkError::Files { action: "remove", path: folder, source });
            }
            _ => {}
        }
        let path = self.layout.openclaw_state().join(".clawhub").join("lock.json");
        let mut lock: BTreeMap<String, Value> = self.disk.read_json(&path)?.unwrap_or_default();
        let skills = lock.get_mut("skills").and_then(Value::as_object_mut);
        if skills.is_some_and(|skills| skills.remove(slug(name)).is_some()) {
            self.disk.write_json(&path, &lock)?;
        }
        Ok(())
    }
}

/// The last part of `@owner/slug`.
pub(super) fn slug(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn parse(list: &Value) -> Vec<Plugin> {
    let plugins = list.get("plugins").and_then(Value::as_array);
    let parsed = plugins.into_iter().flatten().filter_map(|plugin| {
        let text = |name: &str| plugin.get(name)?.as_str().map(str::to_owned);
        let id = text("id").filter(|id| is_plain(id, 64, "-_."))?;
        Some(Plugin { id, version: text("version")?, folder: text("rootDir")? })
    });
    parsed.collect()
}

/// A plugin is known by the folder that npm gave its package.
fn find<'a>(plugins: &'a [Plugin], wanted: &Integration) -> Option<&'a Plugin> {
    let end = Path::new("node_modules").join(&wanted.name);
    plugins.iter().find(|plugin| Path::new(&plugin.folder).ends_with(&end))
}

/// What may stand on a command line: the names that npm and the hub know, and exact versions.
fn check(integration: &Integration) -> Result<(), WorkError> {
    let Integration { kind, name, version, artifact, .. } = integration;
    let part = |part: &str| is_plain(part, 100, "-_.");
    let name_fits = match (kind, name.strip_prefix('@').and_then(|rest| rest.split_once('/'))) {
        (_, Some((owner, rest))) => part(owner) && part(rest),
        (IntegrationKind::Plugin, None) => part(name),
        // The hub's have an owner.
        (IntegrationKind::Skill, None) => artifact.is_some() && part(name),
    };
    let exact = is_plain(version, 64, "-.+") && version.starts_with(|c: char| c.is_ascii_digit());
    if name_fits && exact {
        return Ok(());
    }
    let message = format!("{name:?} {version:?} is no {kind:?} at an exact version");
    Err(WorkError::Other(message))
}

/// Letters, digits and `others`, beginning with a letter or digit.
fn is_plain(text: &str, longest: usize, others: &str) -> bool {
    text.len() <= longest
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|char| char.is_ascii_alphanumeric() || others.contains(char))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn integration(kind: IntegrationKind, name: &str, version: &str) -> Integration {
        Integration {
            kind,
            name: name.to_owned(),
            version: version.to_owned(),
            integrity: None,
            artifact: None,
            unpinned: true,
        }
    }

    #[rstest]
    #[case(IntegrationKind::Plugin, "@openclaw/zalo", "2026.9.5", true)]
    #[case(IntegrationKind::Plugin, "some-plugin", "1.0.0-beta.1+x", true)]
    #[case(IntegrationKind::Skill, "@owner/slug", "1.2.3", true)]
    #[case(IntegrationKind::Skill, "slug", "1.2.3", false)]
    #[case(IntegrationKind::Plugin, "--link", "1.0.0", false)]
    #[case(IntegrationKind::Plugin, "git:github.com/a/b", "1.0.0", false)]
    #[case(IntegrationKind::Plugin, "/etc", "1.0.0", false)]
    #[case(IntegrationKind::Plugin, "@a/../b", "1.0.0", false)]
    #[case(IntegrationKind::Plugin, "@a/b/c", "1.0.0", false)]
    #[case(IntegrationKind::Skill, "@a/..", "1.0.0", false)]
    #[case(IntegrationKind::Plugin, "a", "latest", false)]
    #[case(IntegrationKind::Plugin, "a", "1.0.0 --x", false)]
    #[case(IntegrationKind::Plugin, "a", "", false)]
    fn only_plain_names_at_exact_versions_are_taken(
        #[case] kind: IntegrationKind,
        #[case] name: &str,
        #[case] version: &str,
        #[case] taken: bool,
    ) {
        assert_eq!(check(&integration(kind, name, version)).is_ok(), taken);
    }

    #[test]
    fn a_plugin_is_found_by_the_folder_of_its_package() {
        let root = "/x/npm/projects/openclaw-zalo-7/node_modules/@openclaw/zalo";
        let list = json!({"plugins": [
            {"id": "browser", "version": "1", "rootDir": "/opt/openclaw/dist/extensions/browser"},
            {"id": "--all", "version": "1", "rootDir": "/x/node_modules/odd"},
            {"id": "zalo", "version": "2026.9.5", "rootDir": root},
        ]});
        let plugins = parse(&list);
        let find = |name: &str| {
            find(&plugins, &integration(IntegrationKind::Plugin, name, "1"))
                .map(|plugin| plugin.id.as_str())
        };
        assert_eq!(find("@openclaw/zalo"), Some("zalo"));
        assert_eq!((find("zalo"), find("odd"), find("browser")), (None, None, None));
    }
}
