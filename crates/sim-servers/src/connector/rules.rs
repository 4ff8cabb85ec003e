//! The ingress rules in force: checked when they arrive, looked up for each request.

use std::path::PathBuf;

use http::StatusCode;
use parking_lot::Mutex;
use url::Url;

use moorage_sim_tunnel::ingress::{
    ConfigurationApplied, ConfigurationPush, IngressConfig, IngressRule,
};

/// Where a rule leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Service {
    /// HTTP over TCP.
    Http { host: String, port: u16 },
    /// HTTP over a Unix socket.
    Unix(PathBuf),
    /// An answer of the connector's own.
    Status(StatusCode),
}

/// Why rules were refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RuleError {
    #[error("there is no rule")]
    Empty,
    #[error("the last rule must match all requests")]
    NoCatchAll,
    #[error("rule {0} matches all requests, so that later rules are never reached")]
    Unreachable(usize),
    #[error("rule {0} has a path, which this connector does not support")]
    Path(usize),
    #[error("rule {0}: `{1}` is no service that this connector supports")]
    Service(usize, String),
}

/// The rules in force and their version.
#[derive(Default)]
pub(super) struct Rules(Mutex<Held>);

#[derive(Default)]
struct Held {
    version: Option<u64>,
    config: IngressConfig,
    table: Vec<(IngressRule, Service)>,
}

impl Rules {
    /// Takes new rules unless they are old or wrong; wrong ones leave the old in force.
    pub(super) fn apply(&self, push: ConfigurationPush) -> ConfigurationApplied {
        let mut held = self.0.lock();
        let mut refused = None;
        if held.version.is_none_or(|version| push.version > version) {
            match check(&push.config) {
                Ok(table) => {
                    tracing::info!(version = push.version, "updated to new configuration");
                    *held = Held { version: Some(push.version), config: push.config, table };
                }
                Err(error) => {
                    tracing::error!(version = push.version, %error, "rules refused");
                    refused = Some(serde_json::json!({}));
                }
            }
        }
        let version = held.version.and_then(|version| i64::try_from(version).ok());
        ConfigurationApplied { last_applied_version: version.unwrap_or(-1), err: refused }
    }

    /// Where a request for this hostname goes; `None` while there are no rules.
    pub(super) fn service_for(&self, hostname: &str) -> Option<Service> {
        let held = self.0.lock();
        let (_, service) = held.table.iter().find(|(rule, _)| rule.matches(hostname))?;
        Some(service.clone())
    }

    /// The version (-1 before the first) and the rules.
    pub(super) fn in_force(&self) -> (i64, IngressConfig) {
        let held = self.0.lock();
        let version = held.version.and_then(|version| i64::try_from(version).ok());
        (version.unwrap_or(-1), held.config.clone())
    }
}

fn check(config: &IngressConfig) -> Result<Vec<(IngressRule, Service)>, RuleError> {
    let rules = &config.ingress;
    let last = rules.last().ok_or(RuleError::Empty)?;
    if !last.matches_all() {
        return Err(RuleError::NoCatchAll);
    }
    let mut table = Vec::with_capacity(rules.len());
    for (index, rule) in rules.iter().enumerate() {
        if rule.path.as_deref().is_some_and(|path| !path.is_empty()) {
            return Err(RuleError::Path(index));
        }
        if rule.matches_all() && index + 1 < rules.len() {
            return Err(RuleError::Unreachable(index));
        }
        let service = parse_service(&rule.service)
            .ok_or_else(|| RuleError::Service(index, rule.service.clone()))?;
        table.push((rule.clone(), service));
    }
    Ok(table)
}

fn parse_service(text: &str) -> Option<Service> {
    if let Some(code) = text.strip_prefix("http_status:") {
        return code
            .parse()
            .ok()
            .and_then(|code: u16| StatusCode::from_u16(code).ok())
            .map(Service::Status);
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return path.starts_with('/').then(|| Service::Unix(PathBuf::from(path)));
    }
    let url = Url::parse(text).ok()?;
    // cloudflared refuses a path, too: the visitor's path is the only one.
    let plain = url.scheme() == "http"
        && url.path() == "/"
        && url.query().is_none()
        && url.username().is_empty();
    plain.then_some(())?;
    Some(Service::Http { host: url.host_str()?.to_owned(), port: url.port_or_known_default()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("http://127.0.0.1:18789", Some(Service::Http { host: "127.0.0.1".into(), port: 18789 }))]
    #[case("http://localhost", Some(Service::Http { host: "localhost".into(), port: 80 }))]
    #[case("unix:/run/moorage/agent.sock", Some(Service::Unix("/run/moorage/agent.sock".into())))]
    #[case("http_status:404", Some(Service::Status(StatusCode::NOT_FOUND)))]
    #[case("http://127.0.0.1:1/path", None)]
    #[case("unix:relative", None)]
    #[case("http_status:no", None)]
    #[case("ssh://127.0.0.1:22", None)]
    fn services_are_read_as_cloudflared_reads_them(
        #[case] text: &str,
        #[case] expected: Option<Service>,
    ) {
        assert_eq!(parse_service(text), expected);
    }

    fn push(version: u64, ingress: Vec<IngressRule>) -> ConfigurationPush {
        ConfigurationPush { version, config: IngressConfig { ingress, ..IngressConfig::default() } }
    }

    #[test]
    fn wrong_rules_leave_the_old_in_force() {
        let rules = Rules::default();
        assert_eq!(rules.service_for("ada.example.com"), None);
        let applied = rules.apply(push(0, vec![IngressRule::catch_all("http_status:404")]));
        assert_eq!(applied, ConfigurationApplied { last_applied_version: 0, err: None });
        let refused =
            rules.apply(push(1, vec![IngressRule::host("ada.example.com", "http_status:200")]));
        assert_eq!(refused.last_applied_version, 0);
        assert!(refused.err.is_some());
        assert_eq!(
            rules.service_for("ada.example.com"),
            Some(Service::Status(StatusCode::NOT_FOUND))
        );
    }

    #[test]
    fn rules_that_are_not_newer_are_ignored() {
        let rules = Rules::default();
        rules.apply(push(3, vec![IngressRule::catch_all("http_status:404")]));
        let applied = rules.apply(push(3, vec![IngressRule::catch_all("http_status:200")]));
        assert_eq!(applied, ConfigurationApplied { last_applied_version: 3, err: None });
        assert_eq!(rules.service_for("any.test"), Some(Service::Status(StatusCode::NOT_FOUND)));
    }
}
