//! What the programs say on standard output and standard error.

use std::io::Write as _;

/// Prints a line. Nobody reading it is no reason to fail.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints a line for whoever looks for the reason of a failure.
pub fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
