//! Sockets of TCP as the kernel lists them, and ends them: sock_diag(7), SOCK_DESTROY.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::MsgFlags;

use crate::system::own;

const DUMP: u16 = 20; // SOCK_DIAG_BY_FAMILY
const DESTROY: u16 = 21;
const HEADER: usize = 16; // struct nlmsghdr
const REQUEST: usize = 56; // struct inet_diag_req_v2
const ID: usize = 48; // struct inet_diag_sockid
const FOUND: usize = 72; // struct inet_diag_msg

/// One connection of the namespace.
#[derive(Clone)]
pub struct Socket {
    family: u8,
    id: [u8; ID],
    pub inode: u32,
    /// Something is on its way, or not read yet.
    pub waiting: bool,
    /// Milliseconds since data was sent and received last.
    pub sent: u32,
    pub received: u32,
    /// Segments with data, out and in.
    pub segments: [u32; 2],
}

impl Socket {
    fn address(&self, at: usize, port_at: usize) -> SocketAddr {
        let port = u16::from_be_bytes([self.id[port_at], self.id[port_at + 1]]);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.id[at..at + 16]);
        let address = match libc::c_int::from(self.family) {
            libc::AF_INET => IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
            _ => IpAddr::V6(Ipv6Addr::from(bytes)),
        };
        SocketAddr::new(address, port)
    }

    pub fn local(&self) -> SocketAddr {
        self.address(4, 0)
    }

    pub fn peer(&self) -> SocketAddr {
        self.address(20, 2)
    }

    /// The same socket, whatever its address is used for later.
    pub fn cookie(&self) -> &[u8] {
        &self.id[40..]
    }
}

/// A netlink socket of the namespace of this thread.
pub struct Diag(OwnedFd);

impl Diag {
    pub fn open() -> io::Result<Self> {
        const SOCK_DIAG: libc::c_int = 4;
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: plain call.
        own(unsafe { libc::socket(libc::AF_NETLINK, kind, SOCK_DIAG) }).map(Self)
    }

    /// All connections of TCP that are, or are being opened.
    pub fn list(&mut self) -> io::Result<Vec<Socket>> {
        const STATES: u32 = 1 << 1 | 1 << 2 | 1 << 8; // established, SYN sent, close wait
        let mut found = Vec::new();
        self.dump(STATES, |message| found.extend(parse(message)))?;
        Ok(found)
    }

    /// What the kernel says of each socket of TCP in one of these states.
    pub fn dump(&mut self, states: u32, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        const WITH_INFO: u8 = 1 << 1;
        for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
            let mut request = [0; REQUEST];
            request[..3].copy_from_slice(&[family, libc::IPPROTO_TCP as u8, WITH_INFO]);
            request[4..8].copy_from_slice(&states.to_ne_bytes());
            self.send(DUMP, libc::NLM_F_DUMP, &request)?;
            self.receive(&mut each)?;
        }
        Ok(())
    }

    pub fn destroy(&mut self, socket: &Socket) -> io::Result<()> {
        let mut request = [0; REQUEST];
        request[..2].copy_from_slice(&[socket.family, libc::IPPROTO_TCP as u8]);
        request[8..].copy_from_slice(&socket.id);
        self.send(DESTROY, libc::NLM_F_ACK, &request)?;
        match self.receive(|_| {}) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()), // it has ended itself
            done => done,
        }
    }

    fn send(&self, kind: u16, flags: libc::c_int, request: &[u8]) -> io::Result<()> {
        let mut message = vec![0; HEADER];
        message[..4].copy_from_slice(&((HEADER + request.len()) as u32).to_ne_bytes());
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
        message.extend_from_slice(request);
        nix::sys::socket::send(self.0.as_raw_fd(), &message, MsgFlags::empty())?;
        Ok(())
    }

    /// Reads one answer to its end.
    fn receive(&self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0u8; 64 << 10];
        loop {
            let count = nix::sys::socket::recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = &buffer[..count];
            while rest.len() >= HEADER {
                let length = number(rest, 0) as usize;
                let kind = u16::from_ne_bytes([rest[4], rest[5]]);
                let message = rest.get(HEADER..length).unwrap_or_default();
                match libc::c_int::from(kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => {
                        return match number(message, 0) as i32 {
                            0 => Ok(()),
                            code => Err(io::Error::from_raw_os_error(-code)),
                        }
                    }
                    _ => each(message),
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

fn parse(message: &[u8]) -> Option<Socket> {
    const INFO: u16 = 2; // INET_DIAG_INFO: struct tcp_info
    let mut socket = Socket {
        family: *message.first()?,
        id: message.get(4..4 + ID)?.try_into().ok()?,
        inode: number(message, 68),
        waiting: number(message, 56) > 0 || number(message, 60) > 0,
        sent: 0,
        received: 0,
        segments: [0; 2],
    };
    if let Some(info) = attribute(message, INFO) {
        (socket.sent, socket.received) = (number(info, 44), number(info, 52));
        socket.segments = [number(info, 156), number(info, 152)];
    }
    Some(socket)
}

/// What follows struct inet_diag_msg under this number.
pub fn attribute(message: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut rest = message.get(FOUND..)?;
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        if u16::from_ne_bytes([rest[2], rest[3]]) == wanted {
            return rest.get(4..length);
        }
        rest = rest
            .get(length.max(4).next_multiple_of(4)..)
            .unwrap_or_default();
    }
    None
}

/// Four bytes of a message of the kernel; 0 beyond its end.
pub fn number(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    four.map_or(0, u32::from_ne_bytes)
}
