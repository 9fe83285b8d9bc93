//! UDP datagrams as the packet filter holds them: taken apart, and answered in their server's name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const UDP: u8 = 17;
const UDP_HEADER: usize = 8;
const HOPS: u8 = 64;

/// One datagram towards a name server.
#[derive(Debug, PartialEq, Eq)]
pub struct Datagram<'p> {
    pub client: SocketAddr,
    pub server: SocketAddr,
    pub payload: &'p [u8],
}

impl<'p> Datagram<'p> {
    /// Reads a packet from its IP header on; `None` is a fragment, or anything else unusual.
    pub fn parse(packet: &'p [u8]) -> Option<Self> {
        let (from, to, rest): (IpAddr, IpAddr, _) = match packet.first()? >> 4 {
            4 => {
                let header = usize::from(packet[0] & 0xf) * 4;
                let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff;
                if header < 20 || fragment != 0 || *packet.get(9)? != UDP {
                    return None;
                }
                let address = |at: usize| Some(Ipv4Addr::from(octets::<4>(packet, at)?));
                (
                    address(12)?.into(),
                    address(16)?.into(),
                    packet.get(header..)?,
                )
            }
            6 if *packet.get(6)? == UDP => {
                let address = |at: usize| Some(Ipv6Addr::from(octets::<16>(packet, at)?));
                (address(8)?.into(), address(24)?.into(), packet.get(40..)?)
            }
            _ => return None,
        };
        let port = |at| octets::<2>(rest, at).map(u16::from_be_bytes);
        let length = usize::from(port(4)?);
        Some(Self {
            client: SocketAddr::new(from, port(0)?),
            server: SocketAddr::new(to, port(2)?),
            payload: rest.get(UDP_HEADER..length)?,
        })
    }

    /// The packet that the server would answer with, IP header included.
    pub fn answer(&self, payload: &[u8]) -> Vec<u8> {
        let length = UDP_HEADER + payload.len();
        let mut udp = Vec::with_capacity(length);
        for part in [self.server.port(), self.client.port(), length as u16, 0] {
            udp.extend_from_slice(&part.to_be_bytes());
        }
        udp.extend_from_slice(payload);
        let (mut packet, ends) = match (self.server.ip(), self.client.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                // The kernel fills in length, checksum and identification.
                let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, HOPS, UDP, 0, 0];
                header.extend_from_slice(&from.octets());
                header.extend_from_slice(&to.octets());
                header[2..4].copy_from_slice(&((20 + length) as u16).to_be_bytes());
                let ends = header[12..].to_vec();
                (header, ends)
            }
            (from, to) => {
                let mut header = vec![0x60, 0, 0, 0, 0, 0, UDP, HOPS];
                header[4..6].copy_from_slice(&(length as u16).to_be_bytes());
                for end in [from, to] {
                    if let IpAddr::V6(end) = end {
                        header.extend_from_slice(&end.octets());
                    }
                }
                let ends = header[8..].to_vec();
                (header, ends)
            }
        };
        let pseudo = [&ends[..], &[0, UDP], &(length as u16).to_be_bytes()].concat();
        let sum = match checksum(&[&pseudo, &udp]) {
            0 => 0xffff, // 0 would mean that there is none
            sum => sum,
        };
        udp[6..8].copy_from_slice(&sum.to_be_bytes());
        packet.extend_from_slice(&udp);
        packet
    }
}

fn octets<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// RFC 1071, over parts of which all but the last have an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(client: &'static str, server: &'static str) -> Datagram<'static> {
        Datagram {
            client: client.parse().unwrap(),
            server: server.parse().unwrap(),
            payload: b"what?",
        }
    }

    #[test]
    fn an_answer_goes_from_the_server_to_the_client() {
        for (client, server) in [
            ("10.0.0.5:4711", "10.96.0.10:53"),
            ("[fd00::5]:4711", "[fd00::a]:53"),
        ] {
            let packet = datagram(client, server).answer(b"nothing");
            let back = Datagram::parse(&packet).unwrap();
            assert_eq!(back.client, server.parse().unwrap());
            assert_eq!(back.server, client.parse().unwrap());
            assert_eq!(back.payload, b"nothing");
        }
    }

    #[test]
    fn the_checksum_is_right() {
        // Sent by Linux from 10.77.0.1:40000 to 10.77.0.2:53 with the payload "abc".
        let packet = datagram("10.77.0.2:53", "10.77.0.1:40000").answer(b"abc");
        let ends = [10, 77, 0, 1, 10, 77, 0, 2, 0, 17, 0, 11];
        assert_eq!(checksum(&[&ends, &packet[20..]]), 0);
    }

    #[test]
    fn fragments_and_what_is_cut_short_are_left_alone() {
        let whole = datagram("10.0.0.1:1", "10.0.0.2:53").answer(b"abc");
        for at in 0..whole.len() {
            assert_eq!(Datagram::parse(&whole[..at]), None);
        }
        let mut fragment = whole.clone();
        fragment[6] = 0x20;
        assert_eq!(Datagram::parse(&fragment), None);
        let mut other = whole;
        other[9] = 6;
        assert_eq!(Datagram::parse(&other), None);
    }
}
