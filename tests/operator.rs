//! Leadership, and the whole program, against a real API server.
//!
//! Needs the tools of `hack/tools.sh`; without them the tests say that they are skipped, and fail if
//! `MOORAGE_REQUIRE_ALL=1`.

#![allow(clippy::unwrap_used)] // Helpers of tests, outside of test functions.

use std::{
    net::TcpListener,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Namespace},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use moorage::leader::{Candidate, LEASE_NAME, LeaderError, LeaseTiming};
use moorage_testbed::{Components, ControlPlane, Tool, Tools};
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

async fn make_namespace(client: &Client) {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(NAMESPACE.to_owned());
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
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
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let process = Command::new(env!("CARGO_BIN_EXE_moorage"))
            .args(["run", "--http-listen", &address, "--namespace", NAMESPACE])
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { process, address }
    }

    async fn get(&self, path: &str) -> Option<(u16, String)> {
        let answer = reqwest::get(format!("http://{}{path}", self.address)).await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
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
async fn the_operator_says_what_it_lacks_then_works_and_ends_when_told() {
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
