use std::os::unix::fs::MetadataExt as _;

use flate2::{Compression, write::GzEncoder};

use super::*;
use crate::disk::crash::disk_that_dies_at;

const KIND: Program = Program::Node;

fn server() -> (tempfile::TempDir, Layout) {
    // Making all of a file system durable takes no time there.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let folder = folder.unwrap();
    let layout = Layout::new(folder.path().to_owned());
    fs::create_dir_all(layout.downloads()).unwrap();
    (folder, layout)
}

/// A Node.js archive: this very test as its program, and something that tells versions apart.
fn node(version: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::none()));
    let mut add = |path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, path, bytes).unwrap();
    };
    add("bin/node", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0".as_ref());
    add("version", version.as_bytes());
    let mut archive = builder.into_inner().unwrap().finish().unwrap();
    if cfg!(target_arch = "aarch64") {
        let machine = archive.windows(4).position(|bytes| bytes == b"\x02\0\x3e\0").unwrap();
        archive[machine + 2] = 183;
    }
    archive
}

fn fetched(layout: &Layout, bytes: &[u8]) -> (Artifact, PathBuf) {
    let sha256 = Sha256::of(bytes);
    let file = layout.downloads().join(sha256.to_string());
    fs::write(&file, bytes).unwrap();
    let (version, url, size) = ("1".to_owned(), "https://x.example".to_owned(), bytes.len() as u64);
    (Artifact { version, url, sha256, size }, file)
}

fn current_version(layout: &Layout) -> Option<String> {
    fs::read_to_string(layout.programs().join("node/current/version")).ok()
}

fn is_tidy(layout: &Layout) {
    let staged: Vec<_> = fs::read_dir(layout.programs().join(STAGING)).unwrap().collect();
    assert!(staged.is_empty(), "left behind: {staged:?}");
}

#[test]
fn a_version_is_kept_until_two_newer_ones_were_activated() {
    let (_folder, layout) = server();
    let store = Store::open(&Disk::default(), &layout).unwrap();
    let mut digests = Vec::new();
    for version in ["1", "2", "3"] {
        let (artifact, file) = fetched(&layout, &node(version));
        let sha256 = artifact.sha256;
        let early = store.activate(KIND, sha256).unwrap_err();
        assert!(matches!(early, ArtifactError::NotInstalled));
        store.install(KIND, &artifact, &file).unwrap();
        fs::remove_file(&file).unwrap();
        store.install(KIND, &artifact, &file).expect("what is there is not installed again");
        store.activate(KIND, sha256).unwrap();
        store.prune(KIND).unwrap();
        assert_eq!(current_version(&layout).as_deref(), Some(version));
        digests.push(sha256);
    }
    assert!(!store.has(KIND, digests[0]));
    assert_eq!(store.previous(KIND), Some(digests[1]));
    assert_eq!(store.current(KIND), Some(digests[2]));
    let listed = store.list().unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|one| one.active == (one.sha256 == digests[2])));
    let link = fs::read_link(layout.programs().join("node/current")).unwrap();
    assert_eq!(link, Path::new(&digests[2].to_string()), "the link is relative");
    is_tidy(&layout);
}

#[test]
fn files_elsewhere_or_with_other_bytes_are_not_installed() {
    let (folder, layout) = server();
    let store = Store::open(&Disk::default(), &layout).unwrap();
    let (artifact, file) = fetched(&layout, &node("1"));
    let elsewhere = folder.path().join("elsewhere");
    fs::copy(&file, &elsewhere).unwrap();
    let refused = store.install(KIND, &artifact, &elsewhere).unwrap_err();
    assert!(matches!(refused, ArtifactError::NotAFile { .. }), "{refused}");
    fs::write(&file, node("2")).unwrap();
    let refused = store.install(KIND, &artifact, &file).unwrap_err();
    assert!(matches!(refused, ArtifactError::WrongBytes { .. }), "{refused}");
    let too_large = Artifact { size: 1 << 40, ..artifact.clone() };
    let refused = store.install(KIND, &too_large, &file).unwrap_err();
    assert!(matches!(refused, ArtifactError::TooLarge { .. }), "{refused}");
    assert!(!store.has(KIND, artifact.sha256));
    is_tidy(&layout);
}

#[test]
fn an_artifact_without_its_program_for_this_machine_is_refused() {
    let (_folder, layout) = server();
    let store = Store::open(&Disk::default(), &layout).unwrap();
    let (artifact, file) = fetched(&layout, &node("1"));
    // Node.js has no `bin/openclaw`, and an archive is no program.
    for kind in [Program::Openclaw, Program::Agent, Program::Cloudflared] {
        let refused = store.install(kind, &artifact, &file).unwrap_err();
        assert!(matches!(refused, ArtifactError::NoProgram { .. }), "{kind:?}: {refused}");
        assert!(!store.has(kind, artifact.sha256));
    }
    is_tidy(&layout);
}

#[test]
fn a_bare_program_is_installed_executable_for_all() {
    let (_folder, layout) = server();
    let store = Store::open(&Disk::default(), &layout).unwrap();
    let (artifact, file) = fetched(&layout, &fs::read(std::env::current_exe().unwrap()).unwrap());
    let artifact = Artifact { size: fs::metadata(&file).unwrap().len(), ..artifact };
    store.install(Program::Cloudflared, &artifact, &file).unwrap();
    store.activate(Program::Cloudflared, artifact.sha256).unwrap();
    let program = layout.programs().join("cloudflared/current/cloudflared");
    assert_eq!(fs::metadata(program).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_full_disk_has_its_own_error_and_leaves_nothing_behind() {
    let (_folder, layout) = server();
    let (artifact, file) = fetched(&layout, &node("1"));
    for at in 0..4 {
        let disk = Disk::with_failpoint(std::sync::Arc::new({
            let steps = std::sync::atomic::AtomicUsize::new(0);
            move |_: Step, _: &Path| match steps.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                step if step == at => Err(io::ErrorKind::StorageFull.into()),
                _ => Ok(()),
            }
        }));
        let store = Store::open(&disk, &layout).unwrap();
        let full = store.install(KIND, &artifact, &file).unwrap_err();
        assert!(full.is_disk_full(), "{full}");
        assert!(!store.has(KIND, artifact.sha256), "at step {at}");
        is_tidy(&layout);
    }
}

#[test]
fn a_crash_at_any_step_leaves_one_complete_current_version() {
    let mut crashes = 0;
    for at in 0.. {
        let (_folder, layout) = server();
        let whole = Store::open(&Disk::default(), &layout).unwrap();
        for version in ["1", "2"] {
            let (artifact, file) = fetched(&layout, &node(version));
            whole.install(KIND, &artifact, &file).unwrap();
            whole.activate(KIND, artifact.sha256).unwrap();
        }
        let (disk, has_died) = disk_that_dies_at(at);
        let (artifact, file) = fetched(&layout, &node("3"));
        let update = |store: &Store| {
            store.install(KIND, &artifact, &file)?;
            store.activate(KIND, artifact.sha256)?;
            store.prune(KIND)
        };
        let outcome = Store::open(&disk, &layout).and_then(|store| update(&store));
        let seen = current_version(&layout);
        assert!(matches!(seen.as_deref(), Some("2" | "3")), "{seen:?} after step {at}");

        let store = Store::open(&Disk::default(), &layout).unwrap();
        is_tidy(&layout);
        for one in store.list().unwrap() {
            let folder = store.version(KIND, one.sha256);
            assert!(folder.join("version").exists(), "half a version after step {at}");
        }
        update(&store).unwrap();
        assert_eq!(current_version(&layout).as_deref(), Some("3"));
        assert_eq!(store.list().unwrap().len(), 2, "after step {at}");
        if !has_died() {
            outcome.unwrap();
            break;
        }
        crashes += 1;
    }
    assert!(crashes > 8, "only {crashes} steps were tried");
}
