//! Headings, and commands that are shown, run as they are shown, and have to succeed.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// Begins a part of the demo.
pub(crate) fn heading(text: &str) {
    println!("\n\x1b[1m{text}\x1b[0m");
}

/// Where commands run: a folder with the tools under their own names, and the environment.
#[derive(Debug)]
pub(crate) struct Shell {
    /// Variables that a person exports to repeat the commands.
    pub(crate) variables: Vec<(&'static str, String)>,
}

impl Shell {
    /// Shows the command, runs it, shows its output and returns it.
    pub(crate) fn show(&self, command: &str) -> Result<String> {
        println!("\n  $ {command}");
        let output = self.output(command)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        print_indented(&text);
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!("`{command}` failed ({}): {}", output.status, error.trim());
        }
        Ok(text)
    }

    /// Shows a command that has to fail, and why it did.
    pub(crate) fn show_failure(&self, command: &str, wanted: &str) -> Result<()> {
        println!("\n  $ {command}");
        let output = self.output(command)?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        print_indented(&text);
        if output.status.success() || !text.contains(wanted) {
            let found = String::from_utf8_lossy(&output.stdout);
            bail!("`{command}` should fail with {wanted:?}, but it says: {found}{text}");
        }
        Ok(())
    }

    /// Runs a command with `input`, unseen.
    pub(crate) fn feed(&self, command: &str, input: &str) -> Result<String> {
        use std::io::Write as _;
        let mut child = self.command(command).stdin(Stdio::piped()).spawn().context("bash")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).with_context(|| format!("writing to `{command}`"))?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!("`{command}` failed ({}): {}", output.status, error.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn output(&self, command: &str) -> Result<Output> {
        self.command(command).stdin(Stdio::null()).output().context("cannot run bash")
    }

    fn command(&self, command: &str) -> Command {
        let mut bash = Command::new("bash");
        bash.args(["-o", "pipefail", "-c", command])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .envs(self.variables.iter().map(|(name, value)| (*name, value)));
        bash
    }
}

/// Makes a folder with a link for each program, to be the first of `PATH`.
pub(crate) fn link_programs<'a>(
    folder: &Path,
    programs: impl IntoIterator<Item = (&'a str, &'a Path)>,
) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    for (name, program) in programs {
        let program = std::fs::canonicalize(program)
            .with_context(|| format!("{name} is not at {}", program.display()))?;
        std::os::unix::fs::symlink(program, folder.join(name))?;
    }
    Ok(())
}

fn print_indented(text: &str) {
    for line in text.lines() {
        println!("  {line}");
    }
}
