//! Which destinations a rule is about.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::rpc::Refusal;

/// Of the Internet Protocol, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Version {
    /// Not IP at all.
    Other = 0,
    Four = 4,
    Six = 6,
}

/// Where a packet goes. IPv4 addresses are mapped into IPv6 (::ffff:0:0/96).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    pub version: Version,
    pub address: u128,
    /// 0 where the packet has none: ICMP, later fragments, IPv6 with extension headers.
    pub port: u16,
}

/// Addresses with a common beginning, and a port; 0 means any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    /// Tells all of IPv6 (::/0), where mapped addresses lie, from all there is.
    pub version: Version,
    /// With all bits after the prefix at zero.
    pub address: u128,
    /// In bits of the mapped address: IPv4's /32 is 128.
    pub prefix: u8,
    pub port: u16,
}

impl Network {
    /// Reads `10.0.0.0/8` or `fd00::/8`.
    pub fn parse(cidr: &str, port: u16) -> Result<Self, Refusal> {
        let refuse = || Refusal::invalid(format!("{cidr:?} is no network such as 10.0.0.0/8"));
        let (address, prefix) = cidr.split_once('/').ok_or_else(refuse)?;
        let prefix: u8 = prefix.parse().map_err(|_| refuse())?;
        let (version, address, prefix) = match address.parse().map_err(|_| refuse())? {
            IpAddr::V4(v4) => (
                Version::Four,
                v4.to_ipv6_mapped(),
                prefix.saturating_add(96),
            ),
            IpAddr::V6(v6) => (Version::Six, v6, prefix),
        };
        if prefix > 128 {
            return Err(refuse());
        }
        Ok(Self {
            version,
            address: u128::from(address) & mask(prefix),
            prefix,
            port,
        })
    }
}

fn mask(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

/// A set of networks that answers at a cost of one look for each prefix length in it.
pub struct Networks {
    networks: HashSet<Network>,
    prefixes: Vec<u8>,
}

impl Networks {
    pub fn new(networks: impl IntoIterator<Item = Network>) -> Self {
        let networks: HashSet<Network> = networks.into_iter().collect();
        let mut prefixes: Vec<u8> = networks.iter().map(|network| network.prefix).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        Self { networks, prefixes }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Network> {
        self.networks.iter()
    }

    pub fn contains(&self, destination: Destination) -> bool {
        self.prefixes.iter().any(|&prefix| {
            let address = destination.address & mask(prefix);
            [0, destination.port].into_iter().any(|port| {
                self.networks.contains(&Network {
                    version: destination.version,
                    address,
                    prefix,
                    port,
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(address: &str, port: u16) -> Destination {
        let (version, address) = match address.parse().unwrap() {
            IpAddr::V4(v4) => (Version::Four, v4.to_ipv6_mapped()),
            IpAddr::V6(v6) => (Version::Six, v6),
        };
        Destination {
            version,
            address: address.into(),
            port,
        }
    }

    #[test]
    fn a_destination_is_found_by_prefix_and_port() {
        let networks = Networks::new(
            [
                ("10.1.0.0/16", 0),
                ("10.2.0.1/32", 80),
                ("fd00::/8", 443),
                ("192.0.2.77/24", 0),
            ]
            .map(|(cidr, port)| Network::parse(cidr, port).unwrap()),
        );
        for (address, port, expected) in [
            ("10.1.2.3", 0, true),
            ("10.1.2.3", 99, true),
            ("10.2.0.1", 80, true),
            ("10.2.0.1", 81, false),
            ("10.2.0.1", 0, false),
            ("fd12::1", 443, true),
            ("fe80::1", 443, false),
            ("192.0.2.1", 5, true),
        ] {
            assert_eq!(
                networks.contains(to(address, port)),
                expected,
                "{address} {port}"
            );
        }
    }

    #[test]
    fn everything_of_one_family_is_not_the_other() {
        let all = |cidr| Networks::new([Network::parse(cidr, 0).unwrap()]);
        for (cidr, four, six) in [("0.0.0.0/0", true, false), ("::/0", false, true)] {
            assert_eq!(all(cidr).contains(to("203.0.113.1", 1)), four);
            assert_eq!(all(cidr).contains(to("fd00::1", 1)), six);
        }
    }

    #[test]
    fn what_is_no_network_is_refused_by_its_name() {
        for wrong in [
            "10.0.0.1",
            "10.0.0.0/33",
            "fd00::/129",
            "web/8",
            "10.0.0.0/x",
        ] {
            let refusal = Network::parse(wrong, 0).unwrap_err().to_string();
            assert!(refusal.contains(wrong), "{refusal}");
        }
    }
}
