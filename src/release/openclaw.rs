//! An OpenClaw out of a bundle, run on this machine with an empty home: it installs plugins, from the
//! registry when they are pinned, and out of their artifacts to see that servers can.

use std::{
    env,
    fs::{self, File},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use flate2::read::GzDecoder;

use super::{
    ReleaseError,
    bundle::{NODE, OPENCLAW},
    folder::{LOCKFILE, PACKAGE},
    npm::NETWORK,
};

/// An unpacked bundle; removed when dropped.
pub struct OpenClaw {
    folder: tempfile::TempDir,
    runner: PathBuf,
}

/// What OpenClaw made of a plugin: the npm project that it keeps it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// `package.json`.
    pub package: String,
    /// `package-lock.json`.
    pub lock: String,
}

impl OpenClaw {
    /// Unpacks a bundle. `runner` is a Node.js that runs here, where the bundle's does not.
    pub fn unpack(bundle: &Path, runner: Option<&Path>) -> Result<Self, ReleaseError> {
        let folder = tempfile::tempdir().map_err(ReleaseError::writing("a temporary folder"))?;
        for name in [OPENCLAW, NODE] {
            let archive = bundle.join(name);
            let opened = File::open(&archive).map_err(ReleaseError::reading(&archive))?;
            let to = folder.path().join("programs");
            let unpacked = tar::Archive::new(GzDecoder::new(opened)).unpack(&to);
            unpacked.map_err(ReleaseError::writing(&to))?;
        }
        let runner = runner.map(Path::to_owned);
        let runner = runner.unwrap_or_else(|| folder.path().join("programs/bin/node"));
        Ok(Self { folder, runner })
    }

    /// Installs a plugin into an empty home whose `.npmrc` is `settings`.
    pub fn install(
        &self,
        name: &str,
        version: &str,
        settings: &str,
    ) -> Result<Project, ReleaseError> {
        let what = format!("openclaw plugins install npm:{name}@{version}");
        let failed = |why| ReleaseError::Run { what: what.clone(), why };
        let home = tempfile::tempdir_in(self.folder.path())
            .map_err(ReleaseError::writing("a temporary folder"))?;
        let state = home.path().join(".openclaw");
        let config = state.join("openclaw.json");
        let write = || {
            fs::DirBuilder::new().mode(0o700).create(&state)?;
            fs::write(&config, "{\"gateway\":{\"mode\":\"local\"}}\n")?;
            fs::write(home.path().join(".npmrc"), settings)
        };
        write().map_err(ReleaseError::writing(home.path()))?;
        let output = self
            .command(home.path(), &state, &config)
            .args(["plugins", "install", &format!("npm:{name}@{version}")])
            .args(["--pin", "--force", "--accept-capabilities"])
            .output()
            .map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            return Err(failed(format!("{}, it said {:?}", output.status, said.trim())));
        }
        project(&state.join("npm/projects"))
    }

    fn command(&self, home: &Path, state: &Path, config: &Path) -> Command {
        let programs = self.folder.path().join("programs/bin");
        let node = self.runner.parent().unwrap_or(Path::new("/"));
        let path = format!("{}:{}:/usr/bin:/bin", node.display(), programs.display());
        let mut command = Command::new(&self.runner);
        command
            .arg(programs.join("openclaw"))
            .current_dir(home)
            .env_clear()
            .envs(NETWORK.iter().filter_map(|name| Some((name, env::var_os(name)?))))
            .env("HOME", home)
            .env("PATH", path)
            .env("TMPDIR", self.folder.path())
            .env("OPENCLAW_STATE_DIR", state)
            .env("OPENCLAW_CONFIG_PATH", config)
            .env("OPENCLAW_NO_AUTO_UPDATE", "1")
            .env("OPENCLAW_SERVICE_REPAIR_POLICY", "external")
            .stdin(Stdio::null());
        command
    }
}

/// The one project that there is.
fn project(projects: &Path) -> Result<Project, ReleaseError> {
    let found = fs::read_dir(projects).map_err(ReleaseError::reading(projects))?;
    let mut found = found.filter_map(|entry| Some(entry.ok()?.path()));
    let folder = found.find(|path| path.join(LOCKFILE).is_file()).ok_or_else(|| {
        ReleaseError::OtherTree("OpenClaw keeps the plugin where it is not known".to_owned())
    })?;
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).map_err(ReleaseError::reading(path))
    };
    Ok(Project { package: read(PACKAGE)?, lock: read(LOCKFILE)? })
}
