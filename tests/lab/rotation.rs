//! The tunnel's token is replaced, and at every point of that something dies: the operator, the agent,
//! cloudflared, or the power. Where the world has to stand still for that, it is held there.

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, api::DeleteParams};
use moorage::leader::LEASE_NAME;
use moorage_testbed::{Ending, LabServer, Press, Process, wait_until};
use serde_json::{Value, json};

use crate::{
    server::drop_in,
    stage::{Kept, SYSTEM, Stage},
    tenant::{Tenant, is},
};

/// What cloudflared starts with.
const TOKEN: &str = "/etc/moorage/tunnel-token";
/// The agent's record of all tokens.
const TOKENS: &str = "/var/lib/moorage/tunnel.json";
/// Holds cloudflared where systemd has stopped the old one and not started the new one.
const HOLD: &str = "ExecStartPre=/usr/bin/sleep infinity\nTimeoutStartSec=infinity";
const READY: [&str; 3] = ["curl", "-s", "http://127.0.0.1:241/ready"];

/// Makes an instance, and rotates its token through all those deaths.
pub(crate) async fn survive(tenant: &Tenant) -> Value {
    let hold = |method: &str, path: &str| json!({"kind": "hold", "method": method, "path": path});
    let patch = tenant.fault("cloudflare", hold("PATCH", "/accounts/*/cfd_tunnel/*")).await;
    let cut =
        tenant.fault("cloudflare", hold("DELETE", "/accounts/*/cfd_tunnel/*/connections")).await;
    tenant.apply_instance("ada", json!({})).await;
    let ada = tenant.until("ada", "a server", |ada| is(ada, "ServerReady", "True")).await;
    let server = tenant.server(&ada);

    // The server holds both tokens, and Cloudflare knows the old one.
    tenant.until_held("PATCH", 0).await;
    let (old, new) = both_tokens(tenant, &server).await;
    for unit in ["cloudflared.service", "moorage-agent.service"] {
        tenant.kill(&server, unit).await;
        tenant.until_prints(&server, &READY, "\"status\":200").await;
    }
    tenant.cut_power(&server).await;
    tenant.until_prints(&server, &READY, "\"status\":200").await;
    tenant.stage.kill_operator();
    let before = tenant.last_call().await;
    tenant.stage.start_operator().await;
    tenant.until_held("PATCH", before).await;
    assert_eq!(both_tokens(tenant, &server).await, (old.clone(), new.clone()));
    let thief = Thief::start(tenant, &old);
    thief.until(tenant, Heard::LetIn).await;

    // Cloudflare knows the new token, and nobody's connection is cut.
    tenant.lift(patch).await;
    tenant.until_held("DELETE", 0).await;
    tenant.stage.kill_operator();
    let before = tenant.last_call().await;
    Thief::start(tenant, &old).until(tenant, Heard::Refused).await;
    assert_eq!(thief.heard(), Some(Heard::LetIn));
    tenant.until_prints(&server, &READY, "\"status\":200").await;

    // The server comes up with a token that is worth nothing and nobody to tell it so.
    let endless = drop_in(&server, "/etc", "cloudflared.service", HOLD).await;
    server.power(Press::Reset).await.unwrap();
    tenant.until_prints(&server, &["cat", TOKEN], &new).await;
    let state = ["systemctl", "show", "--property=SubState", "cloudflared.service"];
    tenant.until_prints(&server, &state, "start-pre").await;
    tenant.kill(&server, "moorage-agent.service").await;
    tenant.until_prints(&server, &state, "start-pre").await;
    server.exec(&["rm", &endless]).await.unwrap();
    tenant.cut_power(&server).await;
    tenant.until_prints(&server, &READY, "\"status\":200").await;
    tenant
        .eventually("the old token is erased", || async {
            match (token(&server).await?, pending(&server).await?) {
                (token, None) if token == new => Ok(()),
                other => Err(format!("{}", other.1.is_some())),
            }
        })
        .await;
    tenant.cut_power(&server).await;
    tenant.until_prints(&server, &READY, "\"status\":200").await;
    assert_eq!(thief.heard(), Some(Heard::LetIn), "nobody has cut the old one off");

    // The server has moved on by itself; only the status tells that the old one is to be cut off.
    tenant.stage.start_operator().await;
    tenant.until_held("DELETE", before).await;
    tenant.lift(cut).await;
    thief.until(tenant, Heard::Refused).await;
    tenant.kill(&server, "cloudflared.service").await;
    let ada = tenant.until_ready("ada").await;
    tenant.until_prints(&server, &READY, "\"status\":200").await;
    assert!(ada["status"]["tunnel"]["rotating"].is_null(), "{}", ada["status"]["tunnel"]);
    Thief::start(tenant, &old).until(tenant, Heard::Refused).await;
    ada
}

/// The token that cloudflared starts with.
async fn token(server: &LabServer) -> Result<String, String> {
    let bytes = server.read(TOKEN).await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8(bytes).unwrap().trim().to_owned())
}

/// The token that the agent is to go to.
async fn pending(server: &LabServer) -> Result<Option<String>, String> {
    let bytes = server.read(TOKENS).await.map_err(|error| error.to_string())?;
    let tokens: Value = serde_json::from_slice(&bytes).unwrap();
    Ok(tokens["pending"].as_str().map(str::to_owned))
}

/// Waits until a server holds the token that cloudflared runs with and another one; gives both.
async fn both_tokens(tenant: &Tenant, server: &LabServer) -> (String, String) {
    let both = wait_until("the server holds both tokens", tenant.stage.patience, || async {
        match (token(server).await?, pending(server).await?) {
            (old, Some(new)) if old != new => Ok((old, new)),
            (_, new) => Err(format!("another one: {}", new.is_some())),
        }
    });
    both.await.unwrap_or_else(|late| panic!("{late}"))
}

impl Stage {
    /// Kills the operator with no chance to put anything in order.
    pub(crate) fn kill_operator(&self) {
        let mut kept = self.operator.lock().unwrap();
        kept.wanted = false;
        kept.operator.process().kill();
    }

    /// Starts an operator in place of one that was killed.
    pub(crate) async fn start_operator(&self) {
        // The dead one holds its Lease for half a minute, which no scenario is about.
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), SYSTEM);
        leases.delete(LEASE_NAME, &DeleteParams::default()).await.unwrap();
        let started = Kept::start(&self.options, self.simulator.endpoints()).await;
        *self.operator.lock().unwrap() = started;
    }
}

impl Tenant {
    /// The number of the last call. Those that a dead operator has made stay held for ever.
    async fn last_call(&self) -> u64 {
        let requests = self.requests("cloudflare").await;
        requests.last().and_then(|entry| entry["seq"].as_u64()).unwrap()
    }

    /// Waits until a call about the tunnel is held that came after number `since`.
    async fn until_held(&self, method: &str, since: u64) {
        let what = format!("a {method} of the tunnel is held");
        let held = wait_until(what, self.stage.patience, || async {
            let requests = self.requests("cloudflare").await;
            let held = requests.iter().any(|entry| {
                let path = entry["path"].as_str().unwrap_or_default();
                entry["method"] == method
                    && path.contains("/cfd_tunnel/")
                    && entry["status"].is_null()
                    && entry["seq"].as_u64() > Some(since)
            });
            if held { Ok(()) } else { Err("there is none".to_owned()) }
        });
        held.await.unwrap_or_else(|late| panic!("{late}"));
    }

    /// Kills a unit's main process and waits until another one runs.
    async fn kill(&self, server: &LabServer, unit: &str) {
        let main = async || {
            let seen = server.unit(unit, &["MainPID"]).await.map_err(|error| error.to_string())?;
            Ok::<_, String>(seen["MainPID"].clone())
        };
        let old = main().await.unwrap();
        server.kill_unit(unit).await.unwrap();
        self.eventually(&format!("{unit} runs again"), || async {
            match main().await? {
                now if now == old || now == "0" => Err(now),
                _ => Ok(()),
            }
        })
        .await;
    }

    /// Cuts a server's power, gives it back, and waits until it has booted.
    async fn cut_power(&self, server: &LabServer) {
        let starts = server.state().await.unwrap().starts;
        server.power(Press::Reset).await.unwrap();
        server.wait_boot(starts + 1, self.stage.patience).await.unwrap();
    }
}

/// Somebody else with a token that he should not have, and a connector of his own.
struct Thief {
    process: Process,
    _folder: tempfile::TempDir,
}

/// What the edge told a connector last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    LetIn,
    Lost,
    Refused,
}

impl Thief {
    fn start(tenant: &Tenant, token: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, token).unwrap();
        let clouds = tenant.clouds();
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_moorage"));
        let arguments = [
            "connector".to_owned(),
            format!("--token-file={}", file.display()),
            format!("--edge={}", clouds.connector_edge),
            format!("--cacert={}", clouds.edge_ca.display()),
            "--metrics=127.0.0.1:0".to_owned(),
        ];
        let process = Process::start(
            "a thief's connector",
            &program.with_file_name("moorage-sim"),
            arguments,
            &[],
            &folder.path().join("log"),
            Ending::Kill,
        );
        Self { process: process.unwrap(), _folder: folder }
    }

    fn heard(&self) -> Option<Heard> {
        self.process.log_tail(usize::MAX).lines().rev().find_map(|line| {
            let words = [
                ("registered tunnel connection", Heard::LetIn),
                ("lost connection with the edge", Heard::Lost),
                ("Unauthorized: Invalid tunnel secret", Heard::Refused),
            ];
            words.into_iter().find_map(|(words, heard)| line.contains(words).then_some(heard))
        })
    }

    async fn until(&self, tenant: &Tenant, wanted: Heard) {
        tenant
            .eventually(&format!("the thief hears {wanted:?}"), || async {
                match self.heard() {
                    Some(heard) if heard == wanted => Ok(()),
                    other => Err(format!("{other:?}\n{}", self.process.log_tail(10))),
                }
            })
            .await;
    }
}
