//! The catalogue: server types, locations and system images. It is a sample of the real one with
//! made-up prices; stock depends on the faults in force.

use axum::Json;
use serde::Serialize;

use super::body::PathId;
use super::labels::Labels;
use super::model::{
    Deprecation, Image, ImageProtection, Location, Money, Price, ServerType, ServerTypeLocation,
};
use super::page::{self, Key, Listed, Meta};
use super::{ApiError, Call};
use crate::query::QueryPairs;

/// A row of the catalogue.
pub(crate) struct TypeRow {
    pub(crate) id: u64,
    pub(crate) name: &'static str,
    pub(crate) cores: u32,
    pub(crate) memory: f64,
    pub(crate) disk: u32,
    pub(crate) dedicated: bool,
    pub(crate) architecture: &'static str,
    pub(crate) deprecation: Option<Deprecation>,
    locations: &'static [&'static str],
}

const EU: &[&str] = &["fsn1", "nbg1", "hel1"];
const EVERYWHERE: &[&str] = &["fsn1", "nbg1", "hel1", "ash", "hil", "sin"];
const OLD: Deprecation =
    Deprecation { announced: "2025-10-16T00:00:00Z", unavailable_after: "2025-12-31T00:00:00Z" };

const fn shared(
    id: u64,
    name: &'static str,
    (cores, memory, disk): (u32, f64, u32),
    architecture: &'static str,
    locations: &'static [&'static str],
) -> TypeRow {
    TypeRow {
        id,
        name,
        cores,
        memory,
        disk,
        dedicated: false,
        architecture,
        deprecation: None,
        locations,
    }
}

const TYPES: &[TypeRow] = &[
    TypeRow { deprecation: Some(OLD), ..shared(22, "cpx11", (2, 2.0, 40), "x86", EU) },
    shared(45, "cax11", (2, 4.0, 40), "arm", EU),
    shared(93, "cax21", (4, 8.0, 80), "arm", EU),
    shared(108, "cpx22", (2, 4.0, 80), "x86", EVERYWHERE),
    shared(109, "cpx32", (4, 8.0, 160), "x86", EVERYWHERE),
    shared(114, "cx23", (2, 4.0, 40), "x86", EU),
    shared(115, "cx33", (4, 8.0, 80), "x86", EU),
    shared(116, "cx43", (8, 16.0, 160), "x86", EU),
    shared(117, "cx53", (16, 32.0, 320), "x86", EU),
    TypeRow { dedicated: true, ..shared(96, "ccx13", (2, 8.0, 80), "x86", EVERYWHERE) },
];

const LOCATIONS: &[Location] = &[
    location(
        1,
        "fsn1",
        "Falkenstein DC Park 1",
        "DE",
        "Falkenstein",
        (50.476_12, 12.370_071),
        "eu-central",
    ),
    location(
        2,
        "nbg1",
        "Nuremberg DC Park 1",
        "DE",
        "Nuremberg",
        (49.452_102, 11.076_665),
        "eu-central",
    ),
    location(
        3,
        "hel1",
        "Helsinki DC Park 1",
        "FI",
        "Helsinki",
        (60.169_855, 24.938_379),
        "eu-central",
    ),
    location(4, "ash", "Ashburn, VA", "US", "Ashburn, VA", (39.045_821, -77.487_073), "us-east"),
    location(
        5,
        "hil",
        "Hillsboro, OR",
        "US",
        "Hillsboro, OR",
        (45.542_22, -122.951_924),
        "us-west",
    ),
    location(6, "sin", "Singapore", "SG", "Singapore", (1.283_333, 103.833_333), "ap-southeast"),
];

const fn location(
    id: u64,
    name: &'static str,
    description: &'static str,
    country: &'static str,
    city: &'static str,
    (latitude, longitude): (f64, f64),
    network_zone: &'static str,
) -> Location {
    Location { id, name, description, country, city, latitude, longitude, network_zone }
}

/// Name, flavour, version, and the ids for x86 and arm.
const IMAGES: &[(&str, &str, &str, u64, u64)] = &[
    ("debian-11", "debian", "11", 45_557_056, 103_907_373),
    ("ubuntu-24.04", "ubuntu", "24.04", 161_547_269, 161_547_270),
    ("debian-12", "debian", "12", 114_690_387, 114_690_389),
    ("debian-13", "debian", "13", 310_557_660, 310_557_661),
];

pub(crate) fn locations() -> &'static [Location] {
    LOCATIONS
}

/// The location of that name.
pub(crate) fn location_named(name: &str) -> Option<&'static Location> {
    LOCATIONS.iter().find(|location| location.name == name)
}

pub(crate) fn types() -> &'static [TypeRow] {
    TYPES
}

/// The server type of that name.
pub(crate) fn type_named(name: &str) -> Option<&'static TypeRow> {
    TYPES.iter().find(|row| row.name == name)
}

impl TypeRow {
    /// Whether this type is offered there at all.
    pub(crate) fn is_offered_in(&self, location: &str) -> bool {
        self.locations.contains(&location)
    }

    /// The type as the API shows it to that project.
    pub(crate) fn view(&self, call: &Call) -> ServerType {
        self.view_with(|location| {
            !call.world.faults.sold_out(&call.project_name, self.name, location)
        })
    }

    /// The type with a stock of the caller's choice.
    pub(crate) fn view_with(&self, in_stock: impl Fn(&str) -> bool) -> ServerType {
        let offered = || LOCATIONS.iter().filter(|location| self.is_offered_in(location.name));
        let hourly = f64::from(self.cores) * 0.0016 + self.memory * 0.0004;
        ServerType {
            id: self.id,
            name: self.name,
            description: self.name.to_uppercase(),
            category: if self.dedicated { "General Purpose" } else { "Cost-Optimized" },
            cores: self.cores,
            memory: self.memory,
            disk: self.disk,
            storage_type: "local",
            cpu_type: if self.dedicated { "dedicated" } else { "shared" },
            architecture: self.architecture,
            deprecated: self.deprecation.is_some(),
            deprecation: self.deprecation,
            prices: offered()
                .map(|location| Price {
                    location: location.name,
                    price_hourly: money(hourly),
                    price_monthly: money(hourly * 624.0),
                    included_traffic: 20 << 40,
                    price_per_tb_traffic: money(1.0),
                })
                .collect(),
            locations: offered()
                .map(|location| ServerTypeLocation {
                    id: location.id,
                    name: location.name,
                    deprecation: self.deprecation,
                    available: self.deprecation.is_none() && in_stock(location.name),
                    recommended: self.deprecation.is_none() && in_stock(location.name),
                })
                .collect(),
        }
    }
}

fn money(net: f64) -> Money {
    Money { net: format!("{net:.10}"), gross: format!("{:.16}", net * 1.19) }
}

pub(crate) fn system_images() -> Vec<Image> {
    let image = |(name, flavor, version, ..): &(&str, &'static str, &'static str, u64, u64),
                 id,
                 architecture| Image {
        id,
        kind: "system",
        status: "available",
        name: Some((*name).to_owned()),
        description: format!("{} {version}", capitalised(flavor)),
        image_size: None,
        disk_size: 5,
        created: "2025-08-12T10:00:00Z".parse().expect("a valid timestamp"),
        created_from: None,
        bound_to: None,
        os_flavor: flavor,
        os_version: Some(version),
        rapid_deploy: architecture == "x86",
        protection: ImageProtection::default(),
        deprecated: (*name == "debian-11")
            .then(|| "2026-08-31T00:00:00Z".parse().expect("a valid timestamp")),
        deleted: None,
        labels: Labels::new(),
        architecture,
    };
    IMAGES.iter().flat_map(|row| [image(row, row.3, "x86"), image(row, row.4, "arm")]).collect()
}

fn capitalised(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    first.to_uppercase() + rest
}

impl Listed for Location {
    fn key(&self) -> Key<'_> {
        Key { id: self.id, name: self.name, labels: None }
    }
}

impl Listed for ServerType {
    fn key(&self) -> Key<'_> {
        Key { id: self.id, name: self.name, labels: None }
    }
}

#[derive(Serialize)]
pub(crate) struct ServerTypeList {
    server_types: Vec<ServerType>,
    meta: Meta,
}

#[derive(Serialize)]
pub(crate) struct OneServerType {
    server_type: ServerType,
}

#[derive(Serialize)]
pub(crate) struct LocationList {
    locations: Vec<Location>,
    meta: Meta,
}

#[derive(Serialize)]
pub(crate) struct OneLocation {
    location: Location,
}

pub(crate) async fn list_server_types(
    call: Call,
    query: QueryPairs,
) -> Result<Json<ServerTypeList>, ApiError> {
    let all = TYPES.iter().map(|row| row.view(&call)).collect();
    let (server_types, meta) = page::cut(page::choose(all, &query)?, &query)?;
    Ok(Json(ServerTypeList { server_types, meta }))
}

pub(crate) async fn get_server_type(
    call: Call,
    PathId(id): PathId,
) -> Result<Json<OneServerType>, ApiError> {
    let row = TYPES
        .iter()
        .find(|row| row.id == id)
        .ok_or_else(|| ApiError::not_found("server type", id))?;
    Ok(Json(OneServerType { server_type: row.view(&call) }))
}

pub(crate) async fn list_locations(query: QueryPairs) -> Result<Json<LocationList>, ApiError> {
    let (locations, meta) = page::cut(page::choose(LOCATIONS.to_vec(), &query)?, &query)?;
    Ok(Json(LocationList { locations, meta }))
}

pub(crate) async fn get_location(PathId(id): PathId) -> Result<Json<OneLocation>, ApiError> {
    let location = LOCATIONS.iter().find(|location| location.id == id);
    let location = location.cloned().ok_or_else(|| ApiError::not_found("location", id))?;
    Ok(Json(OneLocation { location }))
}

pub(crate) async fn datacenters_are_gone() -> ApiError {
    ApiError::gone("the datacenters endpoints are gone, use locations instead")
}
