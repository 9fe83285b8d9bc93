//! bpf(2) without a library: maps, an assembler, a program, a link.
//!
//! Source: linux/bpf.h; Documentation/bpf/standardization/instruction-set.rst.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::system::own;

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

/// One instruction, as the kernel reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// A place in a program that may be jumped to, before or after it is known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Label(usize);

/// Width of a load or store.
#[derive(Clone, Copy)]
pub enum Width {
    Byte = 0x10,
    Half = 0x08,
    Word = 0x00,
    Double = 0x18,
}

/// How a jump compares a register with a number.
#[derive(Clone, Copy)]
pub enum If {
    Equal = 0x15,
    NotEqual = 0x55,
    /// Unsigned.
    AtLeast = 0x35,
    /// Unsigned.
    Above = 0x25,
    /// Signed.
    SignedAbove = 0x65,
    /// Of the lower 32 bits.
    WordNotEqual = 0x56,
}

/// What of arithmetic is needed, register by number.
#[derive(Clone, Copy)]
pub enum Compute {
    Add = 0x07,
    And = 0x57,
    Or = 0x47,
    ShiftLeft = 0x67,
}

/// Functions of the kernel.
#[derive(Clone, Copy)]
pub enum Function {
    MapLookup = 1,
    MonotonicNanoseconds = 5,
    StoreBytes = 9,
    Redirect = 23,
    LoadBytes = 26,
    ReleaseSocket = 86,
    NetworkCookie = 122,
    AssignSocket = 124,
}

/// Writes a program, one instruction a call.
#[derive(Default)]
pub struct Assembler {
    instructions: Vec<Instruction>,
    labels: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// The next instruction is what jumps to `label` go to.
    pub fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.instructions.len());
    }

    fn emit(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: i32) {
        self.instructions.push(Instruction {
            code,
            registers: if cfg!(target_endian = "little") {
                from << 4 | to
            } else {
                to << 4 | from
            },
            offset,
            immediate,
        });
    }

    pub fn set(&mut self, to: u8, number: i32) {
        self.emit(0xb7, to, 0, 0, number);
    }

    pub fn copy(&mut self, to: u8, from: u8) {
        self.emit(0xbf, to, from, 0, 0);
    }

    pub fn compute(&mut self, what: Compute, to: u8, number: i32) {
        self.emit(what as u8, to, 0, 0, number);
    }

    pub fn subtract(&mut self, to: u8, from: u8) {
        self.emit(0x1f, to, from, 0, 0);
    }

    /// Puts the lowest byte of a register first, whatever the machine.
    pub fn little_endian(&mut self, register: u8) {
        self.emit(0xd4, register, 0, 0, 64);
    }

    pub fn load(&mut self, width: Width, to: u8, from: u8, offset: i16) {
        self.emit(0x61 | width as u8, to, from, offset, 0);
    }

    pub fn store(&mut self, width: Width, to: u8, offset: i16, from: u8) {
        self.emit(0x63 | width as u8, to, from, offset, 0);
    }

    pub fn store_number(&mut self, width: Width, to: u8, offset: i16, number: i32) {
        self.emit(0x62 | width as u8, to, 0, offset, number);
    }

    /// Loads a map, for a call.
    pub fn map(&mut self, to: u8, map: &OwnedFd) {
        self.wide(to, 1, map.as_raw_fd());
    }

    /// Loads the address of the first value of an array.
    pub fn map_value(&mut self, to: u8, map: &OwnedFd) {
        self.wide(to, 2, map.as_raw_fd());
    }

    fn wide(&mut self, to: u8, pseudo: u8, fd: RawFd) {
        self.emit(0x18, to, pseudo, 0, fd);
        self.emit(0, 0, 0, 0, 0);
    }

    pub fn call(&mut self, function: Function) {
        self.emit(0x85, 0, 0, 0, function as i32);
    }

    pub fn jump_if(&mut self, register: u8, condition: If, number: i32, label: Label) {
        self.jumps.push((self.instructions.len(), label));
        self.emit(condition as u8, register, 0, 0, number);
    }

    pub fn jump(&mut self, label: Label) {
        self.jumps.push((self.instructions.len(), label));
        self.emit(0x05, 0, 0, 0, 0);
    }

    pub fn exit(&mut self) {
        self.emit(0x95, 0, 0, 0, 0);
    }

    /// Resolves the labels and loads the program into the kernel.
    ///
    /// The error carries what the verifier said last.
    pub fn load_for(mut self, purpose: Purpose, name: &CStr) -> io::Result<OwnedFd> {
        for (at, label) in &self.jumps {
            let place = self.labels[label.0].expect("every label is placed");
            self.instructions[*at].offset = (place as i64 - *at as i64 - 1) as i16;
        }
        let license = c"Apache-2.0"; // no function used here asks for a GPL one
        let mut verdict = vec![0u8; 64 << 10];
        let mut attributes = Attributes::none()
            .u32(0, purpose.kind)
            .u32(4, self.instructions.len() as u32)
            .pointer(8, self.instructions.as_ptr())
            .pointer(16, license.as_ptr())
            .u32(68, purpose.attach);
        let name = name.to_bytes();
        attributes.0[48..48 + name.len()].copy_from_slice(name); // at most 15, or it panics in tests
                                                                 // SAFETY: instructions and license outlive the call.
        let loaded = own(unsafe { attributes.call(PROG_LOAD) });
        loaded.map_err(|error| {
            let attributes = attributes
                .u32(24, 1)
                .u32(28, verdict.len() as u32)
                .pointer(32, verdict.as_mut_ptr());
            // SAFETY: as above, and the log is as long as said. It fails as before.
            unsafe { attributes.call(PROG_LOAD) };
            let text = String::from_utf8_lossy(&verdict);
            let tail = text
                .trim_end_matches('\0')
                .lines()
                .rev()
                .nth(1)
                .unwrap_or("")
                .to_owned();
            match error.raw_os_error() {
                Some(libc::EACCES | libc::EINVAL) if !tail.is_empty() => {
                    io::Error::other(format!("{error}; verifier: {tail}"))
                }
                _ => error,
            }
        })
    }
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
