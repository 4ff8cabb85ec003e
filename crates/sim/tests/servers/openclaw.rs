//! The stand-in for OpenClaw behaves as the facts about the real one say.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use crate::common::{eventually, plain_client};
use futures::{SinkExt as _, StreamExt as _};
use moorage_testbed::free_address;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

struct Home {
    folder: tempfile::TempDir,
    program: PathBuf,
    address: SocketAddr,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("openclaw");
        std::os::unix::fs::symlink(crate::common::SIM, &program).unwrap();
        let home = Self { folder, program, address: free_address().unwrap() };
        home.secrets(&json!({"gateway": "old-token", "telegram": "1:t"}), 0o600);
        home.config(&home.usual());
        home
    }

    fn usual(&self) -> Value {
        let secret = |id: &str| json!({"source": "file", "provider": "moorage", "id": id});
        json!({
            "gateway": {
                "mode": "local", "bind": "loopback", "trustedProxies": ["127.0.0.1"],
                "auth": {"mode": "token", "token": secret("/gateway")},
            },
            "agents": {"defaults": {"model": {"primary": "anthropic/claude-sonnet-4-5"}}},
            "channels": {"telegram": {"enabled": true, "botToken": secret("/telegram")}},
            "secrets": {"providers": {"moorage": {"source": "file", "mode": "json", "path": self.path("secrets.json")}}},
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, config: &Value) {
        std::fs::write(self.path("openclaw.json"), config.to_string()).unwrap();
    }

    fn secrets(&self, values: &Value, mode: u32) {
        let path = self.path("secrets.json");
        std::fs::write(&path, values.to_string()).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("OPENCLAW_CONFIG_PATH", self.path("openclaw.json"))
            .env("OPENCLAW_STATE_DIR", self.folder.path())
            .env("OPENCLAW_STAND_IN_ADDRESS", self.address.to_string())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().await.unwrap()
    }

    /// A gateway that has started.
    async fn gateway(&self) -> Child {
        let child =
            self.command(&["gateway"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("/startupz", async || {
            (self.get("/startupz", &[]).await?.0 == 200).then_some(())
        })
        .await;
        child
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Option<(u16, String)> {
        let mut request = plain_client().get(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.ok()?;
        Some((response.status().as_u16(), response.text().await.ok()?))
    }

    async fn whoami(&self, token: &str) -> u16 {
        self.get("/api/whoami", &[("authorization", &format!("Bearer {token}"))]).await.unwrap().0
    }
}

#[tokio::test]
async fn it_says_that_it_is_a_stand_in() {
    let home = Home::new();
    let version = home.run(&["--version"]).await;
    assert!(String::from_utf8(version.stdout).unwrap().contains("2026.9.6+stand-in"));
    let _gateway = home.gateway().await;
    let (status, page) = home.get("/any/path", &[]).await.unwrap();
    assert_eq!(status, 200);
    assert!(page.contains("OpenClaw stand-in (simulator)"));
}

#[tokio::test]
async fn validation_names_the_wrong_path() {
    let home = Home::new();
    let good = home.run(&["config", "validate", "--json"]).await;
    assert!(good.status.success());
    assert_eq!(serde_json::from_slice::<Value>(&good.stdout).unwrap()["valid"], true);
    let mut config = home.usual();
    config["agents"]["defaults"]["model"]["primary"] = json!(4);
    home.config(&config);
    let bad = home.run(&["config", "validate", "--json"]).await;
    assert_eq!(bad.status.code(), Some(1));
    let answer: Value = serde_json::from_slice(&bad.stdout).unwrap();
    assert_eq!(answer["issues"][0]["path"], "agents.defaults.model.primary");
}

#[tokio::test]
async fn a_configuration_that_no_restart_can_mend_is_exit_code_78() {
    let home = Home::new();
    for broken in ["{", "{}", r#"{"gateway":{"mode":"local"},"unknown":1}"#] {
        std::fs::write(home.path("openclaw.json"), broken).unwrap();
        assert_eq!(home.run(&["gateway"]).await.status.code(), Some(78), "{broken}");
    }
    let elsewhere = home.path("elsewhere.json");
    std::fs::write(&elsewhere, home.usual().to_string()).unwrap();
    std::fs::remove_file(home.path("openclaw.json")).unwrap();
    std::os::unix::fs::symlink(elsewhere, home.path("openclaw.json")).unwrap();
    assert_eq!(home.run(&["gateway"]).await.status.code(), Some(78));
}

#[tokio::test]
async fn a_secrets_file_that_others_can_read_or_name_is_refused() {
    let home = Home::new();
    let refused = async |reason: &str| {
        let output = home.run(&["gateway"]).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(reason), "{said}");
        assert!(!said.contains("old-token"));
    };
    home.secrets(&json!({"gateway": "old-token"}), 0o644);
    refused("permissions 644").await;
    home.secrets(&json!({"gateway": "old-token"}), 0o600);
    std::fs::hard_link(home.path("secrets.json"), home.path("second-name")).unwrap();
    refused("hard links").await;
    std::fs::remove_file(home.path("secrets.json")).unwrap();
    std::os::unix::fs::symlink(home.path("second-name"), home.path("secrets.json")).unwrap();
    refused("not a regular file").await;
}

#[tokio::test]
async fn a_changed_secret_counts_only_after_a_reload() {
    let home = Home::new();
    let _gateway = home.gateway().await;
    assert_eq!((home.whoami("old-token").await, home.whoami("wrong").await), (200, 401));
    home.secrets(&json!({"gateway": "new-token", "telegram": "1:t"}), 0o600);
    assert_eq!((home.whoami("old-token").await, home.whoami("new-token").await), (200, 401));
    // The command line shows the new token, which the gateway does not know yet.
    assert!(!home.run(&["secrets", "reload"]).await.status.success());
    let client = json!({
        "gateway": {"mode": "local", "auth": {"mode": "token", "token": {"source": "env", "provider": "default", "id": "SHOWN"}}},
    });
    std::fs::write(home.path("client.json"), client.to_string()).unwrap();
    let mut reload = home.command(&["secrets", "reload"]);
    reload.env("OPENCLAW_CONFIG_PATH", home.path("client.json")).env("SHOWN", "old-token");
    assert!(reload.output().await.unwrap().status.success());
    assert_eq!((home.whoami("old-token").await, home.whoami("new-token").await), (401, 200));
    // A reload that fails leaves what worked.
    home.secrets(&json!({"gateway": "newest"}), 0o644);
    assert!(!home.run(&["secrets", "reload"]).await.status.success());
    assert_eq!(home.whoami("new-token").await, 200);
}

#[tokio::test]
async fn a_reload_without_a_gateway_fails_and_says_why() {
    let home = Home::new();
    let output = home.run(&["secrets", "reload"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("is it running?"));
}

#[tokio::test]
async fn a_channel_without_its_secret_is_live_and_not_ready() {
    let home = Home::new();
    home.secrets(&json!({"gateway": "old-token"}), 0o600);
    let _gateway = home.gateway().await;
    assert_eq!(home.get("/healthz", &[]).await.unwrap().0, 200);
    let (status, body) = home.get("/readyz", &[]).await.unwrap();
    assert_eq!(status, 503);
    assert!(body.contains("channels.telegram.botToken"), "{body}");
    home.secrets(&json!({"gateway": "old-token", "telegram": "1:t"}), 0o600);
    assert!(home.run(&["secrets", "reload"]).await.status.success());
    assert_eq!(home.get("/readyz", &[]).await.unwrap().0, 200);
}

#[tokio::test]
async fn an_untrusted_proxy_is_refused_even_with_a_good_token() {
    let home = Home::new();
    let mut config = home.usual();
    config["gateway"].as_object_mut().unwrap().remove("trustedProxies");
    home.config(&config);
    let _gateway = home.gateway().await;
    let proxied = [("authorization", "Bearer old-token"), ("x-forwarded-for", "203.0.113.7")];
    let (status, body) = home.get("/api/whoami", &proxied).await.unwrap();
    assert_eq!(status, 403);
    assert!(body.contains("proxy_attribution_required"), "{body}");
    assert_eq!(home.whoami("old-token").await, 200);
    // A good live edit is taken, a broken one skipped.
    home.config(&home.usual());
    eventually("the new configuration", async || {
        (home.get("/api/whoami", &proxied).await?.0 == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_browser_is_paired_when_it_is_approved_on_the_host() {
    let home = Home::new();
    let _gateway = home.gateway().await;
    let request = plain_client().post(format!("http://{}/api/devices/request", home.address));
    let answer = request.bearer_auth("old-token").send().await.unwrap();
    let id = answer.json::<Value>().await.unwrap()["requestId"].as_str().unwrap().to_owned();
    let list = async || -> Value {
        serde_json::from_slice(&home.run(&["devices", "list", "--json"]).await.stdout).unwrap()
    };
    assert_eq!(list().await["pending"][0]["requestId"], id.as_str());
    assert!(!home.run(&["devices", "approve", "nobody"]).await.status.success());
    assert!(home.run(&["devices", "approve", &id]).await.status.success());
    let now = list().await;
    assert_eq!(
        (now["pending"].as_array().unwrap().len(), &now["paired"][0]["requestId"]),
        (0, &json!(id))
    );
}

#[tokio::test]
async fn a_running_gateway_says_which_configuration_it_uses() {
    let home = Home::new();
    let _gateway = home.gateway().await;
    let hashes = async || -> Value {
        let call = ["gateway", "call", "config.get", "--params", "{}", "--json"];
        serde_json::from_slice(&home.run(&call).await.stdout).unwrap()
    };
    let before = hashes().await;
    assert_eq!(before["configRevisionHash"], before["appliedConfigHash"]);
    let mut config = home.usual();
    config["agents"]["defaults"]["model"]["primary"] = json!("anthropic/other");
    home.config(&config);
    eventually("the new configuration", async || {
        let now = hashes().await;
        let applied = now["configRevisionHash"] == now["appliedConfigHash"];
        (applied && now["appliedConfigHash"] != before["appliedConfigHash"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn plugins_are_installed_listed_and_removed() {
    let home = Home::new();
    let install = |spec: &'static str| {
        ["plugins", "install", spec, "--pin", "--force", "--accept-capabilities"]
    };
    assert!(home.run(&install("npm:@openclaw/zalo@1.2.3")).await.status.success());
    assert!(!home.run(&install("npm:unpublished@1.0.0")).await.status.success());
    let npm = home.path("programs/npm");
    std::fs::create_dir(home.path("programs")).unwrap();
    std::os::unix::fs::symlink(crate::common::SIM, &npm).unwrap();
    let view = ["view", "@openclaw/zalo@1.2.3", "dist.integrity", "--json"];
    let said = Command::new(npm).args(view).output().await.unwrap().stdout;
    let lock = std::fs::read(home.path("npm/projects/zalo/package-lock.json"));
    let lock: Value = serde_json::from_slice(&lock.unwrap_or_default()).unwrap();
    let said: Value = serde_json::from_slice(&said).unwrap();
    assert_eq!(lock["packages"]["node_modules/@openclaw/zalo"]["integrity"], said);
    let list: Value =
        serde_json::from_slice(&home.run(&["plugins", "list", "--json"]).await.stdout).unwrap();
    assert_eq!(
        (&list["plugins"][0]["id"], &list["plugins"][0]["version"]),
        (&json!("zalo"), &json!("1.2.3"))
    );
    let entry = || -> Value {
        let text = std::fs::read(home.path("openclaw.json")).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()["plugins"]["entries"]["zalo"].clone()
    };
    assert_eq!(entry(), json!({"enabled": true}));
    assert!(home.run(&["plugins", "uninstall", "zalo", "--force"]).await.status.success());
    assert_eq!(entry(), json!({"enabled": false}));
}

#[tokio::test]
async fn a_backup_goes_anywhere_but_into_what_it_backs_up() {
    let home = Home::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let create = async |folder: &std::path::Path| {
        let folder = folder.to_str().unwrap();
        home.run(&["backup", "create", "--verify", "--json", "--output", folder]).await
    };
    assert!(!create(home.folder.path()).await.status.success());
    let made: Value = serde_json::from_slice(&create(elsewhere.path()).await.stdout).unwrap();
    assert_eq!(made["verified"], true);
    assert!(std::path::Path::new(made["archivePath"].as_str().unwrap()).is_file());
}

#[tokio::test]
async fn it_echoes_websockets() {
    let home = Home::new();
    let _gateway = home.gateway().await;
    let stream = tokio::net::TcpStream::connect(home.address).await.unwrap();
    let (mut socket, _) =
        tokio_tungstenite::client_async(format!("ws://{}/ws", home.address), stream).await.unwrap();
    let sent = tokio_tungstenite::tungstenite::Message::text("hello");
    socket.send(sent.clone()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), sent);
}
