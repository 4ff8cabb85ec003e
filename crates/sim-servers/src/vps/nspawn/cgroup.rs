//! Control groups, one for each server: systemd in a container needs a subtree of its own, and killing
//! a group leaves nothing behind.

use std::io;
use std::path::{Path, PathBuf};

const MOUNT: &str = "/sys/fs/cgroup";

/// The hierarchies in which a container needs a group: the unified one alone, or, where the machine
/// still has both versions, the unified one beside systemd's own.
fn hierarchies() -> Vec<PathBuf> {
    let mount = Path::new(MOUNT);
    if mount.join("cgroup.controllers").exists() {
        return vec![mount.to_owned()];
    }
    ["unified", "systemd"]
        .map(|name| mount.join(name))
        .into_iter()
        .filter(|path| path.is_dir())
        .collect()
}

/// Puts the calling process into the group of that name, which is made.
pub(super) fn enter(name: &str) -> io::Result<()> {
    for hierarchy in hierarchies() {
        let group = hierarchy.join(name);
        std::fs::create_dir_all(&group)?;
        // 0 is whoever writes.
        std::fs::write(group.join("cgroup.procs"), "0")?;
    }
    Ok(())
}

/// The names of all groups that begin with `prefix`.
pub(super) fn names(prefix: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for hierarchy in hierarchies() {
        for entry in std::fs::read_dir(hierarchy)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with(prefix) && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Ok(names)
}

/// Kills everything in a group. Does not wait.
pub(super) fn kill(name: &str) -> io::Result<()> {
    for hierarchy in hierarchies() {
        match std::fs::write(hierarchy.join(name).join("cgroup.kill"), "1") {
            // The first version has no such file, and what is in there is in the unified one as well.
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                ) =>
            {
                return Err(error);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes a group and those below it. An error if something still runs there.
pub(super) fn remove(name: &str) -> io::Result<()> {
    for hierarchy in hierarchies() {
        remove_tree(&hierarchy.join(name))?;
    }
    Ok(())
}

fn remove_tree(group: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match std::fs::remove_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
