//! Browsers that asked to be paired, and those that are. Kept in `devices.json` in the state folder.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use moorage_sim_clouds::ids::uuid;

/// A browser that asks to be paired, or is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Device {
    pub(super) request_id: String,
    #[serde(rename = "deviceId")]
    pub(super) id: String,
    pub(super) requested_at: Timestamp,
}

/// The browsers as the state folder has them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Devices {
    pending: Vec<Device>,
    paired: Vec<Device>,
    #[serde(skip)]
    file: PathBuf,
}

/// Pending requests that are kept; anybody who has the token can make them.
const PENDING_LIMIT: usize = 50;

impl Devices {
    /// What the state folder holds; nothing if there is no file.
    pub(super) fn load(state_dir: &Path) -> io::Result<Self> {
        let file = state_dir.join("devices.json");
        let held = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => return Err(error),
        };
        Ok(Self { file, ..held })
    }

    /// Notes that a browser wants in.
    pub(super) fn request(&mut self) -> io::Result<Device> {
        let device = Device { request_id: uuid(), id: uuid(), requested_at: Timestamp::now() };
        if self.pending.len() >= PENDING_LIMIT {
            self.pending.remove(0);
        }
        self.pending.push(device.clone());
        self.save()?;
        Ok(device)
    }

    /// Lets a browser in. `None` when nobody asked with that id.
    pub(super) fn approve(&mut self, request_id: &str) -> io::Result<Option<Device>> {
        let Some(place) = self.pending.iter().position(|device| device.request_id == request_id)
        else {
            return Ok(None);
        };
        let device = self.pending.remove(place);
        self.paired.push(device.clone());
        self.save()?;
        Ok(Some(device))
    }

    fn save(&self) -> io::Result<()> {
        let staged = self.file.with_extension("staged");
        std::fs::write(&staged, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(staged, &self.file)
    }
}
