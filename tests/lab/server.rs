//! What a scenario does on a booted server, and what it looks for there.

use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use moorage::api::OpenClawInstance;
use moorage_testbed::{Executed, LabServer, SimulatorEndpoints, size_in_status};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    tenant::{Tenant, is},
    trouble::server_id,
};

/// OpenClaw's command line, as the worker runs it.
const OPENCLAW: [&str; 6] = [
    "env",
    "HOME=/var/lib/openclaw",
    "OPENCLAW_STATE_DIR=/var/lib/openclaw/.openclaw",
    "OPENCLAW_CONFIG_PATH=/var/lib/openclaw/.openclaw/openclaw.json",
    "/opt/moorage/node/current/bin/node",
    "/opt/moorage/openclaw/current/bin/openclaw",
];

/// A server that nobody looks at any more would keep processors busy that other scenarios need. What
/// failed stays for a look.
impl Drop for Tenant {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let instances: Api<OpenClawInstance> =
            Api::namespaced(self.stage.client.clone(), &self.name);
        tokio::spawn(async move {
            let all = (DeleteParams::default(), ListParams::default());
            if let Err(error) = instances.delete_collection(&all.0, &all.1).await {
                eprintln!("a scenario's servers stay: {error}");
            }
        });
    }
}

impl Tenant {
    /// Waits until the operator knows the pool as it is now.
    pub(crate) async fn until_pool_is_looked_at(&self) {
        self.pool_until("the pool is as it was changed", |pool| {
            let looked_at = &pool["status"]["observedGeneration"];
            looked_at == &pool["metadata"]["generation"] && is(pool, "Ready", "True")
        })
        .await;
    }

    /// The server of an instance.
    pub(crate) fn server(&self, instance: &Value) -> LabServer {
        self.stage.simulator.lab_server(server_id(instance))
    }

    /// Where the simulated clouds listen.
    pub(crate) fn clouds(&self) -> &SimulatorEndpoints {
        self.stage.simulator.endpoints()
    }

    /// The host name of an instance's dashboard.
    pub(crate) fn dashboard(&self, name: &str) -> String {
        format!("{name}.{}", self.domain)
    }

    /// Waits until the dashboard answers through the edge.
    pub(crate) async fn until_dashboard_answers(&self, name: &str) {
        let host = self.dashboard(name);
        self.eventually("the dashboard answers", || async {
            let (status, page) = self.visit(&host, "/", None).await;
            if status == 200 && page.to_lowercase().contains("openclaw") {
                Ok(())
            } else {
                Err(format!("{status}"))
            }
        })
        .await;
    }

    /// Waits until a command inside prints this.
    pub(crate) async fn until_prints(&self, server: &LabServer, argv: &[&str], wanted: &str) {
        self.eventually(&format!("{} prints {wanted}", argv.join(" ")), || async {
            let ended = server.run(argv).await.map_err(|error| error.to_string())?;
            let text = ended.text();
            if text.contains(wanted) {
                Ok(())
            } else {
                Err(format!("{text} {}", String::from_utf8_lossy(&ended.stderr)))
            }
        })
        .await;
    }

    /// What OpenClaw answers to a call through the edge that needs its token: 401 without the right one.
    pub(crate) async fn tool_call(&self, name: &str, token: &str) -> u16 {
        let host = format!("{name}.{}", self.domain);
        let call = self.at_edge(Method::POST, &host, "/tools/invoke");
        let call = call.bearer_auth(token).json(&json!({}));
        call.send().await.unwrap().status().as_u16()
    }

    /// Waits until a unit is active.
    pub(crate) async fn until_active(&self, server: &LabServer, unit: &str) {
        // Not the bare word, which ends "inactive" as well.
        let state = ["systemctl", "show", "--property=ActiveState", unit];
        self.until_prints(server, &state, "=active").await;
    }

    /// Applies a release in which one artifact is another, and has an instance use it.
    pub(crate) async fn switch_to(
        &self,
        instance: &str,
        release: &str,
        kind: &str,
        artifact: &Value,
    ) {
        let other = |spec: &mut Value| spec["artifacts"][kind] = artifact.clone();
        let name = self.apply_release(release, other).await;
        self.patch_instance(instance, json!({"spec": {"release": name}})).await;
    }
}

/// Work that is no waiting, done where nobody else has to wait for it.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Whether a command inside ends well and prints this.
pub(crate) async fn prints(server: &LabServer, argv: &[&str], wanted: &str) -> bool {
    let ended = server.run(argv).await;
    ended.is_ok_and(|ended| ended.succeeded() && ended.text().contains(wanted))
}

/// Adds a setting to a service, from when systemd reads its units again; gives the file to remove. What
/// lies below `/etc` outlasts a power cut, what lies below `/run` does not.
pub(crate) async fn drop_in(server: &LabServer, root: &str, unit: &str, setting: &str) -> String {
    let folder = format!("{root}/systemd/system/{unit}.d");
    server.exec(&["mkdir", "-p", &folder]).await.unwrap();
    let file = format!("{folder}/90-scenario.conf");
    server.write(&file, &format!("[Service]\n{setting}\n")).await.unwrap();
    file
}

/// A JSON file of a server; `None` if there is none.
pub(crate) async fn json_file(server: &LabServer, path: &str) -> Option<Value> {
    let bytes = server.read(path).await.ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Runs OpenClaw's command line as its user, and gives what it printed.
pub(crate) async fn openclaw(server: &LabServer, arguments: &[&str]) -> String {
    run_openclaw(server, arguments).await.text()
}

/// Runs OpenClaw's command line as its user, and gives what it left, whatever its exit code.
pub(crate) async fn run_openclaw(server: &LabServer, arguments: &[&str]) -> Executed {
    let argv: Vec<_> = OPENCLAW.iter().chain(arguments).copied().collect();
    server.run_as(Some("openclaw"), &argv, "").await.unwrap()
}

/// Which version of a program is in use, by its digest.
pub(crate) async fn current(server: &LabServer, kind: &str) -> String {
    server.exec(&["readlink", &format!("/opt/moorage/{kind}/current")]).await.unwrap()
}

/// Resident memory of a unit's main process, in KiB.
pub(crate) async fn resident(server: &LabServer, unit: &str) -> u64 {
    let pid = server.unit(unit, &["MainPID"]).await.unwrap()["MainPID"].clone();
    let status = server.read(&format!("/proc/{pid}/status")).await.unwrap();
    let status = String::from_utf8(status).unwrap();
    size_in_status(&status, "VmRSS").unwrap()
}
