//! Zones and DNS records.

use std::fmt;

use async_trait::async_trait;
use http::Method;

use super::CloudflareClient;
use super::document::{BatchBody, RecordReference};
use crate::cloud::transport::Request;
use crate::cloud::{CloudError, Priority};
use crate::cloudflare::{DnsApi, DnsBatch, DnsBatchResult, DnsRecord, Zone, ZoneId};

/// The most DNS records that Cloudflare puts on a page.
const RECORDS_PER_PAGE: u64 = 5_000;

#[async_trait]
impl DnsApi for CloudflareClient {
    async fn list_dns_records(
        &self,
        priority: Priority,
        zone: &ZoneId,
        comment_prefix: &str,
    ) -> Result<Vec<DnsRecord>, CloudError> {
        let request = || {
            let request = Request::new(
                "list_dns_records",
                Method::GET,
                [&"zones", zone, &"dns_records"],
                priority,
            );
            if comment_prefix.is_empty() {
                request
            } else {
                request.query("comment.startswith", comment_prefix)
            }
        };
        self.list(RECORDS_PER_PAGE, |record: &DnsRecord| record.id.to_string(), request).await
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
        self.list(RECORDS_PER_PAGE, |record: &DnsRecord| record.id.to_string(), request).await
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
        let priority = if only_deletes { Priority::Delete } else { Priority::Normal };
        let body = BatchBody {
            deletes: batch.deletes.iter().map(|id| RecordReference { id }).collect(),
            patches: &batch.patches,
            posts: &batch.posts,
        };
        let path: [&dyn fmt::Display; 4] = [&"zones", zone, &"dns_records", &"batch"];
        self.write(Request::new("dns_batch", Method::POST, path, priority).json(&body)).await
    }

    async fn get_zone(
        &self,
        priority: Priority,
        zone: &ZoneId,
    ) -> Result<Option<Zone>, CloudError> {
        self.read(Request::new("get_zone", Method::GET, [&"zones", zone], priority)).await
    }
}
