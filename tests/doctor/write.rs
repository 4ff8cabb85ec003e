//! `--write` and `--spend`: what is made is looked at, and nothing of it stays.

use std::{net::SocketAddr, process::Stdio, sync::Arc};

use moorage_testbed::eventually;
use parking_lot::Mutex;
use serde_json::{Value, json};
use simple_dns::{CLASS, Packet, RCODE, ResourceRecord, rdata::RData};
use tokio::net::UdpSocket;

use crate::{
    clouds::{ACCOUNT, CLOUDFLARE_TOKEN, Clouds, HETZNER_TOKEN, ZONE},
    verdicts,
};

/// A name server that knows every name once it has been asked so often.
struct NameServer {
    address: SocketAddr,
    asked: Arc<Mutex<u32>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl NameServer {
    async fn start(knows_after: u32) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (address, asked) = (socket.local_addr().unwrap(), Arc::new(Mutex::new(0)));
        let count = Arc::clone(&asked);
        let serving = tokio::spawn(async move {
            let mut buffer = [0; 512];
            loop {
                let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
                let question = Packet::parse(&buffer[..length]).unwrap();
                let name = question.questions[0].qname.clone();
                let mut reply = question.clone().into_reply();
                *count.lock() += 1;
                if *count.lock() > knows_after {
                    let data = RData::A(simple_dns::rdata::A { address: 0x7f00_0001 });
                    reply.answers.push(ResourceRecord::new(name, CLASS::IN, 60, data));
                } else {
                    *reply.rcode_mut() = RCODE::NameError;
                }
                socket.send_to(&reply.build_bytes_vec().unwrap(), peer).await.unwrap();
            }
        });
        Self { address, asked, serving }
    }
}

/// The options by which the edge and a name are found in the lab.
fn ways(clouds: &Clouds, names: &NameServer) -> Vec<String> {
    let endpoints = clouds.simulator.endpoints();
    vec![
        format!("--edge-address={}", endpoints.edge),
        format!("--edge-ca={}", endpoints.edge_ca.display()),
        format!("--name-server={}", names.address),
    ]
}

async fn run(clouds: &Clouds, knows_after: u32, arguments: &[&str]) -> (Value, i32) {
    let names = NameServer::start(knows_after).await;
    let ways = ways(clouds, &names);
    let mut all: Vec<&str> = ways.iter().map(String::as_str).collect();
    all.extend(arguments);
    clouds.look(&all).await
}

/// The verdicts of the checks that write.
fn written(report: &Value) -> Vec<(String, String)> {
    let mut found = verdicts(report);
    found.retain(|(id, _)| id.starts_with("write.") || id.starts_with("spend."));
    found
}

fn told(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(id, verdict)| ((*id).to_owned(), (*verdict).to_owned())).collect()
}

/// The names of everything in both clouds.
async fn everything(clouds: &Clouds) -> Vec<String> {
    let state = clouds.simulator.state().await.unwrap();
    let (project, account) = (&state["hetzner"]["lab"], &state["cloudflare"][ACCOUNT]);
    let lists = [
        &project["servers"],
        &project["firewalls"],
        &project["sshKeys"],
        &account["accessApps"],
        &account["accessPolicies"],
        &account["serviceTokens"],
        &account["zones"][0]["records"],
        &account["tunnels"],
    ];
    let all = lists.iter().flat_map(|list| list.as_array().unwrap());
    let live = all.filter(|object| object["deleted_at"].is_null());
    live.map(|object| object["name"].as_str().unwrap().to_owned()).collect()
}

/// Makes something behind the doctor's back.
async fn make(clouds: &Clouds, path: &str, body: &Value) {
    let endpoints = clouds.simulator.endpoints();
    let (base, token) = if path.starts_with("/accounts") || path.starts_with("/zones") {
        (&endpoints.cloudflare, CLOUDFLARE_TOKEN)
    } else {
        (&endpoints.hetzner, HETZNER_TOKEN)
    };
    let request = reqwest::Client::new().post(format!("{base}{path}")).bearer_auth(token);
    request.json(body).send().await.unwrap().error_for_status().unwrap();
}

const ALL_WELL: &[(&str, &str)] = &[
    ("write.leftovers", "pass"),
    ("write.firewall", "pass"),
    ("write.tunnel", "pass"),
    ("write.dns-record", "pass"),
    ("write.door", "pass"),
    ("write.cleanup", "pass"),
];

#[tokio::test]
async fn everything_is_made_looked_at_and_deleted() {
    let clouds = Clouds::start().await;
    let (report, code) = run(&clouds, 2, &["--write", "--yes"]).await;
    assert_eq!((written(&report), code), (told(ALL_WELL), 0), "{report:#}");
    let of = |id: &str| {
        let checks = report["checks"].as_array().unwrap();
        checks.iter().find(|check| check["id"] == id).unwrap()["detail"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert!(
        of("write.door").starts_with("403 without a token, 403 with a wrong one, 530 "),
        "{}",
        of("write.door")
    );
    assert!(of("write.cleanup").starts_with("6 objects"), "{}", of("write.cleanup"));
    assert_eq!(everything(&clouds).await, [] as [String; 0]);
}

#[tokio::test]
async fn nothing_is_made_without_a_yes() {
    let clouds = Clouds::start().await;
    let file = clouds.write("unused", "");
    let output = clouds.output(&["--write", "--account-id", ACCOUNT, "--zone-id", ZONE]).await;
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(2), true), "{file:?}");
    let journal = clouds.simulator.whole_journal().await.unwrap();
    assert!(journal.is_empty(), "{journal:?}");
}

#[tokio::test]
async fn what_cannot_be_made_is_told_and_the_rest_goes() {
    let clouds = Clouds::start().await;
    clouds.project(&json!({"readOnly": true})).await;
    let (report, code) = run(&clouds, 0, &["--write", "--yes"]).await;
    let mut expected = told(ALL_WELL);
    expected[1].1 = "fail".to_owned();
    assert_eq!((written(&report), code), (expected, 1), "{report:#}");

    clouds.heal().await;
    let fault = json!({
        "cloud": "cloudflare", "method": "POST", "path": "*/dns_records/batch", "times": 1,
        "kind": "status", "status": 403,
    });
    clouds.simulator.add_fault(&fault).await.unwrap();
    let (report, _) = run(&clouds, 0, &["--write", "--yes"]).await;
    let mut expected = told(ALL_WELL);
    (expected[3].1, expected[4].1) = ("fail".to_owned(), "unknown".to_owned());
    assert_eq!(written(&report), expected, "{report:#}");
    assert_eq!(everything(&clouds).await, [] as [String; 0]);
}

#[tokio::test]
async fn what_a_lost_answer_made_is_deleted_as_well() {
    let clouds = Clouds::start().await;
    let fault = json!({
        "cloud": "cloudflare", "method": "POST", "path": "*/cfd_tunnel", "kind": "response-lost",
    });
    clouds.simulator.add_fault(&fault).await.unwrap();
    let (report, code) = run(&clouds, 0, &["--write", "--yes"]).await;
    let mut expected = told(ALL_WELL);
    expected[2].1 = "fail".to_owned();
    (expected[3].1, expected[4].1) = ("unknown".to_owned(), "unknown".to_owned());
    assert_eq!((written(&report), code), (expected, 1), "{report:#}");
    assert_eq!(everything(&clouds).await, [] as [String; 0]);
}

#[tokio::test]
async fn a_door_that_access_does_not_make_fails() {
    let clouds = Clouds::start().await;
    let fault = json!({
        "cloud": "cloudflare", "method": "POST", "path": "*/access/apps", "times": 1,
        "kind": "status", "status": 403, "code": 10000,
    });
    clouds.simulator.add_fault(&fault).await.unwrap();
    let (report, code) = run(&clouds, 0, &["--write", "--yes"]).await;
    let mut expected = told(ALL_WELL);
    expected[4].1 = "fail".to_owned();
    assert_eq!((written(&report), code), (expected, 1), "{report:#}");
    assert_eq!(everything(&clouds).await, [] as [String; 0]);
}

#[tokio::test]
async fn an_interruption_deletes_what_was_made() {
    let clouds = Clouds::start().await;
    let names = NameServer::start(u32::MAX).await;
    let ways = ways(&clouds, &names);
    let mut arguments: Vec<&str> = ways.iter().map(String::as_str).collect();
    arguments.extend(["--write", "--yes", "--account-id", ACCOUNT, "--zone-id", ZONE]);
    let child = clouds.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let child = child.unwrap();
    let patience = std::time::Duration::from_secs(60);
    eventually("the name to be asked for", patience, async || {
        (*names.asked.lock() > 0).then_some(())
    })
    .await;
    assert_eq!(everything(&clouds).await.len(), 3, "a firewall, a tunnel and a record");
    moorage_testbed::signal(child.id().unwrap(), moorage_testbed::Signal::INT);
    let output = child.wait_with_output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("write.interrupted") && text.contains("3 objects were deleted"),
        "{text}"
    );
    assert_eq!(everything(&clouds).await, [] as [String; 0]);
}

#[tokio::test]
async fn only_what_earlier_runs_have_left_is_deleted() {
    let clouds = Clouds::start().await;
    let tunnels = format!("/accounts/{ACCOUNT}/cfd_tunnel");
    let secret = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let (old, theirs) = ("moorage-doctor-00000001", "moorage-doctor-notes");
    let labelled = json!({"moorage.dev/doctor": "true"});
    for name in [old, theirs] {
        let tunnel = json!({"name": name, "config_src": "cloudflare", "tunnel_secret": secret});
        make(&clouds, &tunnels, &tunnel).await;
        make(&clouds, "/firewalls", &json!({"name": name, "labels": labelled})).await;
    }
    make(&clouds, "/firewalls", &json!({"name": "moorage-doctor-00000002"})).await;
    let (report, code) = run(&clouds, 0, &["--write", "--yes"]).await;
    assert_eq!((written(&report), code), (told(ALL_WELL), 0), "{report:#}");
    let mut left = everything(&clouds).await;
    left.sort();
    assert_eq!(left, ["moorage-doctor-00000002", theirs, theirs]);
}

#[tokio::test]
async fn the_cheapest_server_is_made_timed_and_deleted() {
    let clouds = Clouds::start().await;
    let (report, code) = run(&clouds, 0, &["--spend", "--yes"]).await;
    let expected =
        [("write.leftovers", "pass"), ("spend.server", "pass"), ("write.cleanup", "pass")];
    assert_eq!((written(&report), code), (told(&expected), 0), "{report:#}");
    assert_eq!(everything(&clouds).await, [] as [String; 0]);
    let journal = clouds.simulator.journal("hetzner", "lab").await.unwrap();
    let made =
        journal.iter().filter(|entry| entry["method"] == "POST" && entry["path"] == "/servers");
    assert_eq!(made.count(), 1);
}
