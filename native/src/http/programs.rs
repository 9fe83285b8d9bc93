//! What runs in the kernel: it leads connections to us, and tells servers who their clients are.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::hooks::KEY_BYTES;
use super::listening::IPV6;
use crate::bpf::{self, Assembler, Compute, Function, If, Purpose, Width};
use crate::system::{check, own};

const FP: u8 = 10;
const KEY: i16 = -(KEY_BYTES as i16);
const ADDRESS: i16 = KEY + 8;
const PORT: i16 = KEY + 24;
const WORD: i16 = KEY - 8;
const CONTEXT: u8 = 6;
const AF_INET: i32 = libc::AF_INET;

/// Gives connections to our ports to our sockets, unless we have opened them: struct bpf_sk_lookup.
pub fn lead(ports: &OwnedFd, clients: &OwnedFd, sockets: &OwnedFd, cookie: u64) -> Assembler {
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
pub fn tell(clients: &OwnedFd) -> io::Result<Vec<OwnedFd>> {
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
