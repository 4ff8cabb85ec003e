//! The conditions of the instance as they change, until it is Ready.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use moorage_testbed::conditions;
use serde_json::Value;

use crate::lab::{Lab, is_true};

/// From the first line of a cold machine to Ready; the aim is 20 s.
const AT_MOST: Duration = Duration::from_secs(120);

/// Prints each change; an error if it takes too long, or if only a person could help.
pub(crate) async fn until_ready(lab: &mut Lab) -> Result<()> {
    let (instances, start) = (lab.instances(), Instant::now());
    let mut shown = BTreeMap::new();
    loop {
        let instance = instances.get("ada").await?;
        print_changes(&instance.data, &mut shown, start);
        if is_true(&instance.data, "Ready") {
            return Ok(());
        }
        if is_true(&instance.data, "Stalled") {
            bail!("the instance is stalled:\n{}", conditions(&instance.data));
        }
        if let Some(status) = lab.operator.process().exit_status() {
            bail!("the operator ended ({status})");
        }
        if start.elapsed() > AT_MOST {
            let seen = conditions(&instance.data);
            bail!("not Ready after {} s:\n{seen}", AT_MOST.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn print_changes(object: &Value, shown: &mut BTreeMap<String, String>, start: Instant) {
    for condition in object["status"]["conditions"].as_array().into_iter().flatten() {
        let text = |key: &str| condition[key].as_str().unwrap_or("?").to_owned();
        let line = format!("{:<7} {:<14} {}", text("status"), text("reason"), text("message"));
        if shown.get(&text("type")) != Some(&line) {
            println!("  {:5.1} s  {:<21} {line}", start.elapsed().as_secs_f64(), text("type"));
            shown.insert(text("type"), line);
        }
    }
}
