//! What is asked of a cloud and what it answers, apart from how they travel.

use std::fmt;

use http::{HeaderMap, Method};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::cloud::Cloud;
use crate::cloud::budget::Priority;
use crate::cloud::error::{CloudError, ErrorKind};

/// A request, apart from where it goes and who sends it.
pub(crate) struct Request {
    pub(super) operation: &'static str,
    pub(super) method: Method,
    pub(super) path: Vec<String>,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<Zeroizing<Vec<u8>>>,
    pub(super) priority: Priority,
}

impl Request {
    /// `path` holds segments, which are percent-encoded on their own.
    pub(crate) fn new<const N: usize>(
        operation: &'static str,
        method: Method,
        path: [&dyn fmt::Display; N],
        priority: Priority,
    ) -> Self {
        let path = path.iter().map(ToString::to_string).collect();
        Self { operation, method, path, query: Vec::new(), body: None, priority }
    }

    /// The same request with more segments.
    pub(crate) fn below<const N: usize>(mut self, path: [&dyn fmt::Display; N]) -> Self {
        self.path.extend(path.iter().map(ToString::to_string));
        self
    }

    pub(crate) fn query(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    pub(crate) fn json(mut self, body: &impl Serialize) -> Self {
        let bytes = serde_json::to_vec(body)
            .expect("request bodies have string keys and no failing serializer");
        self.body = Some(Zeroizing::new(bytes));
        self
    }

    pub(crate) fn operation(&self) -> &'static str {
        self.operation
    }

    pub(super) fn is_read(&self) -> bool {
        self.method == Method::GET
    }
}

/// An answer with a status of 200 to 299.
pub(crate) struct Answer {
    pub(super) cloud: Cloud,
    pub(super) operation: &'static str,
    pub(super) write: bool,
    pub(super) headers: HeaderMap,
    /// May hold a secret that is shown once.
    pub(super) body: Zeroizing<Vec<u8>>,
}

impl Answer {
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, CloudError> {
        serde_json::from_slice(&self.body).map_err(|error| self.malformed(&describe(&error)))
    }

    /// A header that is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn malformed(&self, message: &str) -> CloudError {
        let kind = ErrorKind::Malformed { maybe_applied: self.write };
        CloudError::new(self.cloud, self.operation, kind, message)
    }
}

/// Where the answer is wrong, without quoting it: serde names unexpected values in full.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if text.starts_with("missing field") {
        return text;
    }
    format!("unexpected JSON at line {}, column {}", error.line(), error.column())
}
