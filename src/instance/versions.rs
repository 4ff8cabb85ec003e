//! What a server says of its versions, fit for a status. Whoever has the server may say what he likes: only
//! what looks like a version is taken, and only once it stays, so that a server that says something else each
//! time does not have its status written each time.

use super::observed::AgentView;

const LONGEST: usize = 64;

/// The text, if it is like a version.
pub(super) fn plausible(text: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".+-_".contains(&byte);
    let is_version = (1..=LONGEST).contains(&text.len())
        && text.bytes().all(allowed)
        && text.bytes().any(|byte| byte.is_ascii_digit());
    is_version.then(|| text.to_owned())
}

/// What the status says of one version: what it says already, until the release's own version is told, or
/// another one for the second time in a row.
pub(super) fn settled(
    known: Option<&str>,
    told: Option<&str>,
    pinned: &str,
    view: &AgentView,
) -> Option<String> {
    let known = known.and_then(plausible);
    let told = told.and_then(plausible);
    let is_believed =
        |told: &String| known.is_none() || told == pinned || view.same_versions_before;
    told.filter(is_believed).or(known)
}
