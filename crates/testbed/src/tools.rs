//! Where the binaries of the control plane are. `hack/tools.sh --env` sets the variables.

use std::{env, path::PathBuf};

use thiserror::Error;

use crate::or_skip;

/// A program that `hack/tools.sh` provides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// The key-value store below the API server.
    Etcd,
    KubeApiserver,
    /// Garbage collector, namespaces, service-account tokens.
    KubeControllerManager,
    /// The command line of Kubernetes.
    Kubectl,
    /// Installs the chart.
    Helm,
    /// Seals values.
    Kubeseal,
}

impl Tool {
    /// The environment variable that names the binary.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Etcd => "MOORAGE_ETCD",
            Self::KubeApiserver => "MOORAGE_KUBE_APISERVER",
            Self::KubeControllerManager => "MOORAGE_KUBE_CONTROLLER_MANAGER",
            Self::Kubectl => "MOORAGE_KUBECTL",
            Self::Helm => "MOORAGE_HELM",
            Self::Kubeseal => "MOORAGE_KUBESEAL",
        }
    }
}

/// A tool that is not there.
#[derive(Debug, Error)]
#[error(
    "{0} names no binary: run the tests through `make test`, or load the variables with `env=$(hack/tools.sh --env) && eval \"$env\"`"
)]
pub struct MissingTool(&'static str);

/// The tools, by the variables of the environment.
#[derive(Debug, Clone, Copy)]
pub struct Tools(());

impl Tools {
    /// All of `wanted`, or the first that is missing.
    pub fn from_env(wanted: &[Tool]) -> Result<Self, MissingTool> {
        match wanted.iter().find(|tool| env::var_os(tool.variable()).is_none()) {
            Some(missing) => Err(MissingTool(missing.variable())),
            None => Ok(Self(())),
        }
    }

    /// For tests: `None`, said as [`skip`](crate::skip) does, where a tool is missing.
    pub fn for_test(wanted: &[Tool]) -> Option<Self> {
        or_skip(Self::from_env(wanted))
    }

    /// The binary of `tool`.
    pub fn path(self, tool: Tool) -> Result<PathBuf, MissingTool> {
        env::var_os(tool.variable()).map(PathBuf::from).ok_or(MissingTool(tool.variable()))
    }
}
