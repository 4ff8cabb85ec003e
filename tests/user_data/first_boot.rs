//! The script of the first boot, run for real below a root of its own.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use moorage::user_data::FIRST_BOOT;
use moorage_wire::Sha256;
use rstest::rstest;
use serde_json::json;
use tempfile::TempDir;

use crate::origin::{Answer, Origin};

const PATIENCE: Duration = Duration::from_secs(60);
const SIZE: usize = 300_000;

/// Something that begins like a program of this machine.
fn program(machine: u16) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(18, 0);
    file.extend(machine.to_le_bytes());
    let words = (0u32..).flat_map(|number| number.wrapping_mul(0x9e37_79b9).to_le_bytes());
    file.extend(words.take(SIZE - file.len()));
    file
}

fn here() -> u16 {
    if cfg!(target_arch = "aarch64") { 183 } else { 62 }
}

/// A root with a release whose two programs are the same file.
struct Root {
    folder: TempDir,
    sha256: String,
}

impl Root {
    fn new(url: &str, file: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sha256 = Sha256::of(file).to_string();
        let pinned = json!({"version": "1", "url": url, "sha256": sha256, "size": file.len()});
        let release = json!({"agent": pinned, "cloudflared": pinned}).to_string();
        fs::create_dir_all(folder.path().join("etc/moorage")).unwrap();
        fs::write(folder.path().join("etc/moorage/release.json"), release).unwrap();
        fs::write(folder.path().join("first-boot.py"), FIRST_BOOT).unwrap();
        Self { folder, sha256 }
    }

    fn of(origin: &Origin, file: &[u8]) -> Self {
        Self::new(&format!("http://{}/program", origin.address), file)
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn start(&self) -> Running {
        self.start_by(&[])
    }

    /// Starts it by a script that takes it and its arguments.
    fn start_by(&self, wrapper: &[PathBuf]) -> Running {
        let child = Command::new("python3")
            .arg("-I")
            .args(wrapper)
            .arg(self.path("first-boot.py"))
            .args(["programs", "--root"])
            .arg(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Running(child.expect("python3 is needed to test the script of the first boot"))
    }

    fn run(&self) -> ExitStatus {
        self.start().end()
    }

    /// Runs it, and tells what it wrote, renamed and synced, in order; see `recorder.py`.
    fn run_recorded(&self) -> Vec<String> {
        let recorder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/user_data/recorder.py");
        let log = self.path("log");
        assert!(self.start_by(&[recorder, log.clone()]).end().success());
        fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect()
    }

    /// Both programs are there, whole, and current.
    fn assert_installed(&self, file: &[u8]) {
        for (kind, name) in [("agent", "moorage-agent"), ("cloudflared", "cloudflared")] {
            let home = self.path("opt/moorage").join(kind);
            let target = fs::read_link(home.join("current")).unwrap();
            assert_eq!(target.to_str().unwrap(), self.sha256, "a relative link");
            let installed = home.join("current").join(name);
            assert_eq!(fs::read(&installed).unwrap(), file);
            assert_eq!(fs::metadata(&installed).unwrap().permissions().mode() & 0o7777, 0o755);
            let left: Vec<_> =
                fs::read_dir(&home).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(left.len(), 2, "{left:?}");
        }
        assert!(self.path("var/lib/moorage-first-boot/done").exists());
    }
}

/// A run of the script, killed when it is dropped.
struct Running(Child);

impl Running {
    fn end(mut self) -> ExitStatus {
        wait_until(|| self.0.try_wait().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_until<T>(mut there: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = there() {
            return value;
        }
        assert!(begin.elapsed() < PATIENCE, "it did not happen within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn pinned_programs_are_installed_once() {
    let file = program(here());
    let origin = Origin::new(file.clone(), Vec::new());
    let root = Root::of(&origin, &file);
    assert!(root.run().success());
    root.assert_installed(&file);
    assert_eq!(origin.requests(), [0, 0]);
    assert!(root.run().success());
    root.assert_installed(&file);
    assert_eq!(origin.requests().len(), 2, "what is installed is not fetched again");
}

#[rstest]
#[case::cut_half_way(vec![Answer::Cut(100_000)], vec![0, 100_000, 0])]
#[case::cut_again(vec![Answer::Cut(100_000), Answer::Cut(50_000)], vec![0, 100_000, 150_000, 0])]
#[case::no_ranges(vec![Answer::Cut(100_000), Answer::Whole], vec![0, 100_000, 0])]
#[case::wrong_bytes(vec![Answer::Other(vec![0x55; SIZE])], vec![0, 0, 0])]
#[case::too_many_bytes(vec![Answer::Other(vec![0x55; SIZE + 1])], vec![0, 0, 0])]
#[case::wrong_bytes_then_cut(vec![Answer::Other(vec![0x55; SIZE]), Answer::Cut(9)], vec![0, 0, 9, 0])]
#[case::overloaded(vec![Answer::Status(503)], vec![0, 0, 0])]
#[case::not_there_yet(vec![Answer::Status(404)], vec![0, 0, 0])]
#[case::range_refused(vec![Answer::Cut(9), Answer::Status(416)], vec![0, 9, 0, 0])]
fn the_pinned_file_is_installed_in_the_end(
    #[case] answers: Vec<Answer>,
    #[case] requests: Vec<usize>,
) {
    let file = program(here());
    let origin = Origin::new(file.clone(), answers);
    let root = Root::of(&origin, &file);
    assert!(root.run().success());
    root.assert_installed(&file);
    assert_eq!(origin.requests(), requests);
}

#[test]
fn a_server_that_is_down_is_waited_for() {
    let file = program(here());
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let root = Root::new(&format!("http://{address}/program"), &file);
    let running = root.start();
    // Its folder is there when the first attempt is made.
    let stage = root.path("opt/moorage/agent").join(format!(".{}", root.sha256));
    wait_until(|| stage.exists().then_some(()));
    let _origin = Origin::serve(TcpListener::bind(address).unwrap(), file.clone(), Vec::new());
    assert!(running.end().success());
    root.assert_installed(&file);
}

#[test]
fn a_run_that_was_killed_in_the_middle_is_continued() {
    let file = program(here());
    let origin = Origin::new(file.clone(), vec![Answer::Stall(200_000)]);
    let root = Root::of(&origin, &file);
    let running = root.start();
    let half = root.path("opt/moorage/agent").join(format!(".{}/moorage-agent", root.sha256));
    let got = wait_until(|| fs::metadata(&half).ok().map(|half| half.len()).filter(|got| *got > 0));
    assert!(got <= 200_000);
    drop(running);
    assert!(!root.path("opt/moorage/agent/current").exists(), "half a program is not current");
    let got = usize::try_from(fs::metadata(&half).unwrap().len()).unwrap();
    drop(origin);
    let origin = Origin::new(file.clone(), Vec::new());
    let release = fs::read_to_string(root.path("etc/moorage/release.json")).unwrap();
    let port_in =
        |text: &str| text.split("127.0.0.1:").nth(1).unwrap().split('/').next().unwrap().to_owned();
    let release = release.replace(&port_in(&release), &origin.address.port().to_string());
    fs::write(root.path("etc/moorage/release.json"), release).unwrap();
    assert!(root.run().success());
    root.assert_installed(&file);
    assert_eq!(origin.requests(), [got, 0]);
}

#[test]
fn what_a_mark_or_a_name_promises_is_on_the_disk_before_it() {
    let file = program(here());
    let origin = Origin::new(file.clone(), Vec::new());
    let root = Root::of(&origin, &file);
    // What a run left that was killed before it synced.
    let stage = |kind: &str| root.path("opt/moorage").join(kind).join(format!(".{}", root.sha256));
    fs::create_dir_all(stage("agent")).unwrap();
    fs::write(stage("agent").join("moorage-agent"), &file).unwrap();
    let notes = root.run_recorded();
    root.assert_installed(&file);
    assert_eq!(origin.requests(), [0], "one was there");
    let at = |what: &str, path: &Path| {
        let note = format!("{what} {}", path.display());
        let at = notes.iter().rposition(|noted| *noted == note);
        at.unwrap_or_else(|| panic!("no {note}: {notes:#?}"))
    };
    for (kind, name) in [("agent", "moorage-agent"), ("cloudflared", "cloudflared")] {
        let (stage, part) = (stage(kind), stage(kind).join(name));
        assert!(at("fsync", &part) < at("rename", &stage), "{kind}: {notes:#?}");
    }
    let part = stage("cloudflared").join("cloudflared");
    assert!(at("write", &part) < at("fsync", &part), "{notes:#?}");
    let marks = root.path("var/lib/moorage-first-boot");
    for mark in ["begun", "done"] {
        let mark = marks.join(mark);
        let made = at("write", &mark);
        let all = format!(
            "/usr/bin/sync --file-system {} {}",
            root.folder.path().display(),
            marks.display()
        );
        assert_eq!(notes[made - 1], all, "{notes:#?}");
        assert!(made < at("fsync", &mark), "{notes:#?}");
        assert_eq!(notes[made + 2], format!("fsync {}", marks.display()));
    }
}

#[test]
fn a_later_version_is_not_replaced_by_the_first() {
    let file = program(here());
    let origin = Origin::new(file.clone(), Vec::new());
    let root = Root::of(&origin, &file);
    assert!(root.run().success());
    let home = root.path("opt/moorage/agent");
    fs::create_dir(home.join("later")).unwrap();
    fs::write(home.join("later/moorage-agent"), "later").unwrap();
    fs::remove_file(home.join("current")).unwrap();
    symlink("later", home.join("current")).unwrap();
    assert!(root.run().success());
    assert_eq!(fs::read_link(home.join("current")).unwrap().to_str(), Some("later"));
}

#[test]
fn a_damaged_program_that_is_not_in_use_is_fetched_again() {
    let file = program(here());
    let origin = Origin::new(file.clone(), Vec::new());
    let root = Root::of(&origin, &file);
    let folder = root.path("opt/moorage/agent").join(&root.sha256);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("moorage-agent"), &file[..SIZE / 2]).unwrap();
    assert!(root.run().success());
    root.assert_installed(&file);
}

#[rstest]
#[case::another_architecture(program(243), "http://")]
#[case::no_program(vec![0x55; SIZE], "http://")]
#[case::a_local_file(program(here()), "file://")]
fn what_no_repetition_can_mend_ends_with_78(#[case] file: Vec<u8>, #[case] scheme: &str) {
    let origin = Origin::new(file.clone(), Vec::new());
    let root = Root::new(&format!("{scheme}{}/program", origin.address), &file);
    assert_eq!(root.run().code(), Some(78));
    assert!(!root.path("opt/moorage/agent/current").exists());
    assert!(!root.path("var/lib/moorage-first-boot/done").exists());
}
