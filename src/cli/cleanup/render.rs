//! What was found and what became of it, for people and for programs.

use std::fmt::Write as _;

use moorage_wire::InstallationId;
use serde::Serialize;

use super::removal::Outcome;
use crate::{
    api::pool::OrphanKind,
    orphans::{Found, monthly_cost},
};

type Row<'a> = (&'a Found, &'a Outcome);

/// One line for each, and how many there are.
pub(super) fn text(rows: &[Row<'_>], deleting: bool) -> String {
    let mut text = String::new();
    let width = |column: fn(&Found) -> String| {
        rows.iter().map(|(one, _)| column(one).chars().count()).max().unwrap_or_default()
    };
    let kind = |one: &Found| format!("{:?}", one.kind);
    let columns = (width(kind), width(|one| one.id.clone()), width(|one| one.name.clone()));
    for (one, outcome) in rows {
        let (kinds, ids, names) = columns;
        let _ = writeln!(
            text,
            "{:kinds$}  {:ids$}  {:names$}  {}{}",
            kind(one),
            one.id,
            one.name,
            one.owner.describe(),
            word(one, outcome, deleting),
        );
    }
    let count = |wanted: fn(&Outcome) -> bool| rows.iter().filter(|(_, is)| wanted(is)).count();
    let kept = count(|outcome| *outcome == Outcome::Kept);
    let deleted = count(|outcome| *outcome == Outcome::Deleted);
    let left: Vec<_> = rows.iter().filter(|(_, is)| **is != Outcome::Deleted).collect();
    let _ = if deleting {
        writeln!(text, "{deleted} deleted, {} left, {kept} of them kept.", left.len())
    } else {
        writeln!(text, "{} found, {kept} of them kept.", rows.len())
    };
    if let Some(cost) = monthly_cost(left.iter().map(|(one, _)| *one)) {
        let _ = writeln!(text, "The servers that are there cost {cost:.2} a month.");
    }
    text
}

fn word(one: &Found, outcome: &Outcome, deleting: bool) -> String {
    match outcome {
        Outcome::Deleted => "  deleted".to_owned(),
        Outcome::Changed => {
            "  left alone: it is not there any more, or is not what was listed".to_owned()
        }
        Outcome::Failed(why) => format!("  failed: {why}"),
        Outcome::Kept if one.retained => "  kept: retained; --retained includes it".to_owned(),
        Outcome::Kept => "  kept: a retained server needs it".to_owned(),
        Outcome::Present if deleting => "  is there".to_owned(),
        Outcome::Present => String::new(),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    installation: String,
    monthly_cost: Option<String>,
    objects: Vec<Object>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    kind: OrphanKind,
    id: String,
    name: String,
    owner: String,
    retained: bool,
    created: Option<String>,
    server_type: Option<String>,
    monthly_cost: Option<String>,
    outcome: &'static str,
    error: Option<String>,
}

pub(super) fn json(
    installation: InstallationId,
    rows: &[Row<'_>],
) -> Result<String, serde_json::Error> {
    let object = |(one, outcome): &Row<'_>| {
        let (outcome, error) = match outcome {
            Outcome::Present => ("Present", None),
            Outcome::Kept => ("Kept", None),
            Outcome::Deleted => ("Deleted", None),
            Outcome::Changed => ("Changed", None),
            Outcome::Failed(why) => ("Failed", Some(why.clone())),
        };
        Object {
            kind: one.kind,
            id: one.id.clone(),
            name: one.name.clone(),
            owner: one.owner.describe(),
            retained: one.retained,
            created: one.created.map(|created| created.to_string()),
            server_type: one.server_type.clone(),
            monthly_cost: one.monthly_cost.clone(),
            outcome,
            error,
        }
    };
    let left = rows.iter().filter(|(_, outcome)| **outcome != Outcome::Deleted);
    let document = Document {
        installation: installation.to_string(),
        monthly_cost: monthly_cost(left.map(|(one, _)| *one)).map(|cost| format!("{cost:.2}")),
        objects: rows.iter().map(object).collect(),
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}
