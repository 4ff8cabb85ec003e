//! The real client of Cloudflare's API.

use std::collections::HashSet;
use std::fmt;

use async_trait::async_trait;
use http::Method;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::refusal::{ApiError, DIALECT};
use super::{
    AccessApp, AccessAppId, AccessAppSpec, AccessDestination, AccessPolicy, AccessPolicyId,
    AccessPolicySpec, AccountId, CloudflareApi, CreateTunnel, DnsBatch, DnsBatchResult, DnsPatch,
    DnsRecord, IssuedServiceToken, NewDnsRecord, RecordId, ServiceToken, ServiceTokenId, Tunnel,
    TunnelConfiguration, TunnelId, TunnelSecret, VersionedTunnelConfiguration, Zone, ZoneId,
};
use crate::cloud::transport::{Answer, Request, Transport};
use crate::cloud::{ClientConfig, CloudError, ConfigError, Deletion, ErrorKind, Priority};

/// The most tunnels that Cloudflare puts on a page.
const TUNNELS_PER_PAGE: u64 = 1_000;

/// Access documents no most; this many are taken everywhere.
const ACCESS_PER_PAGE: u64 = 100;

/// The most DNS records that Cloudflare puts on a page.
const RECORDS_PER_PAGE: u64 = 5_000;

/// No account is this large; a list that goes on longer goes round in circles.
const MAX_PAGES: u64 = 1_000;

/// A client for one account, that is, for one token.
pub struct CloudflareClient {
    transport: Transport,
    account: AccountId,
}

impl CloudflareClient {
    /// Builds a client; keep it, for it holds the connections.
    pub fn new(config: ClientConfig, account: AccountId) -> Result<Self, ConfigError> {
        Ok(Self {
            transport: Transport::new(&DIALECT, config)?,
            account,
        })
    }

    /// A request below the account.
    fn account_request<const N: usize>(
        &self,
        operation: &'static str,
        method: Method,
        path: [&dyn fmt::Display; N],
        priority: Priority,
    ) -> Request {
        Request::new(operation, method, [&"accounts", &self.account], priority).below(path)
    }

    /// All pages of a list. `id` tells entries apart: pages shift while they are read, so an
    /// entry can come twice.
    async fn list<T: DeserializeOwned>(
        &self,
        per_page: u64,
        id: impl Fn(&T) -> String + Send,
        request: impl Fn() -> Request + Send,
    ) -> Result<Vec<T>, CloudError> {
        let mut seen = HashSet::new();
        let mut all = Vec::new();
        let mut fetched = 0;
        for page in 1..=MAX_PAGES {
            let request = request().query("page", page).query("per_page", per_page);
            let envelope: Envelope<Vec<T>> = parse(&self.transport.send(request).await?)?;
            let entries = envelope.result.unwrap_or_default();
            let count = entries.len() as u64;
            fetched += count;
            let known = all.len();
            all.extend(entries.into_iter().filter(|entry| seen.insert(id(entry))));
            let more = envelope
                .result_info
                .unwrap_or_default()
                .more(count, fetched, per_page);
            // An endpoint without pages answers the same again.
            if !more || all.len() == known {
                return Ok(all);
            }
        }
        let message = "the pages do not end";
        let operation = request().operation();
        Err(self.transport.error(
            operation,
            ErrorKind::Malformed {
                maybe_applied: false,
            },
            message,
        ))
    }

    async fn read<T: DeserializeOwned>(&self, request: Request) -> Result<Option<T>, CloudError> {
        match self.transport.send(request).await {
            Ok(answer) => result(&answer).map(Some),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn write<T: DeserializeOwned>(&self, request: Request) -> Result<T, CloudError> {
        result(&self.transport.send(request).await?)
    }

    async fn delete(&self, request: Request) -> Result<Deletion, CloudError> {
        match self.transport.send(request).await {
            Ok(_) => Ok(Deletion::Accepted(())),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(Deletion::AlreadyGone),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for CloudflareClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudflareClient")
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Envelope<T> {
    success: bool,
    #[serde(default = "Option::default")]
    errors: Option<Vec<ApiError>>,
    #[serde(default = "Option::default")]
    result: Option<T>,
    #[serde(default)]
    result_info: Option<ResultInfo>,
}

#[derive(Default, Deserialize)]
struct ResultInfo {
    #[serde(default)]
    per_page: Option<u64>,
    #[serde(default)]
    total_count: Option<u64>,
}

impl ResultInfo {
    /// Whether another page is worth asking for, after one of `count` entries.
    fn more(&self, count: u64, fetched: u64, asked: u64) -> bool {
        match self.total_count {
            _ if count == 0 => false,
            Some(total) => fetched < total,
            // Cloudflare may give smaller pages than it was asked for.
            None => count >= self.per_page.unwrap_or(asked).min(asked),
        }
    }
}

fn parse<T: DeserializeOwned>(answer: &Answer) -> Result<Envelope<T>, CloudError> {
    let envelope: Envelope<T> = answer.parse()?;
    if envelope.success {
        return Ok(envelope);
    }
    let errors = envelope.errors.unwrap_or_default();
    Err(answer.malformed(&super::refusal::message(http::StatusCode::OK, &errors)))
}

fn result<T: DeserializeOwned>(answer: &Answer) -> Result<T, CloudError> {
    parse(answer)?
        .result
        .ok_or_else(|| answer.malformed("the result is missing"))
}

/// The body of `POST /cfd_tunnel`; also, with nothing but the secret, of its `PATCH`.
#[derive(Serialize)]
struct TunnelBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config_src: Option<&'static str>,
    tunnel_secret: &'a str,
}

#[derive(Serialize)]
struct BatchBody<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deletes: Vec<RecordReference<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    patches: &'a [DnsPatch],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    posts: &'a [NewDnsRecord],
}

#[derive(Serialize)]
struct RecordReference<'a> {
    id: &'a RecordId,
}

#[derive(Serialize)]
struct AppBody<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    /// Older than `destinations`, and still required by the documented schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a str>,
    destinations: &'a [AccessDestination],
    policies: Vec<PolicyReference<'a>>,
    app_launcher_visible: bool,
    service_auth_401_redirect: bool,
}

#[derive(Serialize)]
struct PolicyReference<'a> {
    id: &'a AccessPolicyId,
    precedence: usize,
}

impl<'a> From<&'a AccessAppSpec> for AppBody<'a> {
    fn from(app: &'a AccessAppSpec) -> Self {
        let policies = app
            .policies
            .iter()
            .zip(1..)
            .map(|(id, precedence)| PolicyReference { id, precedence });
        Self {
            name: &app.name,
            kind: "self_hosted",
            domain: app
                .destinations
                .first()
                .and_then(|destination| destination.uri.as_deref()),
            destinations: &app.destinations,
            policies: policies.collect(),
            app_launcher_visible: false,
            service_auth_401_redirect: true,
        }
    }
}

#[async_trait]
impl CloudflareApi for CloudflareClient {
    async fn list_tunnels(
        &self,
        priority: Priority,
        name_prefix: &str,
    ) -> Result<Vec<Tunnel>, CloudError> {
        let request = || {
            self.account_request("list_tunnels", Method::GET, [&"cfd_tunnel"], priority)
                .query("is_deleted", false)
                .query("include_prefix", name_prefix)
        };
        let mut tunnels = self
            .list(
                TUNNELS_PER_PAGE,
                |tunnel: &Tunnel| tunnel.id.to_string(),
                request,
            )
            .await?;
        tunnels.retain(|tunnel| tunnel.deleted_at.is_none());
        Ok(tunnels)
    }

    async fn get_tunnel(
        &self,
        priority: Priority,
        id: &TunnelId,
    ) -> Result<Option<Tunnel>, CloudError> {
        let request =
            self.account_request("get_tunnel", Method::GET, [&"cfd_tunnel", id], priority);
        let tunnel: Option<Tunnel> = self.read(request).await?;
        Ok(tunnel.filter(|tunnel| tunnel.deleted_at.is_none()))
    }

    async fn find_tunnel_by_name(
        &self,
        priority: Priority,
        name: &str,
    ) -> Result<Option<Tunnel>, CloudError> {
        let request = || {
            self.account_request(
                "find_tunnel_by_name",
                Method::GET,
                [&"cfd_tunnel"],
                priority,
            )
            .query("is_deleted", false)
            .query("name", name)
        };
        let tunnels = self
            .list(
                TUNNELS_PER_PAGE,
                |tunnel: &Tunnel| tunnel.id.to_string(),
                request,
            )
            .await?;
        Ok(tunnels
            .into_iter()
            .find(|tunnel| tunnel.name == name && tunnel.deleted_at.is_none()))
    }

    async fn create_tunnel(&self, tunnel: &CreateTunnel<'_>) -> Result<Tunnel, CloudError> {
        let secret = Zeroizing::new(tunnel.secret.base64());
        let body = TunnelBody {
            name: Some(tunnel.name),
            config_src: Some("cloudflare"),
            tunnel_secret: &secret,
        };
        let request = self.account_request(
            "create_tunnel",
            Method::POST,
            [&"cfd_tunnel"],
            Priority::Normal,
        );
        self.write(request.json(&body)).await
    }

    async fn delete_tunnel(&self, id: &TunnelId) -> Result<Deletion, CloudError> {
        let path: [&dyn fmt::Display; 2] = [&"cfd_tunnel", id];
        self.delete(self.account_request("delete_tunnel", Method::DELETE, path, Priority::Delete))
            .await
    }

    async fn delete_tunnel_connections(&self, id: &TunnelId) -> Result<Deletion, CloudError> {
        let path: [&dyn fmt::Display; 3] = [&"cfd_tunnel", id, &"connections"];
        self.delete(self.account_request(
            "delete_tunnel_connections",
            Method::DELETE,
            path,
            Priority::Delete,
        ))
        .await
    }

    async fn rotate_tunnel_secret(
        &self,
        id: &TunnelId,
        secret: &TunnelSecret,
    ) -> Result<Tunnel, CloudError> {
        let secret = Zeroizing::new(secret.base64());
        let body = TunnelBody {
            name: None,
            config_src: None,
            tunnel_secret: &secret,
        };
        let path: [&dyn fmt::Display; 2] = [&"cfd_tunnel", id];
        let request = self.account_request(
            "rotate_tunnel_secret",
            Method::PATCH,
            path,
            Priority::Normal,
        );
        self.write(request.json(&body)).await
    }

    async fn get_tunnel_configuration(
        &self,
        priority: Priority,
        id: &TunnelId,
    ) -> Result<Option<VersionedTunnelConfiguration>, CloudError> {
        let path: [&dyn fmt::Display; 3] = [&"cfd_tunnel", id, &"configurations"];
        self.read(self.account_request("get_tunnel_configuration", Method::GET, path, priority))
            .await
    }

    async fn put_tunnel_configuration(
        &self,
        id: &TunnelId,
        configuration: &TunnelConfiguration,
    ) -> Result<VersionedTunnelConfiguration, CloudError> {
        #[derive(Serialize)]
        struct Body<'a> {
            config: &'a TunnelConfiguration,
        }
        let path: [&dyn fmt::Display; 3] = [&"cfd_tunnel", id, &"configurations"];
        let request = self.account_request(
            "put_tunnel_configuration",
            Method::PUT,
            path,
            Priority::Normal,
        );
        self.write(request.json(&Body {
            config: configuration,
        }))
        .await
    }

    async fn list_dns_records(
        &self,
        priority: Priority,
        zone: &ZoneId,
        comment_prefix: &str,
    ) -> Result<Vec<DnsRecord>, CloudError> {
        let request = || {
            Request::new(
                "list_dns_records",
                Method::GET,
                [&"zones", zone, &"dns_records"],
                priority,
            )
            .query("comment.startswith", comment_prefix)
        };
        self.list(
            RECORDS_PER_PAGE,
            |record: &DnsRecord| record.id.to_string(),
            request,
        )
        .await
    }

    async fn find_dns_records_by_name(
        &self,
        priority: Priority,
        zone: &ZoneId,
        name: &str,
    ) -> Result<Vec<DnsRecord>, CloudError> {
        let request = || {
            Request::new(
                "find_dns_records_by_name",
                Method::GET,
                [&"zones", zone, &"dns_records"],
                priority,
            )
            .query("name", name)
        };
        self.list(
            RECORDS_PER_PAGE,
            |record: &DnsRecord| record.id.to_string(),
            request,
        )
        .await
    }

    async fn dns_batch(
        &self,
        zone: &ZoneId,
        batch: &DnsBatch,
    ) -> Result<DnsBatchResult, CloudError> {
        if batch.is_empty() {
            return Ok(DnsBatchResult::default());
        }
        let only_deletes = batch.patches.is_empty() && batch.posts.is_empty();
        let priority = if only_deletes {
            Priority::Delete
        } else {
            Priority::Normal
        };
        let body = BatchBody {
            deletes: batch
                .deletes
                .iter()
                .map(|id| RecordReference { id })
                .collect(),
            patches: &batch.patches,
            posts: &batch.posts,
        };
        let path: [&dyn fmt::Display; 4] = [&"zones", zone, &"dns_records", &"batch"];
        self.write(Request::new("dns_batch", Method::POST, path, priority).json(&body))
            .await
    }

    async fn get_zone(
        &self,
        priority: Priority,
        zone: &ZoneId,
    ) -> Result<Option<Zone>, CloudError> {
        self.read(Request::new(
            "get_zone",
            Method::GET,
            [&"zones", zone],
            priority,
        ))
        .await
    }

    async fn list_access_apps(&self, priority: Priority) -> Result<Vec<AccessApp>, CloudError> {
        let request = || {
            self.account_request(
                "list_access_apps",
                Method::GET,
                [&"access", &"apps"],
                priority,
            )
        };
        self.list(
            ACCESS_PER_PAGE,
            |app: &AccessApp| app.id.to_string(),
            request,
        )
        .await
    }

    async fn create_access_app(&self, app: &AccessAppSpec) -> Result<AccessApp, CloudError> {
        let path: [&dyn fmt::Display; 2] = [&"access", &"apps"];
        let request =
            self.account_request("create_access_app", Method::POST, path, Priority::Normal);
        self.write(request.json(&AppBody::from(app))).await
    }

    async fn update_access_app(
        &self,
        id: &AccessAppId,
        app: &AccessAppSpec,
    ) -> Result<AccessApp, CloudError> {
        let path: [&dyn fmt::Display; 3] = [&"access", &"apps", id];
        let request =
            self.account_request("update_access_app", Method::PUT, path, Priority::Normal);
        self.write(request.json(&AppBody::from(app))).await
    }

    async fn delete_access_app(&self, id: &AccessAppId) -> Result<Deletion, CloudError> {
        let path: [&dyn fmt::Display; 3] = [&"access", &"apps", id];
        self.delete(self.account_request(
            "delete_access_app",
            Method::DELETE,
            path,
            Priority::Delete,
        ))
        .await
    }

    async fn list_access_policies(
        &self,
        priority: Priority,
    ) -> Result<Vec<AccessPolicy>, CloudError> {
        let request = || {
            self.account_request(
                "list_access_policies",
                Method::GET,
                [&"access", &"policies"],
                priority,
            )
        };
        self.list(
            ACCESS_PER_PAGE,
            |policy: &AccessPolicy| policy.id.to_string(),
            request,
        )
        .await
    }

    async fn create_access_policy(
        &self,
        policy: &AccessPolicySpec,
    ) -> Result<AccessPolicy, CloudError> {
        let path: [&dyn fmt::Display; 2] = [&"access", &"policies"];
        let request =
            self.account_request("create_access_policy", Method::POST, path, Priority::Normal);
        self.write(request.json(policy)).await
    }

    async fn update_access_policy(
        &self,
        id: &AccessPolicyId,
        policy: &AccessPolicySpec,
    ) -> Result<AccessPolicy, CloudError> {
        let path: [&dyn fmt::Display; 3] = [&"access", &"policies", id];
        let request =
            self.account_request("update_access_policy", Method::PUT, path, Priority::Normal);
        self.write(request.json(policy)).await
    }

    async fn delete_access_policy(&self, id: &AccessPolicyId) -> Result<Deletion, CloudError> {
        let path: [&dyn fmt::Display; 3] = [&"access", &"policies", id];
        self.delete(self.account_request(
            "delete_access_policy",
            Method::DELETE,
            path,
            Priority::Delete,
        ))
        .await
    }

    async fn list_service_tokens(
        &self,
        priority: Priority,
    ) -> Result<Vec<ServiceToken>, CloudError> {
        let request = || {
            self.account_request(
                "list_service_tokens",
                Method::GET,
                [&"access", &"service_tokens"],
                priority,
            )
        };
        self.list(
            ACCESS_PER_PAGE,
            |token: &ServiceToken| token.id.to_string(),
            request,
        )
        .await
    }

    async fn create_service_token(
        &self,
        name: &str,
        duration: &str,
    ) -> Result<IssuedServiceToken, CloudError> {
        #[derive(Serialize)]
        struct Body<'a> {
            name: &'a str,
            duration: &'a str,
        }
        let path: [&dyn fmt::Display; 2] = [&"access", &"service_tokens"];
        let request =
            self.account_request("create_service_token", Method::POST, path, Priority::Normal);
        self.write(request.json(&Body { name, duration })).await
    }

    async fn rotate_service_token(
        &self,
        id: &ServiceTokenId,
        previous_secret_expires_at: Option<Timestamp>,
    ) -> Result<IssuedServiceToken, CloudError> {
        #[derive(Serialize)]
        struct Body {
            #[serde(skip_serializing_if = "Option::is_none")]
            previous_client_secret_expires_at: Option<Timestamp>,
        }
        let path: [&dyn fmt::Display; 4] = [&"access", &"service_tokens", id, &"rotate"];
        let request =
            self.account_request("rotate_service_token", Method::POST, path, Priority::Normal);
        self.write(request.json(&Body {
            previous_client_secret_expires_at: previous_secret_expires_at,
        }))
        .await
    }

    async fn delete_service_token(&self, id: &ServiceTokenId) -> Result<Deletion, CloudError> {
        let path: [&dyn fmt::Display; 3] = [&"access", &"service_tokens", id];
        self.delete(self.account_request(
            "delete_service_token",
            Method::DELETE,
            path,
            Priority::Delete,
        ))
        .await
    }
}
