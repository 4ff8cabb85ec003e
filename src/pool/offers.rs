//! What Hetzner's catalogue says of the server types and locations that a pool names. Pure.

use std::collections::BTreeMap;

use crate::{
    api::pool::HetznerSpec,
    hetzner::{Architecture, ServerType},
};

/// The part of the catalogue that concerns one pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offers {
    architectures: BTreeMap<String, Architecture>,
    unknown_types: Vec<String>,
    unknown_locations: Vec<String>,
    none_left: bool,
}

impl Offers {
    /// Looks up what the spec names.
    pub fn of(spec: &HetznerSpec, catalogue: &[ServerType]) -> Self {
        let find = |name: &str| catalogue.iter().find(|kind| kind.name == name);
        let known = spec.server_types.iter().filter_map(|name| find(name));
        let has_type = |name: &str| find(name).is_some();
        let has_location = |name: &str| {
            catalogue.iter().flat_map(|kind| &kind.locations).any(|place| place.name == name)
        };
        let unknown_types = without(&spec.server_types, has_type);
        let unknown_locations = without(&spec.locations, has_location);
        Self {
            architectures: known
                .map(|kind| (kind.name.clone(), kind.architecture.clone()))
                .collect(),
            none_left: unknown_types.len() == spec.server_types.len()
                || unknown_locations.len() == spec.locations.len(),
            unknown_types,
            unknown_locations,
        }
    }

    /// The architecture of a server type; `None` if it is not known.
    pub fn architecture(&self, server_type: &str) -> Option<&Architecture> {
        self.architectures.get(server_type)
    }

    /// Whether Hetzner is known not to have a server type.
    pub fn lacks(&self, server_type: &str) -> bool {
        self.unknown_types.iter().any(|unknown| unknown == server_type)
    }

    /// Whether no server can be made of what the spec names.
    pub fn none_left(&self) -> bool {
        self.none_left
    }

    /// What the spec names and Hetzner does not have, in words; `None` if there is nothing.
    pub fn unknown(&self) -> Option<String> {
        let list = |field: &str, names: &[String]| {
            (!names.is_empty()).then(|| format!("spec.hetzner.{field}: {}", names.join(", ")))
        };
        let lists =
            [list("serverTypes", &self.unknown_types), list("locations", &self.unknown_locations)];
        let lists: Vec<_> = lists.into_iter().flatten().collect();
        (!lists.is_empty())
            .then(|| format!("Hetzner does not have {}; correct it", lists.join("; ")))
    }
}

fn without(names: &[impl AsRef<str>], known: impl Fn(&str) -> bool) -> Vec<String> {
    let names = names.iter().map(AsRef::as_ref);
    names.filter(|name| !known(name)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn offers(types: &[&str], locations: &[&str]) -> Offers {
        let spec = serde_json::from_value(json!({
            "tokenSecretRef": {"name": "hetzner"}, "serverTypes": types, "locations": locations,
        }));
        let in_fsn1 = json!([{"name": "fsn1"}]);
        let catalogue = serde_json::from_value::<Vec<_>>(json!([
            {"name": "cx33", "architecture": "x86", "locations": in_fsn1},
            {"name": "cax21", "architecture": "arm", "locations": in_fsn1},
        ]));
        Offers::of(&spec.unwrap(), &catalogue.unwrap())
    }

    #[rstest]
    #[case::all(&["cx33", "cax21"], &["fsn1"], None, false)]
    #[case::a_type(&["cx33", "cx34"], &["fsn1"], Some("Hetzner does not have spec.hetzner.serverTypes: cx34; correct it"), false)]
    #[case::a_location(&["cx33"], &["fsn1", "fsn2"], Some("Hetzner does not have spec.hetzner.locations: fsn2; correct it"), false)]
    #[case::no_type(&["cx34"], &["fsn1"], Some("Hetzner does not have spec.hetzner.serverTypes: cx34; correct it"), true)]
    #[case::neither(&["cx34"], &["fsn2"], Some("Hetzner does not have spec.hetzner.serverTypes: cx34; spec.hetzner.locations: fsn2; correct it"), true)]
    fn what_hetzner_does_not_have_is_named(
        #[case] types: &[&str],
        #[case] locations: &[&str],
        #[case] unknown: Option<&str>,
        #[case] none_left: bool,
    ) {
        let offers = offers(types, locations);
        assert_eq!(offers.unknown().as_deref(), unknown);
        assert_eq!(offers.none_left(), none_left);
    }

    #[test]
    fn the_architecture_of_a_type_is_hetzners() {
        let offers = offers(&["cx33", "cax21", "cx34"], &["fsn1"]);
        assert_eq!(offers.architecture("cax21"), Some(&Architecture::Arm));
        assert_eq!(offers.architecture("cx33"), Some(&Architecture::X86));
        assert_eq!(offers.architecture("cx34"), None);
        assert!(offers.lacks("cx34") && !offers.lacks("cx33"));
    }
}
