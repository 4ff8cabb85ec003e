//! Which calls the operator means: each request that the API server or a cloud received has one of these
//! shapes, with names that somebody here has given.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::Value;

const KUBE: &[(&str, &str)] = &[
    (
        "list watch",
        "/apis/moorage.dev/v1alpha1/(?:openclawinstances|hostingpools|openclawreleases)",
    ),
    ("get patch", "/apis/moorage.dev/v1alpha1/(?:hostingpools|openclawreleases)/NAME"),
    ("patch", "/apis/moorage.dev/v1alpha1/(?:hostingpools|openclawreleases)/NAME/status"),
    ("get patch", "/apis/moorage.dev/v1alpha1/namespaces/NAMESPACE/openclawinstances/NAME"),
    ("patch", "/apis/moorage.dev/v1alpha1/namespaces/NAMESPACE/openclawinstances/NAME/status"),
    ("list watch", "/api/v1/secrets"),
    ("list watch create", "/api/v1/namespaces/NAMESPACE/secrets"),
    ("get patch delete", "/api/v1/namespaces/NAMESPACE/secrets/NAME"),
    ("list watch create", "/api/v1/namespaces/SYSTEM/configmaps"),
    ("get patch", "/api/v1/namespaces/SYSTEM/configmaps/OWN"),
    ("create", "/apis/coordination.k8s.io/v1/namespaces/SYSTEM/leases"),
    (
        "get list watch patch update",
        "/apis/coordination.k8s.io/v1/namespaces/SYSTEM/leases(?:/OWN)?",
    ),
    ("create", "/apis/events.k8s.io/v1/namespaces/NAMESPACE/events"),
    ("patch", r"/apis/events.k8s.io/v1/namespaces/NAMESPACE/events/NAME\.[0-9a-f]+"),
    ("create", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
];

const CLOUDS: &[(&str, &str)] = &[
    ("GET POST", "/servers"),
    ("GET PUT DELETE", "/servers/[0-9]+"),
    ("GET POST", "/firewalls"),
    ("GET PUT DELETE", "/firewalls/[0-9]+"),
    ("POST", "/firewalls/[0-9]+/actions/set_rules"),
    ("GET POST", "/ssh_keys"),
    ("GET PUT DELETE", "/ssh_keys/[0-9]+"),
    ("GET", "/(?:server_types|locations|datacenters|images)"),
    ("GET", "/actions/[0-9]+"),
    ("GET", "/accounts/HEX"),
    ("GET", "/zones(?:/HEX)?"),
    ("GET POST", "/accounts/HEX/cfd_tunnel"),
    ("GET PATCH DELETE", "/accounts/HEX/cfd_tunnel/UUID"),
    ("GET DELETE", "/accounts/HEX/cfd_tunnel/UUID/connections"),
    ("GET PUT", "/accounts/HEX/cfd_tunnel/UUID/configurations"),
    ("GET POST", "/accounts/HEX/access/(?:apps|policies|service_tokens)"),
    ("GET PUT DELETE", "/accounts/HEX/access/(?:apps|policies|service_tokens)/UUID"),
    ("GET POST", "/zones/HEX/dns_records(?:/batch)?"),
    ("GET PATCH DELETE", "/zones/HEX/dns_records/HEX"),
];

/// Parameters of both, with what may follow them.
const PARAMETERS: &[(&str, &str)] = &[
    ("limit", "[0-9]+"),
    ("continue", "[A-Za-z0-9_=-]+"),
    ("resourceVersion", "[0-9]+"),
    ("resourceVersionMatch", "NotOlderThan"),
    ("timeoutSeconds", "[0-9]+"),
    ("watch", "true"),
    ("allowWatchBookmarks", "true"),
    ("fieldManager", "moorage(?:-leader-moorage-[0-9a-f]+)?"),
    ("force", "true"),
    ("fieldSelector", "type=moorage.dev/sealed-credentials"),
    ("labelSelector", "moorage.dev/(?:instance|component=sealing-key)"),
    ("page|per_page", "[0-9]+"),
    ("is_deleted", "false"),
    ("include_prefix", "moorage-[0-9a-f]{16}-"),
    ("name|label_selector|status|sort|tag.exact|type", "[A-Za-z0-9 ._:/=,-]+"),
];

/// What may stand in a call.
pub(crate) struct Meant {
    kube: Vec<(Vec<&'static str>, Regex)>,
    clouds: Vec<(Vec<&'static str>, Regex)>,
    parameters: Vec<(Regex, Regex)>,
    namespaces: BTreeSet<String>,
    names: BTreeSet<String>,
    marker: &'static str,
}

impl Meant {
    /// Calls with these names and no others. `marker` is a part of what stands nowhere.
    pub(crate) fn new(
        system: &str,
        namespaces: BTreeSet<String>,
        names: BTreeSet<String>,
        marker: &'static str,
    ) -> Self {
        let compile = |shapes: &'static [(&str, &str)]| {
            let shape = |(verbs, path): &(&'static str, &'static str)| {
                let path = path
                    .replace("NAMESPACE", "(?<namespace>[a-z0-9-]+)")
                    .replace("NAME", "(?<name>[a-z0-9.-]+)")
                    .replace("SYSTEM", system)
                    .replace("OWN", "moorage(?:-[a-z0-9-]+)?")
                    .replace("HEX", "[0-9a-f]{32}")
                    .replace("UUID", "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}");
                (verbs.split(' ').collect(), Regex::new(&format!("^{path}$")).unwrap())
            };
            shapes.iter().map(shape).collect()
        };
        let whole = |text: &str| Regex::new(&format!("^(?:{text})$")).unwrap();
        let parameters = PARAMETERS.iter().map(|(name, value)| (whole(name), whole(value)));
        let parameters = parameters.collect();
        Self { kube: compile(KUBE), clouds: compile(CLOUDS), parameters, namespaces, names, marker }
    }

    /// Why a line of the audit log is none of the calls that are meant; `None` if it is.
    pub(crate) fn wrong_in_audit(&self, line: &Value) -> Option<String> {
        let (verb, uri) = (line["verb"].as_str()?, line["requestURI"].as_str()?);
        let told = |why: &str| Some(format!("{verb} {}: {why}", shortened(uri)));
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let shape =
            self.kube.iter().find(|(verbs, shape)| verbs.contains(&verb) && shape.is_match(path));
        let Some((_, shape)) = shape else { return told("no shape") };
        let found = shape.captures(path).unwrap();
        let given = |name: &str, known: &BTreeSet<String>| {
            found.name(name).is_none_or(|found| known.contains(found.as_str()))
        };
        if !given("namespace", &self.namespaces) || !given("name", &self.names) {
            return told("a name that nobody gave");
        }
        self.wrong_in_query(query).and_then(|why| told(&why))
    }

    /// Why an entry of the clouds' journal is none of the calls that are meant; `None` if it is.
    pub(crate) fn wrong_in_journal(&self, entry: &Value) -> Option<String> {
        let text = |name: &str| entry[name].as_str().unwrap_or_default();
        let (method, path) = (text("method"), text("path"));
        let told = |why: &str| Some(format!("{method} {}: {why}", shortened(path)));
        let fits =
            |(verbs, shape): &(Vec<&str>, Regex)| verbs.contains(&method) && shape.is_match(path);
        if !self.clouds.iter().any(fits) {
            return told("no shape");
        }
        if let Some(why) = self.wrong_in_query(text("query")) {
            return told(&why);
        }
        self.wrong_in_body("body", &entry["body"]).and_then(|why| told(&why))
    }

    fn wrong_in_query(&self, query: &str) -> Option<String> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        for pair in pairs {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = value.replace("%2F", "/").replace("%3D", "=").replace("%2C", ",");
            let known =
                |(key, allowed): &(Regex, Regex)| key.is_match(name) && allowed.is_match(&value);
            if !self.parameters.iter().any(known) {
                return Some(format!("parameter {}", shortened(pair)));
            }
        }
        None
    }

    /// All texts of a body are names, addresses and rules, except user-data, which is a document.
    fn wrong_in_body(&self, at: &str, body: &Value) -> Option<String> {
        let wrong = |text: &str| {
            let document = at.ends_with(".user_data");
            let odd = |byte: u8| !(0x20..0x7f).contains(&byte);
            text.contains(self.marker)
                || (!document && (text.len() > 4096 || text.bytes().any(odd)))
        };
        match body {
            Value::String(text) if wrong(text) => {
                Some(format!("{at} holds a text that is no name"))
            }
            Value::Array(items) => items.iter().find_map(|item| self.wrong_in_body(at, item)),
            Value::Object(fields) => fields.iter().find_map(|(name, value)| {
                if wrong(name) {
                    return Some(format!("{at} has a field that is no name"));
                }
                self.wrong_in_body(&format!("{at}.{name}"), value)
            }),
            _ => None,
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn meant() -> Meant {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Meant::new(
            "system",
            names(&["tenants", "system"]),
            names(&["ada", "ada-keys"]),
            "leaked0text",
        )
    }

    #[rstest]
    #[case::object("get", "/api/v1/namespaces/tenants/secrets/ada-keys", true)]
    #[case::list("list", "/apis/moorage.dev/v1alpha1/hostingpools?&limit=50", true)]
    #[case::parent("get", "/api/v1/namespaces/tenants/secrets/../x", false)]
    #[case::encoded("get", "/api/v1/namespaces/tenants/secrets/%2e%2e", false)]
    #[case::of_nobody("get", "/api/v1/namespaces/tenants/secrets/eve-keys", false)]
    #[case::elsewhere("get", "/api/v1/namespaces/kube-system/secrets/ada-keys", false)]
    #[case::all("list", "/api/v1/namespaces/tenants/secrets/?limit=500", false)]
    #[case::parameter("get", "/api/v1/namespaces/tenants/secrets/ada-keys?dryRun=All", false)]
    #[case::verb("delete", "/apis/moorage.dev/v1alpha1/hostingpools/ada", false)]
    fn a_call_to_the_api_server_is_meant_or_told(
        #[case] verb: &str,
        #[case] uri: &str,
        #[case] right: bool,
    ) {
        let wrong = meant().wrong_in_audit(&json!({"verb": verb, "requestURI": uri}));
        assert_eq!(wrong.is_none(), right, "{wrong:?}");
    }

    #[rstest]
    #[case::list("GET", "/servers", "per_page=50&page=1", json!(null), true)]
    #[case::made("POST", "/servers", "", json!({"name": "ada", "user_data": "#cloud-config\n"}), true)]
    #[case::path("GET", "/servers/1/../2", "", json!(null), false)]
    #[case::query("GET", "/servers", "name=a%0ab", json!(null), false)]
    #[case::line("POST", "/servers", "", json!({"labels": {"a": "b\nc"}}), false)]
    #[case::key("POST", "/servers", "", json!({"labels": {"a\u{0}": "b"}}), false)]
    #[case::leak("POST", "/servers", "", json!({"user_data": "a leaked0text"}), false)]
    fn a_call_to_a_cloud_is_meant_or_told(
        #[case] method: &str,
        #[case] path: &str,
        #[case] query: &str,
        #[case] body: Value,
        #[case] right: bool,
    ) {
        let entry = json!({"method": method, "path": path, "query": query, "body": body});
        let wrong = meant().wrong_in_journal(&entry);
        assert_eq!(wrong.is_none(), right, "{wrong:?}");
    }
}
