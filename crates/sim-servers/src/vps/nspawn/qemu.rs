//! `moorage-sim launch-machine`: the last steps to a running virtual machine. It boots the kernel of
//! the shared tree directly, from a disk of its own, and its cable is a tap device in the cloud's
//! network namespace.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::civil::DateTime;
use serde_json::json;

use super::cgroup;
use super::disk::{Disk, IMAGE};
use super::hardware::Acceleration;
use super::launch::within_namespaces;

/// The guest agent's socket, in the server's folder.
pub(super) const AGENT_SOCKET: &str = "agent.sock";
/// QEMU's own socket, in the server's folder.
pub(super) const MONITOR_SOCKET: &str = "monitor.sock";
/// As the smallest servers that can be had.
const MEMORY_MIB: &str = "2048";

/// What a virtual machine is started from.
#[derive(Debug, Clone, clap::Args)]
pub struct MachineOptions {
    /// The server's folder
    #[arg(long)]
    folder: PathBuf,
    /// The tree that its disk is made from, with kernel and initial RAM disk
    #[arg(long)]
    tree: PathBuf,
    /// Name of its control group
    #[arg(long)]
    machine: String,
    /// The cloud's network namespace
    #[arg(long)]
    network: PathBuf,
    /// The tap device there
    #[arg(long)]
    cable: String,
    /// How to run the processor
    #[arg(long, value_enum)]
    acceleration: Acceleration,
    /// What its clock shows, UTC
    #[arg(long)]
    clock: Option<DateTime>,
}

/// What a virtual machine is made of, apart from its folder.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) tree: &'a Path,
    pub(super) machine: &'a str,
    pub(super) network: &'a Path,
    pub(super) cable: String,
    pub(super) acceleration: Acceleration,
    pub(super) clock: Option<DateTime>,
}

/// The command that becomes the virtual machine, apart from what makes it die with the simulator.
pub(super) fn command(sim_bin: &Path, folder: &Path, parts: &Parts<'_>) -> Vec<OsString> {
    let mut command = within_namespaces(sim_bin, "launch-machine");
    let acceleration = match parts.acceleration {
        Acceleration::Kvm => "kvm",
        Acceleration::Tcg => "tcg",
    };
    let options: [(&str, OsString); 6] = [
        ("--folder", folder.into()),
        ("--tree", parts.tree.into()),
        ("--machine", parts.machine.into()),
        ("--network", parts.network.into()),
        ("--cable", parts.cable.clone().into()),
        ("--acceleration", acceleration.into()),
    ];
    let clock = parts.clock.map(|clock| ("--clock", clock.to_string().into()));
    for (name, value) in options.into_iter().chain(clock) {
        command.push(name.into());
        command.push(value);
    }
    command
}

/// Fills the disk and becomes QEMU. Returns only when that failed.
pub fn run(options: &MachineOptions) -> io::Error {
    let prepared = cgroup::enter(&options.machine)
        .and_then(|()| Disk::of(&options.folder).fill(&options.tree));
    match prepared {
        Ok(()) => qemu(options).exec(),
        Err(error) => error,
    }
}

fn qemu(options: &MachineOptions) -> Command {
    let mut command = Command::new("nsenter");
    // The folder's own name never stands in an option, where a comma would have a meaning.
    command.current_dir(&options.folder).arg(join("--net=", &options.network));
    command.args(["--", "qemu-system-x86_64", "-nodefaults", "-no-user-config"]);
    command.args(["-display", "none", "-no-reboot", "-m", MEMORY_MIB]);
    let (processor, kernel) = match options.acceleration {
        Acceleration::Kvm => (["-accel", "kvm", "-cpu", "host", "-smp", "2"], ""),
        // Simple instructions translate best; no speculation, nothing to guard against. One processor:
        // the kernel patches its own code at boot, and a second one, translated beside it, was seen to
        // run into a half patched instruction and panic. Nor does the kernel check its timer, as with KVM:
        // on a busy machine the ticks that it waits for come too late, and it panics.
        Acceleration::Tcg => {
            (["-accel", "tcg", "-cpu", "qemu64", "-smp", "1"], " mitigations=off no_timer_check")
        }
    };
    command.args(processor);
    command.arg("-kernel").arg(options.tree.join("vmlinuz"));
    command.arg("-initrd").arg(options.tree.join("initrd.img"));
    // Interfaces are named as on Hetzner's images.
    command.arg("-append");
    command.arg(format!("root=/dev/vda rw console=ttyS0 net.ifnames=0{kernel}"));
    if let Some(clock) = options.clock {
        command.arg("-rtc").arg(format!("base={}", clock.strftime("%Y-%m-%dT%H:%M:%S")));
    }
    // The guest's flushes are obeyed: what it has not written is lost with its power.
    let file = json!({"driver": "file", "filename": IMAGE, "discard": "unmap"});
    let disk = json!({"driver": "raw", "node-name": "disk", "discard": "unmap", "file": file});
    command.args(["-blockdev", &disk.to_string(), "-device", "virtio-blk-pci,drive=disk"]);
    let cable = &options.cable;
    command.args(["-netdev", &format!("tap,id=cable,ifname={cable},script=no,downscript=no")]);
    command.args(["-device", "virtio-net-pci,netdev=cable,romfile="]);
    command.args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]);
    command.args(["-chardev", &format!("socket,id=agent,path={AGENT_SOCKET},server=on,wait=off")]);
    command.args(["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]);
    command.args(["-qmp", &format!("unix:{MONITOR_SOCKET},server=on,wait=off")]);
    command.args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
    command
}

fn join(option: &str, value: &Path) -> OsString {
    let mut joined = OsString::from(option);
    joined.push(value);
    joined
}
