//! What the edge asks before it lets a visitor through: is the host name protected by an Access
//! application, and do these service credentials open it?
//!
//! Host names of destinations may hold wildcards: at most one `*` in each label, which stands for
//! any text within that label (`*-mgmt.example.com` covers `ada-mgmt.example.com`, and neither
//! `x.ada-mgmt.example.com` nor the domain itself).
//! Source: <https://developers.cloudflare.com/cloudflare-one/access-controls/policies/app-paths/>.

use jiff::Timestamp;

use super::CloudflareState;
use super::access_apps::App;
use super::access_policies::{Decision, Policy, Rule};
use super::state::Account;
use crate::faults::matches;

/// The verdict of Access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessDecision {
    /// No application covers the host name.
    NotProtected,
    /// The visitor may pass.
    Allowed,
    /// The visitor may not pass.
    Denied,
}

impl CloudflareState {
    /// Decides about a visitor of `hostname` with these values of `CF-Access-Client-Id` and
    /// `CF-Access-Client-Secret`. The most specific application decides alone. Nobody here has an
    /// identity, so a policy that allows people allows no one.
    pub fn access_check(
        &self,
        hostname: &str,
        client_id: Option<&str>,
        client_secret: Option<&str>,
    ) -> AccessDecision {
        let hostname = hostname.to_ascii_lowercase();
        let hostname = hostname.as_str();
        let inner = self.inner.lock();
        let covering = inner.accounts.values().flat_map(|account| {
            account
                .apps
                .values()
                .filter_map(move |app| Some((specificity(app, hostname)?, account, app)))
        });
        let Some((_, account, app)) = covering.max_by_key(|(specificity, ..)| *specificity) else {
            return AccessDecision::NotProtected;
        };
        let token =
            client_id.zip(client_secret).and_then(|(id, secret)| valid_token(account, id, secret));
        let mut policies: Vec<_> = app.policies.iter().collect();
        policies.sort_by_key(|attached| attached.precedence);
        let verdict = policies.iter().find_map(|attached| decide(&attached.policy, token));
        verdict.unwrap_or(AccessDecision::Denied)
    }
}

/// The id of the service token that these credentials belong to.
fn valid_token<'a>(account: &'a Account, client_id: &str, secret: &str) -> Option<&'a str> {
    let now = Timestamp::now();
    let token = account.service_tokens.values().find(|token| token.client_id == client_id)?;
    token.accepts(secret, now).then_some(token.id.as_str())
}

fn decide(policy: &Policy, token: Option<&str>) -> Option<AccessDecision> {
    let meets = |rule: &Rule| is_met(rule, token);
    let applies = policy.include.iter().any(meets)
        && policy.require.iter().all(meets)
        && !policy.exclude.iter().any(meets);
    match policy.decision {
        _ if !applies => None,
        Decision::Deny => Some(AccessDecision::Denied),
        Decision::Bypass | Decision::NonIdentity => Some(AccessDecision::Allowed),
        Decision::Allow => None,
    }
}

/// Whether a visitor with that service token meets the rule. Rules about people are met by nobody.
fn is_met(rule: &Rule, token: Option<&str>) -> bool {
    if rule.contains_key("everyone") {
        return true;
    }
    if rule.contains_key("any_valid_service_token") {
        return token.is_some();
    }
    let wanted = rule.get("service_token").and_then(|rule| rule.get("token_id")?.as_str());
    wanted.is_some() && wanted == token
}

/// How closely an application covers a host name: names without a wildcard first, then long ones.
fn specificity(app: &App, hostname: &str) -> Option<(bool, usize)> {
    app.destinations
        .iter()
        .map(|destination| {
            destination.uri.split('/').next().unwrap_or_default().to_ascii_lowercase()
        })
        .filter(|pattern| covers(pattern, hostname))
        .map(|pattern| (!pattern.contains('*'), pattern.len()))
        .max()
}

fn covers(pattern: &str, hostname: &str) -> bool {
    let (wanted, labels) = (pattern.split('.'), hostname.split('.'));
    wanted.clone().count() == labels.clone().count()
        && wanted.zip(labels).all(|(glob, label)| matches(glob, label))
}

/// Whether Cloudflare takes this as a host name of a destination.
pub(crate) fn is_valid_pattern(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.matches('*').count() <= 1
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_*".contains(&byte))
    };
    host.contains('.') && host.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::{covers, is_valid_pattern};

    #[rstest::rstest]
    #[case("*-mgmt.example.com", "ada-mgmt.example.com", true)]
    #[case("*-mgmt.example.com", "ada.example.com", false)]
    #[case("*-mgmt.example.com", "x.ada-mgmt.example.com", false)]
    #[case("*.example.com", "alpha.example.com", true)]
    #[case("*.example.com", "foo.bar.example.com", false)]
    #[case("*.example.com", "example.com", false)]
    #[case("*test.example.com", "test.example.com", true)]
    #[case("test*.example.com", "test1.example.com", true)]
    fn a_wildcard_stays_within_its_label(
        #[case] pattern: &str,
        #[case] hostname: &str,
        #[case] expected: bool,
    ) {
        assert_eq!(covers(pattern, hostname), expected);
    }

    #[test]
    fn a_label_holds_one_wildcard_at_most() {
        assert!(is_valid_pattern("*-mgmt.example.com"));
        assert!(is_valid_pattern("*.*.example.com"));
        assert!(!is_valid_pattern("foo*bar*baz.example.com"));
        assert!(!is_valid_pattern("example.com:8443"));
    }
}
