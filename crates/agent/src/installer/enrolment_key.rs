//! The one-time enrolment key in the bootstrap document, which is root's on a real server.

use moorage_wire::bootstrap::{Bootstrap, EnrolmentKeyText};

use crate::{
    disk::{Disk, DiskError, to_json},
    layout::Layout,
};

/// Blanks the key, atomically and durably; who may read the document stays as it is. Nothing to do if
/// it is blank, or if there is no document.
pub fn erase(disk: &Disk, layout: &Layout) -> Result<(), DiskError> {
    let path = layout.bootstrap();
    let Some(mut bootstrap) = disk.read_json::<Bootstrap>(&path)? else { return Ok(()) };
    if bootstrap.enrolment_key.is_erased() {
        return Ok(());
    }
    bootstrap.enrolment_key = EnrolmentKeyText::erased();
    disk.rewrite(&path, &to_json(&bootstrap, b"\n"))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    };

    use moorage_wire::{Epoch, InstanceId, OperatorPublicKey, Sha256};

    use super::*;
    use crate::disk::crash::disk_that_dies_at;

    const KEY: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

    fn server() -> (tempfile::TempDir, Layout, Bootstrap) {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path().to_owned());
        let bootstrap = Bootstrap {
            instance_id: InstanceId::from_bytes([1; 16]),
            epoch: Epoch::from_bytes([2; 8]),
            operator_key: OperatorPublicKey::from_bytes([3; 32]),
            bearer_sha256: Sha256::of(b""),
            enrolment_key: EnrolmentKeyText::new(KEY.to_owned()),
        };
        let path = layout.bootstrap();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, serde_json::to_vec(&bootstrap).unwrap()).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        (folder, layout, bootstrap)
    }

    #[test]
    fn the_key_goes_and_all_else_stays_readers_included() {
        let (_folder, layout, before) = server();
        let owner = fs::metadata(layout.bootstrap()).unwrap();
        erase(&Disk::default(), &layout).unwrap();
        let text = fs::read_to_string(layout.bootstrap()).unwrap();
        assert!(!text.contains(KEY));
        let after: Bootstrap = serde_json::from_str(&text).unwrap();
        assert!(after.enrolment_key.is_erased());
        assert_eq!(Bootstrap { enrolment_key: before.enrolment_key.clone(), ..after }, before);
        let metadata = fs::metadata(layout.bootstrap()).unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o640);
        assert_eq!((metadata.uid(), metadata.gid()), (owner.uid(), owner.gid()));

        erase(&Disk::default(), &layout).unwrap();
        let again = fs::metadata(layout.bootstrap()).unwrap();
        assert_eq!(again.ino(), metadata.ino(), "a blank key is not blanked again");
    }

    #[test]
    fn a_crash_leaves_a_whole_document_and_a_retry_ends_it() {
        for at in 0.. {
            let (_folder, layout, before) = server();
            let (disk, crashed) = disk_that_dies_at(at);
            let erased = erase(&disk, &layout);
            let text = fs::read_to_string(layout.bootstrap()).unwrap();
            let document: Bootstrap = serde_json::from_str(&text).unwrap();
            assert_eq!(document.epoch, before.epoch);
            assert_eq!(fs::metadata(layout.bootstrap()).unwrap().mode() & 0o7777, 0o640);
            if !crashed() {
                erased.unwrap();
                assert!(at > 3, "only {at} steps were tried");
                break;
            }
            erase(&Disk::default(), &layout).unwrap();
            let folder = layout.bootstrap().parent().unwrap().to_owned();
            assert_eq!(fs::read_dir(folder).unwrap().count(), 1, "something is left of step {at}");
            assert!(!fs::read_to_string(layout.bootstrap()).unwrap().contains(KEY), "step {at}");
        }
    }

    #[test]
    fn a_server_without_the_document_has_nothing_to_erase() {
        let folder = tempfile::tempdir().unwrap();
        erase(&Disk::default(), &Layout::new(folder.path().to_owned())).unwrap();
    }
}
