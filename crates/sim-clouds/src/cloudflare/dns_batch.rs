//! `POST /zones/{zone}/dns_records/batch`: deletes, patches, puts and posts, in that order, all or
//! nothing.

use axum::extract::Path;
use serde::{Deserialize, Serialize};

use super::dns_records::{self, Record, RecordFields};
use super::envelope::{Answer, ApiError, Caller, JsonBody};
use super::state::Zone;

#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Batch {
    deletes: Option<Vec<Reference>>,
    patches: Option<Vec<Change>>,
    puts: Option<Vec<Change>>,
    posts: Option<Vec<RecordFields>>,
}

#[derive(Deserialize)]
struct Reference {
    id: String,
}

#[derive(Deserialize)]
struct Change {
    id: String,
    #[serde(flatten)]
    fields: RecordFields,
}

#[derive(Debug, Serialize)]
pub(crate) struct BatchResult {
    deletes: Vec<Record>,
    patches: Vec<Record>,
    puts: Vec<Record>,
    posts: Vec<Record>,
}

pub(crate) async fn run(
    caller: Caller,
    Path(zone): Path<String>,
    JsonBody(batch): JsonBody<Batch>,
) -> Result<Answer<BatchResult>, ApiError> {
    caller.zone(&zone, |zone| {
        let before = zone.records.clone();
        let result = apply(zone, batch);
        if result.is_err() {
            zone.records = before;
        }
        result.map(Answer::ok)
    })
}

fn apply(zone: &mut Zone, batch: Batch) -> Result<BatchResult, ApiError> {
    let deletes = batch.deletes.unwrap_or_default();
    let patches = batch.patches.unwrap_or_default();
    let puts = batch.puts.unwrap_or_default();
    let posts = batch.posts.unwrap_or_default();
    let (count, most) =
        (deletes.len() + patches.len() + puts.len() + posts.len(), zone.plan.batch_operations());
    if count == 0 || count > most {
        // The code has no public source.
        return Err(ApiError::bad(
            9208,
            format!("a batch has 1 to {most} operations on this plan, this one has {count}"),
        ));
    }
    Ok(BatchResult {
        deletes: deletes
            .into_iter()
            .map(|one| dns_records::remove(zone, &one.id))
            .collect::<Result<_, _>>()?,
        patches: patches
            .into_iter()
            .map(|one| dns_records::modify(zone, &one.id, one.fields))
            .collect::<Result<_, _>>()?,
        puts: puts
            .into_iter()
            .map(|one| dns_records::overwrite(zone, &one.id, one.fields))
            .collect::<Result<_, _>>()?,
        posts: posts
            .into_iter()
            .map(|fields| dns_records::insert(zone, fields))
            .collect::<Result<_, _>>()?,
    })
}
