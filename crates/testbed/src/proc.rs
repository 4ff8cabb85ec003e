//! Processes of this machine as a test sees them, its own or not: what the kernel says of them under
//! `/proc` (proc(5)), and signals.

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// Whether a process with this id runs; a zombie does not.
pub fn runs(process: u32) -> bool {
    stat(process).is_some_and(|(state, _)| state != "Z")
}

/// The processes with this parent that run.
pub fn children_of(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|process| stat(*process).is_some_and(|(state, of)| state != "Z" && of == parent))
        .collect()
}

fn stat(process: u32) -> Option<(String, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

/// A size in the text of `/proc/<id>/status`, such as that of `VmRSS`, in KiB.
pub fn size_in_status(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Sends a signal.
///
/// # Panics
/// If there is no such process.
pub fn signal(process: u32, signal: Signal) {
    let id = i32::try_from(process).ok().and_then(Pid::from_raw).expect("a process has an id");
    kill_process(id, signal).unwrap_or_else(|error| panic!("process {process}: {error}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen_as_it_is() {
        let own = std::process::id();
        assert!(runs(own));
        let parent = std::os::unix::process::parent_id();
        assert!(children_of(parent).contains(&own));
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(size_in_status(&status, "VmRSS").unwrap() > 0);
        assert_eq!(size_in_status(&status, "Vm"), None);
    }

    #[test]
    fn a_zombie_does_not_run() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        assert!(runs(child.id()));
        signal(child.id(), Signal::KILL);
        // It stays a zombie until it is waited for.
        while runs(child.id()) {
            std::thread::yield_now();
        }
        assert!(!children_of(std::process::id()).contains(&child.id()));
        child.wait().unwrap();
    }
}
