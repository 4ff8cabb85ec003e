//! What a check came to: a verdict, what was seen, and what to do about it.

use serde::Serialize;

use crate::{
    api::conditions::Reason,
    cloud::{CloudError, ErrorKind},
    problem::Problem,
};

/// How a check ended, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Pass,
    /// It could not be looked at.
    Unknown,
    /// It works, but somebody should know.
    Warn,
    /// Servers cannot be made, reached or used.
    Fail,
}

impl Verdict {
    /// The word in the report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Unknown => "unknown",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// Something that is looked at. Ids never change their meaning: programs read them.
#[derive(Debug, PartialEq, Eq)]
pub struct Check {
    /// Such as `hetzner.token`.
    pub id: &'static str,
    /// What is looked at, in words.
    pub title: &'static str,
}

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Which check.
    pub id: &'static str,
    /// What was looked at.
    pub title: &'static str,
    /// Which of several, such as a server type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// How it ended.
    pub verdict: Verdict,
    /// What was seen.
    pub detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// A permission of an API token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Moorage does not work without it.
    Required(&'static str),
    /// Only this command uses it.
    Optional(&'static str),
}

impl Check {
    /// As it should be.
    pub fn pass(&self, detail: impl Into<String>) -> Finding {
        self.finding(Verdict::Pass, detail.into(), None)
    }

    /// It works, but somebody should know.
    pub fn warn(&self, detail: impl Into<String>, remedy: impl Into<String>) -> Finding {
        self.finding(Verdict::Warn, detail.into(), Some(remedy.into()))
    }

    /// It does not work.
    pub fn fail(&self, detail: impl Into<String>, remedy: impl Into<String>) -> Finding {
        self.finding(Verdict::Fail, detail.into(), Some(remedy.into()))
    }

    /// It could not be looked at.
    pub fn unknown(&self, detail: impl Into<String>) -> Finding {
        self.finding(Verdict::Unknown, detail.into(), None)
    }

    /// It was not looked at because another check failed.
    pub fn blocked_by(&self, other: &Check) -> Finding {
        self.unknown(format!("Not looked at: see {}", other.id))
    }

    /// What the refusal of the call that was to look means.
    pub fn refused(&self, error: &CloudError, scope: Scope) -> Finding {
        let missing = matches!(error.kind, ErrorKind::Forbidden { read_only: false });
        match scope {
            Scope::Optional(scope) if missing || error.kind == ErrorKind::Unauthorized => {
                let mut finding = self.unknown("The token may not see it");
                finding.remedy = Some(format!("Give the token {scope} to have it looked at"));
                finding
            }
            Scope::Required(scope) if missing => self.fail(
                told(error),
                format!("Give the token {scope}. {}", Reason::Forbidden.remedy()),
            ),
            _ => {
                let reason = Problem::of_pool(error, "the token file or the pool's Secret").reason;
                self.fail(told(error), reason.remedy())
            }
        }
    }

    fn finding(&self, verdict: Verdict, detail: String, remedy: Option<String>) -> Finding {
        Finding { id: self.id, title: self.title, subject: None, verdict, detail, remedy }
    }
}

impl Finding {
    /// Which of several.
    #[must_use]
    pub fn of(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }
}

/// What the cloud said, without a token.
fn told(error: &CloudError) -> String {
    let Problem { reason, .. } = Problem::of_pool(error, "");
    format!("{reason}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::Cloud;
    use rstest::rstest;

    const CHECK: Check = Check { id: "a.check", title: "A check" };

    #[rstest]
    #[case::optional_scope(ErrorKind::Forbidden { read_only: false }, Scope::Optional("X"), Verdict::Unknown, "Give the token X")]
    #[case::required_scope(ErrorKind::Forbidden { read_only: false }, Scope::Required("X"), Verdict::Fail, "Give the token X")]
    #[case::read_only(ErrorKind::Forbidden { read_only: true }, Scope::Required("X"), Verdict::Fail, Reason::Forbidden.remedy())]
    #[case::bad_token(ErrorKind::Unauthorized, Scope::Required("X"), Verdict::Fail, Reason::Unauthorized.remedy())]
    #[case::no_zero_trust(ErrorKind::NotEnabled, Scope::Required("X"), Verdict::Fail, Reason::ZeroTrustNotEnabled.remedy())]
    #[case::outage(ErrorKind::Transient { maybe_applied: false }, Scope::Optional("X"), Verdict::Fail, Reason::CloudUnavailable.remedy())]
    fn a_refusal_has_the_remedy_of_its_reason(
        #[case] kind: ErrorKind,
        #[case] scope: Scope,
        #[case] verdict: Verdict,
        #[case] remedy: &str,
    ) {
        let error = CloudError::new(Cloud::Cloudflare, "get_zone", kind, "10000: no");
        let finding = CHECK.refused(&error, scope);
        assert_eq!(finding.verdict, verdict);
        let told = finding.remedy.unwrap();
        assert!(told.starts_with(remedy), "{told}");
    }
}
