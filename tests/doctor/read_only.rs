//! Looking, without changing anything.

use serde_json::{Value, json};

use crate::{
    clouds::{ACCOUNT, Clouds, ZONE, pool},
    verdicts,
};

/// Verdicts besides `pass`, without that of files that are served over IPv4 alone.
fn remarkable(report: &Value) -> Vec<(String, String)> {
    let mut found = verdicts(report);
    found.retain(|(id, verdict)| verdict != "pass" && id != "artifacts.file");
    found
}

#[tokio::test]
async fn healthy_clouds_pass_and_nothing_is_written() {
    let clouds = Clouds::start().await;
    let (report, code) = clouds.look(&[]).await;
    assert_eq!((remarkable(&report), code), (Vec::new(), 0), "{report:#}");
    assert_eq!(report["checks"].as_array().unwrap().len(), 31, "{report:#}");
    let journal = clouds.simulator.whole_journal().await.unwrap();
    let written = journal.iter().filter(|entry| entry["method"] != "GET").count();
    assert_eq!((written, journal.is_empty()), (0, false));
}

/// What breaks a cloud, the check that says so, and its verdict.
type Row = (&'static str, Break, &'static str, &'static str);

enum Break {
    Project(Value),
    Account(Value),
    Zone(Value),
    /// The token lacks the scope for a path.
    Scope(String),
    /// A fault at Hetzner.
    Fault(Value),
    /// A manifest of the pool: changes of Hetzner's part and of Cloudflare's.
    Pool(Value, Value),
}

fn rows() -> Vec<Row> {
    let mut rows = rows_of_hetzner();
    rows.extend(rows_of_cloudflare());
    rows
}

fn rows_of_hetzner() -> Vec<Row> {
    let hetzner = |changes: Value| Break::Pool(changes, json!({}));
    let stock = |place: &Value| {
        let fault = json!({"cloud": "hetzner", "times": null, "kind": "out-of-stock"});
        Break::Fault(crate::clouds::merged(fault, place))
    };
    vec![
        (
            "token of another project",
            Break::Project(json!({"token": "other"})),
            "hetzner.token",
            "fail",
        ),
        ("sold out in one location", stock(&json!({"location": "fsn1"})), "hetzner.offer", "warn"),
        (
            "a type that is not offered",
            hetzner(json!({"locations": ["fsn1", "ash"]})),
            "hetzner.offer",
            "warn",
        ),
        (
            "a type that was ended",
            hetzner(json!({"serverTypes": ["cx33", "cpx11"]})),
            "hetzner.offer",
            "warn",
        ),
        (
            "an unknown type",
            hetzner(json!({"serverTypes": ["cx33", "cx34"]})),
            "hetzner.offer",
            "fail",
        ),
        ("an unknown image", hetzner(json!({"image": "debian-99"})), "hetzner.image", "fail"),
        ("a deprecated image", hetzner(json!({"image": "debian-11"})), "hetzner.image", "warn"),
        ("a pool without SSH keys", hetzner(json!({"ssh": null})), "hetzner.ssh-keys", "pass"),
    ]
}

fn rows_of_cloudflare() -> Vec<Row> {
    let of_account = |path: &str| Break::Scope(format!("/accounts/{ACCOUNT}{path}"));
    let of_zone = |path: &str| Break::Scope(format!("/zones/{ZONE}{path}"));
    let token = |setup: Value| Break::Account(json!({"tokenSetup": setup}));
    let cloudflare = |changes: Value| Break::Pool(json!({}), changes);
    vec![
        ("a disabled token", token(json!({"status": "disabled"})), "cloudflare.token", "fail"),
        (
            "a token that ended",
            token(json!({"expiresOn": "2026-01-01T00:00:00Z"})),
            "cloudflare.token",
            "fail",
        ),
        ("a token of the account", token(json!({"owner": "account"})), "cloudflare.token", "pass"),
        (
            "a pending zone",
            Break::Zone(json!({"status": "pending"})),
            "cloudflare.zone-active",
            "fail",
        ),
        ("a paused zone", Break::Zone(json!({"paused": true})), "cloudflare.zone-active", "fail"),
        (
            "a partial zone",
            Break::Zone(json!({"type": "partial"})),
            "cloudflare.zone-active",
            "fail",
        ),
        (
            "a domain below the zone",
            cloudflare(json!({"domain": "eu.example.com"})),
            "cloudflare.domain",
            "fail",
        ),
        (
            "no organization",
            Break::Account(json!({"zeroTrust": false})),
            "cloudflare.zero-trust",
            "fail",
        ),
        ("no scope for apps", of_account("/access/apps"), "cloudflare.access-apps", "fail"),
        (
            "no scope for service tokens",
            of_account("/access/service_tokens"),
            "cloudflare.service-tokens",
            "fail",
        ),
        ("no scope for tunnels", of_account("/cfd_tunnel"), "cloudflare.tunnels", "fail"),
        ("no scope for DNS", of_zone("/dns_records"), "cloudflare.dns-records", "fail"),
        (
            "no scope for organizations",
            of_account("/access/organizations"),
            "cloudflare.zero-trust",
            "pass",
        ),
        (
            "no certificate yet",
            Break::Zone(json!({"certificate": "pending_validation"})),
            "edge.certificate",
            "fail",
        ),
        (
            "no certificate at all",
            Break::Zone(json!({"certificate": null})),
            "edge.certificate",
            "fail",
        ),
        ("SSL off", Break::Zone(json!({"ssl": "off"})), "edge.ssl", "fail"),
        ("WebSockets off", Break::Zone(json!({"websockets": "off"})), "edge.websockets", "fail"),
        ("Bot Fight Mode", Break::Zone(json!({"fightMode": true})), "edge.bots", "fail"),
        (
            "no scope for certificates",
            of_zone("/ssl/certificate_packs"),
            "edge.certificate",
            "unknown",
        ),
        ("no scope for bots", of_zone("/bot_management"), "edge.bots", "unknown"),
    ]
}

#[tokio::test]
async fn each_broken_cloud_is_told_by_the_one_check() {
    let clouds = Clouds::start().await;
    let mut wrong = Vec::new();
    for (name, broken, check, verdict) in rows() {
        clouds.heal().await;
        clouds.write("pool.yaml", &pool(&json!({}), &json!({})).to_string());
        match broken {
            Break::Project(changes) => clouds.project(&changes).await,
            Break::Account(changes) => clouds.account(&changes).await,
            Break::Zone(setup) => clouds.zone(&setup).await,
            Break::Scope(path) => clouds.refuse(&path).await,
            Break::Fault(fault) => drop(clouds.simulator.add_fault(&fault).await.unwrap()),
            Break::Pool(hetzner, cloudflare) => {
                clouds.write("pool.yaml", &pool(&hetzner, &cloudflare).to_string());
            }
        }
        let (report, code) = clouds.look(&[]).await;
        let told = verdicts(&report);
        let is_right = told.contains(&(check.to_owned(), verdict.to_owned()));
        // What depends on the failing check is not judged; nothing else fails or warns.
        let others = remarkable(&report);
        let others = others.iter().filter(|(id, verdict)| id != check && verdict != "unknown");
        let others: Vec<_> = others.collect();
        if !is_right || !others.is_empty() || code != i32::from(verdict == "fail") {
            wrong.push(format!("{name}: exit code {code}, {:?}", remarkable(&report)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn files_that_servers_cannot_fetch_fail() {
    let clouds = Clouds::start().await;
    let file = async |report: &Value| {
        verdicts(report).into_iter().find(|(id, _)| id == "artifacts.file").unwrap().1
    };
    // The host of the files has no IPv6 address.
    assert_eq!(file(&clouds.look(&[]).await.0).await, "warn");
    clouds.write("release.yaml", &clouds.release("x86", 8).to_string());
    let (report, code) = clouds.look(&[]).await;
    assert_eq!((file(&report).await.as_str(), code), ("fail", 1));
    clouds.write("release.yaml", &clouds.release("arm", 7).to_string());
    let (report, code) = clouds.look(&[]).await;
    let architecture = ("artifacts.architecture".to_owned(), "fail".to_owned());
    assert!(verdicts(&report).contains(&architecture), "{report:#}");
    assert_eq!(code, 1);
}

#[tokio::test]
async fn people_get_one_line_for_each_check() {
    let clouds = Clouds::start().await;
    clouds.zone(&json!({"paused": true})).await;
    let place = ["--account-id", ACCOUNT, "--zone-id", ZONE, "--server-type", "cx33"];
    let output = clouds.output(&place).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let line = text.lines().find(|line| line.contains("cloudflare.zone-active")).unwrap();
    assert!(line.starts_with("fail") && line.contains("Enable it"), "{line}");
    assert!(text.lines().last().unwrap().ends_with("1 failed."), "{text}");
}

#[tokio::test]
async fn a_wrong_command_line_has_an_exit_code_of_its_own() {
    let clouds = Clouds::start().await;
    for arguments in
        [&["--no-such-option"][..], &["-f", "/no/such/file"], &["--server-type", "cx33"]]
    {
        let output = clouds.output(arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}
