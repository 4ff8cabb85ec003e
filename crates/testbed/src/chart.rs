//! Installs the chart of this repository with the real helm.

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{ControlPlane, Tool, Tools};

/// Installs the chart as release `moorage` into a new namespace, with `values` as of `--set`. `scratch`
/// takes helm's own files. The image cannot run without a kubelet, so its Deployment has no replica.
pub fn install_chart(
    tools: Tools,
    plane: &ControlPlane,
    namespace: &str,
    values: &[&str],
    scratch: &Path,
) -> io::Result<()> {
    install_chart_with(tools, plane, namespace, values, &[], scratch)
}

/// The same with further arguments of `helm install`.
pub fn install_chart_with(
    tools: Tools,
    plane: &ControlPlane,
    namespace: &str,
    values: &[&str],
    further: &[&str],
    scratch: &Path,
) -> io::Result<()> {
    let chart = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../charts/moorage");
    let mut helm = helm(tools, plane, scratch)?;
    helm.args(["install", "moorage"])
        .arg(chart)
        .args(["-n", namespace, "--create-namespace", "--set", "replicas=0"])
        .args(further)
        .args(values.iter().flat_map(|value| ["--set", value]));
    run(helm)
}

/// Takes the release `moorage` away again.
pub fn uninstall_chart(
    tools: Tools,
    plane: &ControlPlane,
    namespace: &str,
    scratch: &Path,
) -> io::Result<()> {
    let mut helm = helm(tools, plane, scratch)?;
    helm.args(["uninstall", "moorage", "-n", namespace]);
    run(helm)
}

fn helm(tools: Tools, plane: &ControlPlane, scratch: &Path) -> io::Result<Command> {
    let mut helm = Command::new(tools.path(Tool::Helm).map_err(io::Error::other)?);
    let homes = ["CACHE", "CONFIG", "DATA"];
    helm.env("KUBECONFIG", plane.kubeconfig())
        .envs(homes.map(|kind| (format!("HELM_{kind}_HOME"), scratch.join("helm"))));
    Ok(helm)
}

fn run(mut helm: Command) -> io::Result<()> {
    let output = helm.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("helm: {}", String::from_utf8_lossy(&output.stderr))))
}
