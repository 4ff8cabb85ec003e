//! What a server reaches, and who reaches it.

use std::net::IpAddr;
use std::sync::Arc;

use moorage_testbed::{LabServer, Probed};
use serde_json::json;

use crate::stage::{ARTIFACT_BYTES, PATIENCE, Stage, artifact, up};

const ALLOWED: &str = "198.51.100.10";
const ARTIFACTS: &str = "http://artifacts.moorage.test";
const ARTIFACT: &str = "/agent/file";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Exit code and output of curl.
async fn curl(server: &LabServer, arguments: &[&str]) -> (i32, Vec<u8>) {
    let fixed = ["curl", "--silent", "--max-time", "60", "--connect-timeout", "10"];
    let run = server.run(&[&fixed, arguments].concat()).await.unwrap();
    (run.exit_code.unwrap(), run.stdout)
}

pub(crate) async fn each_server_gets_its_own_metadata(stage: Arc<Stage>) {
    let of =
        |who: &str| format!("#cloud-config\nwrite_files: [{{path: /etc/who, content: {who}}}]\n");
    let (user_data, other_user_data) = (of("first"), of("second"));
    let (first, second) =
        tokio::join!(stage.create("first", &user_data), stage.create("second", &other_user_data));
    // Two at once, neither of which disturbs the other.
    tokio::join!(up(&first, 1), up(&second, 1));
    for (server, name, user_data) in
        [(&first, "first", &user_data), (&second, "second", &other_user_data)]
    {
        assert_eq!(server.read("/etc/who").await.unwrap(), name.as_bytes());
        let get = async |path: &str| {
            let (code, body) = curl(server, &[&format!("http://169.254.169.254{path}")]).await;
            assert_eq!(code, 0, "{path}");
            String::from_utf8(body).unwrap()
        };
        assert_eq!(&get("/hetzner/v1/userdata").await, user_data);
        assert_eq!(&get("/latest/user-data").await, user_data);
        assert_eq!(get("/hetzner/v1/metadata/hostname").await, name);
        assert_eq!(get("/latest/meta-data/instance-id").await, server.id().to_string());
        let document = get("/hetzner/v1/metadata").await;
        let address = server.state().await.unwrap().addresses[0];
        assert!(document.contains(&format!("public-ipv4: {address}\n")), "{document}");
    }
    // A server cannot take its neighbour's address to read its user-data.
    let neighbour = second.state().await.unwrap().addresses[0].to_string();
    first.exec(&["ip", "addr", "add", &format!("{neighbour}/32"), "dev", "eth0"]).await.unwrap();
    let stolen = ["--interface", &neighbour, "http://169.254.169.254/hetzner/v1/userdata"];
    let (code, body) = curl(&first, &stolen).await;
    assert_ne!(code, 0, "{}", String::from_utf8_lossy(&body));
    stage.delete(&first).await;
    stage.delete(&second).await;
}

pub(crate) async fn the_mirror_is_reached_and_nothing_else(stage: Arc<Stage>) {
    let server = stage.booted("mirror", "").await;
    let release = "http://deb.debian.org/debian/dists/trixie/InRelease";
    let (code, body) = curl(&server, &["--fail", release]).await;
    assert_eq!(code, 0);
    assert!(String::from_utf8_lossy(&body).contains("Suite: "), "no release file");
    server.exec(&["apt-get", "update"]).await.unwrap();
    let status = ["--output", "/dev/null", "--write-out", "%{http_code}"];
    let status_of = async |arguments: &[&str]| {
        let (code, body) = curl(&server, &[&status, arguments].concat()).await;
        (code, String::from_utf8(body).unwrap())
    };
    assert_eq!(status_of(&["--data", "x", release]).await, (0, "405".into()));
    let elsewhere = "http://deb.debian.org/other/file";
    assert_eq!(status_of(&[elsewhere]).await, (0, "403".into()));
    let other_host =
        ["--header", "Host: example.com", "http://198.51.100.1/debian/dists/trixie/InRelease"];
    assert_eq!(status_of(&other_host).await, (0, "403".into()));
    // Names are unknown at once, and addresses unreachable at once: 6 and 7 are curl's words for it.
    for (url, code) in [
        ("http://example.com/", 6),
        ("https://1.1.1.1/", 7),
        ("https://[2606:4700:4700::1111]/", 7),
        ("http://198.51.100.1:22/", 7),
    ] {
        assert_eq!(curl(&server, &[url]).await.0, code, "{url}");
    }
    stage.delete(&server).await;
}

pub(crate) async fn ports_are_probed_from_outside(stage: Arc<Stage>) {
    let server = stage.booted("probes", "").await;
    let knock = async |from: &str, port| server.probe_port(ip(from), port).await.unwrap();
    let answers = async |from: &str, port, outcome| {
        server.wait_probed(ip(from), port, outcome, PATIENCE).await.unwrap();
    };
    for outside in [ALLOWED, "2001:db8:ffff::10"] {
        answers(outside, 22, Probed::Open).await;
        answers(outside, 80, Probed::Refused).await;
    }
    let rules = format!(
        "table inet filter {{\nchain input {{\ntype filter hook input priority 0; policy drop;\n\
         ct state established,related accept\nicmpv6 type nd-neighbor-solicit accept\n\
         icmpv6 type nd-neighbor-advert accept\nip saddr {ALLOWED} tcp dport 22 accept\n}}\n}}\n"
    );
    let loaded = server.run_as(None, &["nft", "--file", "-"], &rules).await.unwrap();
    assert!(loaded.succeeded(), "{loaded:?}");
    answers(ALLOWED, 22, Probed::Open).await;
    assert_eq!(knock(ALLOWED, 80).await, Probed::Dropped);
    assert_eq!(knock("198.51.100.11", 22).await, Probed::Dropped);
    assert_eq!(knock("2001:db8:ffff::10", 22).await, Probed::Dropped);
    stage.delete(&server).await;
    assert!(server.probe_port(ip(ALLOWED), 22).await.is_err(), "a deleted server has no address");
}

pub(crate) async fn artifacts_are_resumed_and_fail_on_demand(stage: Arc<Stage>) {
    let server = stage.booted("artifacts", "").await;
    let part = "/root/part";
    let fetch = async |arguments: &[&str]| {
        let url = format!("{ARTIFACTS}{ARTIFACT}");
        curl(&server, &[&["--fail", "--output", part, &url], arguments].concat()).await.0
    };
    // Other scenarios fetch other files from there.
    let set = async |faults: &[serde_json::Value]| {
        stage.simulator.set_faults_of_artifact(ARTIFACT, faults).await.unwrap();
    };
    assert_eq!(fetch(&[]).await, 0);
    assert_eq!(server.read(part).await.unwrap(), artifact());

    set(&[json!({"fault": {"kind": "cut", "after": 300_000}, "times": 1})]).await;
    assert_eq!(fetch(&[]).await, 18, "a partial file");
    let got = server.read(part).await.unwrap().len();
    assert!(got > 0 && got <= 300_000, "{got} bytes came");
    assert_eq!(fetch(&["--continue-at", "-"]).await, 0);
    assert_eq!(server.read(part).await.unwrap(), artifact());
    let requests = stage.simulator.artifact_requests().await.unwrap();
    let last = requests.iter().rfind(|request| request["path"] == ARTIFACT);
    assert_eq!(last.unwrap()["status"], 206, "{requests:?}");

    set(&[json!({"fault": {"kind": "wrong-bytes"}})]).await;
    assert_eq!(fetch(&[]).await, 0);
    let wrong = server.read(part).await.unwrap();
    assert_eq!(wrong.len(), ARTIFACT_BYTES);
    assert_ne!(wrong, artifact());

    set(&[json!({"fault": {"kind": "down"}})]).await;
    assert_eq!(fetch(&[]).await, 52, "no answer");
    set(&[json!({"fault": {"kind": "status", "status": 503}})]).await;
    assert_eq!(fetch(&[]).await, 22, "an error");
    set(&[json!({"fault": {"kind": "slow", "bytesPerSecond": 1000}})]).await;
    assert_eq!(fetch(&["--max-time", "2"]).await, 28, "too slow");
    set(&[]).await;
    assert_eq!(fetch(&[]).await, 0);
    stage.delete(&server).await;
}

pub(crate) async fn connectors_reach_the_edge(stage: Arc<Stage>) {
    let server = stage.booted("edge", "").await;
    // The connector's edge answers in its own way; that a connection is carried is seen by its staying
    // open until it is closed from here.
    let argv = [
        "python3",
        "-c",
        "import socket; s = socket.create_connection(('198.51.100.2', 7844), 30); s.settimeout(0.5)\ntry: print(len(s.recv(1)))\nexcept TimeoutError: print('open')",
    ];
    assert_eq!(server.exec(&argv).await.unwrap(), "open");
    let unit = server.read("/etc/systemd/system/cloudflared.service.d/50-lab.conf").await.unwrap();
    let unit = String::from_utf8(unit).unwrap();
    assert!(unit.contains("TUNNEL_EDGE=198.51.100.2:7844,198.51.100.2:7844\n"), "{unit}");
    let authority = server.read("/etc/moorage-lab/edge-ca.pem").await.unwrap();
    assert_eq!(authority, std::fs::read(&stage.simulator.endpoints().edge_ca).unwrap());
    stage.delete(&server).await;
}
