//! The server's own packet filter. The cloud's firewall stands before it with the same rules; this one
//! also holds inside, and keeps the metadata service from all users but root.

use super::bundle::Bundle;
use crate::cidr::Network;

/// Where the rules are; nftables.service loads them before the network is up.
pub(super) const RULES_PATH: &str = "/etc/moorage/firewall.nft";
const RULES: &str = include_str!("files/firewall.nft");

/// The rules, with `allow_from` let in to port 22.
pub(super) fn rules(allow_from: &[Network]) -> String {
    let (v6, v4): (Vec<Network>, Vec<Network>) =
        allow_from.iter().partition(|network| network.is_ipv6());
    let elements = [("ssh_from_4", v4), ("ssh_from_6", v6)].into_iter().map(|(set, networks)| {
        let networks: Vec<String> = networks.iter().map(Network::to_string).collect();
        if networks.is_empty() {
            return String::new();
        }
        format!("add element inet moorage {set} {{ {} }}\n", networks.join(", "))
    });
    std::iter::once(RULES.to_owned()).chain(elements).collect()
}

/// Has nftables.service load these rules.
pub(super) fn constants(bundle: &mut Bundle) {
    let drop_in = "/etc/systemd/system/nftables.service.d/moorage.conf";
    bundle.add(drop_in, include_str!("files/nftables-service.conf"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_networks_of_the_pool_reach_port_22() {
        let networks = ["203.0.113.0/24", "2001:db8::/64", "198.51.100.7/32"];
        let networks = networks.map(|text| text.parse().unwrap());
        let text = rules(&networks);
        let elements: Vec<&str> = text.strip_prefix(RULES).unwrap().lines().collect();
        assert_eq!(
            elements,
            [
                "add element inet moorage ssh_from_4 { 203.0.113.0/24, 198.51.100.7/32 }",
                "add element inet moorage ssh_from_6 { 2001:db8::/64 }",
            ]
        );
    }

    #[test]
    fn without_networks_the_rules_are_constant() {
        assert_eq!(rules(&[]), RULES);
    }
}
