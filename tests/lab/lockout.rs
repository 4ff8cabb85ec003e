//! Wrong bearer tokens, as a visitor sends them who holds the pool's service token: through the edge and
//! cloudflared. And what the owner, who is the operator, notices of it.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::Api;
use moorage::{
    agent::{
        AccessHeaders, AgentApi as _, AgentRoute, ServerKeys,
        client::{EdgeAgentClient, EdgeDialing},
    },
    master_key_store::{MasterKeySource, MasterKeyStore},
    ownership,
};
use moorage_testbed::LabServer;
use moorage_wire::{AgentPublicKey, Secret, path};
use reqwest::{StatusCode, header::RETRY_AFTER};
use serde_json::Value;

use crate::{server::resident, stage::SYSTEM, tenant::Tenant};

const AGENT: &str = "moorage-agent.service";
/// Visitors as the simulated edge tells them apart.
const BRUTE: &str = "127.0.0.66";
const BYSTANDER: &str = "127.0.0.67";
const WRONG_TOKENS: usize = 1000;
/// So many of them are under way at a time.
const AT_ONCE: usize = 8;
/// How often the owner calls before it begins.
const CALLS: usize = 20;
/// A second is no slow-down on a machine that runs other servers as well.
const NO_SLOW_DOWN: Duration = Duration::from_secs(1);

pub(crate) async fn a_thousand_wrong_tokens_cost_the_owner_nothing(tenant: &Tenant, ada: &Value) {
    let server = tenant.server(ada);
    let owner = Owner::of(tenant, ada).await;
    let brute = owner.visitor(tenant, BRUTE);
    let mut before = Vec::new();
    for _ in 0..CALLS {
        before.push(owner.call().await);
    }
    let memory = resident(&server, AGENT).await;
    let storm = stream::iter(0..WRONG_TOKENS).map(|_| brute.wrong_token());
    let storm = storm.buffer_unordered(AT_ONCE).collect::<Vec<_>>();
    let (refusals, during) = owner.call_during(storm).await;
    is_locked_out(&refusals);
    let (before, during) = (median(before), median(during));
    eprintln!("a call takes the owner {before:?}, and {during:?} while wrong tokens come");
    assert!(during <= (before * 10).max(NO_SLOW_DOWN), "{before:?} became {during:?}");
    memory_is_flat(&server, memory).await;
    // It is the address that is locked out.
    assert_eq!(brute.wrong_token().await.0, StatusCode::TOO_MANY_REQUESTS);
    let bystander = owner.visitor(tenant, BYSTANDER).wrong_token().await;
    assert_eq!(bystander, (StatusCode::UNAUTHORIZED, None));
}

fn is_locked_out(refusals: &[(StatusCode, Option<u64>)]) {
    let locked_out = |status: StatusCode| status == StatusCode::TOO_MANY_REQUESTS;
    let (late, early): (Vec<_>, Vec<_>) =
        refusals.iter().partition(|(status, _)| locked_out(*status));
    assert!(early.iter().all(|refusal| *refusal == (StatusCode::UNAUTHORIZED, None)), "{early:?}");
    assert!(late.len() > WRONG_TOKENS * 9 / 10, "only {} were told to wait", late.len());
    assert!(late.iter().all(|(_, wait)| wait.is_some_and(|wait| wait <= 900)), "{late:?}");
}

async fn memory_is_flat(server: &LabServer, before: u64) {
    let after = resident(server, AGENT).await;
    assert!(after < before + 2048, "{before} KiB became {after}");
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// The operator's way to one agent, taken by the test.
struct Owner {
    client: EdgeAgentClient,
    route: AgentRoute,
    keys: ServerKeys,
    agent: AgentPublicKey,
}

impl Owner {
    async fn of(tenant: &Tenant, ada: &Value) -> Self {
        let cluster = tenant.stage.client.clone();
        let master = MasterKeyStore::new(cluster.clone(), SYSTEM, MasterKeySource::Secret);
        let master = master.load().await.unwrap().unwrap();
        let instance = ownership::instance_id(master.installation(), &tenant.name, "ada");
        let epoch = ada["status"]["server"]["epoch"].as_str().unwrap();
        let secrets: Api<KubeSecret> = Api::namespaced(cluster, SYSTEM);
        let mut token =
            secrets.get(&format!("moorage-access-{}", tenant.name)).await.unwrap().data.unwrap();
        let mut part = |name: &str| token.remove(name).unwrap().0;
        let access = AccessHeaders {
            client_id: String::from_utf8(part("client-id")).unwrap(),
            client_secret: Secret::new(part("client-secret")),
        };
        let management = ada["status"]["urls"]["management"].as_str().unwrap();
        let host = management.strip_prefix("https://").unwrap().to_owned();
        let clouds = tenant.clouds();
        let dialing = EdgeDialing {
            address: Some(clouds.edge),
            extra_roots: Some(std::fs::read(&clouds.edge_ca).unwrap()),
        };
        Self {
            client: EdgeAgentClient::new(&dialing).unwrap(),
            route: AgentRoute { host, anchor: None, access: Arc::new(access) },
            keys: ServerKeys::derive(master.newest(), instance, epoch.parse().unwrap()),
            agent: ada["status"]["agent"]["publicKey"].as_str().unwrap().parse().unwrap(),
        }
    }

    /// A signed call, which is never refused; how long it took.
    async fn call(&self) -> Duration {
        let began = Instant::now();
        self.client.report(&self.route, &self.keys, self.agent).await.unwrap();
        began.elapsed()
    }

    /// Calls until something else is over, and at least once.
    async fn call_during<T>(&self, other: impl Future<Output = T>) -> (T, Vec<Duration>) {
        tokio::pin!(other);
        let mut times = Vec::new();
        loop {
            let call = self.call();
            tokio::pin!(call);
            tokio::select! {
                time = &mut call => times.push(time),
                ended = &mut other => {
                    times.push(call.await);
                    return (ended, times);
                }
            }
        }
    }

    /// Somebody at another address of the internet who holds the service token.
    fn visitor(&self, tenant: &Tenant, address: &str) -> Visitor {
        let host = &self.route.host;
        let from = address.parse::<IpAddr>().unwrap();
        let client = tenant.edge_client(host).local_address(from).build().unwrap();
        let url = tenant.url_at_edge(host, path::REPORT);
        Visitor { client, url, access: Arc::clone(&self.route.access) }
    }
}

struct Visitor {
    client: reqwest::Client,
    url: String,
    access: Arc<AccessHeaders>,
}

impl Visitor {
    /// What a wrong token gets: the status, and the seconds of `Retry-After`.
    async fn wrong_token(&self) -> (StatusCode, Option<u64>) {
        let request = self
            .client
            .get(&self.url)
            .header("cf-access-client-id", &self.access.client_id)
            .header("cf-access-client-secret", self.access.client_secret.expose())
            .bearer_auth("wrong");
        let answer = request.send().await.unwrap();
        let wait = answer.headers().get(RETRY_AFTER);
        let wait = wait.map(|seconds| seconds.to_str().unwrap().parse().unwrap());
        (answer.status(), wait)
    }
}
