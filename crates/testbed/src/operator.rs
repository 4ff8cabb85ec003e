//! `moorage run` as a process, with the permissions of the chart's `ServiceAccount`.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Api, Client, api::PostParams};
use serde_json::json;

use crate::{
    Container, ControlPlane, Ending, NotInTime, Process, SimulatorEndpoints,
    control_plane::write_private, free_address, wait_until,
};

const START_TIMEOUT: Duration = Duration::from_secs(60);
/// It finishes what it is doing.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longer than any test or demo.
const TOKEN_SECONDS: i64 = 24 * 3600;

/// How the operator is started.
#[derive(Debug, Clone)]
pub struct OperatorOptions {
    /// What runs.
    pub from: OperatorSource,
    /// The operator's own namespace.
    pub namespace: String,
    /// Where its log goes.
    pub log: PathBuf,
    /// Further arguments of `run`.
    pub arguments: Vec<String>,
}

/// Where the operator comes from, and how it reaches the cluster.
#[derive(Debug, Clone)]
pub enum OperatorSource {
    /// A program of this machine, with a kubeconfig.
    Program {
        /// The `moorage` program.
        program: PathBuf,
        /// How it reaches the cluster.
        kubeconfig: PathBuf,
    },
    /// The root filesystem of its image, as a container in the cluster.
    Image(Box<Container>),
}

/// A running operator. Dropping it ends it.
#[derive(Debug)]
pub struct Operator {
    process: Process,
    url: String,
    http: reqwest::Client,
}

impl Operator {
    /// Starts one against the simulated clouds. It may not be ready yet.
    pub fn start(options: &OperatorOptions, clouds: &SimulatorEndpoints) -> io::Result<Self> {
        let address = free_address()?;
        let mut arguments = vec![
            "run".to_owned(),
            format!("--namespace={}", options.namespace),
            format!("--http-listen={address}"),
            format!("--hetzner-endpoint={}", clouds.hetzner),
            format!("--cloudflare-endpoint={}", clouds.cloudflare),
            format!("--edge-address={}", clouds.edge),
        ];
        arguments.extend(options.arguments.iter().cloned());
        let ending = Ending::Terminate(PATIENCE);
        let log = &options.log;
        let process = match &options.from {
            OperatorSource::Program { program, kubeconfig } => {
                arguments.push(format!("--edge-ca={}", clouds.edge_ca.display()));
                let kubeconfig = kubeconfig.display().to_string();
                let environment = [("KUBECONFIG", kubeconfig.as_str())];
                Process::start("moorage", program, &arguments, &environment, log, ending)?
            }
            OperatorSource::Image(container) => {
                container.start("moorage", &arguments, &clouds.edge_ca, log)?
            }
        };
        let http = reqwest::Client::builder().no_proxy().build().map_err(io::Error::other)?;
        Ok(Self { process, url: format!("http://{address}"), http })
    }

    /// Base of its HTTP port: `/metrics`, `/healthz`, `/readyz`, `/v1/cert.pem`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The process, to look at its log or to crash it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits until `/readyz` says so and there is a certificate to seal with.
    pub async fn wait_until_ready(&mut self) -> Result<(), NotInTime> {
        let (process, http) = (&mut self.process, &self.http);
        let urls = ["/readyz", "/v1/cert.pem"].map(|path| format!("{}{path}", self.url));
        let ready = wait_until("the operator to be ready", START_TIMEOUT, || {
            let ended = process.exit_status();
            let (http, urls) = (http.clone(), urls.clone());
            async move {
                if let Some(status) = ended {
                    return Ok(Err(format!("it ended ({status})")));
                }
                for url in urls {
                    let answer = http.get(&url).send().await.map_err(|error| error.to_string())?;
                    if !answer.status().is_success() {
                        let status = answer.status();
                        let text = answer.text().await.unwrap_or_default();
                        return Err(format!("{url} answers {status} {text}"));
                    }
                }
                Ok(Ok(()))
            }
        });
        let (seen, waited) = match ready.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(ended)) => (ended, Duration::ZERO),
            Err(late) => (late.seen, late.waited),
        };
        let seen = format!("{seen}\n{}", self.process.log_tail(30));
        Err(NotInTime { what: "the operator to be ready".to_owned(), seen, waited })
    }
}

/// A fresh token of a `ServiceAccount`: its bearer may do what the account's roles allow and nothing else.
pub async fn service_account_token(
    client: Client,
    namespace: &str,
    name: &str,
) -> Result<String, kube::Error> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            expiration_seconds: Some(TOKEN_SECONDS),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let answer = accounts.create_token_request(name, &PostParams::default(), &request).await?;
    Ok(answer.status.and_then(|status| status.token).unwrap_or_default())
}

/// Writes a kubeconfig with such a token.
pub async fn service_account_kubeconfig(
    plane: &ControlPlane,
    client: Client,
    namespace: &str,
    name: &str,
    path: &Path,
) -> Result<(), kube::Error> {
    let token = service_account_token(client, namespace, name).await?;
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "operator",
        "clusters": [{"name": "moorage", "cluster": {"server": plane.url(), "certificate-authority": plane.authority()}}],
        "users": [{"name": "operator", "user": {"token": token}}],
        "contexts": [{"name": "operator", "context": {"cluster": "moorage", "user": "operator", "namespace": namespace}}],
    });
    write_private(path, &kubeconfig.to_string()).map_err(|error| kube::Error::Service(error.into()))
}
