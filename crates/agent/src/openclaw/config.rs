//! The configuration as it is written: what the operator rendered, with the two constant paths of
//! `moorage_wire::bootstrap` moved below the agent's root; and which one `OpenClaw` was started with.

use moorage_wire::{
    Sha256,
    bootstrap::{GOOGLE_CLIENT_PATH, SECRETS_PATH},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    disk::{Disk, DiskError},
    layout::Layout,
};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Started {
    config_sha256: Sha256,
}

/// Makes `config` the live configuration. What runs is in doubt until [`note_started`].
pub(crate) fn write(disk: &Disk, layout: &Layout, config: &str) -> Result<(), DiskError> {
    disk.remove(&layout.started())?;
    disk.write(&layout.openclaw_config(), config.as_bytes())
}

/// `OpenClaw` was started with `config`.
pub(crate) fn note_started(disk: &Disk, layout: &Layout, config: &str) -> Result<(), DiskError> {
    disk.write_json(&layout.started(), &Started { config_sha256: Sha256::of(config.as_bytes()) })
}

/// Whether `config` is live, and is what `OpenClaw` was last started with.
pub(crate) fn is_live(disk: &Disk, layout: &Layout, config: &str) -> Result<bool, DiskError> {
    let live = disk.read(&layout.openclaw_config())?;
    let started: Option<Started> = disk.read_json(&layout.started())?;
    let digest = Sha256::of(config.as_bytes());
    Ok(live.is_some_and(|live| live.as_slice() == config.as_bytes())
        && started.is_some_and(|started| started.config_sha256 == digest))
}

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
    fn a_configuration_counts_as_live_only_after_a_start_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let (disk, layout) = (Disk::default(), Layout::new(folder.path().to_owned()));
        disk.create_folder(&layout.state()).unwrap();
        disk.create_folder(&layout.openclaw_state()).unwrap();
        write(&disk, &layout, "good").unwrap();
        assert!(!is_live(&disk, &layout, "good").unwrap());
        note_started(&disk, &layout, "good").unwrap();
        assert!(is_live(&disk, &layout, "good").unwrap());
        // A crash after a start with another one, and a way back: what runs is the other one.
        write(&disk, &layout, "other").unwrap();
        write(&disk, &layout, "good").unwrap();
        assert!(!is_live(&disk, &layout, "good").unwrap());
    }

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
