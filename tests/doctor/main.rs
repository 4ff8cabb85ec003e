//! `moorage doctor` against the simulated clouds: healthy ones pass, and of each that is broken in one way the
//! one check says so.

#![allow(clippy::unwrap_used)] // Helpers of tests, outside of test functions.

mod clouds;
mod cluster;
mod read_only;
mod write;

use serde_json::Value;

/// The findings of a run, by the id of their check; the worst where there are several.
fn verdicts(report: &Value) -> Vec<(String, String)> {
    let order = ["pass", "unknown", "warn", "fail"];
    let rank = |verdict: &str| order.iter().position(|known| *known == verdict).unwrap();
    let mut found: Vec<(String, String)> = Vec::new();
    for check in report["checks"].as_array().unwrap() {
        let text = |field: &str| check[field].as_str().unwrap().to_owned();
        let (id, verdict) = (text("id"), text("verdict"));
        match found.iter_mut().find(|(known, _)| *known == id) {
            Some((_, worst)) if rank(worst) < rank(&verdict) => *worst = verdict,
            Some(_) => {}
            None => found.push((id, verdict)),
        }
    }
    found
}
