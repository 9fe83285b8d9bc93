//! bpf(2) without a library: maps, an assembler, a program, a link.
//!
//! Source: linux/bpf.h; Documentation/bpf/standardization/instruction-set.rst.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::system::own;

mod assembler;

pub use assembler::{Assembler, Compute, Function, If, Label, Width};

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;

/// What a program is for: its type, and what it is expected to be attached to.
#[derive(Clone, Copy)]
pub struct Purpose {
    kind: u32,
    attach: u32,
}

impl Purpose {
    /// Frames that leave a device (tcx, Linux 6.6).
    pub const EGRESS: Self = Self::new(3, 47);
    /// Which listening socket a new connection gets (Linux 5.9).
    pub const SOCKET_LOOKUP: Self = Self::new(30, 36);
    /// What accept(2) and getpeername(2) tell, in a cgroup (Linux 5.8).
    pub const PEER_NAME_V4: Self = Self::new(18, 29);
    pub const PEER_NAME_V6: Self = Self::new(18, 30);

    const fn new(kind: u32, attach: u32) -> Self {
        Self { kind, attach }
    }
}

/// The longest `union bpf_attr` used here; the kernel wants the rest to be zero.
#[repr(C, align(8))]
struct Attributes([u8; 128]);

impl Attributes {
    fn none() -> Self {
        Self([0; 128])
    }

    fn u32(mut self, offset: usize, value: u32) -> Self {
        self.0[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn fd(self, offset: usize, fd: &OwnedFd) -> Self {
        self.u32(offset, fd.as_raw_fd() as u32)
    }

    fn pointer<T: ?Sized>(mut self, offset: usize, to: *const T) -> Self {
        let address = to.cast::<u8>() as u64;
        self.0[offset..offset + 8].copy_from_slice(&address.to_ne_bytes());
        self
    }

    /// # Safety
    /// Every pointer put in must be good for what `command` does with it.
    unsafe fn call(&self, command: libc::c_int) -> libc::c_int {
        libc::syscall(libc::SYS_bpf, command, self.0.as_ptr(), self.0.len()) as libc::c_int
    }
}

/// A one-element array that is mapped into our memory too.
pub fn mapped_array(bytes: u32) -> io::Result<OwnedFd> {
    const ARRAY: u32 = 2;
    const F_MMAPABLE: u32 = 1 << 10;
    create_map(ARRAY, 4, bytes, 1, F_MMAPABLE)
}

/// A trie of prefixes: keys begin with their length in bits, as u32; values are one byte.
pub fn prefixes(key_bytes: u32, entries: u32) -> io::Result<OwnedFd> {
    const LPM_TRIE: u32 = 11;
    const F_NO_PREALLOC: u32 = 1;
    create_map(LPM_TRIE, key_bytes, 1, entries, F_NO_PREALLOC)
}

/// A table; keys and values are of these lengths.
pub fn table(key_bytes: u32, value_bytes: u32, entries: u32) -> io::Result<OwnedFd> {
    const HASH: u32 = 1;
    const F_NO_PREALLOC: u32 = 1;
    create_map(HASH, key_bytes, value_bytes, entries, F_NO_PREALLOC)
}

/// A list of sockets, for programs that choose one; the key is the place in it.
pub fn sockets(entries: u32) -> io::Result<OwnedFd> {
    const SOCKMAP: u32 = 15;
    create_map(SOCKMAP, 4, 8, entries, 0)
}

fn create_map(kind: u32, key: u32, value: u32, entries: u32, flags: u32) -> io::Result<OwnedFd> {
    let attributes = Attributes::none()
        .u32(0, kind)
        .u32(4, key)
        .u32(8, value)
        .u32(12, entries)
        .u32(16, flags);
    // SAFETY: no pointers.
    own(unsafe { attributes.call(MAP_CREATE) })
}

/// Puts a key into a map; both are as long as the map says.
pub fn insert(map: &OwnedFd, key: &[u8], value: &[u8]) -> io::Result<()> {
    let attributes = Attributes::none()
        .fd(0, map)
        .pointer(8, key.as_ptr())
        .pointer(16, value.as_ptr());
    // SAFETY: key and value are as long as the map's, by every caller.
    crate::system::check(unsafe { attributes.call(MAP_UPDATE_ELEM) }).map(drop)
}

/// Is there such a key? `value_bytes` are those of the map.
pub fn contains(map: &OwnedFd, key: &[u8], value_bytes: usize) -> bool {
    let mut value = vec![0u8; value_bytes];
    let attributes = Attributes::none()
        .fd(0, map)
        .pointer(8, key.as_ptr())
        .pointer(16, value.as_mut_ptr());
    // SAFETY: key and value are as long as the map's, by every caller.
    unsafe { attributes.call(MAP_LOOKUP_ELEM) == 0 }
}

/// Takes a key out of a map.
pub fn remove(map: &OwnedFd, key: &[u8]) -> io::Result<()> {
    let attributes = Attributes::none().fd(0, map).pointer(8, key.as_ptr());
    // SAFETY: the key is as long as the map's, by every caller.
    crate::system::check(unsafe { attributes.call(MAP_DELETE_ELEM) }).map(drop)
}

/// Runs a program on all that leaves a device, for as long as the descriptor is open (Linux 6.6).
pub fn link_egress(program: &OwnedFd, device_index: u32) -> io::Result<OwnedFd> {
    link(program, Purpose::EGRESS, device_index)
}

/// Runs a program in a network namespace or cgroup, for as long as the descriptor is open.
pub fn link_in(program: &OwnedFd, purpose: Purpose, place: &impl AsRawFd) -> io::Result<OwnedFd> {
    link(program, purpose, place.as_raw_fd() as u32)
}

fn link(program: &OwnedFd, purpose: Purpose, target: u32) -> io::Result<OwnedFd> {
    let attributes = Attributes::none()
        .fd(0, program)
        .u32(4, target)
        .u32(8, purpose.attach);
    // SAFETY: no pointers.
    own(unsafe { attributes.call(LINK_CREATE) })
}

/// Swaps the program of a link; no packet sees none or both.
pub fn update_link(link: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    let attributes = Attributes::none().fd(0, link).fd(4, program);
    // SAFETY: no pointers.
    crate::system::check(unsafe { attributes.call(LINK_UPDATE) }).map(drop)
}
