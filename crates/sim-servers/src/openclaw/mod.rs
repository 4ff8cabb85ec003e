//! A stand-in for OpenClaw 2026.9.6: the command line and the gateway, as far as an operator of it can
//! tell the difference from outside. It runs no agent and talks to no channel, and says in all its
//! outputs what it is.

mod backup;
mod config;
mod control;
mod devices;
mod gateway;
pub mod npm;
mod packages;
mod schema;
mod secrets;

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use self::config::Config;
use crate::terminal;

/// What `--version` says.
pub const VERSION: &str = "2026.9.6+stand-in";
/// How it calls itself.
pub const TITLE: &str = "OpenClaw stand-in (simulator)";
/// Exit code of a gateway whose configuration a restart cannot mend (`EX_CONFIG`).
const CONFIGURATION_ERROR: u8 = 78;

/// The command line of `openclaw`, as far as the agent uses it.
#[derive(Debug, clap::Parser)]
#[command(name = "openclaw", version = VERSION, about = "OpenClaw stand-in (simulator)")]
pub struct OpenClaw {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    verb: Verb,
}

/// Where things are; flags of the stand-in's own, and the variables of the real one.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Places {
    /// The configuration; without it `openclaw.json` in the state folder
    #[arg(long, env = "OPENCLAW_CONFIG_PATH", global = true)]
    config: Option<PathBuf>,
    /// The state folder; without it `~/.openclaw`
    #[arg(long, env = "OPENCLAW_STATE_DIR", global = true)]
    state_dir: Option<PathBuf>,
}

impl Places {
    fn state_dir(&self) -> PathBuf {
        let home = || std::env::home_dir().unwrap_or_default().join(".openclaw");
        absolute(self.state_dir.clone().unwrap_or_else(home))
    }

    fn config(&self) -> PathBuf {
        absolute(self.config.clone().unwrap_or_else(|| self.state_dir().join("openclaw.json")))
    }
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Run the gateway
    Gateway(gateway::GatewayOptions),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Handle secrets
    #[command(subcommand)]
    Secrets(SecretsVerb),
    /// Handle paired browsers
    #[command(subcommand)]
    Devices(DevicesVerb),
    /// Back up the state folder
    #[command(subcommand)]
    Backup(backup::BackupVerb),
    /// Handle plugins
    #[command(subcommand)]
    Plugins(packages::PluginsVerb),
    /// Handle skills
    #[command(subcommand)]
    Skills(packages::SkillsVerb),
    /// Look for what is insecure
    #[command(subcommand)]
    Security(SecurityVerb),
}

#[derive(Debug, clap::Subcommand)]
enum SecurityVerb {
    /// Audit the configuration
    Audit {
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Subcommand)]
enum ConfigVerb {
    /// Check the configuration against the schema
    Validate {
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Subcommand)]
enum SecretsVerb {
    /// Let the running gateway read all secrets again
    Reload {
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Subcommand)]
enum DevicesVerb {
    /// Pending and paired devices
    List {
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Let a pending device in
    Approve {
        /// As `devices list` shows it
        request_id: String,
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Does what the command line says.
pub async fn run(arguments: OpenClaw) -> ExitCode {
    let places = arguments.places;
    match arguments.verb {
        Verb::Gateway(gateway::GatewayOptions {
            verb: Some(gateway::GatewayVerb::Call { json, .. }),
            ..
        }) => order(&places, control::Command::GetConfig, json).await,
        Verb::Gateway(options) => gateway::run(&places, options).await,
        Verb::Backup(verb) => outcome(backup::run(&places, &verb)),
        Verb::Plugins(verb) => outcome(packages::plugins(&places, verb)),
        Verb::Skills(verb) => outcome(packages::skills(&places, &verb)),
        Verb::Security(SecurityVerb::Audit { json: _ }) => audit(&places),
        Verb::Config(ConfigVerb::Validate { json }) => validate(&places, json),
        Verb::Secrets(SecretsVerb::Reload { json }) => {
            order(&places, control::Command::ReloadSecrets, json).await
        }
        Verb::Devices(DevicesVerb::List { json }) => {
            order(&places, control::Command::ListDevices, json).await
        }
        Verb::Devices(DevicesVerb::Approve { request_id, json }) => {
            order(&places, control::Command::ApproveDevice { request_id }, json).await
        }
    }
}

fn outcome(done: std::io::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::complain(&format!("{TITLE}: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Knows one finding of the real one's.
fn audit(places: &Places) -> ExitCode {
    let config = Config::load(&places.config()).ok();
    let terminal =
        config.as_ref().and_then(|config| config.value().pointer("/gateway/terminal/enabled"));
    let warn = u64::from(terminal != Some(&serde_json::Value::Bool(false)));
    let summary = json!({"critical": 0, "warn": warn, "info": 0});
    terminal::say(&json!({"summary": summary, "findings": []}).to_string());
    ExitCode::SUCCESS
}

/// The token that the configuration gives to the command line.
fn token(places: &Places) -> Option<String> {
    let config = Config::load(&places.config()).ok()?;
    let secrets = secrets::Secrets::resolve(&config).ok()?;
    secrets.get("gateway.auth.token").map(str::to_owned)
}

fn validate(places: &Places, as_json: bool) -> ExitCode {
    let path = places.config();
    let issues = match Config::load(&path) {
        Ok(_) => Vec::new(),
        Err(issues) => issues,
    };
    if as_json {
        terminal::say(
            &json!({"valid": issues.is_empty(), "path": path, "issues": issues}).to_string(),
        );
    } else if issues.is_empty() {
        terminal::say(&format!("{TITLE}: {} is valid", path.display()));
    } else {
        for issue in &issues {
            terminal::say(&format!("{TITLE}: {}: {}", issue.path, issue.message));
        }
    }
    ExitCode::from(u8::from(!issues.is_empty()))
}

/// Has the running gateway do something.
async fn order(places: &Places, command: control::Command, as_json: bool) -> ExitCode {
    let call = control::Call { token: token(places), command };
    match control::ask(&places.state_dir(), &call).await {
        Ok(answer) => {
            if as_json {
                terminal::say(&answer.to_string());
            } else {
                terminal::say(&format!("{TITLE}: {answer:#}"));
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            terminal::complain(&format!("{TITLE}: {error}"));
            ExitCode::FAILURE
        }
    }
}
