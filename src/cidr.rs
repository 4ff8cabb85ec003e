//! Networks in CIDR notation, as the pool's `allowFrom` names them: one reading of them for the
//! cloud's firewall and for the server's own.

use std::{fmt, str::FromStr};

use ipnet::IpNet;
use thiserror::Error;

/// A network with the bits behind its prefix cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network(IpNet);

/// Text that names no network.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no network in CIDR notation such as 203.0.113.7/32")]
pub struct NotANetwork(String);

impl Network {
    /// Whether it is one of IPv6.
    pub fn is_ipv6(self) -> bool {
        matches!(self.0, IpNet::V6(_))
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let network: IpNet = text.parse().map_err(|_| NotANetwork(text.to_owned()))?;
        Ok(Self(network.trunc()))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
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
