//! Access applications, reusable policies and service tokens.

use std::fmt;

use async_trait::async_trait;
use http::Method;
use jiff::Timestamp;
use serde::Serialize;

use super::CloudflareClient;
use super::document::AppBody;
use crate::cloud::{CloudError, Deletion, Priority};
use crate::cloudflare::{
    AccessApi, AccessApp, AccessAppId, AccessAppSpec, AccessPolicy, AccessPolicyId,
    AccessPolicySpec, IssuedServiceToken, ServiceToken, ServiceTokenId,
};

/// Access documents no most; this many are taken everywhere.
const ACCESS_PER_PAGE: u64 = 100;

#[async_trait]
impl AccessApi for CloudflareClient {
    async fn list_access_apps(&self, priority: Priority) -> Result<Vec<AccessApp>, CloudError> {
        let request = || {
            self.account_request("list_access_apps", Method::GET, [&"access", &"apps"], priority)
        };
        self.list(ACCESS_PER_PAGE, |app: &AccessApp| app.id.to_string(), request).await
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
        self.list(ACCESS_PER_PAGE, |policy: &AccessPolicy| policy.id.to_string(), request).await
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
        self.list(ACCESS_PER_PAGE, |token: &ServiceToken| token.id.to_string(), request).await
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
        self.write(
            request.json(&Body { previous_client_secret_expires_at: previous_secret_expires_at }),
        )
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
