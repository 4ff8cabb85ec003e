//! The configuration as it is written: what the operator rendered, with the two constant paths of
//! `moorage_wire::bootstrap` moved below the agent's root and the installed plugins switched on; and
//! what `OpenClaw` was started with.

use std::collections::BTreeSet;

use moorage_wire::{
    Sha256,
    bootstrap::{GOOGLE_CLIENT_PATH, SECRETS_PATH},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    desired::Pair,
    disk::{Disk, DiskError},
    layout::Layout,
};

/// What `OpenClaw` was last started with; absent while that is unknown.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Started {
    config_sha256: Sha256,
    #[serde(default)]
    programs: Option<Pair>,
}

impl Started {
    pub(crate) fn with(config: &str, programs: Option<Pair>) -> Self {
        Self { config_sha256: Sha256::of(config.as_bytes()), programs }
    }

    pub(crate) fn read(disk: &Disk, layout: &Layout) -> Result<Option<Self>, DiskError> {
        disk.read_json(&layout.started())
    }

    /// `OpenClaw` was started with this.
    pub(crate) fn note(&self, disk: &Disk, layout: &Layout) -> Result<(), DiskError> {
        disk.write_json(&layout.started(), self)
    }

    /// From now on it is unknown what runs.
    pub(crate) fn forget(disk: &Disk, layout: &Layout) -> Result<(), DiskError> {
        disk.remove(&layout.started())
    }

    /// Whether the same programs would run.
    pub(crate) fn has_programs(&self, programs: Option<Pair>) -> bool {
        self.programs == programs
    }
}

/// The text to write. On a real server the paths stay as they are.
pub(crate) fn to_text(config: &Value, layout: &Layout, plugins: &BTreeSet<String>) -> String {
    let mut config = config.clone();
    if !layout.is_production() {
        localise(&mut config, layout);
    }
    for plugin in plugins {
        switch_on(&mut config, plugin);
    }
    serde_json::to_string_pretty(&config).expect("a JSON value is representable in JSON")
}

/// Installed plugins run unless the configuration says otherwise. What has another shape is left for
/// OpenClaw to reject.
fn switch_on(config: &mut Value, plugin: &str) {
    let mut at = Some(config);
    for key in ["plugins", "entries", plugin] {
        let fields = at.and_then(Value::as_object_mut);
        at = fields.map(|fields| fields.entry(key).or_insert_with(|| json!({})));
    }
    if let Some(entry) = at.and_then(Value::as_object_mut) {
        entry.entry("enabled").or_insert(Value::Bool(true));
    }
}

fn localise(value: &mut Value, layout: &Layout) {
    match value {
        Value::String(text) if text == SECRETS_PATH => {
            *text = layout.secrets().to_string_lossy().into_owned();
        }
        Value::String(text) if text == GOOGLE_CLIENT_PATH => {
            *text = layout.google_client().to_string_lossy().into_owned();
        }
        Value::Array(items) => items.iter_mut().for_each(|item| localise(item, layout)),
        Value::Object(fields) => fields.values_mut().for_each(|field| localise(field, layout)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn installed_plugins_are_on_unless_the_config_disables_them() {
        let layout = Layout::new("/".into());
        let text = |config: Value| -> Value {
            let plugins = ["zalo".to_owned()].into();
            serde_json::from_str(&to_text(&config, &layout, &plugins)).unwrap()
        };
        let on = json!({"plugins": {"entries": {"zalo": {"enabled": true}}}});
        assert_eq!(text(json!({})), on);
        let own = json!({"plugins": {"entries": {"zalo": {"enabled": false, "config": {}}}}});
        assert_eq!(text(own.clone()), own);
        let wrong = json!({"plugins": {"entries": []}});
        assert_eq!(text(wrong.clone()), wrong);
    }

    #[test]
    fn only_whole_values_that_are_the_constant_paths_are_moved() {
        let config = json!({
            "secrets": {"providers": {"moorage": {"source": "file", "path": SECRETS_PATH}}},
            "note": format!("see {SECRETS_PATH}"),
            "list": [GOOGLE_CLIENT_PATH],
        });
        let written = |root: &str| -> Value {
            let text = to_text(&config, &Layout::new(root.into()), &BTreeSet::new());
            serde_json::from_str(&text).unwrap()
        };
        assert_eq!(written("/"), config);
        let moved = written("/srv/test");
        let provider = &moved["secrets"]["providers"]["moorage"];
        assert_eq!(provider["path"], "/srv/test/var/lib/openclaw/credentials/secrets.json");
        assert_eq!(moved["note"], config["note"]);
        assert_eq!(
            moved["list"][0],
            "/srv/test/var/lib/openclaw/credentials/google-oauth-client.json"
        );
    }
}
