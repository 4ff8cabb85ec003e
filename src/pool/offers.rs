//! What Hetzner's catalogue says of the server types and locations that a pool names. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{
    api::pool::HetznerSpec,
    hetzner::{Architecture, Deprecation, ServerType},
};

/// The part of the catalogue that concerns one pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offers {
    architectures: BTreeMap<String, Architecture>,
    unknown_types: Vec<String>,
    unknown_locations: Vec<String>,
    /// What is known of each type that the spec names in each of its locations.
    pairs: BTreeMap<(String, String), Offer>,
    /// Types that Hetzner has, and offers in none of the locations.
    offered_nowhere: Vec<String>,
    none_left: bool,
}

/// How a server type is offered in a location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Nothing is known against it.
    Open,
    /// Out of stock when the catalogue was read.
    SoldOut,
    /// Never sold there, or not any more.
    NotOffered,
}

impl Offers {
    /// Looks up what the spec names.
    pub fn of(spec: &HetznerSpec, catalogue: &[ServerType], now: Timestamp) -> Self {
        let find = |name: &str| catalogue.iter().find(|kind| kind.name == name);
        let known = spec.server_types.iter().filter_map(|name| find(name));
        let has_type = |name: &str| find(name).is_some();
        let has_location = |name: &str| {
            catalogue.iter().flat_map(|kind| &kind.locations).any(|place| place.name == name)
        };
        let unknown_types = without(&spec.server_types, has_type);
        let unknown_locations = without(&spec.locations, has_location);
        let known_pairs = spec.server_types.iter().filter_map(|name| find(name)).flat_map(|kind| {
            spec.locations.iter().map(move |place| {
                let pair = (kind.name.clone(), place.to_string());
                (pair, offer(kind, place, now))
            })
        });
        let pairs: BTreeMap<_, _> = known_pairs.collect();
        let is_offered = |name: &str| {
            pairs.iter().any(|((kind, _), offer)| kind == name && *offer != Offer::NotOffered)
        };
        let offered_nowhere =
            without(&spec.server_types, |name| !has_type(name) || is_offered(name));
        let none_offered = offered_nowhere.len() + unknown_types.len() == spec.server_types.len();
        Self {
            architectures: known
                .map(|kind| (kind.name.clone(), kind.architecture.clone()))
                .collect(),
            none_left: none_offered || unknown_locations.len() == spec.locations.len(),
            // An unknown location says it all.
            offered_nowhere: if unknown_locations.is_empty() {
                offered_nowhere
            } else {
                Vec::new()
            },
            pairs,
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

    /// How a server type is offered in a location, as far as is known.
    pub fn offer(&self, server_type: &str, location: &str) -> Offer {
        if self.lacks(server_type) {
            return Offer::NotOffered;
        }
        let pair = (server_type.to_owned(), location.to_owned());
        self.pairs.get(&pair).copied().unwrap_or(Offer::Open)
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
        let unknown = (!lists.is_empty())
            .then(|| format!("Hetzner does not have {}; correct it", lists.join("; ")));
        let nowhere = (!self.offered_nowhere.is_empty()).then(|| {
            let types = self.offered_nowhere.join(", ");
            format!("Hetzner does not offer {types} in any of spec.hetzner.locations; correct them")
        });
        let both: Vec<_> = [unknown, nowhere].into_iter().flatten().collect();
        (!both.is_empty()).then(|| both.join(", and "))
    }
}

/// What the catalogue says of a type in a location. One that lists no locations says nothing.
fn offer(kind: &ServerType, location: &str, now: Timestamp) -> Offer {
    let is_over = |deprecation: &Option<Deprecation>| {
        deprecation.as_ref().is_some_and(|known| known.unavailable_after <= now)
    };
    if is_over(&kind.deprecation) {
        return Offer::NotOffered;
    }
    let there = kind.locations.iter().find(|place| place.name == location);
    match there {
        None if kind.locations.is_empty() => Offer::Open,
        None => Offer::NotOffered,
        Some(place) if is_over(&place.deprecation) => Offer::NotOffered,
        Some(place) if place.available == Some(false) => Offer::SoldOut,
        Some(_) => Offer::Open,
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
            {"name": "cpx11", "architecture": "x86", "locations": in_fsn1, "deprecation": {
                "announced": "2025-10-16T00:00:00Z", "unavailable_after": "2025-12-31T00:00:00Z",
            }},
            {"name": "cx43", "architecture": "x86", "locations": [
                {"name": "fsn1", "available": false},
                {"name": "nbg1", "available": true, "deprecation": {
                    "announced": "2026-10-16T00:00:00Z", "unavailable_after": "2027-12-31T00:00:00Z",
                }},
                {"name": "hel1", "deprecation": {
                    "announced": "2025-10-16T00:00:00Z", "unavailable_after": "2025-12-31T00:00:00Z",
                }},
            ]},
        ]));
        let now = "2026-11-30T00:00:00Z".parse().unwrap();
        Offers::of(&spec.unwrap(), &catalogue.unwrap(), now)
    }

    #[rstest]
    #[case::open("cx33", "fsn1", Offer::Open)]
    #[case::never_sold_there("cx33", "nbg1", Offer::NotOffered)]
    #[case::sold_no_more("cpx11", "fsn1", Offer::NotOffered)]
    #[case::out_of_stock("cx43", "fsn1", Offer::SoldOut)]
    #[case::sold_a_while_longer("cx43", "nbg1", Offer::Open)]
    #[case::sold_no_more_there("cx43", "hel1", Offer::NotOffered)]
    #[case::no_such_type("cx34", "fsn1", Offer::NotOffered)]
    fn a_type_is_offered_in_some_locations(
        #[case] kind: &str,
        #[case] location: &str,
        #[case] offer: Offer,
    ) {
        let offers = offers(&["cx33", "cpx11", "cx43", "cx34"], &["fsn1", "nbg1", "hel1"]);
        assert_eq!(offers.offer(kind, location), offer);
    }

    #[rstest]
    #[case::all(&["cx33", "cax21"], &["fsn1"], None, false)]
    #[case::a_type(&["cx33", "cx34"], &["fsn1"], Some("Hetzner does not have spec.hetzner.serverTypes: cx34; correct it"), false)]
    #[case::a_location(&["cx33"], &["fsn1", "fsn2"], Some("Hetzner does not have spec.hetzner.locations: fsn2; correct it"), false)]
    #[case::no_type(&["cx34"], &["fsn1"], Some("Hetzner does not have spec.hetzner.serverTypes: cx34; correct it"), true)]
    #[case::sold_no_more(&["cx33", "cpx11"], &["fsn1"], Some("Hetzner does not offer cpx11 in any of spec.hetzner.locations; correct them"), false)]
    #[case::nothing_there(&["cx33"], &["hel1"], Some("Hetzner does not offer cx33 in any of spec.hetzner.locations; correct them"), true)]
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
