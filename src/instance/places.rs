//! Where no server could be made: what the next tries are spared, and what is told in the end.

use super::wanted::Placement;
use crate::{
    api::{
        conditions::{ConditionType, Reason},
        instance::GivenUp,
    },
    cloud::{CloudError, ErrorKind},
    hetzner,
    problem::{Problem, Retry, STOCK_RETRY},
};

/// The order in which places are tried: where servers were given up before comes last, the latest of them
/// last of all.
pub fn in_order<'a>(
    places: impl Iterator<Item = &'a Placement>,
    given_up: &[GivenUp],
) -> Vec<&'a Placement> {
    let latest = |place: &&Placement| {
        given_up.iter().rposition(|before| {
            before.r#type == place.server_type && before.location == place.location
        })
    };
    let mut places: Vec<_> = places.collect();
    places.sort_by_key(latest);
    places
}

/// As many refused places are named in a message.
const NAMED: usize = 4;

/// The places that Hetzner refused, in the order of the tries.
#[derive(Debug, Default)]
pub struct RefusedPlaces(Vec<(Placement, CloudError)>);

impl RefusedPlaces {
    pub fn note(&mut self, place: &Placement, error: CloudError) {
        self.0.push((place.clone(), error));
    }

    /// Whether a place need not be tried: its server type was refused as such.
    pub fn is_hopeless(&self, place: &Placement) -> bool {
        self.0.iter().any(|(refused, error)| {
            refused.server_type == place.server_type && hetzner::blames_the_type(error)
        })
    }

    /// What an instance is told that no place is left for. Where something is merely out of stock, it is
    /// tried again by itself.
    pub fn problem(&self, pool: &str) -> Problem {
        let part = ConditionType::ServerReady;
        if self.0.is_empty() {
            let message = "There is no server type and location to choose from";
            return Problem::new(part, Reason::InvalidSpec, message);
        }
        let list = self.list();
        let sold_out = |(_, error): &(Placement, CloudError)| error.kind == ErrorKind::OutOfStock;
        if self.0.iter().any(sold_out) {
            let message = format!(
                "Hetzner refused create_server everywhere: {list}. It is tried again every 5 minutes; add server types or locations to HostingPool {pool} to have it sooner"
            );
            let retry = Retry::After(STOCK_RETRY);
            return Problem::new(part, Reason::OutOfStock, message).retrying(retry);
        }
        let message = format!(
            "Hetzner refused create_server everywhere: {list}. Correct serverTypes or locations of HostingPool {pool}, or what spec.server of the instance takes of them"
        );
        Problem::new(part, Reason::CloudRejected, message)
    }

    fn list(&self) -> String {
        let named = self.0.iter().take(NAMED).map(|(place, error)| {
            let Placement { server_type, location, .. } = place;
            // Other answers of the status that means it say more, such as that the location is closed.
            let sold_out = error.kind == ErrorKind::OutOfStock
                && (error.message().is_empty() || error.message().contains("resource_unavailable"));
            let why = if sold_out { "out of stock" } else { error.message() };
            format!("{server_type} in {location} ({why})")
        });
        let mut named: Vec<_> = named.collect();
        if self.0.len() > NAMED {
            named.push("…".to_owned());
        }
        named.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cloud::{Cloud, InvalidField},
        instance::wanted::Prospect,
    };

    fn place(server_type: &str, location: &str) -> Placement {
        let (server_type, location) = (server_type.to_owned(), location.to_owned());
        Placement { server_type, location, prospect: Prospect::Open }
    }

    fn not_offered(field: &str) -> CloudError {
        let fields = vec![InvalidField { name: field.to_owned(), messages: Vec::new() }];
        let kind = ErrorKind::InvalidInput { fields };
        CloudError::new(Cloud::Hetzner, "create_server", kind, "422 invalid_input: not offered")
    }

    fn sold_out() -> CloudError {
        CloudError::new(Cloud::Hetzner, "create_server", ErrorKind::OutOfStock, "")
    }

    #[test]
    fn a_type_that_is_refused_as_such_is_not_tried_elsewhere() {
        let mut refused = RefusedPlaces::default();
        refused.note(&place("cpx11", "fsn1"), not_offered("server_type"));
        refused.note(&place("cx33", "ash"), not_offered("location"));
        assert!(refused.is_hopeless(&place("cpx11", "nbg1")));
        assert!(!refused.is_hopeless(&place("cx33", "nbg1")));
    }

    #[test]
    fn a_place_where_no_server_came_up_is_tried_last() {
        let places = [place("cx33", "fsn1"), place("cx33", "nbg1"), place("cx43", "fsn1")];
        let given_up = [("cx33", "fsn1"), ("cx43", "fsn1")].map(|(kind, location)| GivenUp {
            r#type: kind.to_owned(),
            location: location.to_owned(),
        });
        let order = |given_up| {
            let order = in_order(places.iter(), given_up);
            order
                .iter()
                .map(|place| place.server_type.clone() + &place.location)
                .collect::<Vec<_>>()
        };
        assert_eq!(order(&[]), ["cx33fsn1", "cx33nbg1", "cx43fsn1"]);
        assert_eq!(order(&given_up), ["cx33nbg1", "cx33fsn1", "cx43fsn1"]);
    }

    #[test]
    fn a_closed_location_is_told_as_such() {
        let closed = "412 server_location_disabled: server location disabled";
        let mut refused = RefusedPlaces::default();
        let error = CloudError::new(Cloud::Hetzner, "create_server", ErrorKind::OutOfStock, closed);
        assert!(hetzner::blames_the_place(&error));
        refused.note(&place("cx33", "fsn1"), error);
        let problem = refused.problem("us-1");
        assert!(problem.message.contains("location disabled"), "{}", problem.message);
        assert_eq!(problem.retry, Retry::After(STOCK_RETRY));
    }

    #[test]
    fn what_is_offered_nowhere_is_named_and_waits_for_a_person() {
        let mut refused = RefusedPlaces::default();
        refused.note(&place("cx33", "ash"), not_offered("location"));
        let problem = refused.problem("us-1");
        assert_eq!((problem.reason, problem.retry), (Reason::CloudRejected, Retry::OnChange));
        for part in ["cx33 in ash", "us-1"] {
            assert!(problem.message.contains(part), "{}", problem.message);
        }
    }

    #[test]
    fn what_is_out_of_stock_in_one_place_is_tried_again() {
        let mut refused = RefusedPlaces::default();
        refused.note(&place("cx33", "fsn1"), sold_out());
        refused.note(&place("cx33", "ash"), not_offered("location"));
        let problem = refused.problem("us-1");
        assert_eq!(problem.reason, Reason::OutOfStock);
        assert_eq!(problem.retry, Retry::After(STOCK_RETRY));
    }
}
