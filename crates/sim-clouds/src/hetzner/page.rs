//! Lists: filters by name and label, sorting and pages. A page is cut from the list as it is at
//! that moment, so items shift between pages when others come or go, as they do at Hetzner.

use std::cmp::Ordering;

use serde::Serialize;

use super::ApiError;
use super::labels::{Labels, Selector};
use crate::query::QueryPairs;

const DEFAULT_PER_PAGE: usize = 25;
const MAX_PER_PAGE: usize = 50;

/// `meta` of a list.
#[derive(Debug, Serialize)]
pub(crate) struct Meta {
    pagination: Pagination,
}

#[derive(Debug, Serialize)]
struct Pagination {
    page: usize,
    per_page: usize,
    previous_page: Option<usize>,
    next_page: Option<usize>,
    last_page: Option<usize>,
    total_entries: Option<usize>,
}

/// Cuts the page that `query` asks for out of `items`. More than 50 per page counts as 50.
pub(crate) fn cut<T>(items: Vec<T>, query: &QueryPairs) -> Result<(Vec<T>, Meta), ApiError> {
    let page = number(query, "page", 1)?;
    let per_page = number(query, "per_page", DEFAULT_PER_PAGE)?.min(MAX_PER_PAGE);
    let total = items.len();
    let last = total.div_ceil(per_page).max(1);
    let skipped = (page - 1).saturating_mul(per_page);
    let items = items.into_iter().skip(skipped).take(per_page).collect();
    let pagination = Pagination {
        page,
        per_page,
        previous_page: (page > 1).then(|| page - 1),
        next_page: (page < last).then_some(page + 1),
        last_page: Some(last),
        total_entries: Some(total),
    };
    Ok((items, Meta { pagination }))
}

fn number(query: &QueryPairs, name: &str, default: usize) -> Result<usize, ApiError> {
    let Some(text) = query.get(name) else {
        return Ok(default);
    };
    text.parse()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| ApiError::invalid(name, "must be a positive number"))
}

/// What lists can be filtered and sorted by.
pub(crate) struct Key<'a> {
    pub(crate) id: u64,
    pub(crate) name: &'a str,
    /// `None`: things of this kind have no labels.
    pub(crate) labels: Option<&'a Labels>,
}

/// What stands in lists.
pub(crate) trait Listed {
    fn key(&self) -> Key<'_>;
}

/// Applies `name`, `label_selector` and `sort`.
pub(crate) fn choose<T: Listed>(mut items: Vec<T>, query: &QueryPairs) -> Result<Vec<T>, ApiError> {
    if let Some(name) = query.get("name") {
        items.retain(|item| item.key().name == name);
    }
    if let Some(text) = query.get("label_selector").filter(|text| !text.is_empty()) {
        let selector = Selector::parse(text)?;
        items.retain(|item| item.key().labels.is_some_and(|labels| selector.selects(labels)));
    }
    let keys: Vec<_> = query.all("sort").collect();
    for key in keys.iter().rev() {
        let (field, order) = key.split_once(':').unwrap_or((key, "asc"));
        let compare: fn(&T, &T) -> Ordering = match field {
            // Ids are given in the order of creation.
            "id" | "created" => |a, b| a.key().id.cmp(&b.key().id),
            "name" => |a, b| a.key().name.cmp(b.key().name),
            _ => {
                return Err(ApiError::invalid("sort", format!("cannot sort by '{field}'")));
            }
        };
        match order {
            "asc" => items.sort_by(compare),
            "desc" => items.sort_by(|a, b| compare(b, a)),
            _ => {
                return Err(ApiError::invalid("sort", format!("unknown order '{order}'")));
            }
        }
    }
    Ok(items)
}
