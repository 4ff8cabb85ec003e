//! The files that are the same on every server, packed into one archive: together they compress to a
//! third of what they take one by one, and user-data may have 32 KiB.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::{Compression, write::GzEncoder};
use tar::{Builder, EntryType, Header};

/// Files of root, readable by all, in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Bundle {
    files: Vec<(String, String)>,
}

impl Bundle {
    /// Adds a file. `path` is absolute.
    pub(super) fn add(&mut self, path: impl Into<String>, content: impl Into<String>) {
        self.files.push((path.into(), content.into()));
    }

    /// Adds an empty file; in the folders of systemd that takes the file of this name out of use.
    pub(super) fn mask(&mut self, path: impl Into<String>) {
        self.add(path, "");
    }

    /// The archive, as `tar -xz -C /` reads it, in base64. The same files give the same text.
    pub(super) fn packed(&self) -> String {
        let mut archive = Builder::new(GzEncoder::new(Vec::new(), Compression::best()));
        for (path, content) in &self.files {
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::Regular);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(content.len() as u64);
            archive
                .append_data(&mut header, path.trim_start_matches('/'), content.as_bytes())
                .expect("paths are short, and memory takes every byte");
        }
        let bytes = archive.into_inner().and_then(GzEncoder::finish);
        STANDARD.encode(bytes.expect("memory takes every byte"))
    }
}
