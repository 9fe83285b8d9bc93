//! How connections to a server in the target come to us, and how the server still sees its clients.
//!
//! A program at the lookup of listening sockets gives new connections to some ports to our socket,
//! whoever listens there: no packet is changed, and both ends keep their addresses. What we then
//! open to the server comes from an address of ours on the loopback device, which that program
//! lets pass; a second program, where the kernel tells a process who its peer is, tells the
//! client's address instead. All of it hangs on open files: it ends with this process, and a new
//! connection goes straight to the server.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{OwnedFd, RawFd};

use super::listening::Led;
use super::programs::{lead, tell};
use super::room::Entrance;
use crate::bpf::{self, Purpose};
use crate::system::check;

/// Where our connections to servers come from, as long as these speak IPv4: loopback, and far from
/// what anybody else uses there.
pub const OUR_NETWORK: [u8; 3] = [127, 83, 81];

/// As many ports can be led to us, each for IPv4 and IPv6.
const PORTS: u32 = 2048;
/// As many connections can be at once.
pub const CONNECTIONS: u32 = 1 << 17;

/// Cookie of the namespace, address, port, padding.
pub const KEY_BYTES: usize = 32;
/// Address and port, each as four-byte words.
const VALUE_BYTES: usize = 20;

/// The hooks of one network namespace.
pub struct Hooks {
    /// Which ports are led to us.
    pub led: Led,
    clients: OwnedFd,
    cookie: u64,
    /// Whether servers are told their clients' own addresses.
    pub address_kept: bool,
    lead: Lead,
    _told: Vec<OwnedFd>,
}

/// The program that leads to us, and where it does.
struct Lead {
    program: OwnedFd,
    namespace: File,
    link: Option<OwnedFd>,
}

impl Hooks {
    /// Leads connections to `listeners` (IPv4, IPv6) in the namespace of this thread; none as yet.
    pub fn attach(listeners: [Option<RawFd>; 2]) -> io::Result<(Self, Entrance)> {
        let ports = bpf::table(4, 1, PORTS)?;
        let clients = bpf::table(KEY_BYTES as u32, VALUE_BYTES as u32, CONNECTIONS)?;
        let entrance = Entrance::new(bpf::sockets(2)?, listeners);
        entrance.open()?;
        let namespace = File::open("/proc/thread-self/ns/net")?;
        let cookie = cookie(listeners)?;
        let program = lead(&ports, &clients, entrance.sockets(), cookie)
            .load_for(Purpose::SOCKET_LOOKUP, c"squall_http")?;
        let link = bpf::link_in(&program, Purpose::SOCKET_LOOKUP, &namespace)?;
        let told = tell(&clients);
        if let Err(error) = &told {
            crate::system::log(&format!("servers see us as client: {error}"));
        }
        let hooks = Self {
            led: Led::new(ports, listeners)?,
            clients,
            cookie,
            address_kept: told.is_ok(),
            lead: Lead {
                program,
                namespace,
                link: Some(link),
            },
            _told: told.unwrap_or_default(),
        };
        Ok((hooks, entrance))
    }

    pub fn clients(&self) -> io::Result<Clients> {
        Ok(Clients {
            table: self.clients.try_clone()?,
            cookie: self.cookie,
        })
    }

    /// Leads nobody to us any more; servers still see the clients of connections that are.
    pub fn rest(&mut self) {
        let _ = self.led.lead(&[]); // without its link it leads nobody in any case
        self.lead.link = None;
    }

    /// Lets ports be led to us again after a rest.
    pub fn rise(&mut self) -> io::Result<()> {
        let Lead {
            program,
            namespace,
            link,
        } = &mut self.lead;
        if link.is_none() {
            *link = Some(bpf::link_in(program, Purpose::SOCKET_LOOKUP, namespace)?);
        }
        Ok(())
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        let _ = self.led.lead(&[]); // its links end all of it in any case
    }
}

/// For whom our connections to servers are.
pub struct Clients {
    table: OwnedFd,
    cookie: u64,
}

impl Clients {
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            table: self.table.try_clone()?,
            cookie: self.cookie,
        })
    }

    /// What comes from `ours` passes, and the server sees `client`.
    pub fn insert(&self, ours: SocketAddr, client: SocketAddr) -> io::Result<()> {
        let mut value = [0; VALUE_BYTES];
        value[..16].copy_from_slice(&mapped(client.ip()));
        value[16..18].copy_from_slice(&client.port().to_be_bytes());
        bpf::insert(&self.table, &self.key(ours), &value)
    }

    pub fn contains(&self, ours: SocketAddr) -> bool {
        bpf::contains(&self.table, &self.key(ours), VALUE_BYTES)
    }

    pub fn remove(&self, ours: SocketAddr) {
        let _ = bpf::remove(&self.table, &self.key(ours)); // it is there, or the insert has failed
    }

    fn key(&self, ours: SocketAddr) -> [u8; KEY_BYTES] {
        let mut key = [0; KEY_BYTES];
        key[..8].copy_from_slice(&self.cookie.to_ne_bytes());
        key[8..24].copy_from_slice(&mapped(ours.ip()));
        key[24..26].copy_from_slice(&ours.port().to_be_bytes());
        key
    }
}

/// Is it one of those that our connections to servers come from?
pub fn is_ours(address: IpAddr) -> bool {
    let address = address.to_canonical();
    matches!(address, IpAddr::V4(four) if four.octets()[..3] == OUR_NETWORK)
}

/// The `n`th place to connect from; 16 million before one comes again.
pub fn ours(n: u64) -> SocketAddr {
    const FIRST_PORT: u64 = 1024;
    const LAST_BYTES: u64 = 254;
    let [a, b, c] = OUR_NETWORK;
    let last = (n % LAST_BYTES) as u8 + 1;
    let port = (n / LAST_BYTES % (65536 - FIRST_PORT) + FIRST_PORT) as u16;
    SocketAddr::new(Ipv4Addr::new(a, b, c, last).into(), port)
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(four) => four.to_ipv6_mapped().octets(),
        IpAddr::V6(six) => six.octets(),
    }
}

/// The number by which the kernel tells network namespaces apart (Linux 5.14).
fn cookie(sockets: [Option<RawFd>; 2]) -> io::Result<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let socket = sockets.into_iter().flatten().next().unwrap_or(-1);
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the buffer is as long as said.
    check(unsafe {
        libc::getsockopt(
            socket,
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &mut length,
        )
    })?;
    Ok(cookie)
}
