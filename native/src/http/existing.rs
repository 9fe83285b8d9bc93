//! Connections older than the rules: they are reset, between two exchanges where it can be seen, so
//! that their clients come again, and then to us: sock_diag(7), SOCK_DESTROY.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::MsgFlags;

use super::hooks::{self, Clients};
use super::visit::World;
use crate::system::{self, own};

/// So long a connection is reset only where its silence leaves no doubt.
const PATIENCE: Duration = Duration::from_millis(600);
/// So long it may go from one exchange to the next before it is reset within one.
const LONGEST: Duration = Duration::from_millis(850);
/// So long an exchange that is older than the rules may last. Clients wait no longer for an answer;
/// what does is a stream, and has no end.
const OLD_EXCHANGE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
/// Between looks at those that are left.
const LONG_PAUSE: Duration = Duration::from_millis(100);

/// Silent for so long, a server is done: it does not think in the middle of an answer.
const SETTLED_MS: u32 = 250;
/// Silent for so long, it may be done. The kernel cannot tell an end from a pause.
const QUIET_MS: u32 = 20;

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
    inode: u32,
    waiting: bool,
    /// Milliseconds since data was sent and received last.
    sent: u32,
    received: u32,
    /// Segments with data, out and in.
    segments: [u32; 2],
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
    fn cookie(&self) -> &[u8] {
        &self.id[40..]
    }

    /// Milliseconds since the client and the server spoke last.
    fn silence(&self, outgoing: bool) -> [u32; 2] {
        match outgoing {
            true => [self.sent, self.received],
            false => [self.received, self.sent],
        }
    }

    /// Segments of the client and of the server.
    fn spoken(&self, outgoing: bool) -> [u32; 2] {
        let [out, into] = self.segments;
        if outgoing {
            [out, into]
        } else {
            [into, out]
        }
    }

    /// Has the last request been answered? The server has spoken last then.
    fn rests(&self, outgoing: bool, silent_ms: u32) -> bool {
        let [request, answer] = self.silence(outgoing);
        let [asked, answered] = self.spoken(outgoing);
        let unanswered = answered == 0 && asked > 0;
        !self.waiting && !unanswered && answer <= request && answer >= silent_ms
    }
}

/// What a connection did since it was first looked at.
struct Seen {
    spoken: [u32; 2],
    /// The server has spoken since.
    answered: bool,
    /// And then the client: this is an exchange that the rules are for.
    anew: bool,
}

impl Seen {
    fn first(socket: &Socket, outgoing: bool) -> Self {
        let [request, answer] = socket.silence(outgoing);
        let spoken = socket.spoken(outgoing);
        Self {
            spoken,
            answered: spoken[1] > 0 && answer <= request,
            anew: false,
        }
    }

    fn look(&mut self, spoken: [u32; 2]) {
        self.anew |= self.answered && spoken[0] != self.spoken[0];
        self.answered |= spoken[1] != self.spoken[1];
        self.spoken = spoken;
    }
}

/// Connections that the target has opened to these ports, of now.
pub fn dialled(ports: &[u16]) -> io::Result<Vec<Socket>> {
    if ports.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = Diag::open()?.list()?;
    found.retain(|socket| ports.contains(&socket.peer().port()));
    Ok(found)
}

/// Resets what came to `ports` past us, and the `dialled`, in a thread: within a second, but for
/// those in an exchange that began before.
pub fn end(ports: Vec<u16>, dialled: Vec<Socket>, clients: Clients, world: Arc<World>) {
    if ports.is_empty() && dialled.is_empty() {
        return;
    }
    std::thread::spawn(move || {
        if let Err(error) = end_all(&ports, &dialled, &clients, &world) {
            system::log(&format!("older connections go on untouched: {error}"));
        }
    });
}

fn end_all(ports: &[u16], dialled: &[Socket], clients: &Clients, world: &World) -> io::Result<()> {
    let mut diag = Diag::open()?;
    let cookies: HashSet<&[u8]> = dialled.iter().map(Socket::cookie).collect();
    let start = Instant::now();
    let mut seen: HashMap<Vec<u8>, Seen> = HashMap::new();
    loop {
        let late = !seen.is_empty() && start.elapsed() > LONGEST; // a first look may take its time
        let listed = diag.list()?;
        let own = if late { HashSet::new() } else { own_inodes()? }; // after the list: none is missing
        let is_past_us = |socket: &Socket| {
            let (local, peer) = (socket.local(), socket.peer());
            ports.contains(&local.port())
                && socket.inode != 0 // nobody has accepted it yet: it may be for us
                && !own.contains(&socket.inode)
                && !hooks::is_ours(peer.ip())
                && !clients.contains(peer)
        };
        let mut left = 0;
        for socket in &listed {
            let outgoing = cookies.contains(socket.cookie());
            let known = seen.contains_key(socket.cookie());
            // Who comes late passes us on purpose: there was no room.
            if !known && (late || !outgoing && !is_past_us(socket)) {
                continue;
            }
            let end = if outgoing {
                socket.peer()
            } else {
                socket.local()
            };
            let rules = world.rules();
            let Some(scope) = rules.scope((end.port(), outgoing)) else {
                continue; // they have been taken back
            };
            let spoken = socket.spoken(outgoing);
            let first = || Seen::first(socket, outgoing);
            let one = seen.entry(socket.cookie().to_vec()).or_insert_with(first);
            one.look(spoken);
            let silent_ms = match one.anew && start.elapsed() > PATIENCE {
                true => QUIET_MS,
                false => SETTLED_MS,
            };
            let over = late && one.anew || start.elapsed() > OLD_EXCHANGE;
            if over || socket.rests(outgoing, silent_ms) {
                diag.destroy(socket)?;
                scope.count(|tally| &tally.reset);
            } else {
                left += 1;
            }
        }
        if left == 0 && start.elapsed() > PAUSE * 3 {
            return Ok(());
        }
        std::thread::sleep(if late { LONG_PAUSE } else { PAUSE });
    }
}

/// Sockets of this process, as the kernel numbers them.
fn own_inodes() -> io::Result<HashSet<u32>> {
    let inode = |entry: io::Result<fs::DirEntry>| {
        let link = fs::read_link(entry.ok()?.path()).ok()?;
        let name = link.to_str()?.strip_prefix("socket:[")?;
        name.strip_suffix(']')?.parse().ok()
    };
    Ok(fs::read_dir("/proc/self/fd")?.filter_map(inode).collect())
}

/// A netlink socket of the namespace of this thread.
struct Diag(OwnedFd);

impl Diag {
    fn open() -> io::Result<Self> {
        const SOCK_DIAG: libc::c_int = 4;
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: plain call.
        own(unsafe { libc::socket(libc::AF_NETLINK, kind, SOCK_DIAG) }).map(Self)
    }

    /// All connections of TCP that are, or are being opened.
    fn list(&mut self) -> io::Result<Vec<Socket>> {
        const WITH_INFO: u8 = 1 << 1;
        const STATES: u32 = 1 << 1 | 1 << 2 | 1 << 8; // established, SYN sent, close wait
        let mut found = Vec::new();
        for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
            let mut request = [0; REQUEST];
            request[..3].copy_from_slice(&[family, libc::IPPROTO_TCP as u8, WITH_INFO]);
            request[4..8].copy_from_slice(&STATES.to_ne_bytes());
            self.send(DUMP, libc::NLM_F_DUMP, &request)?;
            self.receive(|message| found.extend(parse(message)))?;
        }
        Ok(found)
    }

    fn destroy(&mut self, socket: &Socket) -> io::Result<()> {
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
    let mut rest = message.get(FOUND..)?;
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        if u16::from_ne_bytes([rest[2], rest[3]]) == INFO {
            let info = rest.get(4..length)?;
            (socket.sent, socket.received) = (number(info, 44), number(info, 52));
            socket.segments = [number(info, 156), number(info, 152)];
        }
        rest = rest
            .get(length.max(4).next_multiple_of(4)..)
            .unwrap_or_default();
    }
    Some(socket)
}

/// Four bytes of a message of the kernel; 0 beyond its end.
fn number(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    four.map_or(0, u32::from_ne_bytes)
}
