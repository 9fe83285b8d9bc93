//! Sockets and waiting, where the standard library has no word for what is needed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::MARK;
use crate::system::{check, own, set_option};

/// Of linux/netfilter_ipv4.h and linux/netfilter_ipv6/ip6_tables.h.
const ORIGINAL_DESTINATION: i32 = 80;

/// Seconds after which a server that says nothing is asked whether it is still there.
const SILENCE: i32 = 60;

pub fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    let kind = kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: plain call.
    own(unsafe { libc::socket(family, kind, protocol) })
}

/// An address as system calls take it.
pub fn address_of(address: &SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all-zero is a valid storage; each form is smaller than it and aligned alike.
    unsafe {
        let mut storage: libc::sockaddr_storage = std::mem::zeroed();
        let length = match address {
            SocketAddr::V4(four) => {
                let into = (&raw mut storage).cast::<libc::sockaddr_in>();
                (*into).sin_family = libc::AF_INET as libc::sa_family_t;
                (*into).sin_port = four.port().to_be();
                (*into).sin_addr.s_addr = u32::from_ne_bytes(four.ip().octets());
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(six) => {
                let into = (&raw mut storage).cast::<libc::sockaddr_in6>();
                (*into).sin6_family = libc::AF_INET6 as libc::sa_family_t;
                (*into).sin6_port = six.port().to_be();
                (*into).sin6_addr.s6_addr = six.ip().octets();
                (*into).sin6_scope_id = six.scope_id();
                size_of::<libc::sockaddr_in6>()
            }
        };
        (storage, length as libc::socklen_t)
    }
}

/// Where a connection was going before it was led to us.
pub fn original_destination(led: &TcpStream) -> io::Result<SocketAddr> {
    let six = led.local_addr()?.is_ipv6();
    let level = if six { libc::SOL_IPV6 } else { libc::SOL_IP };
    // SAFETY: the storage is as long as said, and holds what the kernel says it does.
    unsafe {
        let mut storage: libc::sockaddr_storage = std::mem::zeroed();
        let mut length = size_of_val(&storage) as libc::socklen_t;
        check(libc::getsockopt(
            led.as_raw_fd(),
            level,
            ORIGINAL_DESTINATION,
            (&raw mut storage).cast(),
            &mut length,
        ))?;
        Ok(if six {
            let from = &*(&raw const storage).cast::<libc::sockaddr_in6>();
            let ip = Ipv6Addr::from(from.sin6_addr.s6_addr);
            SocketAddrV6::new(ip, u16::from_be(from.sin6_port), 0, from.sin6_scope_id).into()
        } else {
            let from = &*(&raw const storage).cast::<libc::sockaddr_in>();
            let ip = Ipv4Addr::from(from.sin_addr.s_addr.to_ne_bytes());
            SocketAddr::new(ip.into(), u16::from_be(from.sin_port))
        })
    }
}

/// Begins to connect to `server` as `client` would: from its address, marked as ours.
pub fn connecting(client: SocketAddr, server: SocketAddr) -> io::Result<TcpStream> {
    let family = if server.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let opened = socket(family, libc::SOCK_STREAM, 0)?;
    let fd = opened.as_raw_fd();
    set_option(fd, libc::SOL_SOCKET, libc::SO_MARK, MARK as i32)?;
    // A server that has gone without a word is noticed, and its connection given up.
    let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
    let _ = set_option(fd, libc::SOL_TCP, libc::TCP_KEEPIDLE, SILENCE);
    // Ports run short only for the same server; any address will do if this one is gone.
    let _ = set_option(fd, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1);
    let mut from = client;
    from.set_port(0);
    let (address, length) = address_of(&from);
    // SAFETY: the addresses outlive the calls.
    let _ = check(unsafe { libc::bind(fd, (&raw const address).cast(), length) });
    let (address, length) = address_of(&server);
    match check(unsafe { libc::connect(fd, (&raw const address).cast(), length) }) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => {
            let _ = set_option(fd, libc::SOL_TCP, libc::TCP_NODELAY, 1);
            Ok(TcpStream::from(opened))
        }
    }
}

/// From which address and by which device a packet leaves, whatever routes there are.
pub struct Leaving {
    four: bool,
    /// `in_pktinfo` or `in6_pktinfo`, as ip(7) and ipv6(7) take it.
    information: Vec<u8>,
}

impl Leaving {
    pub fn new(from: IpAddr, device: u32) -> Self {
        let (device, mut information) = (device.to_ne_bytes(), Vec::new());
        match from {
            IpAddr::V4(four) => {
                information.extend_from_slice(&device);
                information.extend_from_slice(&four.octets());
                information.extend_from_slice(&[0; 4]);
            }
            IpAddr::V6(six) => {
                information.extend_from_slice(&six.octets());
                information.extend_from_slice(&device);
            }
        }
        Self {
            four: from.is_ipv4(),
            information,
        }
    }

    /// Sends a packet, IP header included.
    pub fn send(&self, socket: &OwnedFd, to: &SocketAddr, packet: &[u8]) -> io::Result<()> {
        let (mut address, length) = address_of(to);
        let mut piece = libc::iovec {
            iov_base: packet.as_ptr().cast_mut().cast(),
            iov_len: packet.len(),
        };
        // Longer than one header and the information, and aligned as headers are.
        let mut control = [0u64; 8];
        let size = self.information.len();
        // SAFETY: all-zero is a valid message; what it points to outlives the call, and the only
        // control message lies within `control`.
        check(unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_name = (&raw mut address).cast();
            message.msg_namelen = length;
            message.msg_iov = &raw mut piece;
            message.msg_iovlen = 1;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(size as u32) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            ((*header).cmsg_level, (*header).cmsg_type) = if self.four {
                (libc::SOL_IP, libc::IP_PKTINFO)
            } else {
                (libc::SOL_IPV6, libc::IPV6_PKTINFO)
            };
            (*header).cmsg_len = libc::CMSG_LEN(size as u32) as _;
            let data = libc::CMSG_DATA(header);
            std::ptr::copy_nonoverlapping(self.information.as_ptr(), data, size);
            libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT)
        } as i64)
        .map(drop)
    }
}

/// Says whether a connection ends with RST when it is dropped.
pub fn ends_by_reset(stream: &TcpStream, reset: bool) {
    let linger = libc::linger {
        l_onoff: reset.into(),
        l_linger: 0,
    };
    let _ = set_option(
        stream.as_raw_fd(),
        libc::SOL_SOCKET,
        libc::SO_LINGER,
        linger,
    );
}

/// epoll(7), level-triggered.
pub struct Epoll(OwnedFd);

impl Epoll {
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain call.
        own(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).map(Self)
    }

    /// Waits for `events` of a descriptor from now on, instead of for those `before`.
    pub fn watch(&self, fd: RawFd, token: u64, before: i32, events: i32) -> io::Result<()> {
        let operation = match (before, events) {
            (before, events) if before == events => return Ok(()),
            (0, _) => libc::EPOLL_CTL_ADD,
            (_, 0) => libc::EPOLL_CTL_DEL,
            _ => libc::EPOLL_CTL_MOD,
        };
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: token,
        };
        // SAFETY: `event` outlives the call.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, &mut event) }).map(drop)
    }

    /// Waits, and says which tokens are ready for what.
    pub fn wait(&self) -> io::Result<Vec<(u64, i32)>> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
        // SAFETY: the array is as long as said.
        let ready = check(unsafe {
            libc::epoll_wait(
                self.0.as_raw_fd(),
                events.as_mut_ptr(),
                events.len() as i32,
                -1,
            )
        });
        match ready {
            Ok(count) => Ok(events[..count as usize]
                .iter()
                .map(|event| (event.u64, event.events as i32))
                .collect()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}
