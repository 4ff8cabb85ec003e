//! A child process with a log, which never outlives its owner.

use std::{
    fs::File,
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// How a process is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// At once: it has nothing to put in order.
    Kill,
    /// By SIGTERM, and by SIGKILL if it takes longer than this.
    Terminate(Duration),
}

/// A running child. Dropping it ends it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ending: Ending,
}

impl Process {
    /// Starts `program`; its standard output and error go to `log`, after what is there.
    pub fn start(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>,
        environment: &[(&str, &str)],
        log: &Path,
        ending: Ending,
    ) -> io::Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        // Setting the signal in this process would take unsafe code between fork and exec.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().copied())
            // Ctrl-C is for the owner, which ends its children in the right order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = spawn(command).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                io::Error::new(io::ErrorKind::NotFound, "setpriv is missing: install util-linux")
            }
            _ => error,
        })?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), ending })
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, once it has ended.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of its output, under a heading that says whose they are.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        let tail = all[all.len().saturating_sub(lines)..].join("\n");
        format!("--- last lines of {} ({}) ---\n{tail}\n", self.name, self.log.display())
    }

    /// Ends it, in the way that it was started with, and waits for it.
    pub fn stop(&mut self) {
        if let Ending::Terminate(patience) = self.ending
            && self.exit_status().is_none()
        {
            self.signal(Signal::TERM);
            let deadline = Instant::now() + patience;
            while self.exit_status().is_none() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(10));
            }
        }
        self.kill();
    }

    /// Ends it with no chance to put anything in order, as a crash would, and waits for it.
    pub fn kill(&mut self) {
        if self.exit_status().is_none() {
            // It may have ended since; then there is nothing to do.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended since.
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

type Request = (Command, mpsc::Sender<io::Result<Child>>);

/// Spawns from a thread that lives as long as this process: the kernel sends the parent-death signal
/// when the *thread* that spawned ends, which for a test or a worker of a runtime is early.
fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Request>();
        thread::spawn(move || {
            for (mut command, answer) in receiver {
                // Whoever asked waits for the answer, so this cannot fail.
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, child) = mpsc::channel();
    let gone = |_| io::Error::other("the thread that starts processes is gone");
    spawner.send((command, answer)).map_err(|_| gone(mpsc::RecvError))?;
    child.recv().map_err(gone)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs;

    fn sleeper(directory: &Path) -> Process {
        let log = directory.join("log");
        Process::start("sleeper", Path::new("sleep"), ["1000"], &[], &log, Ending::Kill).unwrap()
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let process = sleeper(directory.path());
        let id = process.id();
        assert!(runs(id));
        drop(process);
        assert!(!runs(id));
    }

    #[test]
    fn a_process_outlives_the_thread_that_asked_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let mut process = thread::spawn(move || sleeper(&path)).join().unwrap();
        // The signal would be sent by the end of the thread, which join has seen.
        assert_eq!(process.exit_status(), None);
        assert!(runs(process.id()));
    }

    #[test]
    fn a_process_that_ends_early_leaves_its_output() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let script = ["-c", "echo one; echo two >&2; exit 3"];
        let mut process =
            Process::start("sh", Path::new("sh"), script, &[], &log, Ending::Kill).unwrap();
        while process.exit_status().is_none() {
            thread::yield_now();
        }
        assert_eq!(process.exit_status().unwrap().code(), Some(3));
        assert!(process.log_tail(5).ends_with("one\ntwo\n"), "{}", process.log_tail(5));
        assert!(!process.log_tail(1).contains("one"));
    }

    #[test]
    fn a_process_that_ignores_sigterm_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let script = ["-c", "trap '' TERM; echo up; while :; do sleep 1; done"];
        let patience = Ending::Terminate(Duration::from_millis(50));
        let process = Process::start("sh", Path::new("sh"), script, &[], &log, patience).unwrap();
        while !process.log_tail(1).contains("up\n") {
            thread::yield_now();
        }
        let id = process.id();
        drop(process);
        assert!(!runs(id));
    }
}
