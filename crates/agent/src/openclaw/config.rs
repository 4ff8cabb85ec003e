//! The configuration as it is written: what the operator rendered, with the two constant paths of
//! `moorage_wire::bootstrap` moved below the agent's root.

use moorage_wire::bootstrap::{GOOGLE_CLIENT_PATH, SECRETS_PATH};
use serde_json::Value;

use crate::layout::Layout;

/// The bytes to write. On a real server the paths stay as they are.
pub(crate) fn to_bytes(config: &Value, layout: &Layout) -> Vec<u8> {
    let mut config = config.clone();
    if !layout.is_production() {
        localise(&mut config, layout);
    }
    serde_json::to_vec_pretty(&config).expect("a JSON value is representable in JSON")
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
    fn only_whole_values_that_are_the_constant_paths_are_moved() {
        let config = json!({
            "secrets": {"providers": {"moorage": {"source": "file", "path": SECRETS_PATH}}},
            "note": format!("see {SECRETS_PATH}"),
            "list": [GOOGLE_CLIENT_PATH],
        });
        let written = |root: &str| -> Value {
            serde_json::from_slice(&to_bytes(&config, &Layout::new(root.into()))).unwrap()
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
