//! Servers that are virtual machines.

use std::sync::Arc;

use moorage_testbed::{CloudInit, LabServer, Press, Probed, wait_until};

use crate::stage::{PATIENCE, Stage, up};

/// Done in each boot: cloud-init notes that it does what is done once before it does it, so a power cut
/// in between leaves it undone.
const USER_DATA: &str = "#cloud-config\nbootcmd:\n- [touch, /var/lib/ran]\n";

pub(crate) async fn a_virtual_machine_has_a_kernel_and_clock_of_its_own(stage: Arc<Stage>) {
    let epoch = Some("1970-01-01T00:00:00");
    stage.simulator.give_kernel("machine", epoch).await.unwrap();
    let server = stage.create("machine-1", USER_DATA).await;
    what_was_not_written_is_lost_in_a_power_cut(&server).await;
    server.exec(&["test", "-e", "/var/lib/ran"]).await.unwrap();
    let here = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_ne!(server.exec(&["uname", "-r"]).await.unwrap(), here.trim());
    assert_eq!(server.exec(&["cat", "/proc/1/comm"]).await.unwrap(), "systemd");
    let hardware = server.exec(&["cat", "/proc/driver/rtc"]).await.unwrap();
    assert!(hardware.contains(": 1970-01-01"), "{hardware}");
    // What systemd makes of it without help: its own build date.
    eprintln!(
        "a clock at 1970 becomes {}",
        server.exec(&["date", "--utc", "+%F %T"]).await.unwrap()
    );

    let name =
        ["curl", "-sS", "--max-time", "60", "http://169.254.169.254/hetzner/v1/metadata/hostname"];
    assert_eq!(server.exec(&name).await.unwrap(), "machine-1");
    for from in ["198.51.100.7", "2001:db8:ffff::1"] {
        server.wait_probed(from.parse().unwrap(), 22, Probed::Open, PATIENCE).await.unwrap();
    }

    // By its power button.
    server.power(Press::Shutdown).await.unwrap();
    server.wait_off(PATIENCE).await.unwrap();
    assert!(server.run(&["true"]).await.is_err(), "nothing runs in a server that is off");
    stage.delete(&server).await;
}

/// In the middle of the first boot, which takes long on an emulated processor.
async fn what_was_not_written_is_lost_in_a_power_cut(server: &LabServer) {
    let boots = async || match server.state().await {
        Ok(state) if state.cloud_init == CloudInit::Done => panic!("the boot is over: {state:?}"),
        Ok(_) => server.exec(&["true"]).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    wait_until("a program can be run", PATIENCE, boots).await.unwrap();
    let keep = ["dd", "if=/dev/urandom", "of=/root/kept", "bs=4k", "count=1", "conv=fsync"];
    server.exec(&keep).await.unwrap();
    server.exec(&["sync"]).await.unwrap();
    let lose = ["dd", "if=/dev/urandom", "of=/root/lost", "bs=4k", "count=1"];
    server.exec(&lose).await.unwrap();
    server.power(Press::Reset).await.unwrap();
    up(server, 2).await;
    let size = ["stat", "--format=%s", "/root/kept"];
    assert_eq!(server.exec(&size).await.unwrap(), "4096");
    let found = server.run(&["stat", "--format=%s", "/root/lost"]).await.unwrap();
    assert!(!found.succeeded() || found.text() == "0", "{found:?}");
}
