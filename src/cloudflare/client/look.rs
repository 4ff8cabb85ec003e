//! Calls that only look at an account and its zone, for `moorage doctor`.

use std::fmt;

use http::Method;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::CloudflareClient;
use super::document::{Envelope, parse};
use crate::cloud::transport::Request;
use crate::cloud::{CloudError, ErrorKind, Priority};
use crate::cloudflare::{
    AccountObjects, BotManagement, CertificatePack, Organization, TokenCheck, ZoneId,
};

/// What is read of a setting.
#[derive(Deserialize)]
struct Setting {
    value: String,
}

impl CloudflareClient {
    /// What Cloudflare says of the token: of a user's, or of the account's own.
    pub async fn verify_token(&self) -> Result<TokenCheck, CloudError> {
        let of_user = Request::new(
            "verify_token",
            Method::GET,
            [&"user", &"tokens", &"verify"],
            Priority::Normal,
        );
        let refused = match self.write(of_user).await {
            Ok(check) => return Ok(check),
            Err(refused) => refused,
        };
        let is_refusal =
            matches!(refused.kind, ErrorKind::Unauthorized | ErrorKind::Forbidden { .. });
        let of_account = self.account_request(
            "verify_account_token",
            Method::GET,
            [&"tokens", &"verify"],
            Priority::Normal,
        );
        if is_refusal { self.write(of_account).await } else { Err(refused) }
    }

    /// The account's Zero Trust organization.
    pub async fn organization(&self) -> Result<Organization, CloudError> {
        self.write(self.access_request("get_organization", "organizations")).await
    }

    /// How many of a kind the account has, if Cloudflare says so.
    pub async fn count(&self, objects: AccountObjects) -> Result<Option<u64>, CloudError> {
        let get = Method::GET;
        let request = match objects {
            AccountObjects::Tunnels => self
                .account_request("list_tunnels", get, [&"cfd_tunnel"], Priority::Normal)
                .query("is_deleted", false),
            AccountObjects::AccessApps => self.access_request("list_access_apps", "apps"),
            AccountObjects::AccessPolicies => {
                self.access_request("list_access_policies", "policies")
            }
            AccountObjects::ServiceTokens => {
                self.access_request("list_service_tokens", "service_tokens")
            }
        };
        self.total(request).await
    }

    /// How many DNS records the zone has, if Cloudflare says so.
    pub async fn count_dns_records(&self, zone: &ZoneId) -> Result<Option<u64>, CloudError> {
        let path: [&dyn fmt::Display; 3] = [&"zones", zone, &"dns_records"];
        self.total(Request::new("list_dns_records", Method::GET, path, Priority::Normal)).await
    }

    fn access_request(&self, operation: &'static str, list: &'static str) -> Request {
        self.account_request(operation, Method::GET, [&"access", &list], Priority::Normal)
    }

    async fn total(&self, request: Request) -> Result<Option<u64>, CloudError> {
        let answer = self.transport.send(request.query("per_page", 1)).await?;
        let envelope: Envelope<IgnoredAny> = parse(&answer)?;
        Ok(envelope.result_info.and_then(|info| info.total_count))
    }

    /// The zone's certificates at the edge.
    pub async fn certificate_packs(
        &self,
        zone: &ZoneId,
    ) -> Result<Vec<CertificatePack>, CloudError> {
        let path: [&dyn fmt::Display; 4] = [&"zones", zone, &"ssl", &"certificate_packs"];
        let request = Request::new("list_certificate_packs", Method::GET, path, Priority::Normal);
        self.write(request.query("status", "all")).await
    }

    /// A setting of the zone that is a word, such as `ssl`.
    pub async fn zone_setting(&self, zone: &ZoneId, name: &str) -> Result<String, CloudError> {
        let path: [&dyn fmt::Display; 4] = [&"zones", zone, &"settings", &name];
        let request = Request::new("get_zone_setting", Method::GET, path, Priority::Normal);
        self.write::<Setting>(request).await.map(|setting| setting.value)
    }

    /// What the zone does about bots.
    pub async fn bot_management(&self, zone: &ZoneId) -> Result<BotManagement, CloudError> {
        let path: [&dyn fmt::Display; 3] = [&"zones", zone, &"bot_management"];
        self.write(Request::new("get_bot_management", Method::GET, path, Priority::Normal)).await
    }
}
