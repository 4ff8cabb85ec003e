//! A Hetzner project: the token, what it offers where, images, and how much room there is.

use jiff::Timestamp;

use super::finding::{Check, Finding, Scope};
use crate::{
    api::conditions::Reason,
    cloud::CloudError,
    hetzner::{Allowance, Architecture, Deprecation, Image, Location, ServerType},
};

pub const TOKEN: Check = Check { id: "hetzner.token", title: "Hetzner's token" };
pub const RATE_LIMIT: Check = Check { id: "hetzner.rate-limit", title: "Hetzner's rate limit" };
/// A wanted server type.
pub const OFFER: Check = Check { id: "hetzner.offer", title: "Server type" };
/// A wanted location.
pub const LOCATION: Check = Check { id: "hetzner.location", title: "Location" };
/// Whether a server can be ordered at all.
pub const OFFERS: Check = Check { id: "hetzner.offers", title: "Servers to order" };
pub const IMAGE: Check = Check { id: "hetzner.image", title: "Image" };
/// What the project has.
pub const ROOM: Check = Check { id: "hetzner.room", title: "Room in the project" };
/// Whether Hetzner makes a password.
pub const SSH_KEYS: Check = Check { id: "hetzner.ssh-keys", title: "SSH keys" };

/// A token has all of its project.
pub const SCOPE: Scope =
    Scope::Required("\"Read & Write\" (Hetzner's console, Security, API tokens)");

/// What is wanted of Hetzner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// In order of preference.
    pub server_types: Vec<String>,
    /// In order of preference.
    pub locations: Vec<String>,
    /// What servers boot.
    pub image: String,
    /// How many keys the pool gives its servers; `None` without a pool.
    pub ssh_keys: Option<usize>,
}

/// What was seen of a project.
pub struct Seen {
    /// The first call.
    pub allowance: Result<Allowance, CloudError>,
    /// The rest, if the first call succeeded.
    pub rest: Option<Rest>,
    /// When.
    pub now: Timestamp,
}

/// What is seen with a token that is accepted.
pub struct Rest {
    /// The catalogue.
    pub types: Result<Vec<ServerType>, CloudError>,
    /// All locations.
    pub locations: Result<Vec<Location>, CloudError>,
    /// Images of the wanted name.
    pub images: Result<Vec<Image>, CloudError>,
    /// How many primary IPs there are.
    pub primary_ips: Result<Option<u64>, CloudError>,
    /// How many SSH keys the project has.
    pub ssh_keys: Result<usize, CloudError>,
}

/// All checks of this cloud.
pub fn judge(wanted: &Wanted, seen: &Seen) -> Vec<Finding> {
    let token = token(seen.allowance.as_ref());
    let Some((rest, allowance)) = seen.rest.as_ref().zip(seen.allowance.as_ref().ok()) else {
        let others = [&RATE_LIMIT, &OFFERS, &IMAGE, &ROOM, &SSH_KEYS];
        return [token].into_iter().chain(others.map(|check| check.blocked_by(&TOKEN))).collect();
    };
    let mut findings = vec![token, rate_limit(allowance)];
    match (&rest.types, &rest.locations) {
        (Ok(types), Ok(locations)) => {
            findings.extend(offers(wanted, types, locations, seen.now));
            findings.extend(images(wanted, types, rest.images.as_deref(), seen.now));
        }
        (Err(error), _) | (_, Err(error)) => findings.push(OFFERS.refused(error, SCOPE)),
    }
    findings.push(room(allowance, &rest.primary_ips));
    findings.push(ssh_keys(wanted.ssh_keys, rest.ssh_keys.as_ref()));
    findings
}

/// The architectures of the wanted server types, as far as they are known.
pub fn architectures(wanted: &Wanted, seen: &Seen) -> Vec<String> {
    let types = seen.rest.as_ref().and_then(|rest| rest.types.as_deref().ok());
    let all = architectures_of(wanted, types.unwrap_or_default());
    all.into_iter().map(|one| one.as_str().to_owned()).collect()
}

fn architectures_of<'a>(wanted: &Wanted, types: &'a [ServerType]) -> Vec<&'a Architecture> {
    let mut all = Vec::new();
    for kind in types.iter().filter(|kind| wanted.server_types.contains(&kind.name)) {
        if !all.contains(&&kind.architecture) {
            all.push(&kind.architecture);
        }
    }
    all
}

fn token(seen: Result<&Allowance, &CloudError>) -> Finding {
    match seen {
        Ok(_) => TOKEN.pass("Hetzner accepts it. Whether it may write is seen with --write"),
        Err(error) => TOKEN.refused(error, SCOPE),
    }
}

fn rate_limit(seen: &Allowance) -> Finding {
    let (Some(remaining), Some(limit)) = (seen.remaining, seen.limit) else {
        return RATE_LIMIT.unknown("The answer does not say how much is left");
    };
    let detail = format!("{remaining} of {limit} calls are left");
    if remaining * 5 < limit {
        let remedy =
            "Look for other programs that use this project; each second brings one call back";
        return RATE_LIMIT.warn(detail, remedy);
    }
    RATE_LIMIT.pass(detail)
}

/// Whether a server of a type can be ordered in a location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Now.
    Available,
    /// Not at the moment.
    SoldOut,
    /// Until a day that was announced.
    Ending,
    /// Never.
    NotOffered,
}

/// Whether a type can be ordered in a location. The catalogue of a type lists its own locations.
pub fn place(kind: &ServerType, location: &str, now: Timestamp) -> Place {
    let Some(there) = kind.locations.iter().find(|place| place.name == location) else {
        return Place::NotOffered;
    };
    let ended = |announced: &&Deprecation| announced.unavailable_after <= now;
    let announced = [kind.deprecation.as_ref(), there.deprecation.as_ref()];
    let announced: Vec<_> = announced.into_iter().flatten().collect();
    if announced.iter().any(ended) {
        Place::NotOffered
    } else if there.available == Some(false) {
        Place::SoldOut
    } else if announced.is_empty() {
        Place::Available
    } else {
        Place::Ending
    }
}

fn offers(
    wanted: &Wanted,
    types: &[ServerType],
    locations: &[Location],
    now: Timestamp,
) -> Vec<Finding> {
    let is_known = |name: &&String| !locations.iter().any(|location| location.name == **name);
    let mut findings: Vec<_> =
        wanted.locations.iter().filter(is_known).map(unknown_location).collect();
    let mut first = None;
    for name in &wanted.server_types {
        let Some(kind) = types.iter().find(|kind| kind.name == *name) else {
            let remedy = "Correct the name, or take it out of the pool";
            findings.push(OFFER.fail("Hetzner has no such server type", remedy).of(name));
            continue;
        };
        let places: Vec<_> = wanted
            .locations
            .iter()
            .map(|location| (location.as_str(), place(kind, location, now)))
            .collect();
        let usable =
            |(_, place): &&(&str, Place)| matches!(place, Place::Available | Place::Ending);
        if let (None, Some((location, _))) = (&first, places.iter().find(usable)) {
            first = Some(format!("{name} in {location}"));
        }
        findings.push(offer(kind, &places));
    }
    findings.push(match first {
        Some(first) => OFFERS.pass(format!("The next server would be {first}")),
        None => OFFERS.fail(
            "No wanted server type can be ordered in any wanted location",
            Reason::OutOfStock.remedy(),
        ),
    });
    findings
}

fn unknown_location(name: &String) -> Finding {
    let remedy = "Correct the name, or take it out of the pool";
    LOCATION.fail("Hetzner has no such location", remedy).of(name)
}

fn offer(kind: &ServerType, places: &[(&str, Place)]) -> Finding {
    let among = |wanted: Place| {
        let names = places.iter().filter(|(_, place)| *place == wanted).map(|(name, _)| *name);
        names.collect::<Vec<_>>().join(", ")
    };
    let parts = [
        ("available in", Place::Available),
        ("available for a limited time in", Place::Ending),
        ("sold out in", Place::SoldOut),
        ("not offered in", Place::NotOffered),
    ];
    let parts = parts.map(|(words, place)| (words, among(place)));
    let parts: Vec<_> = parts
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(words, names)| format!("{words} {names}"))
        .collect();
    let detail = format!("{}: {}", kind.architecture, parts.join("; "));
    let has = |wanted: Place| places.iter().any(|(_, place)| *place == wanted);
    let finding = if has(Place::NotOffered) {
        let remedy = "Take the locations in which it is not offered out of the pool, or add another server type for them";
        OFFER.warn(detail, remedy)
    } else if has(Place::Ending) {
        OFFER.warn(detail, "Add a server type that stays")
    } else if has(Place::SoldOut) {
        OFFER.warn(detail, Reason::OutOfStock.remedy())
    } else {
        OFFER.pass(detail)
    };
    finding.of(&kind.name)
}

fn images(
    wanted: &Wanted,
    types: &[ServerType],
    seen: Result<&[Image], &CloudError>,
    now: Timestamp,
) -> Vec<Finding> {
    let images = match seen {
        Ok(images) => images,
        Err(error) => return vec![IMAGE.refused(error, SCOPE)],
    };
    let architectures = architectures_of(wanted, types);
    architectures.into_iter().map(|wants| image(&wanted.image, wants, images, now)).collect()
}

fn image(name: &str, wants: &Architecture, images: &[Image], now: Timestamp) -> Finding {
    let finding = match images.iter().find(|image| image.architecture == *wants) {
        None => IMAGE.fail(
            format!("Hetzner has no image {name} for {wants}"),
            "Correct spec.hetzner.image of the pool; Moorage is tested with debian-13",
        ),
        Some(image) if image.status.as_deref().is_some_and(|status| status != "available") => {
            IMAGE.fail(format!("{name} for {wants} is not available"), "Name another image")
        }
        Some(image) if image.deprecated.is_some_and(|since| since <= now) => {
            IMAGE.warn(format!("{name} for {wants} is going away"), "Name a newer image")
        }
        Some(_) => IMAGE.pass(format!("{name} for {wants}")),
    };
    finding.of(wants.as_str())
}

fn room(seen: &Allowance, primary_ips: &Result<Option<u64>, CloudError>) -> Finding {
    let number = |number: Option<u64>| {
        number.map_or("an unknown number of".to_owned(), |number| number.to_string())
    };
    match primary_ips {
        Err(error) => ROOM.refused(error, SCOPE),
        Ok(ips) => ROOM.pass(format!(
            "{} servers and {} primary IPs; the limits (Hetzner's console, Limits) have no API, and a new account may have 5 servers",
            number(seen.servers),
            number(*ips)
        )),
    }
}

/// Keys of the project count for nothing: only those that a request names are given to a server.
fn ssh_keys(of_pool: Option<usize>, in_project: Result<&usize, &CloudError>) -> Finding {
    let in_project = match in_project {
        Ok(count) => count,
        Err(error) => return SSH_KEYS.refused(error, SCOPE),
    };
    let of_servers = match of_pool {
        None => "servers get those of their pool, or one that nobody has".to_owned(),
        Some(0) => "the pool has none, so servers get one that nobody has".to_owned(),
        Some(count) => format!("servers get {count} of the pool"),
    };
    SSH_KEYS.pass(format!(
        "{in_project} in the project; {of_servers}, and Hetzner makes no root password"
    ))
}

#[cfg(test)]
mod tests;
