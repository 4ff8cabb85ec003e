//! What all scenarios share: control plane, clouds, the installed chart and the operator.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use kube::Client;
use moorage_testbed::{
    Audit, Components, ControlPlane, Operator, OperatorOptions, OperatorSource, Simulator,
    SimulatorEndpoints, SimulatorOptions, Tool, Tools, install_chart, kubectl,
    service_account_kubeconfig,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::tenant::Tenant;

/// The operator's namespace.
pub(crate) const SYSTEM: &str = "moorage-system";

const TOOLS: [Tool; 4] = [Tool::Etcd, Tool::KubeApiserver, Tool::KubeControllerManager, Tool::Helm];

/// What stands behind a created server.
pub(crate) struct Servers {
    /// The agent's program, where servers are processes.
    pub(crate) agent: Option<PathBuf>,
    /// Further arguments of the simulator.
    pub(crate) arguments: Vec<String>,
    /// The artifacts of a release.
    pub(crate) artifacts: Value,
    /// The longest that anything may take on a busy machine.
    pub(crate) patience: Duration,
    /// How often the operator looks at the clouds: sooner than in production, so that drift is seen within
    /// a test, and seldom enough that its budget for looking lasts as long as the test.
    pub(crate) rhythm: [&'static str; 2],
}

impl Servers {
    /// Processes of the agent, a connector and a stand-in for OpenClaw. They fetch nothing.
    pub(crate) fn processes() -> Self {
        let artifact = |name: &str| {
            json!({
                "version": "1", "url": format!("https://artifacts.invalid/{name}"),
                "sha256": "1".repeat(64), "size": 1,
            })
        };
        Self {
            agent: Some(Path::new(env!("CARGO_BIN_EXE_moorage")).with_file_name("moorage-agent")),
            arguments: Vec::new(),
            artifacts: json!({
                "openclaw": artifact("openclaw"), "node": artifact("node"),
                "cloudflared": artifact("cloudflared"), "agent": artifact("agent"),
            }),
            patience: Duration::from_secs(90),
            rhythm: ["--sweep-interval=2s", "--routes-interval=5s"],
        }
    }
}

/// All that runs; it ends with it.
pub(crate) struct Stage {
    // Dropped in this order: nobody outlives whom it talks to.
    pub(crate) operator: Arc<Mutex<Kept>>,
    pub(crate) options: OperatorOptions,
    /// How the operator reaches the cluster.
    pub(crate) kubeconfig: PathBuf,
    pub(crate) simulator: Simulator,
    pub(crate) client: Client,
    /// The artifacts of a release.
    pub(crate) artifacts: Value,
    /// The longest that anything may take.
    pub(crate) patience: Duration,
    pub(crate) plane: ControlPlane,
    _folder: TempDir,
}

impl Stage {
    /// Starts everything; `None`, said loudly, where the tools are missing.
    pub(crate) async fn start(servers: Servers) -> Option<Self> {
        Self::start_as(servers, Installed::Chart).await
    }

    /// The same, with Moorage installed this way.
    pub(crate) async fn start_as(servers: Servers, installed: Installed) -> Option<Self> {
        Self::start_watched(servers, installed, Audit::Off, &[]).await
    }

    /// The same, with an audit log or without, and with further arguments of the operator.
    pub(crate) async fn start_watched(
        servers: Servers,
        installed: Installed,
        audit: Audit,
        arguments: &[&str],
    ) -> Option<Self> {
        let tools = Tools::for_test(&TOOLS)?;
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let moorage = Path::new(env!("CARGO_BIN_EXE_moorage"));
        let folder = tempfile::Builder::new().prefix("moorage-e2e-").tempdir().unwrap();
        let simulator = SimulatorOptions {
            program: moorage.with_file_name("moorage-sim"),
            agent: servers.agent,
            arguments: servers.arguments,
        };
        let (plane, simulator) = tokio::join!(
            ControlPlane::start_with(tools, Components::All, audit),
            Simulator::start(&simulator)
        );
        let (plane, simulator) = (plane.unwrap(), simulator.unwrap());
        let client = plane.client().await.unwrap();
        match installed {
            Installed::Chart => install_chart(tools, &plane, SYSTEM, &[], folder.path()).unwrap(),
            Installed::Kustomize => {
                for base in ["config/prerequisites", "config/default"] {
                    let apply = ["apply", "--server-side", "-k", base];
                    kubectl(tools, &plane, &apply, b"").unwrap();
                }
            }
        }
        let kubeconfig = folder.path().join("operator.kubeconfig");
        service_account_kubeconfig(&plane, client.clone(), SYSTEM, "moorage", &kubeconfig)
            .await
            .unwrap();
        let options = OperatorOptions {
            from: OperatorSource::Program {
                program: moorage.to_owned(),
                kubeconfig: kubeconfig.clone(),
            },
            namespace: SYSTEM.to_owned(),
            log: folder.path().join("moorage.log"),
            arguments: ["--log-format=text", "--report-interval=10s", "--orphan-age=10s"]
                .into_iter()
                .chain(servers.rhythm)
                .chain(arguments.iter().copied())
                .map(str::to_owned)
                .collect(),
        };
        let clouds = simulator.endpoints().clone();
        let operator = Arc::new(Mutex::new(Kept::start(&options, &clouds).await));
        tokio::spawn(keep(Arc::downgrade(&operator), options.clone(), clouds));
        Some(Self {
            operator,
            options,
            kubeconfig,
            simulator,
            client,
            artifacts: servers.artifacts,
            patience: servers.patience,
            plane,
            _folder: folder,
        })
    }

    /// The operator's log so far.
    pub(crate) fn operator_log(&self) -> String {
        std::fs::read_to_string(&self.options.log).unwrap_or_default()
    }
}

/// How Moorage came into the cluster.
pub(crate) enum Installed {
    /// By the chart.
    Chart,
    /// By the Kustomize bases.
    Kustomize,
}

/// The operator, and whether it should run.
pub(crate) struct Kept {
    pub(crate) operator: Operator,
    pub(crate) wanted: bool,
}

impl Kept {
    pub(crate) async fn start(options: &OperatorOptions, clouds: &SimulatorEndpoints) -> Self {
        let mut operator = Operator::start(options, clouds).unwrap();
        operator.wait_until_ready().await.unwrap();
        Self { operator, wanted: true }
    }
}

/// Starts the operator again, as its Deployment would, when it has lost its leadership: a machine that
/// gives it no time to renew its Lease has nothing to do with what a scenario shows. However else it
/// ends, that is a failure.
async fn keep(kept: Weak<Mutex<Kept>>, options: OperatorOptions, clouds: SimulatorEndpoints) {
    let mut looks = tokio::time::interval(Duration::from_secs(1));
    loop {
        looks.tick().await;
        let Some(kept) = kept.upgrade() else { return };
        let mut kept = kept.lock().unwrap();
        let Some(status) = kept.operator.process().exit_status().filter(|_| kept.wanted) else {
            continue;
        };
        let log = kept.operator.process().log_tail(20);
        eprintln!("===== THE OPERATOR ENDED BY ITSELF ({status}) =====\n{log}");
        if !log.contains("leadership is lost") {
            return;
        }
        eprintln!("===== IT IS STARTED AGAIN =====");
        kept.operator = Operator::start(&options, &clouds).unwrap();
    }
}

impl moorage_testbed::Stage for Stage {
    type Part = Tenant;

    async fn part(self: Arc<Self>, scenario: &str) -> Tenant {
        Tenant::new(self, scenario).await
    }

    fn logs(&self) -> String {
        let operator = self.operator.lock().unwrap().operator.process().log_tail(80);
        format!("{operator}{}{}", self.simulator.process().log_tail(20), self.plane.log_tails(5))
    }
}
