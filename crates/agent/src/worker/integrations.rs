//! Approved plugins and skills, pinned: installed by OpenClaw's own commands, remembered, and removed
//! when they are not wanted any more. What somebody else installed is left alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use moorage_wire::desired::{Integration, IntegrationKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{WorkError, Worker};
use crate::disk::Disk;

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
        self.0.iter().any(|entry| entry.installed && entry.integration == *wanted)
    }

    fn note(&mut self, integration: &Integration, installed: bool) {
        self.0.retain(|entry| !is_same(&entry.integration, integration));
        self.0.push(Entry { integration: integration.clone(), installed });
    }
}

fn is_same(one: &Integration, other: &Integration) -> bool {
    one.kind == other.kind && one.name == other.name
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
                IntegrationKind::Plugin => find(&plugins, integration)
                    .is_some_and(|plugin| plugin.version == integration.version),
                IntegrationKind::Skill => {
                    known.has(integration) && self.skill_folder(&integration.name).is_dir()
                }
            };
            if !there {
                known.note(integration, false);
                self.disk.write_json(&self.layout.integrations(), &known)?;
                self.check_registry(integration).await?;
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
                let Integration { name, version, .. } = integration;
                let message = format!("OpenClaw does not list the plugin {name} {version}");
                WorkError::Other(format!("{message} after its installation"))
            };
            let plugin = plugin.ok_or_else(absent)?;
            let found = installed_integrity(&self.disk, plugin, integration)?;
            if let Err(error) = check_integrity(integration, found.as_deref()) {
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
        let Integration { kind, name, version, .. } = integration;
        let config = self.cli_config()?;
        // `--force` and `--accept-capabilities` are the answers to questions that a person would be
        // asked: whoever approved the release gave them.
        let installed = match kind {
            IntegrationKind::Plugin => {
                let package = format!("npm:{name}@{version}");
                let arguments =
                    ["plugins", "install", &package, "--pin", "--force", "--accept-capabilities"];
                self.program.long("plugins install", &arguments, &config).await
            }
            IntegrationKind::Skill => {
                let arguments =
                    ["skills", "install", name, "--version", version, "--global", "--force"];
                self.program.long("skills install", &arguments, &config).await
            }
        };
        installed.map_err(|error| WorkError::Other(format!("{name} {version}: {error}")))?;
        tracing::info!(target: "audit", ?kind, name, version, "integration installed");
        Ok(())
    }

    /// Asks the registry what it would give, before anything is fetched that a running OpenClaw loads at
    /// once. OpenClaw's command line takes no pin of its own.
    async fn check_registry(&self, integration: &Integration) -> Result<(), WorkError> {
        if integration.kind != IntegrationKind::Plugin {
            return Ok(());
        }
        let package = format!("{}@{}", integration.name, integration.version);
        let said = self.program.npm_view(&package, "dist.integrity").await;
        let said = said.map_err(|error| WorkError::Other(format!("{package}: {error}")))?;
        check_integrity(integration, said.as_str())
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
fn slug(name: &str) -> &str {
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

/// What npm noted of the package when it fetched it, and checked: `package-lock.json` of the folder that
/// OpenClaw gives each plugin.
fn installed_integrity(
    disk: &Disk,
    plugin: &Plugin,
    integration: &Integration,
) -> Result<Option<String>, WorkError> {
    let below = Path::new("node_modules").join(&integration.name);
    let Some(project) = Path::new(&plugin.folder).ancestors().nth(below.components().count())
    else {
        return Ok(None);
    };
    let lock: Option<Value> = disk.read_json(&project.join("package-lock.json"))?;
    let noted = lock
        .as_ref()
        .and_then(|lock| lock.get("packages")?.get(below.to_str()?)?.get("integrity")?.as_str());
    Ok(noted.map(str::to_owned))
}

fn check_integrity(integration: &Integration, found: Option<&str>) -> Result<(), WorkError> {
    let Integration { name, version, integrity, .. } = integration;
    let why = match (integrity.as_deref(), found) {
        (Some(wanted), Some(found)) if wanted == found => return Ok(()),
        (None, _) => "the release does not pin its integrity".to_owned(),
        (Some(wanted), Some(found)) if is_integrity(found) => {
            format!("the package has the integrity {found}, and the release pins {wanted}")
        }
        (Some(_), _) => "the integrity of the package is not known".to_owned(),
    };
    Err(WorkError::Other(format!("{name} {version}: {why}")))
}

/// What may stand in a message.
fn is_integrity(text: &str) -> bool {
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=-".contains(&byte);
    text.len() <= 200 && text.bytes().all(base64)
}

/// What may stand on a command line: the names that npm and the hub know, and exact versions.
fn check(integration: &Integration) -> Result<(), WorkError> {
    let Integration { kind, name, version, .. } = integration;
    let part = |part: &str| is_plain(part, 100, "-_.");
    let name_fits = match (kind, name.strip_prefix('@').and_then(|rest| rest.split_once('/'))) {
        (_, Some((owner, rest))) => part(owner) && part(rest),
        (IntegrationKind::Plugin, None) => part(name),
        (IntegrationKind::Skill, None) => false,
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
        Integration { kind, name: name.to_owned(), version: version.to_owned(), integrity: None }
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

    #[test]
    fn a_package_is_the_pinned_one_or_the_difference_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join("npm/projects/a-b-1");
        let plugin = Plugin {
            id: "b".to_owned(),
            version: "1.0.0".to_owned(),
            folder: project.join("node_modules/@a/b").to_str().unwrap().to_owned(),
        };
        let pinned = |pin: Option<&str>| Integration {
            integrity: pin.map(str::to_owned),
            ..integration(IntegrationKind::Plugin, "@a/b", "1.0.0")
        };
        let disk = Disk::default();
        assert_eq!(installed_integrity(&disk, &plugin, &pinned(None)).unwrap(), None);
        fs::create_dir_all(&project).unwrap();
        let lock = json!({"packages": {"node_modules/@a/b": {"integrity": "sha512-AAAA"}}});
        disk.write_json(&project.join("package-lock.json"), &lock).unwrap();
        let found = installed_integrity(&disk, &plugin, &pinned(None)).unwrap();
        check_integrity(&pinned(Some("sha512-AAAA")), found.as_deref()).unwrap();
        for (pin, found, says) in [
            (
                Some("sha512-BBBB"),
                Some("sha512-AAAA"),
                "sha512-AAAA, and the release pins sha512-BBBB",
            ),
            (Some("sha512-BBBB"), Some("odd \u{1b}"), "not known"),
            (Some("sha512-BBBB"), None, "not known"),
            (None, Some("sha512-AAAA"), "does not pin"),
        ] {
            let refused = check_integrity(&pinned(pin), found).unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
    }
}
