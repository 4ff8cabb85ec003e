//! Tunnels and their routes.

use std::fmt;

use async_trait::async_trait;
use http::Method;
use serde::Serialize;

use super::CloudflareClient;
use super::document::{TunnelBody, TunnelName};
use crate::cloud::{CloudError, Deletion, Priority};
use crate::cloudflare::{
    CreateTunnel, Tunnel, TunnelApi, TunnelConfiguration, TunnelId, VersionedTunnelConfiguration,
};
use crate::master_key::TunnelSecret;

/// The most tunnels that Cloudflare puts on a page.
const TUNNELS_PER_PAGE: u64 = 1_000;

#[async_trait]
impl TunnelApi for CloudflareClient {
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
        let mut tunnels =
            self.list(TUNNELS_PER_PAGE, |tunnel: &Tunnel| tunnel.id.to_string(), request).await?;
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
            self.account_request("find_tunnel_by_name", Method::GET, [&"cfd_tunnel"], priority)
                .query("is_deleted", false)
                .query("name", name)
        };
        let tunnels =
            self.list(TUNNELS_PER_PAGE, |tunnel: &Tunnel| tunnel.id.to_string(), request).await?;
        Ok(tunnels.into_iter().find(|tunnel| tunnel.name == name && tunnel.deleted_at.is_none()))
    }

    async fn create_tunnel(&self, tunnel: &CreateTunnel<'_>) -> Result<Tunnel, CloudError> {
        let secret = tunnel.secret.to_base64();
        let body = TunnelBody {
            name: Some(tunnel.name),
            config_src: Some("cloudflare"),
            tunnel_secret: secret.expose_str().unwrap_or_default(),
        };
        let request =
            self.account_request("create_tunnel", Method::POST, [&"cfd_tunnel"], Priority::Normal);
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
        let secret = secret.to_base64();
        let body = TunnelBody {
            name: None,
            config_src: None,
            tunnel_secret: secret.expose_str().unwrap_or_default(),
        };
        let path: [&dyn fmt::Display; 2] = [&"cfd_tunnel", id];
        let request =
            self.account_request("rotate_tunnel_secret", Method::PATCH, path, Priority::Normal);
        self.write(request.json(&body)).await
    }

    async fn rename_tunnel(&self, id: &TunnelId, name: &str) -> Result<Tunnel, CloudError> {
        let path: [&dyn fmt::Display; 2] = [&"cfd_tunnel", id];
        // Also at the end of an instance that leaves its tunnel behind.
        let request = self.account_request("rename_tunnel", Method::PATCH, path, Priority::Delete);
        self.write(request.json(&TunnelName { name })).await
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
        let request =
            self.account_request("put_tunnel_configuration", Method::PUT, path, Priority::Normal);
        self.write(request.json(&Body { config: configuration })).await
    }
}
