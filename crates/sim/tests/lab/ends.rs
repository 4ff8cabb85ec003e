//! What is left: nothing.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use moorage_testbed::{LabError, SimulatorError, wait_until};

use crate::stage::{PATIENCE, Stage, up};

/// Everything on this machine that names one of the lab's servers, by the server's folder and by the
/// name that its namespace and its control group have.
fn traces(folder: &Path, name: &str) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let mut traces = processes_naming(folder);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    traces.extend(
        mounts
            .lines()
            .filter(|line| line.contains(folder) || line.contains(name))
            .map(str::to_owned),
    );
    traces.extend(Path::new(folder).exists().then(|| folder.to_owned()));
    for place in
        ["/run/netns", "/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"]
    {
        let path = Path::new(place).join(name);
        traces.extend(path.exists().then(|| path.display().to_string()));
    }
    for device in std::fs::read_dir("/sys/block").unwrap() {
        let backing = device.unwrap().path().join("loop/backing_file");
        let backing = std::fs::read_to_string(backing).unwrap_or_default();
        traces.extend(backing.contains(folder).then_some(backing));
    }
    traces
}

/// The processes that have `text` in their command line.
fn processes_naming(text: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let command_lines =
        processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    command_lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(text))
        .collect()
}

/// The processes of a container, by this machine's numbers.
fn processes_of(group: &str) -> Vec<String> {
    let mut processes = Vec::new();
    let mut groups = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .map(|mount| Path::new(mount).join(group))
        .to_vec();
    while let Some(group) = groups.pop() {
        let Ok(entries) = std::fs::read_dir(&group) else { continue };
        groups.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()));
        let listed = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        processes.extend(listed.lines().map(str::to_owned));
    }
    processes
}

/// The name of a server's namespace and control group, from the one that leads to its folder.
fn name_of(folder: &Path) -> String {
    let line = processes_naming(&format!("--directory {}", folder.display())).pop().unwrap();
    line.split(' ').find_map(|word| word.strip_prefix("--machine=")).unwrap().to_owned()
}

/// While it is held no simulator starts, and so none removes what a killed one has left.
async fn registry() -> File {
    let take = || {
        let lock = File::create("/run/moorage-sim/.lock").unwrap();
        lock.lock().unwrap();
        lock
    };
    tokio::task::spawn_blocking(take).await.unwrap()
}

async fn no_traces(folder: &Path, name: &str) {
    // The kernel needs a moment to let go of a loop device.
    wait_until("the end of all traces", PATIENCE, || async {
        let left = traces(folder, name);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await
    .unwrap();
}

pub(crate) async fn a_deleted_server_leaves_nothing(stage: Arc<Stage>) {
    let server = stage.booted("deleted", "").await;
    let folder = server.state().await.unwrap().folder;
    let name = name_of(&folder);
    assert!(traces(&folder, &name).len() >= 4, "{:?}", traces(&folder, &name));
    assert!(processes_of(&name).len() > 5, "{:?}", processes_of(&name));
    stage.delete(&server).await;
    no_traces(&folder, &name).await;
    let shown = server.state().await;
    let Err(LabError::Simulator(SimulatorError::Refused { answer, .. })) = shown else {
        panic!("{shown:?}")
    };
    assert!(answer.starts_with("404"), "{answer}");
}

pub(crate) async fn a_killed_simulator_leaves_no_process_behind(stage: Arc<Stage>) {
    let mut own = Stage::with(stage.parts.clone()).await;
    let server = own.booted("killed", "").await;
    let folder = server.state().await.unwrap().folder;
    let name = name_of(&folder);
    let others_wait = registry().await;
    own.simulator.kill();
    wait_until("the end of the server", PATIENCE, || async {
        let left = [processes_naming(folder.to_str().unwrap()), processes_of(&name)].concat();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await
    .unwrap();
    assert!(folder.exists(), "a killed simulator cannot remove its files");
    drop(others_wait);
    // Another simulator, with another state directory.
    let next = Stage::with(stage.parts.clone()).await;
    no_traces(&folder, &name).await;
    let server = next.create("again", "").await;
    up(&server, 1).await;
}

pub(crate) async fn a_simulator_that_ends_leaves_nothing(stage: Arc<Stage>) {
    let own = Stage::with(stage.parts.clone()).await;
    let server = own.booted("ended", "").await;
    let folder = server.state().await.unwrap().folder;
    let name = name_of(&folder);
    tokio::task::spawn_blocking(move || drop(own)).await.unwrap();
    no_traces(&folder, &name).await;
}
