//! By what a pool's objects in the clouds are known.

use moorage_wire::InstallationId;

use crate::{
    api::label,
    hetzner::{LabelSelector, Labels},
};

/// By what a pool's cloud objects are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolIdentity {
    pub pool: String,
    /// The installation id, as text.
    pub installation: String,
}

impl PoolIdentity {
    /// The identity of this installation's pool.
    pub fn new(pool: &str, installation: InstallationId) -> Self {
        Self { pool: pool.to_owned(), installation: installation.to_string() }
    }

    /// The name of the pool's firewall and Access objects, and the beginning of its SSH keys' names.
    pub fn object_name(&self) -> String {
        format!("moorage-{}-{}", self.pool, self.installation)
    }

    /// The labels of the pool's objects.
    pub fn labels(&self) -> Labels {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        [pair(label::INSTALLATION, &self.installation), pair(label::POOL, &self.pool)].into()
    }

    /// Selects the pool's objects, servers included.
    pub fn selector(&self) -> LabelSelector {
        LabelSelector::all_of([
            (label::INSTALLATION, self.installation.as_str()),
            (label::POOL, self.pool.as_str()),
        ])
    }

    /// Whether an object carries all of the pool's labels.
    pub fn owns(&self, labels: &Labels) -> bool {
        self.labels().iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}
