//! The real kubectl, as a person of this repository runs it.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::{ControlPlane, Tool, Tools};

/// Runs kubectl as the cluster's administrator in the folder of this repository, with `input` on its
/// standard input, and gives its standard output.
pub fn kubectl(
    tools: Tools,
    plane: &ControlPlane,
    arguments: &[&str],
    input: &[u8],
) -> io::Result<String> {
    let program = tools.path(Tool::Kubectl).map_err(io::Error::other)?;
    let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(repository)
        .env("KUBECONFIG", plane.kubeconfig())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input)?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("kubectl {}: {said}", arguments.join(" "))))
}
