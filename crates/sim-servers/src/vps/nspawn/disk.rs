//! A server's disk: an image with a file system of its own, so that it has a size and can be full. A
//! container's holds what differs from the shared tree, which lies below it as an overlay; a virtual
//! machine's holds everything.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a loop device may need to let go of an image.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);

/// The image, in the server's folder.
pub(super) const IMAGE: &str = "disk.img";

/// The files of one server's disk.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    folder: PathBuf,
}

/// A file that is on the disk before the first boot.
#[derive(Debug)]
pub(super) struct Planted {
    /// Absolute path on the server.
    pub(super) path: &'static str,
    /// Permissions.
    pub(super) mode: u32,
    pub(super) content: Content,
}

/// What is at a planted path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A file with these bytes.
    Bytes(Vec<u8>),
    /// A symbolic link to this.
    Link(&'static str),
}

/// What is on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// What differs from the shared tree.
    Difference,
    Whole,
}

impl Disk {
    pub(super) fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn image(&self) -> PathBuf {
        self.folder.join(IMAGE)
    }

    /// A whole disk that is not filled yet.
    fn unfilled(&self) -> PathBuf {
        self.folder.join("disk.new")
    }

    /// What is put onto the disk at its first use.
    fn seed(&self) -> PathBuf {
        self.folder.join("seed")
    }

    /// Makes a disk of `bytes`, with these files besides what the shared tree has. Blocks.
    pub(super) fn make(&self, bytes: u64, extent: Extent, files: &[Planted]) -> io::Result<()> {
        self.erase()?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let image = match extent {
            Extent::Difference => self.image(),
            Extent::Whole => self.unfilled(),
        };
        File::options().write(true).create_new(true).mode(0o600).open(&image)?.set_len(bytes)?;
        if extent == Extent::Difference {
            // Without a journal: the kernel of this machine does not crash with the server.
            let format = ["-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard"];
            make_file_system(format.map(OsStr::new), &image)?;
        }
        files.iter().try_for_each(|file| self.add_to_seed(file))
    }

    fn add_to_seed(&self, file: &Planted) -> io::Result<()> {
        let path = self.seed().join(file.path.trim_start_matches('/'));
        if let Some(parent) = path.parent() {
            // These become folders of the server, where everybody may look.
            fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        match &file.content {
            Content::Link(target) => std::os::unix::fs::symlink(target, &path),
            Content::Bytes(bytes) => {
                let mut options = File::options();
                let mut out = options.write(true).create_new(true).mode(file.mode).open(&path)?;
                io::Write::write_all(&mut out, bytes)
            }
        }
    }

    /// Fills a whole disk with the tree and the seed, unless that was done before. Mounts in the mount
    /// namespace of the caller. Blocks.
    pub(super) fn fill(&self, tree: &Path) -> io::Result<()> {
        let (image, unfilled) = (self.image(), self.unfilled());
        if image.exists() {
            return Ok(());
        }
        let merged = self.folder.join("root");
        fs::create_dir_all(&merged)?;
        let mut layers = OsString::from("ro,lowerdir=");
        layers.push(self.seed());
        layers.push(":");
        layers.push(tree);
        mount_overlay(&layers, &merged)?;
        // Exactly as a cloud's image: with a journal, which a power cut needs.
        make_file_system(
            ["-m", "0", "-d"].map(OsStr::new).into_iter().chain([merged.as_os_str()]),
            &unfilled,
        )?;
        // What fills it may be cut off: only now it is a disk.
        fs::rename(unfilled, image)
    }

    /// Removes the image and everything else in the folder. Blocks.
    pub(super) fn erase(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Mounts it over `lower`, in the mount namespace of the caller, and says where. Blocks.
    pub(super) fn mount(&self, lower: &Path) -> io::Result<PathBuf> {
        self.wait_until_released()?;
        let (disk, root) = (self.folder.join("disk"), self.folder.join("root"));
        for folder in [&disk, &root] {
            fs::create_dir_all(folder)?;
        }
        let image = self.image();
        let loop_mount = ["-o", "loop,noatime"].map(OsStr::new);
        run("mount", loop_mount.into_iter().chain([image.as_os_str(), disk.as_os_str()]))?;
        let (upper, work) = (disk.join("upper"), disk.join("work"));
        if !upper.exists() {
            self.plant(&disk.join("new"), &upper)?;
        }
        fs::create_dir_all(&work)?;
        let mut layers = OsString::from("lowerdir=");
        for (name, folder) in [("", lower), (",upperdir=", &upper), (",workdir=", &work)] {
            layers.push(name);
            layers.push(folder);
        }
        mount_overlay(&layers, &root)?;
        Ok(root)
    }

    /// Copies the seed beside the place and renames it, so that an interrupted first boot repeats it.
    fn plant(&self, staged: &Path, upper: &Path) -> io::Result<()> {
        if staged.exists() {
            fs::remove_dir_all(staged)?;
        }
        fs::DirBuilder::new().mode(0o755).create(staged)?;
        let copy = ["-a", "--no-target-directory"].map(OsStr::new);
        run("cp", copy.into_iter().chain([self.seed().as_os_str(), staged.as_os_str()]))?;
        fs::rename(staged, upper)
    }

    /// The kernel lets go of the image a moment after the last process that had it mounted.
    fn wait_until_released(&self) -> io::Result<()> {
        let deadline = Instant::now() + RELEASE_TIMEOUT;
        while self.is_mounted_somewhere()? {
            if Instant::now() > deadline {
                return Err(io::Error::other("the disk is still in use"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn is_mounted_somewhere(&self) -> io::Result<bool> {
        let image = self.image();
        for device in fs::read_dir("/sys/block")? {
            let backing = device?.path().join("loop/backing_file");
            if fs::read_to_string(backing).is_ok_and(|path| Path::new(path.trim_end()) == image) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn make_file_system<'a>(
    format: impl IntoIterator<Item = &'a OsStr>,
    image: &'a Path,
) -> io::Result<()> {
    let quiet = ["-q", "-F"].map(OsStr::new).into_iter();
    run("mkfs.ext4", quiet.chain(format).chain([image.as_os_str()]))
}

fn mount_overlay(layers: &OsStr, at: &Path) -> io::Result<()> {
    let overlay = ["-t", "overlay", "overlay", "-o"].map(OsStr::new);
    run("mount", overlay.into_iter().chain([layers, at.as_os_str()]))
}

fn run<'a>(program: &str, arguments: impl IntoIterator<Item = &'a OsStr>) -> io::Result<()> {
    let output = Command::new(program).args(arguments).output();
    let output = output
        .map_err(|error| io::Error::new(error.kind(), format!("cannot run {program}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program} failed ({}): {}", output.status, said.trim())))
}
