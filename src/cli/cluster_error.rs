//! What a call to the API server came to, in words for whoever ran a command. kube's own messages end
//! in a dump of its structures.

use thiserror::Error;

use crate::api_server::told;

/// Why something could not be read from the cluster.
#[derive(Debug, Error)]
pub enum ClusterReadError {
    #[error("No cluster can be reached: {0}. Set KUBECONFIG to one that you may use")]
    Unreachable(String),
    /// The kubeconfig does not say who asks.
    #[error(
        "The cluster does not know you. Log in again, or set KUBECONFIG to one with valid credentials"
    )]
    Unauthorized,
    /// Who asks may not.
    #[error("You may not read {what}. Ask an administrator of the cluster for the permission")]
    Forbidden {
        /// What was to be read.
        what: String,
    },
    /// There is no such object.
    #[error("There is no {what}. Correct the name, or wait until it is made")]
    NotFound {
        /// What was to be read.
        what: String,
    },
    /// The object does not have what is asked for.
    #[error("{what} has no certificate yet. {remedy}")]
    NotYet { what: String, remedy: &'static str },
    /// The object has a field that this version does not understand.
    #[error("{what} cannot be read: {problem}. Use the version of moorage that the operator has")]
    Unreadable {
        what: String,
        /// Which field, and why.
        problem: String,
    },
    /// The API server says no for another reason.
    #[error("The API server does not give out {what}: {message}")]
    Refused {
        /// What was to be read.
        what: String,
        message: String,
    },
}

impl ClusterReadError {
    /// Of a call that was to read `what`.
    pub fn of(what: impl Into<String>, error: &kube::Error) -> Self {
        let what = what.into();
        match error {
            kube::Error::Api(status) => match status.code {
                401 => Self::Unauthorized,
                403 => Self::Forbidden { what },
                404 => Self::NotFound { what },
                _ => Self::Refused { what, message: status.message.clone() },
            },
            other => Self::Unreachable(told(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;
    use rstest::rstest;

    #[rstest]
    #[case::unauthorized(401, "The cluster does not know you.")]
    #[case::forbidden(403, "You may not read HostingPool eu-1.")]
    #[case::absent(404, "There is no HostingPool eu-1.")]
    #[case::other(503, "does not give out HostingPool eu-1: in a moment")]
    fn an_answer_is_told_in_words(#[case] code: u16, #[case] says: &str) {
        let status = Status { code, message: "in a moment".to_owned(), ..Status::default() };
        let error = ClusterReadError::of("HostingPool eu-1", &kube::Error::Api(Box::new(status)));
        let text = error.to_string();
        assert!(text.contains(says) && !text.contains('{'), "{text}");
    }
}
