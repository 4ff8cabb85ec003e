//! What guards the management host names at Cloudflare's edge: one application over all of them,
//! its one policy, and the operator's service token. Pure; `apply` carries the steps out.
//!
//! Access objects have no labels, so they are known by their exact name, which holds the
//! installation id.

use jiff::{SignedDuration, Timestamp};

use crate::cloudflare::{
    AccessApp, AccessAppId, AccessAppSpec, AccessDestination, AccessPolicy, AccessPolicyId,
    AccessPolicySpec, AccessRule, Decision, ServiceToken, ServiceTokenId,
};

/// How long a new service token is valid: ten years, in the format that the API documents. It is
/// replaced in time all the same, see [`plan_token`].
pub const TOKEN_DURATION: &str = "87600h";
/// A token that ends sooner than this is replaced.
const RENEW_BEFORE_END: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What to do about one of the three.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<Id> {
    /// It is as it should be.
    Keep(Id),
    /// It is there, but not as it should be. For a token: its secret is lost, so it gets another.
    Change(Id),
    /// There is none yet.
    Create,
}

/// The host names to guard. A `*` may stand for a part of one label, at its beginning or end, once
/// between two dots: <https://developers.cloudflare.com/cloudflare-one/access-controls/policies/app-paths/>
/// ("Partially match subdomains", "Limitations"; read 2026-11).
pub fn destination(domain: &str) -> AccessDestination {
    AccessDestination::public(format!("*-mgmt.{domain}"))
}

/// The application as it should be.
pub fn app_spec(name: &str, domain: &str, policy: &AccessPolicyId) -> AccessAppSpec {
    AccessAppSpec {
        name: name.to_owned(),
        destinations: vec![destination(domain)],
        policies: vec![policy.clone()],
    }
}

/// The policy as it should be: lets in who shows the token, and nobody else.
pub fn policy_spec(name: &str, token: &ServiceTokenId) -> AccessPolicySpec {
    AccessPolicySpec {
        name: name.to_owned(),
        decision: Decision::NonIdentity,
        include: vec![AccessRule::service_token(token.clone())],
    }
}

/// Decides about the token. `stored` is the client id in our Secret, if there is one with a secret.
pub fn plan_token(
    name: &str,
    tokens: &[ServiceToken],
    stored: Option<&str>,
    now: Timestamp,
) -> Step<ServiceTokenId> {
    let lasting: Vec<_> = named_tokens(name, tokens)
        .filter(|token| {
            token.expires_at.is_none_or(|end| end.duration_since(now) > RENEW_BEFORE_END)
        })
        .collect();
    if let Some(known) = lasting.iter().find(|token| stored == Some(token.client_id.as_str())) {
        return Step::Keep(known.id.clone());
    }
    // Its secret was shown once and not stored, or the Secret is lost: it can be shown again only by
    // rotating. The smallest id, so that every pass picks the same one.
    match lasting.iter().min_by_key(|token| token.id.as_str()) {
        Some(token) => Step::Change(token.id.clone()),
        None => Step::Create,
    }
}

/// Tokens of our name besides the one in use.
pub fn surplus_tokens(
    name: &str,
    tokens: &[ServiceToken],
    used: &ServiceTokenId,
) -> Vec<ServiceTokenId> {
    named_tokens(name, tokens).map(|token| token.id.clone()).filter(|id| id != used).collect()
}

/// Tokens of our name.
pub fn named_tokens<'a>(
    name: &'a str,
    tokens: &'a [ServiceToken],
) -> impl Iterator<Item = &'a ServiceToken> {
    tokens.iter().filter(move |token| token.name == name)
}

/// Decides about the policy.
pub fn plan_policy(
    name: &str,
    token: &ServiceTokenId,
    policies: &[AccessPolicy],
) -> Step<AccessPolicyId> {
    let wanted = policy_spec(name, token);
    let ours = policies.iter().filter(|policy| policy.name == name);
    match ours.min_by_key(|policy| policy.id.as_str()) {
        None => Step::Create,
        Some(policy) if policy.decision == wanted.decision && policy.include == wanted.include => {
            Step::Keep(policy.id.clone())
        }
        Some(policy) => Step::Change(policy.id.clone()),
    }
}

/// Decides about the application.
pub fn plan_app(
    name: &str,
    domain: &str,
    policy: &AccessPolicyId,
    apps: &[AccessApp],
) -> Step<AccessAppId> {
    match named_apps(name, apps).min_by_key(|app| app.id.as_str()) {
        None => Step::Create,
        Some(app) if guards(app, domain, policy) => Step::Keep(app.id.clone()),
        Some(app) => Step::Change(app.id.clone()),
    }
}

/// The application of another that protects the management host names of this domain already. There can be
/// one only, and it lets in whom its own policy names.
pub fn in_the_way<'a>(name: &str, domain: &str, apps: &'a [AccessApp]) -> Option<&'a AccessApp> {
    let ours = destination(domain);
    let covers = |app: &&AccessApp| app.destinations.iter().flatten().any(|one| *one == ours);
    if named_apps(name, apps).next().is_some() {
        return None;
    }
    apps.iter().filter(|app| app.name != name).find(covers)
}

/// Self-hosted applications of our name.
pub fn named_apps<'a>(name: &'a str, apps: &'a [AccessApp]) -> impl Iterator<Item = &'a AccessApp> {
    apps.iter().filter(move |app| app.name == name && app.kind.as_deref() == Some("self_hosted"))
}

/// Whether an application guards the pool's host names with this policy alone.
pub fn guards(app: &AccessApp, domain: &str, policy: &AccessPolicyId) -> bool {
    app.destinations.as_deref() == Some(&[destination(domain)]) && app.policy_ids().eq([policy])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloudflare::AttachedPolicy;
    use rstest::rstest;

    const NAME: &str = "moorage-eu-1-07";

    fn token(id: &str, name: &str, expires_at: Option<&str>) -> ServiceToken {
        ServiceToken {
            id: ServiceTokenId::parse(id).unwrap(),
            name: name.to_owned(),
            client_id: format!("{id}.access"),
            expires_at: expires_at.map(|time| time.parse().unwrap()),
        }
    }

    fn id(text: &str) -> ServiceTokenId {
        ServiceTokenId::parse(text).unwrap()
    }

    #[test]
    fn an_application_of_another_over_the_same_names_is_in_the_way() {
        let app = |name: &str, uri: &str| -> AccessApp {
            let destinations = serde_json::json!([{"type": "public", "uri": uri}]);
            let app = serde_json::json!({
                "id": name, "name": name, "type": "self_hosted", "destinations": destinations,
            });
            serde_json::from_value(app).unwrap()
        };
        let other = app("moorage-eu-2-07", "*-mgmt.example.com");
        let elsewhere = app("moorage-eu-3-07", "*-mgmt.example.org");
        let find = |apps: &[AccessApp]| {
            in_the_way(NAME, "example.com", apps).map(|found| found.name.clone())
        };
        assert_eq!(find(std::slice::from_ref(&elsewhere)), None);
        assert_eq!(find(&[elsewhere, other.clone()]).as_deref(), Some("moorage-eu-2-07"));
        assert_eq!(find(&[other, app(NAME, "*-mgmt.example.com")]), None, "it was there first");
    }

    #[rstest]
    #[case::first_pass(vec![], None, Step::Create)]
    #[case::all_is_well(vec![token("a", NAME, None)], Some("a.access"), Step::Keep(id("a")))]
    #[case::secret_lost(vec![token("a", NAME, None)], None, Step::Change(id("a")))]
    #[case::crash_between_token_and_secret(
        vec![token("b", NAME, None), token("a", NAME, None)], None, Step::Change(id("a")))]
    #[case::secret_of_a_deleted_token(vec![], Some("a.access"), Step::Create)]
    #[case::a_foreign_token(vec![token("a", "other", None)], Some("a.access"), Step::Create)]
    #[case::ends_soon(
        vec![token("a", NAME, Some("2026-01-20T00:00:00Z"))], Some("a.access"), Step::Create)]
    #[case::replaced_but_not_stored(
        vec![token("a", NAME, Some("2026-01-20T00:00:00Z")), token("b", NAME, None)],
        Some("a.access"), Step::Change(id("b")))]
    #[case::ends_late(
        vec![token("a", NAME, Some("2027-01-01T00:00:00Z"))], Some("a.access"), Step::Keep(id("a")))]
    fn the_token_is_kept_rotated_or_made(
        #[case] tokens: Vec<ServiceToken>,
        #[case] stored: Option<&str>,
        #[case] expected: Step<ServiceTokenId>,
    ) {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(plan_token(NAME, &tokens, stored, now), expected);
    }

    #[test]
    fn only_tokens_of_our_name_are_surplus() {
        let tokens = [token("a", NAME, None), token("b", NAME, None), token("c", "other", None)];
        assert_eq!(surplus_tokens(NAME, &tokens, &id("a")), [id("b")]);
    }

    fn policy(include: Vec<AccessRule>, decision: Decision) -> AccessPolicy {
        let id = AccessPolicyId::parse("p").unwrap();
        AccessPolicy { id, name: NAME.to_owned(), decision, include }
    }

    #[rstest]
    #[case::missing(vec![], Step::Create)]
    #[case::as_it_should_be(
        vec![policy(vec![AccessRule::service_token(id("a"))], Decision::NonIdentity)],
        Step::Keep(AccessPolicyId::parse("p").unwrap()))]
    #[case::of_another_token(
        vec![policy(vec![AccessRule::service_token(id("b"))], Decision::NonIdentity)],
        Step::Change(AccessPolicyId::parse("p").unwrap()))]
    #[case::opened_by_someone(
        vec![policy(vec![AccessRule::service_token(id("a"))], Decision::Bypass)],
        Step::Change(AccessPolicyId::parse("p").unwrap()))]
    fn a_policy_that_drifted_is_changed(
        #[case] policies: Vec<AccessPolicy>,
        #[case] expected: Step<AccessPolicyId>,
    ) {
        assert_eq!(plan_policy(NAME, &id("a"), &policies), expected);
    }

    #[test]
    fn an_application_guards_exactly_the_management_names() {
        let policy = AccessPolicyId::parse("p").unwrap();
        let attached = AttachedPolicy { id: Some(policy.clone()) };
        let mut app = AccessApp {
            id: AccessAppId::parse("app").unwrap(),
            name: NAME.to_owned(),
            kind: Some("self_hosted".to_owned()),
            aud: None,
            destinations: Some(vec![AccessDestination::public("*-mgmt.example.com")]),
            policies: Some(vec![attached.clone()]),
        };
        let plan =
            |app: &AccessApp| plan_app(NAME, "example.com", &policy, std::slice::from_ref(app));
        assert_eq!(plan(&app), Step::Keep(app.id.clone()));
        app.policies = Some(vec![attached.clone(), attached]);
        assert_eq!(plan(&app), Step::Change(app.id.clone()));
        app.kind = Some("saas".to_owned());
        assert_eq!(plan(&app), Step::Create);
    }
}
