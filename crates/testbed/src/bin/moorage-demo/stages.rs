//! How long each stage of a bring-up took, beside the floor: what Debian's boot and OpenClaw's own start
//! take whoever runs them. Read from the booted server's systemd; servers that are processes have no
//! stages.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use moorage_testbed::LabServer;

use crate::progress::Milestones;

/// When systemd started user space on the server, and when some units were started, all since the
/// instance was applied.
struct Server {
    user_space: Duration,
    cloud_init: Duration,
    connector: Duration,
    openclaw: Duration,
}

impl Server {
    async fn ask(server: &LabServer, applied: Instant) -> Result<Self> {
        // Both count from the start of the kernel.
        let uptime = server.exec(&["cut", "--delimiter= ", "--fields=1", "/proc/uptime"]).await?;
        let kernel = applied.elapsed().as_secs_f64() - uptime.trim().parse::<f64>()?;
        let at = async |unit: &[&str], property: &str| {
            let command = ["systemctl", "show", "--value", "--property", property];
            let time = server.exec(&[&command[..], unit].concat()).await?;
            let microseconds = time.parse::<f64>().with_context(|| property.to_owned())?;
            let since_applied = Duration::try_from_secs_f64(kernel + microseconds / 1e6);
            anyhow::Ok(since_applied.unwrap_or_default())
        };
        Ok(Self {
            user_space: at(&[], "UserspaceTimestampMonotonic").await?,
            cloud_init: at(&["cloud-final.service"], "ActiveEnterTimestampMonotonic").await?,
            // Its end: the connector itself is restarted with a new token.
            connector: at(&["moorage-first-boot.service"], "InactiveEnterTimestampMonotonic")
                .await?,
            openclaw: at(&["openclaw.service"], "ExecMainStartTimestampMonotonic").await?,
        })
    }
}

pub(crate) async fn show(
    server: &LabServer,
    applied: Instant,
    milestones: &Milestones,
) -> Result<()> {
    let at = Server::ask(server, applied).await?;
    let Milestones { enrolled, ready } = *milestones;
    let stages = [
        (at.user_space, "the clouds are asked, and the server gets power"),
        (at.cloud_init, "Debian boots, to the end of cloud-init"),
        (at.connector, "agent and cloudflared are fetched and start"),
        (enrolled, "the agent is reached, enrolled, and given the keys"),
        (at.openclaw, "Node.js and OpenClaw are fetched, unpacked and configured"),
        (ready, "OpenClaw starts, and the instance is Ready"),
    ];
    println!();
    let mut before = Duration::ZERO;
    for (end, what) in stages {
        println!("  {:5.1} s  {what}", end.saturating_sub(before).as_secs_f64());
        before = end;
    }
    let boot = at.cloud_init.saturating_sub(at.user_space);
    let floor = boot + ready.saturating_sub(at.openclaw);
    println!(
        "  {:5.1} s  in all; {:.1} s of them are the floor: Debian's boot and OpenClaw's start",
        ready.as_secs_f64(),
        floor.as_secs_f64()
    );
    Ok(())
}
