//! What goes wrong on purpose: which requests a fault meets and what it does to them. Faults are
//! made through the admin API and met in `gateway`.

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Notify;

use crate::journal::Cloud;

/// A fault as it is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultSpec {
    /// The cloud it strikes.
    pub cloud: Cloud,
    /// Hetzner project or Cloudflare account; none strikes every tenant.
    pub tenant: Option<String>,
    /// HTTP method; none strikes every method.
    pub method: Option<String>,
    /// Glob (`*` is any text) that the path below the API's base must match from its beginning.
    pub path_prefix: Option<String>,
    /// Glob that the whole path below the API's base must match.
    pub path: Option<String>,
    /// How many requests it strikes: one when left out, without end when null.
    #[serde(default = "once")]
    pub times: Option<u32>,
    #[serde(flatten)]
    pub kind: FaultKind,
}

#[allow(clippy::unnecessary_wraps)]
fn once() -> Option<u32> {
    Some(1)
}

/// What a fault does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum FaultKind {
    /// Answers with this status and the cloud's own error envelope; nothing happens.
    Status {
        /// HTTP status.
        status: u16,
        /// The error's code: a word at Hetzner, a number at Cloudflare.
        code: Option<Value>,
        /// `None` for the cloud's own words for this status.
        message: Option<String>,
        /// `Retry-After`, in seconds.
        retry_after: Option<u64>,
    },
    /// Does what was asked, then closes the connection without an answer.
    ResponseLost,
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// Does nothing and never answers.
    Hang,
    /// Does nothing until the fault is taken away, and then what was asked. Strikes every request until
    /// then.
    Hold,
    /// Does what was asked, then answers with a body that stops in the middle.
    MalformedBody,
    /// The Hetzner action that the request starts ends in `error`. Does not strike a GET.
    ActionError {
        /// `None` for `action_failed`.
        code: Option<String>,
        /// `None` for `Action failed`.
        message: Option<String>,
    },
    /// A server that the request makes stays switched off until it is powered on. Strikes only what makes
    /// one.
    StaysOff,
    /// A server that the request makes stays `initializing`, and locked, for ever. Strikes only what makes
    /// one.
    StaysInitializing,
    /// Servers in the answer show no firewall, although they have theirs: Hetzner attaches them a moment
    /// later than it answers.
    FirewallUnseen,
    /// Hetzner has no such server left (412). Shows in `server_types[].locations[].available`.
    OutOfStock {
        /// Only this server type.
        server_type: Option<String>,
        /// Only this location; `None` for all.
        location: Option<String>,
    },
    /// Every field of that name in the answer gets a value that no client has heard of.
    UnknownEnum {
        /// The field; `status` when left out.
        field: Option<String>,
        /// The value; `quantum` when left out.
        value: Option<String>,
    },
}

/// A fault in force.
#[derive(Debug, Clone, Serialize)]
pub struct Fault {
    /// Its id in the admin API.
    pub id: u64,
    /// What was asked for; `times` counts down.
    #[serde(flatten)]
    pub spec: FaultSpec,
}

#[derive(Debug, Default)]
struct Registry {
    last_id: u64,
    faults: Vec<Fault>,
}

/// The faults in force, oldest first.
#[derive(Debug, Default)]
pub struct Faults {
    registry: Mutex<Registry>,
    /// Wakes whoever waits for a fault to be taken away.
    removed: Notify,
}

impl Faults {
    pub fn add(&self, spec: FaultSpec) -> Fault {
        let mut registry = self.registry.lock();
        registry.last_id += 1;
        let fault = Fault { id: registry.last_id, spec };
        registry.faults.push(fault.clone());
        fault
    }

    /// The faults that can still strike.
    pub fn list(&self) -> Vec<Fault> {
        self.registry.lock().faults.clone()
    }

    /// Removes one fault; false when there is none of that id.
    pub fn remove(&self, id: u64) -> bool {
        let mut registry = self.registry.lock();
        let before = registry.faults.len();
        registry.faults.retain(|fault| fault.id != id);
        self.removed.notify_waiters();
        registry.faults.len() < before
    }

    pub fn clear(&self) {
        self.registry.lock().faults.clear();
        self.removed.notify_waiters();
    }

    /// Waits until a fault is taken away.
    async fn gone(&self, id: u64) {
        loop {
            let removed = self.removed.notified();
            if !self.registry.lock().faults.iter().any(|fault| fault.id == id) {
                return;
            }
            removed.await;
        }
    }

    /// The oldest fault that strikes this request, counted down. Returns when none holds it any more.
    pub(crate) async fn strike(
        &self,
        cloud: Cloud,
        tenant: &str,
        method: &str,
        path: &str,
    ) -> Option<FaultKind> {
        loop {
            let struck = self.take(|spec| match &spec.kind {
                FaultKind::OutOfStock { .. } => false,
                FaultKind::ActionError { .. } if method == "GET" => false,
                FaultKind::StaysOff | FaultKind::StaysInitializing
                    if (method, path) != ("POST", "/servers") =>
                {
                    false
                }
                _ => spec.meets(cloud, tenant, method, path),
            })?;
            match struck.spec.kind {
                FaultKind::Hold => self.gone(struck.id).await,
                kind => return Some(kind),
            }
        }
    }

    /// Whether a fault says that this type is sold out there, counted down.
    pub(crate) fn strike_stock(&self, tenant: &str, server_type: &str, location: &str) -> bool {
        self.take(|spec| spec.sells_out(tenant, server_type, location)).is_some()
    }

    /// Whether a fault says that this type is sold out there, without counting it down.
    pub(crate) fn sold_out(&self, tenant: &str, server_type: &str, location: &str) -> bool {
        self.registry
            .lock()
            .faults
            .iter()
            .any(|fault| fault.spec.sells_out(tenant, server_type, location))
    }

    fn take(&self, strikes: impl Fn(&FaultSpec) -> bool) -> Option<Fault> {
        let mut registry = self.registry.lock();
        let index = registry.faults.iter().position(|fault| strikes(&fault.spec))?;
        let fault = registry.faults[index].clone();
        if matches!(fault.spec.kind, FaultKind::Hold) {
            return Some(fault);
        }
        match &mut registry.faults[index].spec.times {
            Some(times) if *times > 1 => *times -= 1,
            Some(_) => drop(registry.faults.remove(index)),
            None => {}
        }
        Some(fault)
    }
}

impl FaultSpec {
    fn meets(&self, cloud: Cloud, tenant: &str, method: &str, path: &str) -> bool {
        self.cloud == cloud
            && self.tenant.as_deref().is_none_or(|wanted| wanted == tenant)
            && self.method.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
            && self.path.as_deref().is_none_or(|glob| matches(glob, path))
            && self.path_prefix.as_deref().is_none_or(|glob| matches(&format!("{glob}*"), path))
    }

    fn sells_out(&self, tenant: &str, server_type: &str, location: &str) -> bool {
        let FaultKind::OutOfStock { server_type: wanted_type, location: wanted_location } =
            &self.kind
        else {
            return false;
        };
        self.meets(Cloud::Hetzner, tenant, "POST", "/servers")
            && wanted_type.as_deref().is_none_or(|wanted| wanted == server_type)
            && wanted_location.as_deref().is_none_or(|wanted| wanted == location)
    }
}

/// Whether `text` matches `glob`, in which `*` stands for any text.
pub(crate) fn matches(glob: &str, text: &str) -> bool {
    let mut parts = glob.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Replaces every string under the key `field`, at any depth.
pub(crate) fn replace_enum(value: &mut Value, field: &str, unknown: &str) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                if key == field && inner.is_string() {
                    *inner = Value::String(unknown.to_owned());
                } else {
                    replace_enum(inner, field, unknown);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace_enum(item, field, unknown)),
        _ => {}
    }
}

/// Empties every list under the key `field`, at any depth.
pub(crate) fn empty_lists(value: &mut Value, field: &str) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                match inner {
                    Value::Array(list) if key == field => list.clear(),
                    inner => empty_lists(inner, field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| empty_lists(item, field)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[rstest::rstest]
    #[case("/servers", "/servers", true)]
    #[case("/servers", "/servers/1", false)]
    #[case("/servers/*", "/servers/1/actions/poweron", true)]
    #[case("/servers/*/actions/poweron", "/servers/1/actions/poweron", true)]
    #[case("/servers/*/actions/poweron", "/servers/1/actions/poweroff", false)]
    #[case("*", "", true)]
    #[case("a*a", "a", false)]
    fn a_star_stands_for_any_text(#[case] glob: &str, #[case] text: &str, #[case] expected: bool) {
        assert_eq!(matches(glob, text), expected);
    }
}
