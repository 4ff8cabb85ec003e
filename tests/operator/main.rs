//! Leadership, and the whole program, against a real API server.
//!
//! Needs the tools of `hack/tools.sh`; without them the tests say that they are skipped, and fail if
//! `MOORAGE_REQUIRE_ALL=1`.

#![allow(clippy::unwrap_used)] // Helpers of tests, outside of test functions.

mod memory;
mod namespaces;

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Namespace, events::v1::Event},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use moorage::api::{Guarded, OpenClawInstance};
use moorage::leader::{Candidate, LEASE_NAME, LeaderError, LeaseTiming};
use moorage_testbed::{Components, ControlPlane, Tool, Tools, free_address};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

const NAMESPACE: &str = "moorage-system";
const PATIENCE: Duration = Duration::from_secs(120);

fn quick() -> LeaseTiming {
    LeaseTiming {
        lasts: Duration::from_secs(6),
        renew_before: Duration::from_secs(4),
        trusted_for: Duration::from_secs(5),
    }
}

async fn control_plane() -> Option<ControlPlane> {
    let tools = Tools::for_test(&[Tool::Etcd, Tool::KubeApiserver])?;
    Some(ControlPlane::start(tools, Components::ApiServer).await.unwrap())
}

#[tokio::test]
async fn without_certificate_roots_nothing_starts() {
    let nowhere = tempfile::tempdir().unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_moorage"))
        .args(["run", "--namespace", NAMESPACE])
        .env("SSL_CERT_FILE", nowhere.path().join("none.pem"))
        .env("SSL_CERT_DIR", nowhere.path())
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(!run.status.success());
    assert!(told.contains("no certificate roots") && told.contains("ca-certificates"), "{told}");
}

async fn make_namespace(client: &Client) {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(NAMESPACE.to_owned());
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
}

async fn make_definitions(client: &Client) {
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    for definition in moorage::api::custom_resource_definitions() {
        definitions.create(&PostParams::default(), &definition).await.unwrap();
    }
}

async fn holder(client: &Client) -> Option<String> {
    let leases = Api::<Lease>::namespaced(client.clone(), NAMESPACE);
    leases.get_opt(LEASE_NAME).await.unwrap()?.spec?.holder_identity
}

async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let begin = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(begin.elapsed() < PATIENCE, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_until_it_lets_go_or_is_cut_off() {
    let Some(server) = control_plane().await else { return };
    let client = server.client().await.unwrap();
    make_namespace(&client).await;
    let candidate = async |name: &str| {
        let kubeconfig = Kubeconfig::read_from(server.kubeconfig()).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        Candidate::new(config, NAMESPACE, name.to_owned(), quick()).await.unwrap()
    };
    let (mut first, mut second) = (candidate("first").await, candidate("second").await);
    first.elected().await;
    assert_eq!(holder(&client).await.as_deref(), Some("first"));
    // Longer than a lease lasts: it is renewed, and the rival waits.
    tokio::select! {
        lost = first.lost() => panic!("{lost}"),
        () = second.elected() => panic!("two lead"),
        () = tokio::time::sleep(quick().lasts + Duration::from_secs(3)) => {}
    }
    first.release().await;
    second.elected().await;
    assert_eq!(holder(&client).await.as_deref(), Some("second"));
    let leading = tokio::spawn(async move {
        let begin = Instant::now();
        (second.lost().await, begin.elapsed())
    });
    drop(server);
    let (lost, after) = leading.await.unwrap();
    assert!(matches!(lost, LeaderError::NotRenewed(_)), "{lost}");
    assert!(after < quick().lasts + Duration::from_secs(1), "stopped too late: {after:?}");
}

struct Operator {
    process: Child,
    address: String,
}

impl Operator {
    fn start(kubeconfig: &Path) -> Self {
        Self::start_in(kubeconfig, &[])
    }

    fn start_in(kubeconfig: &Path, arguments: &[&str]) -> Self {
        Self::spawn(kubeconfig, arguments, Stdio::inherit())
    }

    /// One whose log, of all levels, goes to a file.
    fn start_logging(kubeconfig: &Path, log: &Path) -> Self {
        let log = std::fs::File::create(log).unwrap();
        Self::spawn(kubeconfig, &["--log-filter=trace,hyper=info,h2=info"], log.into())
    }

    fn spawn(kubeconfig: &Path, arguments: &[&str], log: Stdio) -> Self {
        let address = free_address().unwrap().to_string();
        let process = Command::new(env!("CARGO_BIN_EXE_moorage"))
            .args(["run", "--http-listen", &address, "--namespace", NAMESPACE])
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { process, address }
    }

    async fn get(&self, path: &str) -> Option<(u16, String)> {
        let answer = reqwest::get(format!("http://{}{path}", self.address)).await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// Resident memory, now and the most there ever was.
    fn memory(&self) -> [u64; 2] {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id().unwrap()));
        let status = status.unwrap();
        ["VmRSS:", "VmHWM:"].map(|name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
        })
    }

    async fn terminate(mut self) {
        let pid = self.process.id().unwrap().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().await.unwrap();
        assert!(sent.success());
        let ended = tokio::time::timeout(Duration::from_secs(5), self.process.wait()).await;
        assert!(ended.expect("it ends within 5 s").unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_says_what_it_lacks_then_works() {
    let Some(server) = control_plane().await else { return };
    let client = server.client().await.unwrap();
    make_namespace(&client).await;
    let path = server.kubeconfig();
    let operator = Operator::start(&path);
    // Without the custom resources nobody can say whether instances exist.
    let reason = eventually("it says what it lacks", || async {
        let (status, reason) = operator.get("/readyz").await?;
        (status == 503 && reason.contains("OpenClawInstances")).then_some(reason)
    })
    .await;
    assert!(reason.contains("custom resource definitions installed"), "{reason}");
    assert_eq!(operator.get("/healthz").await.unwrap().0, 200);
    assert_eq!(operator.get("/v1/cert.pem").await.unwrap().0, 503);

    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    for definition in moorage::api::custom_resource_definitions() {
        definitions.create(&PostParams::default(), &definition).await.unwrap();
    }
    eventually("it is ready", || async {
        operator.get("/readyz").await.filter(|(status, _)| *status == 200)
    })
    .await;
    let pem = operator.get("/v1/cert.pem").await.unwrap();
    assert!(pem.1.starts_with("-----BEGIN CERTIFICATE-----"), "{pem:?}");
    assert!(operator.get("/metrics").await.unwrap().1.contains("moorage_instances"));

    // A second one stands by, serves the same certificate, and takes over at once.
    let second = Operator::start(&path);
    eventually("the other one serves the certificate", || async {
        second.get("/v1/cert.pem").await.filter(|served| *served == pem)
    })
    .await;
    let first_holder = holder(&client).await;
    operator.terminate().await;
    let free = Instant::now();
    eventually("the other one leads", || async {
        holder(&client).await.filter(|now| Some(now) != first_holder.as_ref())
    })
    .await;
    assert!(free.elapsed() < LeaseTiming::default().lasts / 2, "{:?}", free.elapsed());
    second.terminate().await;
    assert_eq!(holder(&client).await, None, "the lease is given up");
}

/// What an older version wrote, or somebody who edited the definitions: this version cannot read it.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_object_disturbs_nobody_else() {
    let Some(server) = control_plane().await else { return };
    let client = server.client().await.unwrap();
    make_namespace(&client).await;
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let all = moorage::api::custom_resource_definitions();
    for definition in &all {
        definitions.create(&PostParams::default(), &anything_goes(definition)).await.unwrap();
    }
    let instances = instances(&client, NAMESPACE);
    let spec = |hostname: Value, suspend: Value| json!({"pool": "nowhere", "hostname": hostname, "suspend": suspend});
    let create = async |name: &str, spec: Value| {
        let object = instance(name, &spec);
        let created = || async { instances.create(&PostParams::default(), &object).await.ok() };
        eventually("the definition is served", created).await;
    };
    create("broken", spec(json!("broken"), json!("yes"))).await;
    // Not even its status can be written: a rule on the host name cannot be evaluated.
    create("hopeless", spec(json!(5), json!(false))).await;
    create("whole", spec(json!("whole"), json!(false))).await;
    for definition in &all {
        let name = definition.metadata.name.as_deref().unwrap();
        let patch = Patch::Merge(json!({"spec": {"versions": definition.spec.versions}}));
        definitions.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    let operator = Operator::start(&server.kubeconfig());
    let told = until_reason(&instances, "broken", "Malformed").await;
    assert!(told.contains("spec.suspend: "), "{told}");
    until_reason(&instances, "whole", "PoolNotFound").await;
    let events = Api::<Event>::namespaced(client.clone(), NAMESPACE);
    for (name, path) in [("broken", "spec.suspend: "), ("hopeless", "spec.hostname: ")] {
        let note = eventually("an Event says so as well", || async {
            let events = events.list(&ListParams::default()).await.unwrap();
            events.into_iter().find_map(|event| {
                let about = event.regarding?.name? == name;
                event.note.filter(|_| about && event.reason.as_deref() == Some("Malformed"))
            })
        })
        .await;
        assert!(note.contains(path), "{note}");
    }

    let corrected = Patch::Merge(json!({"spec": {"suspend": false}}));
    instances.patch("broken", &PatchParams::default(), &corrected).await.unwrap();
    until_reason(&instances, "broken", "PoolNotFound").await;
    operator.terminate().await;
}

/// Whoever may make an instance somewhere can nest its configuration without end.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_starts_beside_an_instance_too_deep_to_parse() {
    const MARKER: &str = "text-of-one-tenant";
    let Some(server) = control_plane().await else { return };
    let client = server.client().await.unwrap();
    make_namespace(&client).await;
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    for definition in moorage::api::custom_resource_definitions() {
        definitions.create(&PostParams::default(), &definition).await.unwrap();
    }
    let config = format!("{}\"{MARKER}\"{}", r#"{"a":"#.repeat(150), "}".repeat(150));
    let object = format!(
        r#"{{"apiVersion":"moorage.dev/v1alpha1","kind":"OpenClawInstance","metadata":{{"name":"deep"}},
        "spec":{{"pool":"nowhere","hostname":"deep","config":{config}}}}}"#
    );
    let url = format!("/apis/moorage.dev/v1alpha1/namespaces/{NAMESPACE}/openclawinstances");
    eventually("the deep one is taken", || async {
        let request = http::Request::post(&url).header("content-type", "application/json");
        let request = request.body(object.clone().into_bytes()).unwrap();
        client.request_text(request).await.ok()
    })
    .await;
    let instances = instances(&client, NAMESPACE);
    let whole = instance("whole", &json!({"pool": "nowhere", "hostname": "whole"}));
    instances.create(&PostParams::default(), &whole).await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let operator = Operator::start_logging(&server.kubeconfig(), &log);
    eventually("it is ready", || async {
        operator.get("/readyz").await.filter(|(status, _)| *status == 200)
    })
    .await;
    until_reason(&instances, "whole", "PoolNotFound").await;
    let any_depth = Api::<Guarded<OpenClawInstance>>::namespaced(client.clone(), NAMESPACE);
    eventually("the deep one is told like any other", || async {
        let status = any_depth.get("deep").await.unwrap().0.unwrap().status?;
        status.conditions.iter().any(|condition| condition.reason == "PoolNotFound").then_some(())
    })
    .await;
    operator.terminate().await;
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("leading") && !log.contains(MARKER), "{log}");
}

fn instances(client: &Client, namespace: &str) -> Api<DynamicObject> {
    let resource = ApiResource::erase::<OpenClawInstance>(&());
    Api::namespaced_with(client.clone(), namespace, &resource)
}

fn instance(name: &str, spec: &Value) -> DynamicObject {
    let resource = ApiResource::erase::<OpenClawInstance>(&());
    DynamicObject::new(name, &resource).data(json!({"spec": spec}))
}

/// Waits until the condition `Ready` has this reason, and gives its message.
async fn until_reason(instances: &Api<DynamicObject>, name: &str, reason: &str) -> String {
    eventually(reason, || async {
        let object = instances.get(name).await.unwrap();
        let conditions = object.data["status"]["conditions"].as_array()?;
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready")?;
        let message = ready["message"].as_str()?.to_owned();
        (ready["reason"] == reason).then_some(message)
    })
    .await
}

/// The definition without any rule for what an object holds.
fn anything_goes(definition: &CustomResourceDefinition) -> CustomResourceDefinition {
    let mut definition = definition.clone();
    let anything = json!({"openAPIV3Schema": {
        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
    }});
    for version in &mut definition.spec.versions {
        version.schema = serde_json::from_value(anything.clone()).unwrap();
    }
    definition
}
