//! What has to be true once the instance is Ready, and once it is gone. Each is shown by a command.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use moorage_testbed::{Probed, conditions, wait_until};
use serde_json::Value;

use crate::{
    lab::{ACCOUNT, KEY, Lab, PROJECT, TENANTS},
    terminal::heading,
};

/// All of them, of a Ready instance.
pub(crate) async fn all(lab: &Lab) -> Result<()> {
    heading("It runs");
    let line = lab.shell.show(&format!("kubectl get oci -n {TENANTS}"))?;
    ensure!(line.contains("https://ada.example.com"), "kubectl does not show the dashboard's URL");
    dashboard(lab)?;
    heading("The key is on the server, and nowhere else");
    key_file(lab).await?;
    no_trace(lab)?;
    lab.shell.show_failure(&format!("kubectl get secret ada-keys -n {TENANTS}"), "NotFound")?;
    if lab.debian.is_some() {
        heading("From outside, the server does not answer");
        outside(lab).await?;
    }
    heading("What the clouds were asked");
    calls(lab).await?;
    heading("What was written to the API server");
    writes(lab)
}

fn dashboard(lab: &Lab) -> Result<()> {
    let clouds = lab.simulator.endpoints();
    let page = lab.shell.show(&format!(
        "curl -sS --fail --max-time 20 --noproxy '*' --cacert {} --connect-to ada.example.com:443:{} https://ada.example.com/ | sed -n '1,5p' | cut -c 1-100",
        clouds.edge_ca.display(),
        clouds.edge
    ))?;
    ensure!(
        page.to_lowercase().contains("openclaw"),
        "the edge does not show OpenClaw's dashboard"
    );
    Ok(())
}

async fn key_file(lab: &Lab) -> Result<()> {
    let id = lab.server_id().await?;
    if lab.debian.is_some() {
        return key_file_inside(lab, id).await;
    }
    let root = lab.simulator.server_root(id);
    let holders = files_with(&root, KEY)?;
    let [file] = holders.as_slice() else {
        bail!("one file of the server must hold the key, but these do: {holders:?}");
    };
    // On a real server the owner is openclaw; here all belongs to whoever runs the simulator.
    let output = lab.shell.show(&format!("stat -c '%a %A %U %n' {}", file.display()))?;
    ensure!(output.starts_with("600 "), "the key file's mode is not 0600");
    Ok(())
}

/// The same on a real system, where the owner counts as well.
async fn key_file_inside(lab: &Lab, id: u64) -> Result<()> {
    let server = lab.simulator.lab_server(id);
    // What is not in one of these folders is Debian's own or no disk.
    let search = "grep --recursive --files-with-matches --fixed-strings --devices=skip \
                  --file=/dev/stdin /etc /home /opt /root /run /srv /tmp /usr/local /var";
    let search: Vec<&str> = search.split_ascii_whitespace().collect();
    let found = server.run_as(None, &search, KEY).await?;
    let holders = found.text();
    let holders: Vec<&str> = holders.lines().collect();
    let [file] = holders.as_slice() else {
        bail!("one file of the server must hold the key, but these do: {holders:?}");
    };
    let owner = server.exec(&["stat", "--format=%a %U %n", file]).await?;
    println!("  {owner}");
    ensure!(owner.starts_with("600 openclaw "), "the key file is not openclaw's, mode 0600");
    Ok(())
}

/// What the internet sees of the server: nothing.
pub(crate) async fn outside(lab: &Lab) -> Result<()> {
    let id = lab.server_id().await?;
    let server = lab.simulator.lab_server(id);
    for from in ["198.51.100.10", "2001:db8:ffff::10"] {
        for port in [22, 80, 443, 7443, 18789] {
            let probed = server.probe_port(from.parse()?, port).await?;
            ensure!(probed == Probed::Dropped, "port {port} answers {from}: {probed:?}");
        }
    }
    println!("  22, 80, 443, 7443, 18789: no answer, by IPv4 and IPv6");
    Ok(())
}

fn no_trace(lab: &Lab) -> Result<()> {
    for folder in lab.folders_without_secrets() {
        let holders = files_with(&folder, KEY)?;
        ensure!(holders.is_empty(), "the key can be read in {holders:?}");
    }
    println!("\n  The key is in no file of etcd, of the API server's log or of the operator's.");
    Ok(())
}

async fn calls(lab: &Lab) -> Result<()> {
    let counts = lab.simulator.request_counts(0).await?;
    for cloud in ["hetzner", "cloudflare"] {
        let of_cloud: Vec<_> = counts.iter().filter(|count| count.cloud == cloud).collect();
        let writes: u64 =
            of_cloud.iter().filter(|count| count.method != "GET").map(|count| count.count).sum();
        let total: u64 = of_cloud.iter().map(|count| count.count).sum();
        ensure!(total > 0, "{cloud} was never asked: the server cannot be there");
        println!(
            "\n  {cloud}: {total} calls, {writes} of them writes (pool and instance together)"
        );
        for count in of_cloud {
            println!("  {:5}  {:6} {}", count.count, count.method, count.path);
        }
    }
    Ok(())
}

fn writes(lab: &Lab) -> Result<()> {
    let lines = lab.shell.show(&format!(
        "curl -sS --fail --noproxy '*' {}/metrics | grep ^moorage_api_writes_total",
        lab.operator.url()
    ))?;
    let counts =
        lines.lines().map(|line| line.rsplit(' ').next().unwrap_or_default().parse::<u64>());
    let total: u64 = counts.sum::<Result<_, _>>().context("/metrics")?;
    println!("\n  {total} writes, of the pool, the release, the Secret and the instance together");
    Ok(())
}

/// Deletes the instance and shows both clouds empty.
pub(crate) async fn deletion(lab: &Lab) -> Result<()> {
    heading("Deleted, it leaves nothing in the clouds");
    lab.shell.show(&format!("kubectl delete oci ada -n {TENANTS} --timeout=60s"))?;
    let gone = lab.instances().get_opt("ada").await?;
    ensure!(
        gone.is_none(),
        "it is still there:\n{}",
        gone.map(|one| conditions(&one.data)).unwrap_or_default()
    );
    wait_until("both clouds to be empty", Duration::from_secs(20), || async {
        let state = lab.simulator.state().await.map_err(|error| error.to_string())?;
        let left = left_over(&state);
        if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
    })
    .await?;
    println!("\n  Hetzner: no server. Cloudflare: no tunnel, no DNS record but the pool's own.");
    Ok(())
}

/// What of an instance is left. Deleted tunnels stay in Cloudflare's lists, with a date.
fn left_over(state: &Value) -> Vec<String> {
    let (hetzner, cloudflare) = (&state["hetzner"][PROJECT], &state["cloudflare"][ACCOUNT]);
    let lists = [("server", &hetzner["servers"]), ("tunnel", &cloudflare["tunnels"])];
    let mut left: Vec<String> = lists
        .into_iter()
        .flat_map(|(kind, list)| match list.as_array() {
            None => vec![format!("the simulator's state has no list of {kind}s")],
            Some(list) => list
                .iter()
                .filter(|one| one["deleted_at"].is_null())
                .map(|one| format!("{kind} {}", one["name"]))
                .collect(),
        })
        .collect();
    let zones = cloudflare["zones"].as_array().map(Vec::as_slice).unwrap_or_default();
    if zones.is_empty() {
        left.push("the simulator's state has no zone".to_owned());
    }
    let records = zones.iter().flat_map(|zone| zone["records"].as_array().into_iter().flatten());
    // The pool has one of its own, which stays as long as the pool does.
    let of_pool = |record: &Value| {
        record["comment"].as_str().is_some_and(|comment| comment.starts_with("moorage-pool "))
    };
    let of_instances = records.filter(|record| !of_pool(record));
    left.extend(of_instances.map(|record| format!("DNS record {}", record["name"])));
    left
}

/// The files below `folder` whose bytes contain `text`.
fn files_with(folder: &Path, text: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // Things come and go while we look.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| folder.display().to_string()),
        };
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let bytes = fs::read(entry.path()).unwrap_or_default();
                if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                    found.push(entry.path());
                }
            }
        }
    }
    Ok(found)
}
