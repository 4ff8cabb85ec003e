//! The rules of a firewall: what Hetzner refuses.

use super::ApiError;
use super::model::{Direction, Protocol, Rule};

const MAX_RULES: usize = 50;

/// Refuses rules that Hetzner refuses.
pub(crate) fn check_rules(rules: &[Rule]) -> Result<(), ApiError> {
    if rules.len() > MAX_RULES {
        return Err(ApiError::invalid("rules", format!("at most {MAX_RULES} rules are allowed")));
    }
    for rule in rules {
        let has_ports = matches!(rule.protocol, Protocol::Tcp | Protocol::Udp);
        if has_ports != rule.port.is_some() {
            return Err(ApiError::invalid(
                "rules",
                "'port' belongs to tcp and udp rules, and only to them",
            ));
        }
        if rule.port.as_deref().is_some_and(|port| !is_port(port)) {
            return Err(ApiError::invalid(
                "rules",
                "'port' must be a port, a range of ports or 'any'",
            ));
        }
        let addresses = match rule.direction {
            Direction::In => &rule.source_ips,
            Direction::Out => &rule.destination_ips,
        };
        if addresses.is_empty()
            || addresses.len() > 100
            || !addresses.iter().all(|text| is_network(text))
        {
            return Err(ApiError::invalid(
                "rules",
                "a rule needs 1 to 100 addresses in CIDR notation",
            ));
        }
        if rule.description.as_ref().is_some_and(|text| text.len() > 255) {
            return Err(ApiError::invalid("rules", "'description' has at most 255 characters"));
        }
    }
    Ok(())
}

fn is_port(text: &str) -> bool {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match text.split_once('-') {
        Some((from, to)) => port(from).zip(port(to)).is_some_and(|(from, to)| from <= to),
        None => text == "any" || port(text).is_some(),
    }
}

fn is_network(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    let most = match address.parse() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}
