//! The real client of Cloudflare's API.

mod access;
mod dns;
mod document;
mod look;
mod tunnels;

use std::collections::HashSet;
use std::fmt;

use http::Method;
use serde::de::DeserializeOwned;

use document::{Envelope, accepted, parse, result};

use super::AccountId;
use super::refusal::DIALECT;
use crate::cloud::transport::{Request, Transport};
use crate::cloud::{ClientConfig, CloudError, ConfigError, Deletion, ErrorKind, Priority};

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
        Ok(Self { transport: Transport::new(&DIALECT, config)?, account })
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
            let info = envelope.result_info.unwrap_or_default();
            // An endpoint without pages answers the same again.
            let repeats = info.total_count.is_none() && all.len() == known;
            if repeats || !info.more(count, fetched, per_page) {
                return Ok(all);
            }
        }
        let message = "the pages do not end";
        let operation = request().operation();
        Err(self.transport.error(operation, ErrorKind::Malformed { maybe_applied: false }, message))
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
            Ok(answer) => accepted(&answer).map(Deletion::Accepted),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(Deletion::AlreadyGone),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for CloudflareClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudflareClient").field("account", &self.account).finish_non_exhaustive()
    }
}
