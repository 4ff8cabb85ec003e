//! A server with a kernel of its own, and a clock without a battery: what containers cannot show.
//! Without KVM its processor is emulated, and a stand-in takes OpenClaw's place: the real one would
//! need minutes to start.

use std::{collections::BTreeMap, time::Instant};

use moorage_testbed::{CloudInit, LabServer, Press};
use serde_json::json;

use crate::{
    hardening::{
        nothing_listens_in_public, others_read_neither_keys_nor_metadata_nor_state,
        units_are_in_tight_sandboxes,
    },
    is_emulated,
    server::current,
    tenant::{ANTHROPIC_KEY, Tenant, is},
    updates::good_agent,
};

/// The instance, and what its server's name begins with.
const NAME: &str = "vera";
const SYSCTL: &str = "/etc/sysctl.d/90-moorage.conf";
const SECRETS: &str = "/var/lib/openclaw/credentials/secrets.json";
/// What the programs of the server write.
const STATE: [&str; 4] = [
    "/etc/moorage",
    "/var/lib/moorage",
    "/var/lib/moorage-installer",
    "/var/lib/openclaw/credentials",
];
const OTHER_KEY: &str = "sk-ant-api03-the-second-key-of-a-test-that-opens-nothing-4711";
const METADATA: &str = "http://169.254.169.254/hetzner/v1/metadata/hostname";

pub(crate) async fn a_virtual_machine_becomes_ready_and_survives_a_power_cut(mut tenant: Tenant) {
    tenant.stage.simulator.give_kernel(NAME, Some("1970-01-01T00:00:00")).await.unwrap();
    if is_emulated() {
        eprintln!("no KVM: the processor is emulated");
        tenant.use_stand_in_for_openclaw().await;
    }
    let created = jiff::Timestamp::now().as_second();
    let server = boot(&tenant).await;

    the_clock_is_not_before(&server, created).await;
    tenant.until_prints(&server, &["ls", "/var/lib/moorage-setup"], "done").await;
    kernel_settings_are_in_force(&server).await;
    limits_are_in_force(&server).await;
    units_are_in_tight_sandboxes(&server).await;
    others_read_neither_keys_nor_metadata_nor_state(&server).await;
    nothing_listens_in_public(&server).await;
    units_reach_no_metadata_even_without_the_packet_filter(&tenant, &server).await;

    a_clock_that_falls_back_is_told_and_harms_nothing(&tenant, &server).await;
    a_power_cut_right_after_a_key_loses_nothing(&tenant, &server).await;
    the_clock_is_not_before(&server, created).await;

    // An orderly reboot ends and begins it as well.
    // Whoever would answer ends as well.
    let _ = server.run(&["systemctl", "reboot"]).await;
    let again = async || server.state().await.map_err(|error| error.to_string());
    tenant
        .eventually("another start", || async {
            let seen = again().await?;
            if seen.starts == 4 { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
}

/// From nothing to Ready, and says how long that took.
async fn boot(tenant: &Tenant) -> LabServer {
    let sealed = tenant.seal("vera-keys", ANTHROPIC_KEY).await;
    tenant.apply_secret("vera-keys", NAME, &[("anthropic", &sealed)]).await;
    let reference = json!({"name": "vera-keys", "key": "anthropic"});
    let key = json!({"name": "anthropic", "type": "AnthropicApiKey", "secretRef": reference});
    tenant.apply_instance(NAME, json!({"credentials": [key]})).await;
    let began = Instant::now();
    let since = || format!("{:.0} s", began.elapsed().as_secs_f64());
    let vera = tenant.until(NAME, "a server", |vera| is(vera, "ServerReady", "True")).await;
    let server = tenant.server(&vera);
    power_is_cut_as_soon_as_cloud_init_will_not_begin_again(tenant, &server).await;
    let cloud_init = since();
    tenant.until(NAME, "its agent", |vera| is(vera, "AgentReady", "True")).await;
    let agent = since();
    tenant.until_ready(NAME).await;
    let ready = since();
    tenant.until_secret_gone("vera-keys").await;
    tenant.until_dashboard_answers(NAME).await;
    let kernel = server.exec(&["uname", "-r"]).await.unwrap();
    eprintln!("kernel {kernel}: cloud-init {cloud_init}, agent {agent}, Ready {ready}");
    server
}

/// All that cloud-init wrote is younger than what ext4 writes to the disk by itself, and the mark is on
/// the disk: another file's fsync takes all names with it, and no content but its own.
async fn power_is_cut_as_soon_as_cloud_init_will_not_begin_again(
    tenant: &Tenant,
    server: &LabServer,
) {
    let begun = ["test", "-e", "/var/lib/moorage-first-boot/begun"];
    let begun = async || server.exec(&begun).await.map(drop).map_err(|error| error.to_string());
    tenant.eventually("the first boot's jobs have begun", begun).await;
    let another = ["dd", "if=/dev/urandom", "of=/root/another", "bs=4k", "count=1", "conv=fsync"];
    server.exec(&another).await.unwrap();
    cut(tenant, server, 2).await;
    // The constant files, each compared with the archive, and those with a value.
    let packed = "/usr/local/lib/moorage/constants.tar.gz";
    server.exec(&["tar", "--compare", "-zf", packed, "-C", "/"]).await.unwrap();
    files_are_whole(server, &["/etc/moorage"], 3).await;
    let rules = server.exec(&["nft", "list", "table", "inet", "moorage"]).await.unwrap();
    assert!(rules.contains("policy drop"), "{rules}");
}

/// Though the hardware said 1970 and no time server answers.
async fn the_clock_is_not_before(server: &LabServer, created: i64) {
    let hardware = server.exec(&["cat", "/proc/driver/rtc"]).await.unwrap();
    assert!(hardware.contains(": 1970-01-01"), "{hardware}");
    let synchronized = ["timedatectl", "show", "--property=NTPSynchronized", "--value"];
    assert_eq!(server.exec(&synchronized).await.unwrap(), "no");
    let clock: i64 = server.exec(&["date", "+%s"]).await.unwrap().parse().unwrap();
    let now = jiff::Timestamp::now().as_second();
    // It is behind by what the boots took, however long that was: nothing tells it the time.
    assert!((created..=now + 1).contains(&clock), "{clock} is not between {created} and {now}");
}

/// While everything runs, as when a battery dies or a person errs.
async fn a_clock_that_falls_back_is_told_and_harms_nothing(tenant: &Tenant, server: &LabServer) {
    let restarts = async || {
        let unit = server.unit("moorage-agent.service", &["NRestarts", "MainPID"]).await;
        unit.unwrap()
    };
    let before = restarts().await;
    // By what the boots took it may be behind already.
    the_clock_is_set_right(tenant, server).await;
    server.exec(&["date", "--set=1970-01-02"]).await.unwrap();
    tenant.look_now(NAME).await;
    let said = tenant.until_reason(NAME, "ServerReady", "ClockSkewed").await;
    assert!(said.contains("clock is more than a day behind"), "{said}");
    the_clock_is_set_right(tenant, server).await;
    tenant.until_ready(NAME).await;
    assert_eq!(restarts().await, before, "the agent went on");
}

async fn the_clock_is_set_right(tenant: &Tenant, server: &LabServer) {
    let now = format!("--set=@{}", jiff::Timestamp::now().as_second());
    server.exec(&["date", &now]).await.unwrap();
    tenant.look_now(NAME).await;
    tenant.until_reason(NAME, "ServerReady", "Ready").await;
}

/// Each line of our file is compared with what the kernel says, patterns with all that they match.
async fn kernel_settings_are_in_force(server: &LabServer) {
    let all = server.exec(&["sysctl", "--all"]).await.unwrap();
    let all: BTreeMap<_, _> = all.lines().filter_map(|line| line.split_once(" = ")).collect();
    let wanted = String::from_utf8(server.read(SYSCTL).await.unwrap()).unwrap();
    let lines = wanted.lines().filter(|line| !line.starts_with('#'));
    let mut compared = 0;
    for (key, value) in lines.filter_map(|line| line.split_once(" = ")) {
        let key = key.trim_start_matches('-');
        let (start, end) = key.split_once('*').unwrap_or((key, ""));
        let fits = |name: &&str| {
            if key.contains('*') {
                name.starts_with(start) && name.ends_with(end)
            } else {
                *name == key
            }
        };
        let found: Vec<_> = all.keys().filter(|name| fits(name)).collect();
        assert!(!found.is_empty(), "the kernel knows no {key}");
        for name in found {
            assert_eq!(all[name].trim(), value, "{name}");
            compared += 1;
        }
    }
    assert!(compared > 40, "{compared}");
}

async fn limits_are_in_force(server: &LabServer) {
    for (unit, bytes) in [("moorage-agent", 256_u64 << 20), ("cloudflared", 512 << 20)] {
        let file = format!("/sys/fs/cgroup/system.slice/{unit}.service/memory.max");
        let limit = server.exec(&["cat", &file]).await.unwrap();
        assert_eq!(limit, bytes.to_string(), "{unit}");
    }
    // More than the limit is not given: whoever takes it is killed.
    let hungry = ["systemd-run", "--pipe", "--wait", "--quiet", "--property=MemoryMax=32M"];
    let taken = [&hungry[..], &["dd", "if=/dev/zero", "of=/dev/null", "bs=128M", "count=1"]];
    let taken = server.run(&taken.concat()).await.unwrap();
    assert!(!taken.succeeded(), "{taken:?}");
}

/// The units' own filter stands alone once the packet filter is gone.
async fn units_reach_no_metadata_even_without_the_packet_filter(
    tenant: &Tenant,
    server: &LabServer,
) {
    let ask = |user: &str, deny: &str, seconds: &str| {
        let words = [
            "systemd-run",
            "--pipe",
            "--wait",
            "--quiet",
            &format!("--property=User={user}"),
            &format!("--property=IPAddressDeny={deny}"),
            "curl",
            "-sS",
            "--max-time",
            seconds,
            METADATA,
        ];
        words.map(str::to_owned)
    };
    server.exec(&["nft", "delete", "table", "inet", "moorage"]).await.unwrap();
    for (unit, user) in
        [("moorage-agent", "moorage"), ("openclaw", "openclaw"), ("cloudflared", "cloudflared")]
    {
        let unit = format!("{unit}.service");
        let deny = server.unit(&unit, &["IPAddressDeny"]).await.unwrap()["IPAddressDeny"].clone();
        assert!(deny.contains("169.254.169.254"), "{unit}: {deny}");
        let words = ask(user, &deny, "10");
        let denied = server.run(&words.each_ref().map(String::as_str)).await.unwrap();
        assert!(!denied.succeeded(), "{unit}: {denied:?}");
    }
    let words = ask("openclaw", "", "60");
    let reached = server.run(&words.each_ref().map(String::as_str)).await.unwrap();
    assert!(reached.succeeded(), "the packet filter is gone: {reached:?}");
    server.exec(&["systemctl", "restart", "nftables.service"]).await.unwrap();
    let words = ask("openclaw", "", "10");
    let denied = server.run(&words.each_ref().map(String::as_str)).await.unwrap();
    assert!(!denied.succeeded(), "the packet filter is back");
    tenant.until_dashboard_answers(NAME).await;
}

/// A new key and a new agent are on the disk, and hardly anything of them would be without fsync.
async fn a_power_cut_right_after_a_key_loses_nothing(tenant: &Tenant, server: &LabServer) {
    let folder = tempfile::tempdir().unwrap();
    let good = good_agent(folder.path(), "good").await;
    let sha256 = good["sha256"].as_str().unwrap().to_owned();
    let sealed = tenant.seal("vera-keys", OTHER_KEY).await;
    tenant.apply_secret("vera-keys", NAME, &[("anthropic", &sealed)]).await;
    tenant.switch_to(NAME, "good-agent", "agent", &good).await;
    tenant.until_prints(server, &["cat", SECRETS], OTHER_KEY).await;
    tenant.until_prints(server, &["readlink", "/opt/moorage/agent/current"], &sha256).await;
    cut(tenant, server, 3).await;
    files_are_whole(server, &STATE, 5).await;
    let agent = server.exec(&["sha256sum", "/opt/moorage/agent/current/moorage-agent"]).await;
    assert!(agent.unwrap().starts_with(&sha256));
    tenant.until_ready(NAME).await;
    assert_eq!(current(server, "agent").await, sha256);
    tenant.until_secret_gone("vera-keys").await;
    let keys = String::from_utf8(server.read(SECRETS).await.unwrap()).unwrap();
    assert!(keys.contains(OTHER_KEY) && !keys.contains(ANTHROPIC_KEY));
}

/// Cuts the power and gives it back; the next start has this number.
async fn cut(tenant: &Tenant, server: &LabServer, start: u32) {
    server.power(Press::Reset).await.unwrap();
    let (took, ended) = server.wait_boot(start, tenant.stage.patience).await.unwrap();
    assert_eq!(ended, CloudInit::Done);
    eprintln!("start {start} after a power cut: {:.0} s", took.as_secs_f64());
    tenant.look_now(NAME).await;
}

/// What a power cut could have left half written: no file is empty, and every document can be read, of
/// which there are at least so many.
async fn files_are_whole(server: &LabServer, folders: &[&'static str], documents_at_least: usize) {
    let find = |what: &[&'static str]| [&["find"][..], folders, &["-type", "f"], what].concat();
    let empty = server.exec(&find(&["-empty", "!", "-name", "lock"])).await.unwrap();
    assert_eq!(empty, "", "empty files");
    let documents = server.exec(&find(&["-name", "*.json"])).await.unwrap();
    assert!(documents.lines().count() >= documents_at_least, "{documents}");
    for document in documents.lines() {
        server.exec(&["python3", "-I", "-m", "json.tool", document, "/dev/null"]).await.unwrap();
    }
}
