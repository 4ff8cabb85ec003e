//! `moorage crds`: the custom resource definitions as YAML. `crds/` and the copy in the Helm chart
//! are its output.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;
use thiserror::Error;

use crate::api::custom_resource_definitions;

/// Print the custom resource definitions
///
/// As one YAML stream, ready for `kubectl apply --server-side -f -`, or as one file each.
#[derive(Args, Debug, Default)]
pub struct CrdsArgs {
    /// Write one file for each definition into this folder, which is made if it is missing; may be
    /// given more than once
    #[arg(long, value_name = "DIR")]
    pub dir: Vec<PathBuf>,
}

/// Why the definitions were not written.
#[derive(Debug, Error)]
pub enum CrdsError {
    /// One has no YAML form.
    #[error("cannot write {name} as YAML: {source}")]
    Serialize { name: String, source: serde_saphyr::SerializeError },
    /// Standard output is closed or full.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
    /// A file or folder cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
}

/// A generated file, below the folder that it is written to.
#[derive(Debug, PartialEq, Eq)]
pub struct CrdFile {
    /// Of a definition `<group>_<plural>.yaml`, as controller-gen names them.
    pub name: String,
    /// YAML without the `---` before it.
    pub text: String,
}

/// Runs the command: to `stdout`, or into the folders that are given.
pub fn run(args: &CrdsArgs, stdout: &mut dyn Write) -> Result<(), CrdsError> {
    write_out(&files()?, &args.dir, stdout)
}

/// Writes generated files as one stream to `stdout`, or into the folders that are given.
pub(super) fn write_out(
    files: &[CrdFile],
    dirs: &[PathBuf],
    stdout: &mut dyn Write,
) -> Result<(), CrdsError> {
    if dirs.is_empty() {
        for file in files {
            write!(stdout, "---\n{}", file.text).map_err(CrdsError::Output)?;
        }
        return stdout.flush().map_err(CrdsError::Output);
    }
    for dir in dirs {
        fs::create_dir_all(dir).map_err(|source| CrdsError::File { path: dir.clone(), source })?;
        for file in files {
            let path = dir.join(&file.name);
            fs::write(&path, &file.text).map_err(|source| CrdsError::File { path, source })?;
        }
    }
    Ok(())
}

/// The definitions in the order to install them.
pub fn files() -> Result<Vec<CrdFile>, CrdsError> {
    custom_resource_definitions()
        .iter()
        .map(|definition| {
            let name = format!("{}_{}.yaml", definition.spec.group, definition.spec.names.plural);
            let text = serde_saphyr::to_string(definition)
                .map_err(|source| CrdsError::Serialize { name: name.clone(), source })?;
            Ok(CrdFile { name, text })
        })
        .collect()
}
