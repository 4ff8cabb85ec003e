//! `openclaw backup create`: a file where the real one would write its archive. It names the files of
//! the state folder and holds none of them.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::json;

use super::{Places, TITLE};
use crate::terminal;

/// `openclaw backup`
#[derive(Debug, clap::Subcommand)]
pub(super) enum BackupVerb {
    /// Make one
    Create {
        /// Read it again
        #[arg(long)]
        verify: bool,
        /// Answer as JSON
        #[arg(long)]
        json: bool,
        /// The folder for it
        #[arg(long)]
        output: PathBuf,
    },
}

/// Does what the command line says.
pub(super) fn run(places: &Places, verb: &BackupVerb) -> io::Result<()> {
    let BackupVerb::Create { verify, json: _, output } = verb;
    let state_dir = places.state_dir();
    if output.starts_with(&state_dir) {
        return Err(io::Error::other("the output is inside of what is backed up"));
    }
    let name = Timestamp::now().to_string().replace(':', "-");
    let archive = output.join(format!("{name}-openclaw-backup.tar.gz"));
    let mut files = Vec::new();
    list(&state_dir, &mut files)?;
    std::fs::write(&archive, json!({"by": TITLE, "files": files}).to_string())?;
    terminal::say(
        &json!({"archivePath": archive, "dryRun": false, "verified": verify}).to_string(),
    );
    Ok(())
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}
