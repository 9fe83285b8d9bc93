//! Sends answers in the name of a server: packets with their IP header, inside the target.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use super::datagram::Datagram;
use super::sockets::{address_of, socket};
use crate::system::check;

pub struct Forger {
    four: OwnedFd,
    /// `None` where the kernel has no IPv6.
    six: Option<OwnedFd>,
}

impl Forger {
    pub fn open() -> io::Result<Self> {
        let raw = |family| socket(family, libc::SOCK_RAW, libc::IPPROTO_RAW);
        Ok(Self {
            four: raw(libc::AF_INET)?,
            six: raw(libc::AF_INET6).ok(),
        })
    }

    /// Answers a datagram that left by `device`. A client that is gone hears nothing.
    pub fn answer(&self, datagram: &Datagram<'_>, device: u32, payload: &[u8]) {
        let packet = datagram.answer(payload);
        let mut to = SocketAddr::new(datagram.client.ip(), 0);
        if let SocketAddr::V6(six) = &mut to {
            if six.ip().is_unicast_link_local() {
                six.set_scope_id(device);
            }
        }
        let socket = match (datagram.client.ip(), &self.six) {
            (IpAddr::V4(_), _) => &self.four,
            (IpAddr::V6(_), Some(six)) => six,
            (IpAddr::V6(_), None) => return,
        };
        let (address, length) = address_of(&to);
        // SAFETY: packet and address outlive the call and are as long as said.
        let _ = check(unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                libc::MSG_DONTWAIT,
                (&raw const address).cast(),
                length,
            )
        } as i64);
    }
}
