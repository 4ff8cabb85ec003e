use std::os::unix::fs::MetadataExt as _;

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use rstest::rstest;
use tar::{Builder, Header};
use tempfile::TempDir;

use super::*;

/// An entry as it stands in an archive, whatever the library for making them says to it.
struct Raw {
    kind: EntryType,
    path: &'static str,
    link: &'static str,
    mode: u32,
    bytes: &'static [u8],
}

fn file(path: &'static str) -> Raw {
    Raw { kind: EntryType::Regular, path, link: "", mode: 0o644, bytes: b"bytes" }
}

fn folder(path: &'static str) -> Raw {
    Raw { kind: EntryType::Directory, path, link: "", mode: 0o755, bytes: b"" }
}

fn link(path: &'static str, link: &'static str) -> Raw {
    Raw { kind: EntryType::Symlink, path, link, mode: 0o777, bytes: b"" }
}

fn hard_link(path: &'static str, to: &'static str) -> Raw {
    Raw { kind: EntryType::Link, ..link(path, to) }
}

fn set_raw(field: &mut [u8], text: &str) {
    field[..text.len()].copy_from_slice(text.as_bytes());
}

fn tar_of(entries: &[Raw]) -> Vec<u8> {
    let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for entry in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_size(entry.bytes.len() as u64);
        let raw = header.as_gnu_mut().unwrap();
        set_raw(&mut raw.name, entry.path);
        set_raw(&mut raw.linkname, entry.link);
        header.set_cksum();
        builder.append(&header, entry.bytes).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

/// Unpacks below a folder that must stay as it is.
fn attempt(archive: &[u8], limits: Limits) -> (TempDir, Result<PathBuf, UnpackError>) {
    let around = tempfile::tempdir().unwrap();
    let (packed, target) = (around.path().join("packed"), around.path().join("contents"));
    fs::write(&packed, archive).unwrap();
    fs::create_dir(&target).unwrap();
    let unpacked = unpack(&packed, &target, limits);
    let mut beside: Vec<_> =
        fs::read_dir(around.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    beside.sort();
    assert_eq!(beside, ["contents", "packed"], "something was written outside");
    (around, unpacked)
}

#[test]
fn an_archive_of_node_is_unpacked_and_its_links_work() {
    let archive = tar_of(&[
        folder("node-v24/"),
        Raw { mode: 0o6755, bytes: b"program", ..file("node-v24/bin/node") },
        link("node-v24/bin/npm", "../lib/node_modules/npm/cli.js"),
        Raw { mode: 0o666, bytes: b"script", ..file("node-v24/lib/node_modules/npm/cli.js") },
        hard_link("node-v24/LICENCE", "node-v24/lib/node_modules/npm/cli.js"),
    ]);
    let (around, unpacked) = attempt(&archive, LIMITS);
    let folder = unpacked.unwrap();
    assert_eq!(folder, around.path().join("contents/node-v24"));
    assert_eq!(fs::read(folder.join("bin/npm")).unwrap(), b"script");
    assert_eq!(fs::read(folder.join("LICENCE")).unwrap(), b"script");
    let mode = |path: &str| fs::metadata(folder.join(path)).unwrap().mode() & 0o7777;
    assert_eq!(mode("bin/node"), 0o755, "no set-user-id");
    assert_eq!(mode("lib/node_modules/npm/cli.js"), 0o644);
    assert_eq!(mode("lib"), 0o755);
}

#[rstest]
#[case::own_folder(&[file("bin/node")])]
#[case::two_folders(&[file("bin/openclaw"), file("node_modules/openclaw/openclaw.mjs")])]
#[case::a_file_beside(&[file("package/a"), file("b")])]
#[case::dot_in_front(&[folder("./"), file("./bin/node")])]
fn an_archive_without_a_wrapping_is_taken_as_it_is(#[case] entries: &[Raw]) {
    let (around, unpacked) = attempt(&tar_of(entries), LIMITS);
    assert_eq!(unpacked.unwrap(), around.path().join("contents"));
}

#[rstest]
#[case::absolute(&[file("/etc/passwd")])]
#[case::up(&[file("../beside")])]
#[case::up_later(&[file("a/../../beside")])]
#[case::link_absolute(&[link("a", "/etc")])]
#[case::link_up(&[link("a", "..")])]
#[case::link_up_deep(&[link("a/b/c", "../../../beside")])]
#[case::link_down_and_up(&[folder("a/b/"), link("a/c", "b/../../..")])]
#[case::link_to_nothing(&[link("a", "")])]
#[case::link_out_of_the_wrapping(&[file("package/x"), link("package/y", "../z")])]
#[case::through_a_link(&[folder("a/"), link("b", "a"), file("b/c")])]
#[case::over_a_link(&[link("a", "b"), file("a")])]
#[case::over_a_file(&[file("a"), file("a")])]
#[case::file_as_folder(&[file("a"), file("a/b")])]
#[case::hard_link_out(&[hard_link("a", "../packed")])]
#[case::hard_link_absolute(&[hard_link("a", "/etc/passwd")])]
#[case::hard_link_to_a_link(&[link("a", "b"), hard_link("c", "a")])]
#[case::hard_link_to_a_folder(&[folder("a/"), hard_link("c", "a")])]
#[case::hard_link_to_nothing(&[hard_link("c", "a")])]
#[case::device(&[Raw { kind: EntryType::Char, ..file("null") }])]
#[case::block_device(&[Raw { kind: EntryType::Block, ..file("sda") }])]
#[case::pipe(&[Raw { kind: EntryType::Fifo, ..file("pipe") }])]
#[case::sparse(&[Raw { kind: EntryType::GNUSparse, ..file("sparse") }])]
#[case::no_name(&[file("./")])]
fn a_hostile_archive_is_refused(#[case] entries: &[Raw]) {
    let (_around, unpacked) = attempt(&tar_of(entries), LIMITS);
    let refused = unpacked.unwrap_err();
    let expected = matches!(refused, UnpackError::Entry { .. } | UnpackError::Unreadable(_));
    assert!(expected, "{refused}");
}

#[test]
fn too_many_entries_and_too_many_bytes_are_refused() {
    let archive = tar_of(&[file("a"), file("b"), file("c")]);
    let (_around, unpacked) = attempt(&archive, Limits { entries: 2, ..LIMITS });
    assert!(matches!(unpacked, Err(UnpackError::TooMuch(_))), "{unpacked:?}");
    // A bomb: 4 MiB of zeros in a few kilobytes.
    let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = Header::new_gnu();
    header.set_size(4 << 20);
    header.set_mode(0o644);
    builder.append_data(&mut header, "zeros", io::repeat(0).take(4 << 20)).unwrap();
    let bomb = builder.into_inner().unwrap().finish().unwrap();
    let (around, unpacked) = attempt(&bomb, Limits { bytes: 1 << 20, ..LIMITS });
    assert!(matches!(unpacked, Err(UnpackError::TooMuch(_))), "{unpacked:?}");
    let written = fs::metadata(around.path().join("contents/zeros")).unwrap().len();
    assert!(written <= 1 << 20, "{written} bytes were written");
}

#[test]
fn what_is_no_archive_or_cut_off_or_empty_is_refused() {
    let whole = tar_of(&[Raw { bytes: &[7; 4000], ..file("a") }]);
    let (_around, unpacked) = attempt(&whole[..whole.len() / 2], LIMITS);
    assert!(matches!(unpacked, Err(UnpackError::Unreadable(_))), "{unpacked:?}");
    let (_around, unpacked) = attempt(b"no gzip at all", LIMITS);
    assert!(matches!(unpacked, Err(UnpackError::Unreadable(_))), "{unpacked:?}");
    let (_around, unpacked) = attempt(&tar_of(&[]), LIMITS);
    assert!(matches!(unpacked, Err(UnpackError::Empty)), "{unpacked:?}");
}

proptest! {
    /// Links and folders in any arrangement, followed with the kernel's own eyes.
    #[test]
    fn no_link_that_is_taken_leads_outside(
        entries in prop::collection::vec(
            ("[ab](/[ab]){0,2}", "(\\.\\./|\\./|[ab]/){0,4}[ab.]{1,2}", any::<bool>()), 1..8),
    ) {
        let around = tempfile::tempdir().unwrap();
        let target = around.path().canonicalize().unwrap().join("contents");
        fs::create_dir(&target).unwrap();
        let mut taken = Vec::new();
        for (path, to, is_folder) in &entries {
            let mut unpacking = Unpacking::into(&target, 1);
            let path = Path::new(path);
            let above = path.parent().unwrap();
            if *is_folder {
                let _ = unpacking.folder(path);
            } else if unpacking.folder(above).is_ok()
                && link_top(above, Path::new(to)).is_ok()
                && symlink(to, target.join(path)).is_ok()
            {
                taken.push(path);
            }
        }
        for path in taken {
            // Those that lead nowhere, or in circles, lead nowhere else either.
            if let Ok(led_to) = target.join(path).canonicalize() {
                prop_assert!(led_to.starts_with(&target), "{path:?} leads to {led_to:?}");
            }
        }
    }
}
