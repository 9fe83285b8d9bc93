//! Sends packets with their IP header, inside the target: answers in the name of a server, and
//! queries of the target once more.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use super::datagram::Datagram;
use super::sockets::{address_of, socket, Leaving};
use super::MARK;
use crate::system::{check, set_option};

pub struct Forger {
    /// For answers.
    plain: Sockets,
    /// For queries, which bear our mark and are not led back to us.
    marked: Sockets,
}

struct Sockets {
    four: OwnedFd,
    /// `None` where the kernel has no IPv6.
    six: Option<OwnedFd>,
}

impl Forger {
    pub fn open() -> io::Result<Self> {
        let marked = Sockets::open()?;
        for socket in [Some(&marked.four), marked.six.as_ref()]
            .into_iter()
            .flatten()
        {
            set_option(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MARK,
                MARK as i32,
            )?;
        }
        Ok(Self {
            plain: Sockets::open()?,
            marked,
        })
    }

    /// Answers a datagram that left by `device`. A client that is gone hears nothing.
    pub fn answer(&self, datagram: &Datagram<'_>, device: u32, payload: &[u8]) {
        let packet = datagram.answer(payload);
        let Some(socket) = self.plain.to(datagram.client.ip()) else {
            return;
        };
        let (address, length) = address_of(&on_its_link(datagram.client.ip(), device));
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

    /// Sends a query of the target by the way that it had taken. One that finds none is lost.
    pub fn repeat(&self, query: &Datagram<'_>, device: u32, packet: &[u8]) {
        if let Some(socket) = self.marked.to(query.server.ip()) {
            let to = on_its_link(query.server.ip(), device);
            let _ = Leaving::new(query.client.ip(), device).send(socket, &to, packet);
        }
    }
}

impl Sockets {
    fn open() -> io::Result<Self> {
        let raw = |family| socket(family, libc::SOCK_RAW, libc::IPPROTO_RAW);
        Ok(Self {
            four: raw(libc::AF_INET)?,
            six: raw(libc::AF_INET6).ok(),
        })
    }

    fn to(&self, address: IpAddr) -> Option<&OwnedFd> {
        match address {
            IpAddr::V4(_) => Some(&self.four),
            IpAddr::V6(_) => self.six.as_ref(),
        }
    }
}

/// An address as raw sockets take it, without a port.
fn on_its_link(address: IpAddr, device: u32) -> SocketAddr {
    let mut to = SocketAddr::new(address, 0);
    if let SocketAddr::V6(six) = &mut to {
        if six.ip().is_unicast_link_local() {
            six.set_scope_id(device);
        }
    }
    to
}
