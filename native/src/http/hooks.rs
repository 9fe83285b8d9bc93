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
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::listening::{Led, IPV6};
use super::room::Entrance;
use crate::bpf::{self, Assembler, Compute, Function, If, Purpose, Width};
use crate::system::{check, own};

/// Where our connections to servers come from, as long as these speak IPv4: loopback, and far from
/// what anybody else uses there.
pub const OUR_NETWORK: [u8; 3] = [127, 83, 81];

/// As many ports can be led to us, each for IPv4 and IPv6.
const PORTS: u32 = 2048;
/// As many connections can be at once.
pub const CONNECTIONS: u32 = 1 << 17;

/// Cookie of the namespace, address, port, padding.
const KEY_BYTES: usize = 32;
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
    _links: Vec<OwnedFd>,
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
        let lead = lead(&ports, &clients, entrance.sockets(), cookie)
            .load_for(Purpose::SOCKET_LOOKUP, c"squall_http")?;
        let mut links = vec![bpf::link_in(&lead, Purpose::SOCKET_LOOKUP, &namespace)?];
        let told = tell(&clients);
        let address_kept = told.is_ok();
        match told {
            Ok(more) => links.extend(more),
            Err(error) => crate::system::log(&format!("servers see us as client: {error}")),
        }
        let hooks = Self {
            led: Led::new(ports, listeners)?,
            clients,
            cookie,
            address_kept,
            _links: links,
        };
        Ok((hooks, entrance))
    }

    pub fn clients(&self) -> io::Result<Clients> {
        Ok(Clients {
            table: self.clients.try_clone()?,
            cookie: self.cookie,
        })
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

const FP: u8 = 10;
const KEY: i16 = -(KEY_BYTES as i16);
const ADDRESS: i16 = KEY + 8;
const PORT: i16 = KEY + 24;
const WORD: i16 = KEY - 8;
const CONTEXT: u8 = 6;
const AF_INET: i32 = libc::AF_INET;

/// Gives connections to our ports to our sockets, unless we have opened them: struct bpf_sk_lookup.
fn lead(ports: &OwnedFd, clients: &OwnedFd, sockets: &OwnedFd, cookie: u64) -> Assembler {
    const FAMILY: i16 = 8;
    const PROTOCOL: i16 = 12;
    const REMOTE_V4: i16 = 16;
    const REMOTE_V6: i16 = 20;
    const REMOTE_PORT: i16 = 36;
    const LOCAL_PORT: i16 = 60;
    const SOCKET: u8 = 7;
    let mut a = Assembler::default();
    let (pass, v6, look, four) = (a.label(), a.label(), a.label(), a.label());
    a.copy(CONTEXT, 1);
    a.load(Width::Word, 0, CONTEXT, PROTOCOL);
    a.jump_if(0, If::NotEqual, libc::IPPROTO_TCP, pass);
    a.load(Width::Word, 0, CONTEXT, LOCAL_PORT);
    a.load(Width::Word, 1, CONTEXT, FAMILY);
    a.jump_if(1, If::Equal, AF_INET, four);
    a.compute(Compute::Or, 0, IPV6 as i32);
    a.place(four);
    a.store(Width::Word, FP, WORD, 0);
    look_up(&mut a, ports, WORD);
    a.jump_if(0, If::Equal, 0, pass);

    a.store_number(Width::Word, FP, KEY, words(cookie)[0]);
    a.store_number(Width::Word, FP, KEY + 4, words(cookie)[1]);
    a.store_number(Width::Word, FP, WORD, 0);
    a.load(Width::Word, 0, CONTEXT, FAMILY);
    a.jump_if(0, If::NotEqual, AF_INET, v6);
    a.load(Width::Word, 0, CONTEXT, REMOTE_V4);
    store_v4(&mut a);
    a.jump(look);
    a.place(v6);
    a.store_number(Width::Word, FP, WORD, 1);
    store_v6(&mut a, REMOTE_V6);
    a.place(look);
    a.load(Width::Half, 0, CONTEXT, REMOTE_PORT);
    store_port(&mut a);
    look_up(&mut a, clients, KEY);
    a.jump_if(0, If::NotEqual, 0, pass);

    look_up(&mut a, sockets, WORD);
    a.jump_if(0, If::Equal, 0, pass);
    a.copy(SOCKET, 0);
    a.copy(1, CONTEXT);
    a.copy(2, SOCKET);
    a.set(3, 0);
    a.call(Function::AssignSocket);
    a.copy(1, SOCKET);
    a.call(Function::ReleaseSocket);
    a.place(pass);
    a.set(0, 1); // SK_PASS
    a.exit();
    a
}

/// Hooks where processes are told who their peer is, everywhere; the cookie tells our namespace.
fn tell(clients: &OwnedFd) -> io::Result<Vec<OwnedFd>> {
    let everything = every_cgroup()?;
    let mut links = Vec::new();
    for (purpose, v4) in [
        (Purpose::PEER_NAME_V4, true),
        (Purpose::PEER_NAME_V6, false),
    ] {
        let program = peer_name(clients, v4).load_for(purpose, c"squall_http")?;
        links.push(bpf::link_in(&program, purpose, &everything)?);
    }
    Ok(links)
}

/// Tells the client's address where it would be ours: struct bpf_sock_addr.
fn peer_name(clients: &OwnedFd, v4: bool) -> Assembler {
    const USER_V4: i16 = 4;
    const USER_V6: i16 = 8;
    const USER_PORT: i16 = 24;
    let mut a = Assembler::default();
    let pass = a.label();
    a.copy(CONTEXT, 1);
    a.call(Function::NetworkCookie);
    a.store(Width::Double, FP, KEY, 0);
    if v4 {
        a.load(Width::Word, 0, CONTEXT, USER_V4);
        store_v4(&mut a);
    } else {
        store_v6(&mut a, USER_V6);
    }
    a.load(Width::Word, 0, CONTEXT, USER_PORT);
    store_port(&mut a);
    look_up(&mut a, clients, KEY);
    a.jump_if(0, If::Equal, 0, pass);
    let words = if v4 { 3..4 } else { 0..4 };
    for word in words {
        a.load(Width::Word, 1, 0, 4 * word);
        let into = if v4 { USER_V4 } else { USER_V6 + 4 * word };
        a.store(Width::Word, CONTEXT, into, 1);
    }
    a.load(Width::Word, 1, 0, 16);
    a.store(Width::Word, CONTEXT, USER_PORT, 1);
    a.place(pass);
    a.set(0, 1);
    a.exit();
    a
}

/// Register 0 holds an IPv4 address.
fn store_v4(a: &mut Assembler) {
    a.store_number(Width::Double, FP, ADDRESS, 0);
    a.store_number(Width::Word, FP, ADDRESS + 8, 0x0000_ffff_u32.to_be() as i32);
    a.store(Width::Word, FP, ADDRESS + 12, 0);
}

fn store_v6(a: &mut Assembler, from: i16) {
    for word in 0..4 {
        a.load(Width::Word, 0, CONTEXT, from + 4 * word);
        a.store(Width::Word, FP, ADDRESS + 4 * word, 0);
    }
}

/// Register 0 holds a port, as it is on the wire.
fn store_port(a: &mut Assembler) {
    a.store_number(Width::Double, FP, PORT, 0);
    a.store(Width::Half, FP, PORT, 0);
}

fn look_up(a: &mut Assembler, table: &OwnedFd, key: i16) {
    a.map(1, table);
    a.copy(2, FP);
    a.compute(Compute::Add, 2, i32::from(key));
    a.call(Function::MapLookup);
}

fn words(cookie: u64) -> [i32; 2] {
    let bytes = cookie.to_ne_bytes();
    [0, 4].map(|at| i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
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

/// The cgroup that all others are in, on a mount of our own that nobody sees.
///
/// In a thread of its own, for a cgroup namespace shows no more than a part.
fn every_cgroup() -> io::Result<OwnedFd> {
    std::thread::spawn(|| {
        if let Ok(first) = File::open("/proc/1/ns/cgroup") {
            // SAFETY: plain call, on this thread only. Where it may not, its own view has to do.
            unsafe { libc::setns(first.as_raw_fd(), libc::CLONE_NEWCGROUP) };
        }
        const CREATE: libc::c_int = 6; // FSCONFIG_CMD_CREATE
        const CLOSE_ON_EXEC: libc::c_int = 1;
        let null = std::ptr::null::<libc::c_char>();
        // SAFETY: plain calls with a constant name.
        unsafe {
            let context =
                own(libc::syscall(libc::SYS_fsopen, c"cgroup2".as_ptr(), CLOSE_ON_EXEC) as i32)?;
            check(libc::syscall(
                libc::SYS_fsconfig,
                context.as_raw_fd(),
                CREATE,
                null,
                null,
                0,
            ))?;
            let fd = libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOSE_ON_EXEC, 0);
            check(fd)?;
            Ok(OwnedFd::from_raw_fd(fd as i32))
        }
    })
    .join()
    .unwrap_or_else(|_| Err(io::Error::other("a thread has ended")))
}
