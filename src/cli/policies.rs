//! `moorage admission-policies`: what the API server refuses by itself, as YAML. The chart's copy and
//! that of the Kustomize base are its output.

use std::{io::Write, path::PathBuf};

use clap::Args;

use super::crds::{CrdFile, CrdsError, write_out};
use crate::admission_policy::policies;

/// Print the admission policies
///
/// ValidatingAdmissionPolicies that refuse keys in the clear before they are stored, each with its
/// binding: as one YAML stream, ready for `kubectl apply -f -`, or as one file each. The Helm chart
/// and the Kustomize base have them.
#[derive(Args, Debug, Default)]
pub struct PoliciesArgs {
    /// Write one file for each policy into this folder, which is made if it is missing; may be given
    /// more than once
    #[arg(long, value_name = "DIR")]
    pub dir: Vec<PathBuf>,
}

/// Runs the command: to `stdout`, or into the folders that are given.
pub fn run(args: &PoliciesArgs, stdout: &mut dyn Write) -> Result<(), CrdsError> {
    write_out(&files()?, &args.dir, stdout)
}

/// Each policy and its binding as a file.
pub fn files() -> Result<Vec<CrdFile>, CrdsError> {
    let file = |(policy, binding): &(_, _)| {
        let policy: &k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy =
            policy;
        let binding: &k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding =
            binding;
        let name = policy.metadata.name.clone().unwrap_or_default();
        let failed = |source| CrdsError::Serialize { name: name.clone(), source };
        let policy = serde_saphyr::to_string(policy).map_err(failed)?;
        let binding = serde_saphyr::to_string(binding).map_err(failed)?;
        Ok(CrdFile { name: format!("{name}.yaml"), text: format!("{policy}---\n{binding}") })
    };
    policies().iter().map(file).collect()
}
