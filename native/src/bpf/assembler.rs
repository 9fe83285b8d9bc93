//! Programs of eBPF, written instruction by instruction.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::{Attributes, Purpose, PROG_LOAD};
use crate::system::own;

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
