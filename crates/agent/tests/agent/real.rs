//! The worker's operations against the real OpenClaw: the program `moorage-agent worker` on its socket,
//! a running gateway, and what comes of each request. `OPENCLAW_DIR` names a folder with `bin/node`
//! and `node_modules/openclaw`.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use moorage_agent::{
    Disk, Layout,
    artifacts::{Shelf, Store},
};
use moorage_testbed::{eventually, or_skip, signal};
use moorage_wire::{
    CredentialType, DesiredState, Sha256, bootstrap::SECRETS_PATH, credential::GATEWAY_TOKEN,
    desired::Artifact,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

use crate::{messenger::Messenger, operator::desired};

const OLD: &str = "old-gateway-token-0123456789abcdef";
const NEW: &str = "new-gateway-token-0123456789abcdef";
/// A gateway takes about 20 s on an idle machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a variable of the environment says; `None`, said loudly, if it is not set.
fn given(variable: &str) -> Option<String> {
    or_skip(std::env::var(variable).map_err(|_| format!("{variable} is not set")))
}

struct Real {
    openclaw: PathBuf,
    messenger: Messenger,
    gateway: SocketAddr,
}

impl Real {
    /// `None`, said loudly, where there is no OpenClaw.
    async fn start() -> Option<Self> {
        Self::start_by(&[]).await
    }

    /// The worker in a network of its own, with nobody in it.
    async fn start_without_network() -> Option<Self> {
        Self::start_by(&["unshare", "--net"]).await
    }

    async fn start_by(wrapper: &[&str]) -> Option<Self> {
        let openclaw = PathBuf::from(given("OPENCLAW_DIR")?);
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let gateway = SocketAddr::from(([127, 0, 0, 1], port));
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let arguments = [
            "--node-bin".to_owned(),
            text(openclaw.join("bin/node")),
            "--openclaw-bin".to_owned(),
            text(program(&openclaw)),
            "--gateway".to_owned(),
            gateway.to_string(),
        ];
        let messenger = Messenger::start_by(wrapper, &arguments).await;
        Some(Self { openclaw, messenger, gateway })
    }

    fn layout(&self) -> &Layout {
        &self.messenger.layout
    }

    async fn file(&self, request: Value) -> Value {
        self.messenger.file(request).await
    }

    async fn program(&self, request: Value) -> Value {
        self.messenger.program(request).await
    }

    async fn set_token(&self, value: &str) {
        self.messenger.deliver(GATEWAY_TOKEN, CredentialType::GatewayToken, value).await;
    }

    /// The answer to one verb about a document with these integrations.
    async fn integrations(&self, verb: &str, wanted: Value) -> Value {
        let integrations = serde_json::from_value(wanted).unwrap();
        let document = DesiredState { integrations, ..desired(json!({}), &[]) };
        let document = self.messenger.want(&document).await;
        self.program(json!({"verb": verb, "document": document})).await
    }

    fn config(&self, model: &str) -> Value {
        let reference = |id: &str| json!({"source": "file", "provider": "moorage", "id": id});
        json!({
            "gateway": {
                "mode": "local", "port": self.gateway.port(), "bind": "loopback",
                "auth": {"mode": "token", "token": reference("/moorage-gateway")},
                "terminal": {"enabled": false}, "trustedProxies": ["127.0.0.1", "::1"],
            },
            "agents": {"defaults": {"model": {"primary": model}}},
            "session": {"dmScope": "per-channel-peer"},
            "tools": {"exec": {"security": "deny"}},
            "secrets": {"providers": {"moorage": {"source": "file", "mode": "json", "path": SECRETS_PATH}}},
        })
    }

    async fn write_config(&self, model: &str) {
        let document = self.messenger.want(&desired(self.config(model), &[GATEWAY_TOKEN])).await;
        let answer = self.file(json!({"verb": "write-config", "document": document})).await;
        assert_eq!(answer, json!({"result": "done"}));
    }

    /// A gateway that has started.
    async fn gateway(&self) -> Child {
        let child = Command::new(self.openclaw.join("bin/node"))
            .arg(program(&self.openclaw))
            .arg("gateway")
            .env("HOME", self.layout().openclaw_home())
            .env("OPENCLAW_STATE_DIR", self.layout().openclaw_state())
            .env("OPENCLAW_CONFIG_PATH", self.layout().openclaw_config())
            .env("OPENCLAW_NO_AUTO_UPDATE", "1")
            .env("OPENCLAW_DISABLE_BONJOUR", "1")
            .current_dir(self.messenger.root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        eventually("/startupz", PATIENCE, async || {
            (self.status("GET /startupz", "").await? == 200).then_some(())
        })
        .await;
        child
    }

    async fn status(&self, line: &str, token: &str) -> Option<u16> {
        let mut stream = TcpStream::connect(self.gateway).await.ok()?;
        let request = format!(
            "{line} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}",
            self.gateway
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    }

    async fn takes(&self, token: &str) -> bool {
        match self.status("POST /tools/invoke", token).await {
            Some(400) => true,
            Some(401) => false,
            other => panic!("{other:?}"),
        }
    }
}

fn program(folder: &Path) -> PathBuf {
    folder.join("node_modules/openclaw/openclaw.mjs")
}

async fn stop(mut gateway: Child) {
    signal(gateway.id().unwrap(), Signal::TERM);
    gateway.wait().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_of_the_worker_works_with_openclaw() {
    let Some(real) = Real::start().await else { return };
    real.set_token(OLD).await;
    let version = real.program(json!({"verb": "version"})).await;
    assert_eq!(version["result"], "version", "{version}");

    let first = "anthropic/claude-sonnet-4-5";
    let validate = async |config: Value| {
        let document = real.messenger.want(&desired(config, &[])).await;
        real.program(json!({"verb": "validate", "document": document})).await
    };
    let valid = validate(real.config(first)).await;
    assert_eq!(valid, json!({"result": "validation", "verdict": "valid"}));
    let mut wrong = real.config(first);
    wrong["gateway"]["bind"] = json!(4711);
    wrong["agents"]["defaults"]["sandbox"] = json!({"mode": false});
    let invalid = validate(wrong).await;
    let of = |path: &str| {
        let issues = invalid["issues"].as_array().unwrap();
        let issue = issues.iter().find(|issue| issue["path"] == path);
        issue.and_then(|issue| issue["message"].as_str()).unwrap_or_default().to_owned()
    };
    for (path, allowed) in
        [("gateway.bind", "loopback"), ("agents.defaults.sandbox.mode", "non-main")]
    {
        assert!(of(path).contains(allowed) && !of(path).contains("4711"), "{invalid}");
    }

    real.write_config(first).await;
    let gateway = real.gateway().await;
    let applied = json!({"result": "applied", "applied": true});
    assert_eq!(real.program(json!({"verb": "config-applied"})).await, applied);
    real.write_config("anthropic/claude-opus-4-5").await;
    eventually("the running gateway takes the change up", PATIENCE, async || {
        (real.program(json!({"verb": "config-applied"})).await == applied).then_some(())
    })
    .await;

    real.set_token(NEW).await;
    assert_eq!((real.takes(OLD).await, real.takes(NEW).await), (true, false));
    let reloaded = real.program(json!({"verb": "reload-secrets"})).await;
    assert_eq!(reloaded, json!({"result": "reloaded", "outcome": "done"}));
    assert_eq!((real.takes(OLD).await, real.takes(NEW).await), (false, true));

    let requests = ["0b4c1f2e-6a0f-4d4e-9d7e-0a1b2c3d4e5f"];
    let approving = DesiredState {
        approved_pairings: requests.map(str::to_owned).into(),
        ..desired(json!({}), &[])
    };
    real.messenger.want(&approving).await;
    let paired = real.program(json!({"verb": "approve-pairings", "requests": requests})).await;
    assert_eq!(
        paired,
        json!({"result": "pairings", "approved": [], "refused": []}),
        "nobody waits"
    );
    let audit = real.program(json!({"verb": "audit"})).await;
    assert_eq!((&audit["result"], &audit["critical"]), (&json!("audit"), &json!(0)), "{audit}");
    let backup = real.program(json!({"verb": "backup"})).await;
    assert_eq!(backup["result"], "backup", "{backup}");
    let room = real.program(json!({"verb": "room"})).await;
    assert!(room["used"].as_u64() > Some(0), "{room}");
    stop(gateway).await;

    let done = json!({"result": "done"});
    assert_eq!(real.program(json!({"verb": "take-snapshot"})).await, done);
    fs::remove_dir_all(real.layout().openclaw_state().join("state")).unwrap();
    assert_eq!(real.program(json!({"verb": "restore-snapshot"})).await, done);
    // No configuration is in the copy.
    real.write_config(first).await;
    stop(real.gateway().await).await;
    assert_eq!(real.program(json!({"verb": "drop-snapshot"})).await, done);
}

/// Needs the file of a plugin as `moorage release build` packs it, `OPENCLAW_PLUGIN_ARTIFACT`.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_installed_without_any_network() {
    let Some(packed) = given("OPENCLAW_PLUGIN_ARTIFACT") else { return };
    let Some(real) = Real::start_without_network().await else { return };
    let bytes = fs::read(packed).unwrap();
    let artifact = Artifact {
        version: "1".to_owned(),
        url: "https://releases.invalid/".to_owned(),
        sha256: Sha256::of(&bytes),
        size: bytes.len() as u64,
    };
    fs::create_dir_all(real.layout().downloads()).unwrap();
    let file = real.layout().downloads().join("plugin");
    fs::write(&file, bytes).unwrap();
    let store = Store::open(&Disk::default(), real.layout()).unwrap();
    store.install(Shelf::Integrations, &artifact, &file).unwrap();
    let folder = real.layout().integration(artifact.sha256);
    let parsed =
        |path: PathBuf| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let index = parsed(folder.join("integration.json"));
    let lock = parsed(folder.join("package-lock.json"));
    let name = index["name"].as_str().unwrap();
    let integrity = &lock["packages"][format!("node_modules/{name}")]["integrity"];
    let wanted = |sha256: Sha256| {
        json!([{
            "kind": "Plugin", "name": name, "version": index["version"], "integrity": integrity,
            "artifact": {"version": "1", "url": artifact.url, "sha256": sha256, "size": artifact.size},
        }])
    };
    let absent = real.integrations("add-integrations", wanted(Sha256::of(b"another"))).await;
    assert!(absent["message"].as_str().unwrap().contains("not on this server"), "{absent}");

    let added = real.integrations("add-integrations", wanted(artifact.sha256)).await;
    assert_eq!(added["plugins"].as_array().map(Vec::len), Some(1), "{added}");
    let installed = fs::read_dir(real.layout().openclaw_state().join("npm/projects")).unwrap();
    let project = installed.map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let (found, pinned) = (parsed(project.join("package-lock.json")), &lock["packages"]);
    let packages = found["packages"].as_object().unwrap();
    assert!(packages.len() > 100, "{}", packages.len());
    for (at, package) in packages {
        assert_eq!(package["integrity"], pinned[at]["integrity"], "{at}");
    }
    assert!(!real.layout().npm_cache().exists());
    assert_eq!(fs::read_to_string(real.layout().npm_settings()).unwrap(), "offline=true\n");
    let list = Command::new(real.openclaw.join("bin/node"))
        .arg(program(&real.openclaw))
        .args(["plugins", "list", "--json"])
        .env("HOME", real.layout().openclaw_home())
        .env("OPENCLAW_STATE_DIR", real.layout().openclaw_state())
        .output()
        .await
        .unwrap();
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    let ours =
        list["plugins"].as_array().unwrap().iter().find(|one| one["id"] == added["plugins"][0]);
    assert_eq!(ours.unwrap()["trustedOfficialInstall"], true, "as if it came from the registry");

    let begin = Instant::now();
    assert_eq!(real.integrations("add-integrations", wanted(artifact.sha256)).await, added);
    assert!(begin.elapsed() < Duration::from_secs(60), "it is not installed again");
    let removed = real.integrations("remove-integrations", json!([])).await;
    assert_eq!(removed, json!({"result": "done"}));
}

/// Needs a registry that has the package, `OPENCLAW_PLUGIN`, such as `@openclaw/zalo@2026.9.5`. Only a
/// release that says so lets a server ask it.
#[tokio::test(flavor = "multi_thread")]
async fn an_unpinned_plugin_is_installed_and_removed() {
    let Some(plugin) = given("OPENCLAW_PLUGIN") else { return };
    let Some(real) = Real::start().await else { return };
    let (name, version) = plugin.rsplit_once('@').unwrap();
    let wrong = format!("sha512-{}==", "A".repeat(86));
    let unpinned = |integrity: &str, allowed: bool| {
        json!([{"kind": "Plugin", "name": name, "version": version, "integrity": integrity,
                "unpinned": allowed}])
    };
    let pinned = |integrity: &str| unpinned(integrity, true);
    let barred = real.integrations("add-integrations", unpinned(&wrong, false)).await;
    assert!(barred["message"].as_str().unwrap().contains("does not pin all of it"), "{barred}");
    let refused = real.integrations("add-integrations", pinned(&wrong)).await;
    let said = refused["message"].as_str().unwrap();
    assert!(said.contains(&wrong), "{said}");
    assert!(!real.layout().openclaw_state().join("npm").exists(), "nothing was fetched");
    // The refusal names what the registry has.
    let found = said.split("has the integrity ").nth(1).unwrap().split(',').next().unwrap();
    let wanted = pinned(found);
    let added = real.integrations("add-integrations", wanted.clone()).await;
    assert_eq!(added["plugins"].as_array().map(Vec::len), Some(1), "{added}");
    let begin = Instant::now();
    assert_eq!(real.integrations("add-integrations", wanted).await, added);
    assert!(begin.elapsed() < Duration::from_secs(60), "it is not fetched again");
    let removed = real.integrations("remove-integrations", json!([])).await;
    assert_eq!(removed, json!({"result": "done"}));
    let odd = json!([{"kind": "Plugin", "name": "--link", "version": "1.0.0"}]);
    let refused = real.integrations("add-integrations", odd).await;
    assert_eq!(refused["result"], "failed");
}
