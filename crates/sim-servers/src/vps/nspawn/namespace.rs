//! Named network namespaces: made by `ip`, entered by threads of this process. A socket belongs to the
//! namespace in which it was made, whoever uses it later: that is how the simulator listens and
//! probes inside the lab's network without any address on the machine's own.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::AsFd as _;

/// A namespace below `/run/netns`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NetworkNamespace(String);

impl NetworkNamespace {
    /// The namespace of that name, which need not be there.
    pub(super) fn named(name: String) -> Self {
        Self(name)
    }

    /// Its name for `ip`.
    pub(super) fn name(&self) -> &str {
        &self.0
    }

    /// The file that stands for it.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.0)
    }

    pub(super) fn add(&self) -> io::Result<()> {
        ip(&["netns", "add", &self.0], "")
    }

    /// Removes it with its interfaces, if it is there. What still uses it keeps it alive unnamed.
    pub(super) fn remove(&self) -> io::Result<()> {
        if self.path().exists() { ip(&["netns", "del", &self.0], "") } else { Ok(()) }
    }

    /// Gives `ip` a list of commands for this namespace.
    pub(super) fn configure(&self, commands: &[String]) -> io::Result<()> {
        ip(&["-n", &self.0, "-batch", "-"], &format!("{}\n", commands.join("\n")))
    }

    /// Does `work` in a thread inside. Blocks until it is done.
    pub(super) fn within<T: Send>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        let file = std::fs::File::open(self.path())?;
        let enter_and_work = || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        };
        // The thread ends here and takes its changed namespace with it.
        std::thread::scope(|scope| scope.spawn(enter_and_work).join())
            .unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    }
}

/// The names of all namespaces.
pub(super) fn names() -> io::Result<Vec<String>> {
    match std::fs::read_dir("/run/netns") {
        Ok(entries) => {
            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Runs `ip` with these arguments and this input.
pub(super) fn ip(arguments: &[&str], input: &str) -> io::Result<()> {
    let mut child = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("cannot run ip: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("ip {}: {}", arguments.join(" "), said.trim())))
}
