//! One Ethernet frame on its way from the TAP device to the real one.

use super::networks::{Destination, Version};

/// `struct virtio_net_hdr`, in front of every frame both ways: it carries what is still to be done
/// to the frame (checksum, segmentation), so that it need not be done twice.
pub const OFFLOAD_HEADER: usize = 10;

const SOURCE_ADDRESS: usize = OFFLOAD_HEADER + 6;
const ETHERTYPE: usize = OFFLOAD_HEADER + 12;
const NETWORK: usize = OFFLOAD_HEADER + 14;

/// Longest train the kernel builds (64 KiB), with headers.
pub const LONGEST: usize = (64 << 10) + 128;

/// Bits of the moment that fit into an Ethernet address beside its group bit; 39 hours of ns.
const STAMP_BITS: u32 = 47;

/// A frame with its header for the kernel, and where it goes.
#[derive(Clone)]
pub struct Frame {
    /// Header for the kernel, then the frame.
    pub bytes: Vec<u8>,
    pub destination: Destination,
}

impl Frame {
    /// Wraps what was read from the TAP device.
    pub fn new(bytes: Vec<u8>) -> Self {
        let destination = destination(&bytes).unwrap_or(Destination {
            version: Version::Other,
            address: 0,
            port: 0,
        });
        Self { bytes, destination }
    }

    /// Bytes on the wire, as a rate counts them.
    pub fn wire_bytes(&self) -> u64 {
        (self.bytes.len() - OFFLOAD_HEADER) as u64
    }

    /// Flips one bit where a checksum of the receiver covers it, as noise on a wire would be found.
    ///
    /// Returns false, with nothing changed, where the device has yet to complete a checksum (frames
    /// taken before damage was asked for): it would sign the damage. Of the IPv6 header only the
    /// addresses are covered; Ethernet's is left alone, since a false sender would teach bridges a
    /// wrong path.
    pub fn flip_bit(&mut self, choose_below: impl FnOnce(usize) -> usize) -> bool {
        const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
        const FLAGS: usize = 0;
        const NEEDS_CHECKSUM: u8 = 1;
        let is_ipv6 = self.bytes.get(ETHERTYPE..NETWORK) == Some(&ETHERTYPE_IPV6);
        let first = NETWORK + if is_ipv6 { 8 } else { 0 };
        let bits = self.bytes.len().saturating_sub(first) * 8;
        if bits == 0 || self.bytes[FLAGS] & NEEDS_CHECKSUM != 0 {
            return false;
        }
        let bit = choose_below(bits);
        self.bytes[first + bit / 8] ^= 1 << (bit % 8);
        true
    }
}

/// Who a frame on the TAP device is from.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Redirected at this moment, in ns of CLOCK_MONOTONIC; its sender is restored.
    At(u64),
    /// Redirected, but sent by another address than the device's, so the moment is not known.
    Unknown,
    /// The TAP device's own noise, as an IPv6 announcement: not for the wire.
    Stray,
}

/// Reads the moment that the classifier has left in the sender's address, and puts that back.
///
/// A sender's address never has the group bit set, so a stamp cannot be mistaken.
pub fn unstamp(bytes: &mut [u8], device: [u8; 6], tap: [u8; 6], now: u64) -> Arrival {
    let Some(sender) = bytes.get_mut(SOURCE_ADDRESS..SOURCE_ADDRESS + 6) else {
        return Arrival::Stray;
    };
    if sender == tap {
        return Arrival::Stray;
    }
    if sender[0] & 1 == 0 {
        return Arrival::Unknown;
    }
    let mut stamp = [0; 8];
    stamp[..6].copy_from_slice(sender);
    sender.copy_from_slice(&device);
    let at = u64::from_le_bytes(stamp) >> 1;
    let age = now.wrapping_sub(at) & ((1 << STAMP_BITS) - 1);
    // A stamp taken on another CPU may be a hair ahead of `now`; then the age wraps around.
    let age = if age >> (STAMP_BITS - 1) == 0 { age } else { 0 };
    Arrival::At(now - age.min(now))
}

/// Finds address and port, by the rules of the classifier in the kernel.
fn destination(bytes: &[u8]) -> Option<Destination> {
    let network = bytes.get(NETWORK..)?;
    let (version, protocol, address, transport) = match bytes.get(ETHERTYPE..NETWORK)? {
        [0x08, 0x00] => {
            let header = network.get(..20)?;
            let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
            let address: [u8; 4] = header[16..20].try_into().ok()?;
            let mapped = std::net::Ipv4Addr::from(address).to_ipv6_mapped();
            (
                Version::Four,
                if fragment == 0 { header[9] } else { 0 },
                u128::from(mapped),
                usize::from(header[0] & 15) * 4,
            )
        }
        [0x86, 0xdd] => {
            let address: [u8; 16] = network.get(24..40)?.try_into().ok()?;
            (Version::Six, network[6], u128::from_be_bytes(address), 40)
        }
        _ => return None,
    };
    let port = network
        .get(transport + 2..transport + 4)
        .filter(|_| super::classifier::WITH_PORTS.contains(&protocol))
        .map_or(0, |port| u16::from_be_bytes([port[0], port[1]]));
    Some(Destination {
        version,
        address,
        port,
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An IPv4 UDP frame to 10.0.0.`host`:`port`, of `length` bytes on the wire.
    pub fn udp(host: u8, port: u16, length: usize) -> Frame {
        let mut bytes = vec![0; OFFLOAD_HEADER + length];
        bytes[ETHERTYPE..NETWORK].copy_from_slice(&[8, 0]);
        bytes[NETWORK] = 0x45;
        bytes[NETWORK + 9] = 17;
        bytes[NETWORK + 16..NETWORK + 20].copy_from_slice(&[10, 0, 0, host]);
        bytes[NETWORK + 22..NETWORK + 24].copy_from_slice(&port.to_be_bytes());
        Frame::new(bytes)
    }

    #[test]
    fn the_port_is_read_behind_the_options_but_not_of_a_later_fragment() {
        let mut frame = udp(7, 53, 64);
        assert_eq!(frame.destination.port, 53);
        frame.bytes[NETWORK] = 0x46;
        assert_eq!(Frame::new(frame.bytes.clone()).destination.port, 0);
        frame.bytes[NETWORK] = 0x45;
        frame.bytes[NETWORK + 7] = 1;
        assert_eq!(Frame::new(frame.bytes).destination.port, 0);
    }

    #[test]
    fn a_short_frame_goes_nowhere_and_is_no_crash() {
        for length in 0..40 {
            Frame::new(vec![0; OFFLOAD_HEADER + length]).flip_bit(|_| 0);
            assert_eq!(
                unstamp(&mut vec![0; length], [2; 6], [0; 6], 1),
                Arrival::Stray
            );
        }
    }

    #[test]
    fn a_stamp_gives_the_moment_back_and_the_sender() {
        let (device, tap) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let mut frame = udp(7, 53, 64);
        let at: u64 = 123_456_789_012_345;
        for (now, expected) in [(at + 55_000, at), (at, at), (at - 10, at - 10)] {
            let stamp = ((at << 1) | 1).to_le_bytes();
            frame.bytes[SOURCE_ADDRESS..SOURCE_ADDRESS + 6].copy_from_slice(&stamp[..6]);
            assert_eq!(
                unstamp(&mut frame.bytes, device, tap, now),
                Arrival::At(expected)
            );
            assert_eq!(frame.bytes[SOURCE_ADDRESS..SOURCE_ADDRESS + 6], device);
        }
        assert_eq!(unstamp(&mut frame.bytes, device, tap, at), Arrival::Unknown);
        frame.bytes[SOURCE_ADDRESS..SOURCE_ADDRESS + 6].copy_from_slice(&tap);
        assert_eq!(unstamp(&mut frame.bytes, device, tap, at), Arrival::Stray);
    }

    #[test]
    fn damage_is_never_signed() {
        let mut frame = udp(7, 53, 64);
        frame.bytes[0] = 1;
        let before = frame.bytes.clone();
        assert!(!frame.flip_bit(|_| 0));
        assert_eq!(frame.bytes, before);
    }

    #[test]
    fn a_flipped_bit_is_one_bit_and_where_a_checksum_sees_it() {
        for choice in 0..8 * 50 {
            let mut frame = udp(7, 53, 64);
            let before = frame.bytes.clone();
            assert!(frame.flip_bit(|bits| choice % bits));
            let ones: u32 = before
                .iter()
                .zip(&frame.bytes)
                .map(|(a, b)| (a ^ b).count_ones())
                .sum();
            assert_eq!(ones, 1);
            assert_eq!(before[..NETWORK], frame.bytes[..NETWORK]);
        }
    }
}
