//! The findings for people, one line each, and for programs.

use std::fmt::Write as _;

use moorage_wire::plain_text::printable;
use serde::Serialize;

use crate::doctor::{Finding, Verdict, worst};

/// One line for each, and a sum.
pub(super) fn text(findings: &[Finding]) -> String {
    let name = |finding: &Finding| {
        let subject = finding.subject.as_deref().map(|subject| format!(" {subject}"));
        format!("{}{}", finding.id, subject.unwrap_or_default())
    };
    let width = findings.iter().map(|finding| name(finding).len()).max().unwrap_or_default();
    let mut text = String::new();
    for finding in findings {
        let verdict = finding.verdict.as_str();
        let remedy = finding.remedy.as_deref();
        let remedy = remedy.map(|remedy| format!(". {}", remedy.trim_end_matches('.')));
        let line = format!("{}{}", finding.detail, remedy.unwrap_or_default());
        let _ = writeln!(text, "{verdict:7}  {:width$}  {}", name(finding), printable(&line));
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let _ = writeln!(
        text,
        "{} passed, {} unknown, {} warnings, {} failed.",
        count(Verdict::Pass),
        count(Verdict::Unknown),
        count(Verdict::Warn),
        count(Verdict::Fail),
    );
    text
}

#[derive(Serialize)]
struct Document<'a> {
    /// The worst of all.
    verdict: Verdict,
    checks: &'a [Finding],
}

/// All of it as one document.
pub(super) fn json(findings: &[Finding]) -> Result<String, serde_json::Error> {
    let document = Document { verdict: worst(findings), checks: findings };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}
