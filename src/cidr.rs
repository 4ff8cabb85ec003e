//! Networks in CIDR notation, as the pool's `allowFrom` names them: one reading of them for the
//! cloud's firewall and for the server's own.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use thiserror::Error;

/// A network with the bits behind its prefix cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    address: IpAddr,
    length: u32,
}

/// Text that names no network.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no network in CIDR notation such as 203.0.113.7/32")]
pub struct NotANetwork(String);

impl Network {
    /// Whether it is one of IPv6.
    pub fn is_ipv6(self) -> bool {
        self.address.is_ipv6()
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        parse(text).ok_or_else(|| NotANetwork(text.to_owned()))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.length)
    }
}

fn parse(text: &str) -> Option<Network> {
    let (address, length) = text.split_once('/')?;
    if length.is_empty() || !length.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let length: u32 = length.parse().ok()?;
    let address = match address.parse().ok()? {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(Ipv4Addr::BITS.checked_sub(length)?).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(Ipv6Addr::BITS.checked_sub(length)?).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    };
    Some(Network { address, length })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("203.0.113.7/32", "203.0.113.7/32")]
    #[case("203.0.113.7/24", "203.0.113.0/24")]
    #[case("203.0.113.7/0", "0.0.0.0/0")]
    #[case("2001:DB8::1/64", "2001:db8::/64")]
    #[case("2001:db8::1/0", "::/0")]
    fn a_network_is_brought_to_its_canonical_form(#[case] text: &str, #[case] canonical: &str) {
        assert_eq!(text.parse::<Network>().unwrap().to_string(), canonical);
    }

    #[rstest]
    #[case("203.0.113.7")]
    #[case("203.0.113.7/33")]
    #[case("203.0.113.7/+8")]
    #[case("2001:db8::/129")]
    #[case("example.com/24")]
    #[case("fe80::1%eth0/64")]
    #[case("10.0.0.0/8 } ; chain input { policy accept; }")]
    #[case("10.0.0.0/8\n")]
    fn what_is_no_network_is_refused(#[case] text: &str) {
        assert!(text.parse::<Network>().is_err());
    }
}
