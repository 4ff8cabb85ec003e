//! The manifests of a pool and of releases, as they would be applied.

use std::path::PathBuf;

use serde_json::Value;

use super::DoctorError;
use crate::api::{Guarded, HostingPool, HostingPoolSpec, OpenClawRelease};

/// What the files hold.
#[derive(Default)]
pub(super) struct Manifests {
    pub(super) pool: Option<HostingPoolSpec>,
    pub(super) releases: Vec<OpenClawRelease>,
}

/// Reads the files; documents of other kinds are passed over.
pub(super) fn read(files: &[PathBuf]) -> Result<Manifests, DoctorError> {
    let mut manifests = Manifests::default();
    for path in files {
        let text = std::fs::read_to_string(path).map_err(|source| DoctorError::File {
            option: "file",
            path: path.clone(),
            source,
        })?;
        let found = manifests.add(&text).map_err(|problem| problem.at(path))?;
        if !found {
            let why = "it holds neither a HostingPool nor an OpenClawRelease".to_owned();
            return Err(DoctorError::Manifest { path: path.clone(), why });
        }
    }
    Ok(manifests)
}

enum Problem {
    Unreadable(String),
    TwoPools,
}

impl Problem {
    fn at(self, path: &std::path::Path) -> DoctorError {
        match self {
            Self::Unreadable(why) => DoctorError::Manifest { path: path.to_owned(), why },
            Self::TwoPools => DoctorError::TwoPools,
        }
    }
}

impl Manifests {
    /// Adds what is in a stream of documents; false if that is nothing.
    fn add(&mut self, text: &str) -> Result<bool, Problem> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text)
            .map_err(|error| Problem::Unreadable(error.to_string()))?;
        let mut found = false;
        for document in documents {
            let is = |kind: &str| {
                document["apiVersion"] == "moorage.dev/v1alpha1" && document["kind"] == kind
            };
            if is("HostingPool") {
                let pool: HostingPool = part(&document)?;
                if self.pool.replace(pool.spec).is_some() {
                    return Err(Problem::TwoPools);
                }
                found = true;
            } else if is("OpenClawRelease") {
                self.releases.push(part(&document)?);
                found = true;
            }
        }
        Ok(found)
    }
}

fn part<K: crate::api::guarded::Stored + kube::Resource>(document: &Value) -> Result<K, Problem> {
    let read = Guarded::<K>::read(&document.to_string());
    read.0.map_err(|unreadable| Problem::Unreadable(unreadable.error))
}
