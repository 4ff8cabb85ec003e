//! What a server consists of: a container on this machine's kernel, or a machine with a kernel of its
//! own. A person (or a test) says so by the server's name before the cloud creates it.

use std::collections::HashMap;

use jiff::civil::DateTime;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::disk::Extent;

/// What a server consists of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum Hardware {
    /// A container of systemd-nspawn.
    #[default]
    Container,
    /// A virtual machine of QEMU.
    #[serde(rename_all = "camelCase")]
    VirtualMachine {
        /// What its clock shows whenever the power comes, UTC: a clock without a battery. As this
        /// machine's when left out.
        clock: Option<DateTime>,
    },
}

impl Hardware {
    /// What has to be on its disk.
    pub(super) fn extent(self) -> Extent {
        match self {
            Self::Container => Extent::Difference,
            Self::VirtualMachine { .. } => Extent::Whole,
        }
    }
}

/// How QEMU runs a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Acceleration {
    /// By the real one.
    Kvm,
    /// By translation, about ten times slower.
    Tcg,
}

/// What was said about servers that do not exist yet.
#[derive(Debug, Default)]
pub(super) struct Catalogue(Mutex<HashMap<String, Hardware>>);

impl Catalogue {
    /// Servers whose names begin with this and a hyphen, or are this, will be such machines.
    pub(super) fn set(&self, prefix: String, hardware: Hardware) {
        self.0.lock().insert(prefix, hardware);
    }

    /// What a server of this name will be; the longest prefix says.
    pub(super) fn of(&self, name: &str) -> Hardware {
        let said = self.0.lock();
        let fits = |prefix: &str| {
            name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        let found = said.iter().filter(|(prefix, _)| fits(prefix));
        found.max_by_key(|(prefix, _)| prefix.len()).map(|(_, it)| *it).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_that_fits_decides() {
        let catalogue = Catalogue::default();
        let machine = |clock| Hardware::VirtualMachine { clock };
        catalogue.set("ada".to_owned(), machine(None));
        let epoch = "1970-01-01T00:00:00".parse().ok();
        catalogue.set("ada-2".to_owned(), machine(epoch));
        assert_eq!(catalogue.of("ada-0123"), machine(None));
        assert_eq!(catalogue.of("ada-2-0123"), machine(epoch));
        assert_eq!(catalogue.of("adam-0123"), Hardware::Container);
    }

    #[test]
    fn hardware_is_read_from_the_admin_api() {
        let read = |text: &str| serde_json::from_str::<Hardware>(text).unwrap();
        assert_eq!(read(r#"{"kind": "container"}"#), Hardware::Container);
        let clock = "1970-01-01T00:00:00".parse().ok();
        let text = r#"{"kind": "virtualMachine", "clock": "1970-01-01T00:00:00"}"#;
        assert_eq!(read(text), Hardware::VirtualMachine { clock });
    }
}
