//! Calls that only look at a project, for `moorage doctor`.

use http::Method;

use super::HetznerClient;
use super::document::Meta;
use crate::cloud::transport::Request;
use crate::cloud::{CloudError, Priority};
use crate::hetzner::{Allowance, Architecture, Image, Location};

impl HetznerClient {
    /// How many servers there are and how many calls are left. The least that shows that the token reads.
    pub async fn allowance(&self) -> Result<Allowance, CloudError> {
        let request = Request::new("list_servers", Method::GET, [&"servers"], Priority::Normal);
        let answer = self.transport.send(request.query("per_page", 1)).await?;
        let number = |name| answer.header(name)?.trim().parse().ok();
        let (remaining, limit) = (number("ratelimit-remaining"), number("ratelimit-limit"));
        Ok(Allowance { servers: total(&answer.parse()?), remaining, limit })
    }

    /// How many primary IPs the project has, if Hetzner says so.
    pub async fn primary_ips(&self) -> Result<Option<u64>, CloudError> {
        let request =
            Request::new("list_primary_ips", Method::GET, [&"primary_ips"], Priority::Normal);
        Ok(total(&self.write(request.query("per_page", 1)).await?))
    }

    /// Every location.
    pub async fn locations(&self) -> Result<Vec<Location>, CloudError> {
        let request =
            || Request::new("list_locations", Method::GET, [&"locations"], Priority::Normal);
        self.list("locations", |location: &Location| location.name.clone(), request).await
    }

    /// The system images of a name, one for each architecture that has it.
    pub async fn system_images(&self, name: &str) -> Result<Vec<Image>, CloudError> {
        let request = || {
            Request::new("list_images", Method::GET, [&"images"], Priority::Normal)
                .query("type", "system")
                .query("name", name)
                .query("include_deprecated", true)
        };
        let key = |image: &Image| format!("{:?} {}", image.name, image.architecture.as_str());
        let mut images: Vec<Image> = self.list("images", key, request).await?;
        images.retain(|image| image.name.as_deref() == Some(name));
        images.sort_by_key(|image| image.architecture == Architecture::Arm);
        Ok(images)
    }
}

fn total(document: &Listing) -> Option<u64> {
    document.meta.pagination.as_ref()?.total_entries
}

/// A list of which only the number matters.
#[derive(serde::Deserialize)]
struct Listing {
    #[serde(default)]
    meta: Meta,
}
