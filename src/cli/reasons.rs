//! `moorage reasons`: the table of reasons in `docs/operations.md` is its output.

use std::io::{self, Write};

use clap::Args;

use crate::api::conditions::{Reason, Severity};

/// Print the reasons of conditions and Events
///
/// What each means and what to do about it, as a table in Markdown.
#[derive(Args, Debug, Default)]
pub struct ReasonsArgs {}

pub fn run(_: &ReasonsArgs, stdout: &mut dyn Write) -> io::Result<()> {
    stdout.write_all(table().as_bytes())?;
    stdout.flush()
}

/// All reasons as a table.
pub fn table() -> String {
    let head = "| reason | applies to | `Stalled` | means | remedy |\n|---|---|---|---|---|\n";
    Reason::ALL.iter().fold(head.to_owned(), |table, reason| table + &row(*reason))
}

fn row(reason: Reason) -> String {
    let stalled = match reason.severity() {
        Severity::Person => "yes",
        Severity::PersonOnceGivenUp => "once the server has given up",
        Severity::Fine | Severity::Passing | Severity::Notice | Severity::Degraded => "",
    };
    let places: Vec<_> = reason.places().iter().map(|place| place.as_str()).collect();
    let (places, meaning, remedy) = (places.join(", "), reason.meaning(), reason.remedy());
    format!("| `{reason}` | {places} | {stalled} |{meaning} | {remedy} |\n")
}
