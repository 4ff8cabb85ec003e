//! Why a pass ends before its end. What is not known is never taken for gone.

use crate::{
    api::conditions::ConditionType, cloud::CloudError, cluster::ClusterError, problem::Problem,
};

/// Why a step could not be done, or enough be seen to plan.
#[derive(Debug)]
pub(super) enum PassError {
    /// The Kubernetes API: there is nobody to tell, so the pass is repeated.
    Cluster(ClusterError),
    /// Anything else: the status tells it.
    Problem(Problem),
}

impl PassError {
    /// Turns a cloud's error into the problem of a part.
    pub(super) fn of_cloud(part: ConditionType) -> impl Fn(CloudError) -> Self {
        move |error| {
            tracing::warn!(%error, "a call to a cloud failed");
            Problem::of_cloud(part, &error).into()
        }
    }
}

impl From<ClusterError> for PassError {
    fn from(error: ClusterError) -> Self {
        Self::Cluster(error)
    }
}

impl From<Problem> for PassError {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}
