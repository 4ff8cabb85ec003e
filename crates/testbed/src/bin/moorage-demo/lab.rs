//! What the demo runs: control plane, clouds, the chart, the operator; and the objects it applies.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use http::Uri;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
    core::GroupVersionKind,
};
use moorage_testbed::{
    Components, Container, ControlPlane, Operator, OperatorOptions, OperatorSource, Simulator,
    SimulatorOptions, Tool, Tools, conditions, service_account_kubeconfig, service_account_token,
    wait_until,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    debian::Debian,
    terminal::{Shell, link_programs},
};

pub(crate) const SYSTEM: &str = "moorage-system";
pub(crate) const TENANTS: &str = "tenants";
/// The Hetzner project of the sample pool.
pub(crate) const PROJECT: &str = "eu-1";
/// The Cloudflare account of the sample pool.
pub(crate) const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";
const ZONE: &str = "fedcba9876543210fedcba9876543210";
const HETZNER_TOKEN: &str = "demohetznertokendemohetznertokendemohetznertokendemohetznertoken";
const CLOUDFLARE_TOKEN: &str = "demo-cloudflare-token-of-40-characters-x";
/// The customer's key. Nothing but the server may know it in the end.
pub(crate) const KEY: &str =
    "sk-ant-api03-this-is-the-key-of-the-demo-and-opens-nothing-0123456789";

const TOOLS: [Tool; 6] = [
    Tool::Etcd,
    Tool::KubeApiserver,
    Tool::KubeControllerManager,
    Tool::Kubectl,
    Tool::Helm,
    Tool::Kubeseal,
];

/// All that runs. Dropping it ends it and removes its files.
pub(crate) struct Lab {
    // Dropped in this order: nobody outlives whom it talks to.
    pub(crate) operator: Operator,
    pub(crate) simulator: Simulator,
    pub(crate) plane: ControlPlane,
    pub(crate) client: Client,
    pub(crate) shell: Shell,
    /// What servers are made from, unless they are processes.
    pub(crate) debian: Option<Debian>,
    folder: TempDir,
}

impl Lab {
    /// Starts everything, and waits until the operator is ready.
    pub(crate) async fn start(debian: Option<Debian>, image: Option<&Path>) -> Result<Self> {
        let tools = Tools::from_env(&TOOLS)?;
        let programs = env::current_exe()?.with_file_name("");
        let folder = tempfile::Builder::new().prefix("moorage-demo-").tempdir()?;
        let agent = debian.is_none().then(|| programs.join("moorage-agent"));
        let mut arguments = debian.as_ref().map(Debian::simulator_arguments).unwrap_or_default();
        if image.is_some() {
            // As the real clouds; only whoever trusts the simulator's authority can speak to them.
            arguments.push("--tls".to_owned());
        }
        let simulator_options =
            SimulatorOptions { program: programs.join("moorage-sim"), agent, arguments };
        let begin = Instant::now();
        let (plane, simulator) = tokio::join!(
            ControlPlane::start(tools, Components::All),
            Simulator::start(&simulator_options)
        );
        let (plane, simulator) = (plane?, simulator?);
        done("kube-apiserver, etcd, kube-controller-manager, moorage-sim", begin);
        let client = plane.client().await?;

        let shell = shell(tools, &programs, folder.path(), &plane)?;
        let begin = Instant::now();
        // The image cannot run without a kubelet, so its Deployment has no replica, and the operator
        // runs beside the cluster with the permissions of the chart's ServiceAccount.
        shell.show(&format!(
            "helm install moorage {}/charts/moorage -n {SYSTEM} --create-namespace --set replicas=0 --hide-notes | sed -n '1,5p'",
            repository().display()
        ))?;
        done("the chart", begin);

        let begin = Instant::now();
        let from = if let Some(image) = image {
            container(image, &plane, &client, folder.path()).await?
        } else {
            let kubeconfig = folder.path().join("operator.kubeconfig");
            let cluster = client.clone();
            service_account_kubeconfig(&plane, cluster, SYSTEM, "moorage", &kubeconfig).await?;
            OperatorSource::Program { program: programs.join("moorage"), kubeconfig }
        };
        let options = OperatorOptions {
            from,
            namespace: SYSTEM.to_owned(),
            log: folder.path().join("moorage.log"),
            arguments: vec!["--log-format=text".to_owned()],
        };
        let mut operator = Operator::start(&options, simulator.endpoints())?;
        operator.wait_until_ready().await?;
        done(
            match image {
                Some(_) => "the operator from its image alone, as ServiceAccount moorage",
                None => "the operator, as ServiceAccount moorage",
            },
            begin,
        );
        Ok(Self { operator, simulator, plane, client, shell, debian, folder })
    }

    /// The tenants at both clouds, their tokens, the sample pool and release.
    pub(crate) async fn apply_pool_and_release(&self) -> Result<()> {
        let project = json!({"token": HETZNER_TOKEN});
        self.simulator.put_project(PROJECT, &project).await?;
        let zone = json!({"id": ZONE, "name": "example.com", "plan": "free"});
        let account = json!({"token": CLOUDFLARE_TOKEN, "user": "demo", "zones": [zone]});
        self.simulator.put_account(ACCOUNT, &account).await?;
        for (name, token) in
            [("eu-1-hetzner", HETZNER_TOKEN), ("eu-1-cloudflare", CLOUDFLARE_TOKEN)]
        {
            self.shell.feed(
                &format!(
                    "kubectl create secret generic {name} -n {SYSTEM} --from-file=token=/dev/stdin"
                ),
                token,
            )?;
        }
        self.shell.show(&format!("kubectl create namespace {TENANTS}"))?;
        let samples = repository().join("config/samples");
        let release = match &self.debian {
            Some(debian) => debian.write_release(self.folder.path())?,
            None => samples.join("release.yaml"),
        };
        self.shell.show(&format!(
            "kubectl apply -f {} -f {}/pool.yaml",
            release.display(),
            samples.display()
        ))?;
        let pools: Api<DynamicObject> =
            Api::all_with(self.client.clone(), &resource("HostingPool"));
        let begin = Instant::now();
        wait_until("the pool to be ready", Duration::from_secs(60), || async {
            let pool = pools.get("eu-1").await.map_err(|error| error.to_string())?;
            let has_certificate = pool.data["status"]["sealingCertificate"].is_string();
            if is_true(&pool.data, "Ready") && has_certificate {
                Ok(())
            } else {
                Err(conditions(&pool.data))
            }
        })
        .await?;
        done("the pool is ready", begin);
        Ok(())
    }

    /// Seals the customer's key with the real kubeseal, and applies it as a Secret.
    pub(crate) fn seal_the_key(&self) -> Result<()> {
        let command = format!(
            "kubeseal --raw --scope strict --namespace {TENANTS} --name ada-keys --cert {}/v1/cert.pem --from-file=/dev/stdin",
            self.operator.url()
        );
        println!("\n  $ {command} < anthropic-key");
        let sealed = self.shell.feed(&command, KEY)?;
        println!("  {}… ({} characters)", &sealed[..sealed.len().min(60)], sealed.trim().len());
        let secret: Secret = serde_json::from_value(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "moorage.dev/sealed-credentials",
            "metadata": {"name": "ada-keys", "namespace": TENANTS, "labels": {"moorage.dev/instance": "ada"}},
            "stringData": {"anthropic": sealed.trim()},
        }))?;
        let file = self.folder.path().join("ada-keys.json");
        fs::write(&file, serde_json::to_vec(&secret)?)?;
        self.shell.show(&format!("kubectl apply -f {}", file.display()))?;
        Ok(())
    }

    /// Applies the sample instance.
    pub(crate) fn apply_instance(&self) -> Result<()> {
        let file = repository().join("config/samples/instance.yaml");
        self.shell.show(&format!("kubectl apply -f {}", file.display()))?;
        Ok(())
    }

    /// The instances of the customer's namespace.
    pub(crate) fn instances(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), TENANTS, &resource("OpenClawInstance"))
    }

    /// The id of the instance's server.
    pub(crate) async fn server_id(&self) -> Result<u64> {
        let instance = self.instances().get("ada").await?;
        instance.data["status"]["server"]["id"].as_u64().context("status.server.id is missing")
    }

    /// The last lines of all logs, for the message of a failure.
    pub(crate) fn logs(&mut self) -> String {
        let operator = self.operator.process().log_tail(40);
        format!("{operator}{}", self.simulator.process().log_tail(20))
    }

    /// What a person may try next.
    pub(crate) fn say_where_to_look(&self) {
        println!("\n\x1b[1mLook around\x1b[0m (in another terminal)\n");
        for (name, value) in &self.shell.variables {
            println!("  export {name}='{value}'");
        }
        let clouds = self.simulator.endpoints();
        println!("\n  kubectl describe oci ada -n {TENANTS}     # conditions and Events");
        println!("  kubectl get events -n {TENANTS}");
        println!("  curl -s {}/metrics", self.operator.url());
        println!(
            "  curl -s {}/admin/state                    # what both clouds hold",
            clouds.admin
        );
        println!(
            "  curl -s {}/admin/journal                  # every request they got",
            clouds.admin
        );
        println!("  tail -f {}/moorage.log", self.folder.path().display());
        let state_dir = self.simulator.state_dir().display();
        if self.debian.is_some() {
            println!("  moorage-sim exec --state-dir {state_dir} ID  # a root shell on server ID");
            println!("  curl -s {}/admin/servers                  # the servers", clouds.admin);
        } else {
            println!("  ls {state_dir}/servers                             # the servers' disks");
        }
        println!("\n  docs/operations.md explains every condition.");
    }

    /// Never returns while the operator runs.
    pub(crate) async fn watch_over(&mut self) -> Result<()> {
        loop {
            if let Some(status) = self.operator.process().exit_status() {
                bail!("the operator ended ({status})");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Where secrets must not be: all that the cluster stores and all that was logged.
    pub(crate) fn folders_without_secrets(&self) -> [PathBuf; 2] {
        let plane = self.plane.kubeconfig().parent().map(Path::to_owned).unwrap_or_default();
        [plane, self.folder.path().to_owned()]
    }
}

/// Whether a condition is there and True.
pub(crate) fn is_true(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| one["type"] == kind && one["status"] == "True")
}

fn done(what: &str, begin: Instant) {
    println!("  {:5.1} s  {what}", begin.elapsed().as_secs_f64());
}

fn resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("moorage.dev", "v1alpha1", kind))
}

fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::canonicalize(&here).unwrap_or(here)
}

fn shell(tools: Tools, programs: &Path, folder: &Path, plane: &ControlPlane) -> Result<Shell> {
    let bin = folder.join("bin");
    let (kubectl, helm, kubeseal) =
        (tools.path(Tool::Kubectl)?, tools.path(Tool::Helm)?, tools.path(Tool::Kubeseal)?);
    let moorage = programs.join("moorage");
    let simulator = programs.join("moorage-sim");
    let links: [(&str, &Path); 5] = [
        ("kubectl", &kubectl),
        ("helm", &helm),
        ("kubeseal", &kubeseal),
        ("moorage", &moorage),
        ("moorage-sim", &simulator),
    ];
    link_programs(&bin, links)?;
    let path = env::var("PATH").context("PATH is not set")?;
    let below = |name: &str| folder.join(name).display().to_string();
    Ok(Shell {
        variables: vec![
            ("PATH", format!("{}:{path}", bin.display())),
            ("KUBECONFIG", plane.kubeconfig().display().to_string()),
            // Nothing of theirs stays behind.
            ("KUBECACHEDIR", below("kube-cache")),
            ("HELM_CACHE_HOME", below("helm-cache")),
            ("HELM_CONFIG_HOME", below("helm-config")),
            ("HELM_DATA_HOME", below("helm-data")),
        ],
    })
}

/// The operator's container in the cluster.
async fn container(
    image: &Path,
    plane: &ControlPlane,
    client: &Client,
    folder: &Path,
) -> Result<OperatorSource> {
    let token = service_account_token(client.clone(), SYSTEM, "moorage").await?;
    let url: Uri = plane.url().parse().context("the API server has no URL")?;
    Ok(OperatorSource::Image(Box::new(Container {
        image: image.to_owned(),
        folder: folder.join("container"),
        api_port: url.port_u16().context("the API server has no port")?,
        api_authority: plane.authority(),
        namespace: SYSTEM.to_owned(),
        token,
        names: ["api.hetzner.test", "api.cloudflare.test"].map(str::to_owned).to_vec(),
    })))
}
