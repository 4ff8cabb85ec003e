//! Running npm: by the pinned Node.js, with an environment and a configuration of its own, so that what
//! it installs depends on neither the user's settings nor the machine's.
//!
//! By the pinned Node.js because npm silently leaves out optional packages whose `engines` do not suit
//! the one that runs it.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use url::Url;

use super::ReleaseError;

/// What a machine may say about how the registry is reached.
pub(super) const NETWORK: [&str; 9] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "NO_PROXY",
    "no_proxy",
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// What is the same for every call.
#[derive(Debug, Clone)]
pub struct Npm {
    /// `npm-cli.js`.
    pub cli: PathBuf,
    /// Where npm keeps what it fetched.
    pub cache: PathBuf,
    /// A mirror of the registry.
    pub registry: Option<Url>,
}

impl Npm {
    /// The `npm-cli.js` behind the `npm` on `PATH`.
    pub fn find() -> Result<PathBuf, ReleaseError> {
        let path = env::var_os("PATH").unwrap_or_default();
        let found = env::split_paths(&path).find_map(|folder| {
            let real = fs::canonicalize(folder.join("npm")).ok()?;
            (real.file_name() == Some(OsStr::new("npm-cli.js"))).then_some(real)
        });
        found.ok_or(ReleaseError::NoNpm)
    }

    /// Runs npm with `arguments` in `folder`, which holds nothing but what npm is to work on. Its
    /// messages go to standard error.
    pub fn run(&self, node: &Path, folder: &Path, arguments: &[&str]) -> Result<(), ReleaseError> {
        let what = format!("npm {}", arguments.join(" "));
        let failed = |why: String| ReleaseError::Run { what: what.clone(), why };
        let status = self.command(node, folder, arguments)?.status();
        match status.map_err(|error| failed(error.to_string()))? {
            status if status.success() => Ok(()),
            status => Err(failed(format!("{status}; see its messages above"))),
        }
    }

    fn command(
        &self,
        node: &Path,
        folder: &Path,
        arguments: &[&str],
    ) -> Result<Command, ReleaseError> {
        // Beside the folder, so that npm's home is no part of what it works on.
        let home = home_beside(folder)?;
        let empty = home.join("npmrc");
        fs::write(&empty, "").map_err(ReleaseError::writing(&empty))?;
        let mut command = Command::new(node);
        command.arg(&self.cli).args(arguments);
        command.args(["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]);
        if let Some(registry) = &self.registry {
            command.args(["--registry", registry.as_str()]);
        }
        command.current_dir(folder).env_clear();
        command.envs(NETWORK.iter().filter_map(|name| Some((name, env::var_os(name)?))));
        command
            .env("HOME", &home)
            .env("npm_config_cache", &self.cache)
            .env("npm_config_userconfig", &empty)
            .env("npm_config_globalconfig", home.join("no-global-npmrc"))
            .stdin(Stdio::null())
            // Standard output is the manifest's.
            .stdout(std::io::stderr());
        Ok(command)
    }
}

fn home_beside(folder: &Path) -> Result<PathBuf, ReleaseError> {
    let home = folder.with_extension("home");
    fs::create_dir_all(&home).map_err(ReleaseError::writing(&home))?;
    Ok(home)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npm_runs_without_scripts_and_without_user_settings() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("tree");
        fs::create_dir(&folder).unwrap();
        let npm = Npm {
            cli: "/opt/npm-cli.js".into(),
            cache: "/cache".into(),
            registry: Some("https://mirror.example/npm/".parse().unwrap()),
        };
        let command = npm.command(Path::new("/opt/node"), &folder, &["ci"]).unwrap();
        assert_eq!(command.get_program(), "/opt/node");
        let arguments: Vec<_> = command.get_args().map(|a| a.to_str().unwrap()).collect();
        assert_eq!(arguments[..2], ["/opt/npm-cli.js", "ci"]);
        assert!(arguments.contains(&"--ignore-scripts"));
        assert_eq!(arguments[arguments.len() - 2..], ["--registry", "https://mirror.example/npm/"]);
        let names: Vec<_> = command.get_envs().map(|(name, _)| name.to_str().unwrap()).collect();
        let ours = ["HOME", "npm_config_cache", "npm_config_userconfig", "npm_config_globalconfig"];
        assert!(
            names.iter().all(|name| NETWORK.contains(name) || ours.contains(name)),
            "{names:?}"
        );
    }
}
