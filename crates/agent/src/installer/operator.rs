//! Who the operator of this server is, for the worker: the public part of the bootstrap document, which
//! only root and the agent can read. Neither of the users that read this can change it.

use moorage_wire::bootstrap::{Bootstrap, Operator};

use crate::{
    disk::{Disk, DiskError, to_json},
    layout::Layout,
};

/// Writes it, atomically and durably, unless it is there. Nothing to do without a bootstrap document.
pub fn publish(disk: &Disk, layout: &Layout) -> Result<(), DiskError> {
    let Some(bootstrap) = disk.read_json::<Bootstrap>(&layout.bootstrap())? else { return Ok(()) };
    let (path, operator) = (layout.operator(), bootstrap.operator());
    let published: Option<Operator> = match disk.read_json(&path) {
        Err(DiskError::Damaged { .. }) => None,
        published => published?,
    };
    if published == Some(operator) {
        return Ok(());
    }
    disk.write_for_all(&path, &to_json(&operator, b"\n"))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _};

    use moorage_wire::{Epoch, InstanceId, OperatorPublicKey, Sha256, bootstrap::EnrolmentKeyText};

    use super::*;

    const KEY: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

    #[test]
    fn the_published_operator_follows_the_bootstrap_document() {
        let folder = tempfile::tempdir().unwrap();
        let (disk, layout) = (Disk::default(), Layout::new(folder.path().to_owned()));
        publish(&disk, &layout).unwrap();
        assert!(!layout.operator().exists(), "there is no document yet");
        fs::create_dir_all(layout.bootstrap().parent().unwrap()).unwrap();
        for (byte, before) in [(3, None), (4, Some("{"))] {
            let bootstrap = Bootstrap {
                instance_id: InstanceId::from_bytes([1; 16]),
                epoch: Epoch::from_bytes([2; 8]),
                operator_key: OperatorPublicKey::from_bytes([byte; 32]),
                bearer_sha256: Sha256::of(b"bearer"),
                enrolment_key: EnrolmentKeyText::new(KEY.to_owned()),
            };
            disk.write_json(&layout.bootstrap(), &bootstrap).unwrap();
            if let Some(damaged) = before {
                fs::write(layout.operator(), damaged).unwrap();
            }
            publish(&disk, &layout).unwrap();
            let text = fs::read_to_string(layout.operator()).unwrap();
            assert!(!text.contains(KEY) && !text.contains("bearer"), "{text}");
            let published: Operator = serde_json::from_str(&text).unwrap();
            assert_eq!(published, bootstrap.operator());
            let metadata = fs::metadata(layout.operator()).unwrap();
            assert_eq!(metadata.mode() & 0o7777, 0o644);
            publish(&disk, &layout).unwrap();
            assert_eq!(fs::metadata(layout.operator()).unwrap().ino(), metadata.ino());
        }
    }
}
