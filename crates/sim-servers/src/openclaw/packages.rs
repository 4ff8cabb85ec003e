//! Plugins and skills: what is installed is kept in the state folder, as the real one does. Nothing is
//! fetched; what there is, says [`npm`].

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Places, TITLE, npm};
use crate::terminal;

/// `openclaw plugins`
#[derive(Debug, clap::Subcommand)]
pub(super) enum PluginsVerb {
    /// What is installed
    List {
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Install one of npm
    Install {
        /// `npm:<package>@<version>`
        spec: String,
        /// Pin the version
        #[arg(long)]
        pin: bool,
        /// Confirm the source, and replace what is there
        #[arg(long)]
        force: bool,
        /// Confirm what it may do
        #[arg(long)]
        accept_capabilities: bool,
    },
    /// Remove one
    Uninstall {
        /// Its id
        id: String,
        /// Do not ask
        #[arg(long)]
        force: bool,
    },
}

/// `openclaw skills`
#[derive(Debug, clap::Subcommand)]
pub(super) enum SkillsVerb {
    /// Install one of the hub
    Install {
        /// `@owner/slug`
        name: String,
        /// The version
        #[arg(long)]
        version: String,
        /// For all agents
        #[arg(long)]
        global: bool,
        /// Replace what is there
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Plugin {
    id: String,
    version: String,
    root_dir: PathBuf,
    origin: String,
}

/// Does what the command line says.
pub(super) fn plugins(places: &Places, verb: PluginsVerb) -> io::Result<()> {
    let state_dir = places.state_dir();
    let file = state_dir.join("plugins.json");
    let mut plugins: Vec<Plugin> = match std::fs::read(&file) {
        Ok(text) => serde_json::from_slice(&text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    match verb {
        PluginsVerb::List { json: _ } => {
            terminal::say(&json!({"plugins": plugins, "diagnostics": []}).to_string());
            return Ok(());
        }
        PluginsVerb::Install { spec, pin: _, force, accept_capabilities: _ } => {
            writable()?;
            let spec = spec.strip_prefix("npm:").unwrap_or(&spec);
            let (name, version) = spec.rsplit_once('@').ok_or_else(|| refused("no version"))?;
            npm::published(name)?;
            let id = name.rsplit('/').next().unwrap_or(name).to_owned();
            let known = plugins.iter().any(|plugin| plugin.id == id);
            if !force {
                let why = if known { "it is there already" } else { "confirm the source" };
                return Err(refused(why));
            }
            let root_dir = state_dir.join("npm/projects").join(&id).join("node_modules").join(name);
            std::fs::create_dir_all(&root_dir)?;
            let package = format!("node_modules/{name}");
            let lock = json!({"packages": {package: {"integrity": npm::integrity(spec)}}});
            let project = state_dir.join("npm/projects").join(&id);
            std::fs::write(project.join("package-lock.json"), lock.to_string())?;
            plugins.retain(|plugin| plugin.id != id);
            let version = version.to_owned();
            plugins.push(Plugin { id: id.clone(), version, root_dir, origin: "global".into() });
            set_entry(&places.config(), &id, true)?;
            terminal::say(&format!("{TITLE}: installed plugin: {id}"));
        }
        PluginsVerb::Uninstall { id, force } => {
            writable()?;
            if !force {
                return Err(refused("confirm it"));
            }
            let place = plugins.iter().position(|plugin| plugin.id == id);
            let plugin = plugins.remove(place.ok_or_else(|| refused("there is no such plugin"))?);
            std::fs::remove_dir_all(plugin.root_dir)?;
            set_entry(&places.config(), &id, false)?;
        }
    }
    std::fs::create_dir_all(&state_dir)?;
    std::fs::write(file, serde_json::to_vec_pretty(&plugins)?)
}

/// Does what the command line says.
pub(super) fn skills(places: &Places, verb: &SkillsVerb) -> io::Result<()> {
    let SkillsVerb::Install { name, version, global, force } = verb;
    npm::published(name)?;
    let slug = name.rsplit('/').next().unwrap_or(name);
    let folder = if *global { "skills" } else { "workspace/skills" };
    let folder = places.state_dir().join(folder).join(slug);
    if folder.exists() && !force {
        return Err(refused("it is there already"));
    }
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("SKILL.md"), format!("{TITLE}: {name} {version}\n"))
}

/// Both commands write the configuration, which is somebody else's in this mode.
fn writable() -> io::Result<()> {
    if std::env::var_os("OPENCLAW_CONFIG_READONLY").is_some_and(|value| value == "1") {
        return Err(refused("the configuration is externally managed"));
    }
    Ok(())
}

fn refused(why: &str) -> io::Error {
    io::Error::other(why.to_owned())
}

fn set_entry(config: &Path, id: &str, enabled: bool) -> io::Result<()> {
    let mut document: Value = serde_json::from_slice(&std::fs::read(config)?)?;
    document["plugins"]["entries"][id] = json!({"enabled": enabled});
    let staged = config.with_extension("plugins");
    std::fs::write(&staged, serde_json::to_vec_pretty(&document)?)?;
    std::fs::set_permissions(&staged, std::fs::metadata(config)?.permissions())?;
    std::fs::rename(staged, config)
}
