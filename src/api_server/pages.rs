//! Lists by pages, since a page is in memory as a whole.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::api::ListParams;

/// Objects per list. Objects can have 1.5 MiB, and a page is in memory as a whole, with two lists at a time
/// and what is parsed from them: 20 leave most of the 256 MiB that the chart allows.
pub const PAGE_SIZE: u32 = 20;

/// How far the reading of a list is.
pub struct Pages(Option<ListParams>);

impl Pages {
    /// From the first page of what these parameters ask for.
    pub fn of(parameters: ListParams) -> Self {
        Self(Some(parameters.limit(PAGE_SIZE)))
    }

    /// What asks for the page that comes next; `None` after the last.
    pub fn request(&self) -> Option<&ListParams> {
        self.0.as_ref()
    }

    /// Goes on after a page with this metadata.
    pub fn turn(&mut self, read: &ListMeta) {
        let next = read.continue_.as_ref().filter(|token| !token.is_empty());
        self.0 =
            self.0.take().zip(next).map(|(parameters, token)| parameters.continue_token(token));
    }
}
