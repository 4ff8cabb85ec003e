//! The conditions of the instance as they change, until it is Ready.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use moorage_testbed::{CloudInit, LabServerState, conditions};
use serde_json::Value;

use crate::lab::{Lab, is_true};

/// From the first line of a cold machine to Ready; the aim is 20 s.
const AT_MOST: Duration = Duration::from_secs(120);
/// The same with a Debian that boots and real programs that are installed.
const AT_MOST_IN_THE_LAB: Duration = Duration::from_secs(400);

/// When, since the instance was applied, it got how far.
pub(crate) struct Milestones {
    /// The agent answered and took the keys.
    pub(crate) enrolled: Duration,
    /// The instance was Ready.
    pub(crate) ready: Duration,
}

/// Prints each change; an error if it takes too long, or if only a person could help.
pub(crate) async fn until_ready(lab: &mut Lab, start: Instant) -> Result<Milestones> {
    let instances = lab.instances();
    let mut enrolled = None;
    let at_most = if lab.debian.is_some() { AT_MOST_IN_THE_LAB } else { AT_MOST };
    let mut shown = BTreeMap::new();
    loop {
        let instance = instances.get("ada").await?;
        print_changes(&instance.data, &mut shown, start);
        if lab.debian.is_some() {
            print_servers(&lab.simulator.lab_servers().await?, &mut shown, start);
        }
        if enrolled.is_none() && is_true(&instance.data, "AgentReady") {
            enrolled = Some(start.elapsed());
        }
        if is_true(&instance.data, "Ready") {
            let ready = start.elapsed();
            return Ok(Milestones { enrolled: enrolled.unwrap_or(ready), ready });
        }
        if is_true(&instance.data, "Stalled") {
            bail!("the instance is stalled:\n{}", conditions(&instance.data));
        }
        if let Some(status) = lab.operator.process().exit_status() {
            bail!("the operator ended ({status})");
        }
        if start.elapsed() > at_most {
            let seen = conditions(&instance.data);
            bail!("not Ready after {} s:\n{seen}", at_most.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn print_changes(object: &Value, shown: &mut BTreeMap<String, String>, start: Instant) {
    for condition in object["status"]["conditions"].as_array().into_iter().flatten() {
        let text = |key: &str| condition[key].as_str().unwrap_or("?").to_owned();
        let line = format!("{:<7} {:<14} {}", text("status"), text("reason"), text("message"));
        print_change(text("type"), line, shown, start);
    }
}

fn print_servers(servers: &[LabServerState], shown: &mut BTreeMap<String, String>, start: Instant) {
    for server in servers {
        let power = if server.power { "on" } else { "off" };
        let cloud_init = match server.cloud_init {
            CloudInit::Unfinished => "boots",
            CloudInit::Done => "cloud-init is done",
            CloudInit::Failed => "cloud-init ended with errors: see /var/log/cloud-init.log there",
        };
        let line = format!("{power:<7} start {:<8} {cloud_init}", server.starts);
        print_change(format!("(server {})", server.id), line, shown, start);
    }
}

fn print_change(what: String, line: String, shown: &mut BTreeMap<String, String>, start: Instant) {
    if shown.get(&what) != Some(&line) {
        println!("  {:5.1} s  {what:<21} {line}", start.elapsed().as_secs_f64());
        shown.insert(what, line);
    }
}
