//! The real client of Hetzner Cloud's API.

mod document;
mod look;

use std::collections::HashSet;
use std::fmt;

use async_trait::async_trait;
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use document::{
    ActionDocument, ActionsDocument, CreateServerBody, FirewallDocument, Meta, PER_PAGE,
    ServerDocument, SshKeyDocument,
};

use super::refusal::DIALECT;
use super::{
    Action, CreateFirewall, CreateServer, CreateSshKey, CreatedServer, Firewall, FirewallId,
    FirewallRule, HetznerApi, LabelSelector, Labels, MAX_USER_DATA, Server, ServerId, ServerType,
    SshKey, SshKeyId,
};
use crate::cloud::transport::{Request, Transport};
use crate::cloud::{
    ClientConfig, CloudError, ConfigError, Conflict, Deletion, ErrorKind, InvalidField, Priority,
};

/// No project is this large; a list that goes on longer goes round in circles.
const MAX_PAGES: u64 = 2_000;

/// A client for one project, that is, for one token.
pub struct HetznerClient {
    transport: Transport,
}

impl HetznerClient {
    /// Builds a client; keep it, for it holds the connections.
    pub fn new(config: ClientConfig) -> Result<Self, ConfigError> {
        Ok(Self { transport: Transport::new(&DIALECT, config)? })
    }

    /// All pages of a list. `key` names the array in the answer, `id` what tells entries apart:
    /// pages shift while they are read, so an entry can come twice.
    async fn list<T: DeserializeOwned>(
        &self,
        key: &'static str,
        id: impl Fn(&T) -> String + Send,
        request: impl Fn() -> Request + Send,
    ) -> Result<Vec<T>, CloudError> {
        let mut seen = HashSet::new();
        let mut all = Vec::new();
        let mut page = 1;
        loop {
            let answer = self
                .transport
                .send(request().query("page", page).query("per_page", PER_PAGE))
                .await?;
            let mut document: serde_json::Map<String, serde_json::Value> = answer.parse()?;
            let entries =
                document.remove(key).ok_or_else(|| answer.malformed("the list is missing"))?;
            let entries: Vec<T> = serde_json::from_value(entries)
                .map_err(|_| answer.malformed("an entry of the list is not as documented"))?;
            let meta = document.remove("meta").and_then(|meta| serde_json::from_value(meta).ok());
            let meta: Meta = meta.unwrap_or_default();
            let pagination = meta.pagination.unwrap_or_default();
            let next = pagination.next(page, entries.len());
            let known = all.len();
            all.extend(entries.into_iter().filter(|entry| seen.insert(id(entry))));
            match next {
                None => return Ok(all),
                // A guessed page that brings nothing new was one too many.
                Some(_) if all.len() == known && pagination.next_page.is_none() => return Ok(all),
                Some(next) if next > page && next <= MAX_PAGES => page = next,
                Some(_) => return Err(answer.malformed("the pages do not end")),
            }
        }
    }

    async fn read<T: DeserializeOwned>(&self, request: Request) -> Result<Option<T>, CloudError> {
        match self.transport.send(request).await {
            Ok(answer) => answer.parse().map(Some),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn write<T: DeserializeOwned>(&self, request: Request) -> Result<T, CloudError> {
        self.transport.send(request).await?.parse()
    }

    async fn delete(&self, request: Request) -> Result<Deletion, CloudError> {
        match self.transport.send(request).await {
            Ok(_) => Ok(Deletion::Accepted(())),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(Deletion::AlreadyGone),
            Err(error) => Err(error),
        }
    }

    /// An action's message is upstream text as any error's.
    fn redacted(&self, mut action: Action) -> Action {
        if let Some(error) = &mut action.error {
            error.message = self.transport.redact(&error.message);
        }
        action
    }
}

impl fmt::Debug for HetznerClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HetznerClient").finish_non_exhaustive()
    }
}

#[async_trait]
impl HetznerApi for HetznerClient {
    async fn list_servers(
        &self,
        priority: Priority,
        selector: &LabelSelector,
    ) -> Result<Vec<Server>, CloudError> {
        let request = || {
            Request::new("list_servers", Method::GET, [&"servers"], priority)
                .query("label_selector", selector)
        };
        self.list("servers", |server: &Server| server.id.to_string(), request).await
    }

    async fn get_server(
        &self,
        priority: Priority,
        id: ServerId,
    ) -> Result<Option<Server>, CloudError> {
        let request = Request::new("get_server", Method::GET, [&"servers", &id], priority);
        let document: Option<ServerDocument> = self.read(request).await?;
        Ok(document.map(|document| document.server))
    }

    async fn find_server_by_name(
        &self,
        priority: Priority,
        name: &str,
    ) -> Result<Option<Server>, CloudError> {
        let request = || {
            Request::new("find_server_by_name", Method::GET, [&"servers"], priority)
                .query("name", name)
        };
        let servers =
            self.list("servers", |server: &Server| server.id.to_string(), request).await?;
        Ok(servers.into_iter().find(|server| server.name == name))
    }

    async fn create_server(&self, server: &CreateServer) -> Result<CreatedServer, CloudError> {
        const OPERATION: &str = "create_server";
        let bytes = server.user_data.expose_secret().len();
        if bytes > MAX_USER_DATA {
            let message = format!("{bytes} bytes, of which Hetzner takes {MAX_USER_DATA} at most");
            let fields =
                vec![InvalidField { name: "user_data".to_owned(), messages: vec![message] }];
            return Err(self.transport.error(
                OPERATION,
                ErrorKind::InvalidInput { fields },
                "not sent",
            ));
        }
        let request = Request::new(OPERATION, Method::POST, [&"servers"], Priority::Normal)
            .json(&CreateServerBody::from(server));
        let created: CreatedServer = self.write(request).await?;
        Ok(CreatedServer {
            action: self.redacted(created.action),
            next_actions: created
                .next_actions
                .into_iter()
                .map(|action| self.redacted(action))
                .collect(),
            ..created
        })
    }

    async fn power_on(&self, id: ServerId) -> Result<Action, CloudError> {
        let path: [&dyn fmt::Display; 4] = [&"servers", &id, &"actions", &"poweron"];
        let request = Request::new("power_on", Method::POST, path, Priority::Normal)
            .json(&serde_json::json!({}));
        let answer = self.transport.send(request).await?;
        let document: ActionDocument = answer.parse()?;
        let action = document.action.ok_or_else(|| answer.malformed("the action is missing"))?;
        Ok(self.redacted(action))
    }

    async fn failed_actions(
        &self,
        priority: Priority,
        id: ServerId,
    ) -> Result<Vec<Action>, CloudError> {
        let request = || {
            let path: [&dyn fmt::Display; 3] = [&"servers", &id, &"actions"];
            Request::new("failed_actions", Method::GET, path, priority).query("status", "error")
        };
        let actions = self.list("actions", |action: &Action| action.id.to_string(), request).await;
        Ok(actions?.into_iter().map(|action| self.redacted(action)).collect())
    }

    async fn delete_server(&self, id: ServerId) -> Result<Deletion<Option<Action>>, CloudError> {
        let request =
            Request::new("delete_server", Method::DELETE, [&"servers", &id], Priority::Delete);
        match self.transport.send(request).await {
            // The deletion is on its way whether or not its action can be read.
            Ok(answer) => {
                let action =
                    answer.parse::<ActionDocument>().ok().and_then(|document| document.action);
                Ok(Deletion::Accepted(action.map(|action| self.redacted(action))))
            }
            Err(error) if error.kind == ErrorKind::NotFound => Ok(Deletion::AlreadyGone),
            Err(error) => Err(error),
        }
    }

    async fn update_server_labels(
        &self,
        id: ServerId,
        labels: &Labels,
    ) -> Result<Server, CloudError> {
        #[derive(Serialize)]
        struct Body<'a> {
            labels: &'a Labels,
        }
        let request =
            Request::new("update_server_labels", Method::PUT, [&"servers", &id], Priority::Normal)
                .json(&Body { labels });
        let document: ServerDocument = self.write(request).await?;
        Ok(document.server)
    }

    async fn list_firewalls(
        &self,
        priority: Priority,
        selector: &LabelSelector,
    ) -> Result<Vec<Firewall>, CloudError> {
        let request = || {
            Request::new("list_firewalls", Method::GET, [&"firewalls"], priority)
                .query("label_selector", selector)
        };
        self.list("firewalls", |firewall: &Firewall| firewall.id.to_string(), request).await
    }

    async fn create_firewall(&self, firewall: &CreateFirewall) -> Result<Firewall, CloudError> {
        let request =
            Request::new("create_firewall", Method::POST, [&"firewalls"], Priority::Normal)
                .json(firewall);
        let document: FirewallDocument = self.write(request).await?;
        Ok(document.firewall)
    }

    async fn set_firewall_rules(
        &self,
        id: FirewallId,
        rules: &[FirewallRule],
    ) -> Result<Vec<Action>, CloudError> {
        #[derive(Serialize)]
        struct Body<'a> {
            rules: &'a [FirewallRule],
        }
        let path: [&dyn fmt::Display; 4] = [&"firewalls", &id, &"actions", &"set_rules"];
        let request = Request::new("set_firewall_rules", Method::POST, path, Priority::Normal)
            .json(&Body { rules });
        let document: ActionsDocument = self.write(request).await?;
        Ok(document.actions.into_iter().map(|action| self.redacted(action)).collect())
    }

    async fn apply_firewall(
        &self,
        id: FirewallId,
        server: ServerId,
    ) -> Result<Vec<Action>, CloudError> {
        let path: [&dyn fmt::Display; 4] = [&"firewalls", &id, &"actions", &"apply_to_resources"];
        let target = serde_json::json!({"type": "server", "server": {"id": server.0}});
        let body = serde_json::json!({"apply_to": [target]});
        let request =
            Request::new("apply_firewall", Method::POST, path, Priority::Normal).json(&body);
        match self.write::<ActionsDocument>(request).await {
            Ok(document) => {
                Ok(document.actions.into_iter().map(|action| self.redacted(action)).collect())
            }
            Err(error) if error.kind == ErrorKind::Conflict(Conflict::AlreadyDone) => {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    async fn delete_firewall(&self, id: FirewallId) -> Result<Deletion, CloudError> {
        self.delete(Request::new(
            "delete_firewall",
            Method::DELETE,
            [&"firewalls", &id],
            Priority::Delete,
        ))
        .await
    }

    async fn server_types(&self, priority: Priority) -> Result<Vec<ServerType>, CloudError> {
        let request = || Request::new("server_types", Method::GET, [&"server_types"], priority);
        self.list("server_types", |kind: &ServerType| kind.name.clone(), request).await
    }

    async fn list_ssh_keys(
        &self,
        priority: Priority,
        selector: &LabelSelector,
    ) -> Result<Vec<SshKey>, CloudError> {
        let request = || {
            Request::new("list_ssh_keys", Method::GET, [&"ssh_keys"], priority)
                .query("label_selector", selector)
        };
        self.list("ssh_keys", |key: &SshKey| key.id.to_string(), request).await
    }

    async fn create_ssh_key(&self, key: &CreateSshKey) -> Result<SshKey, CloudError> {
        let request =
            Request::new("create_ssh_key", Method::POST, [&"ssh_keys"], Priority::Normal).json(key);
        let document: SshKeyDocument = self.write(request).await?;
        Ok(document.ssh_key)
    }

    async fn delete_ssh_key(&self, id: SshKeyId) -> Result<Deletion, CloudError> {
        self.delete(Request::new(
            "delete_ssh_key",
            Method::DELETE,
            [&"ssh_keys", &id],
            Priority::Delete,
        ))
        .await
    }
}
