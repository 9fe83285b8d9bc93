//! Where a thread is put back that was in the midst of something: not into the middle of a
//! restartable sequence, and into what was left of a wait.

use std::io;

use super::machine::{Registers, CALL_INSTRUCTION};
use super::Thread;
use crate::system::check;

const PTRACE_GET_RSEQ_CONFIGURATION: libc::c_uint = 0x420f;

#[repr(C)]
#[derive(Default)]
struct Configuration {
    /// Of the thread's `struct rseq`; 0 where it has none.
    at: u64,
    size: u32,
    signature: u32,
    flags: u32,
    pad: u32,
}

/// Offset of the pointer to the sequence under way, in `struct rseq`.
const UNDER_WAY: u64 = 8;

/// What the registers of a stopped thread must be when it goes on from another stop than this.
pub fn to_go_on_with(
    thread: &Thread,
    read: impl Fn(u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<Registers> {
    let mut registers = thread.registers()?;
    if let Some(instead) = go_on_at(thread, registers.at(), &read) {
        registers.go_on_at(instead);
    }
    let mut code = [0; CALL_INSTRUCTION.len()];
    if read(registers.at(), &mut code).is_ok() && code == CALL_INSTRUCTION {
        registers.take_up_wait();
    }
    Ok(registers)
}

/// Where the thread must go on instead of at `at`, if that is inside a sequence.
fn go_on_at(
    thread: &Thread,
    at: u64,
    read: impl Fn(u64, &mut [u8]) -> io::Result<()>,
) -> Option<u64> {
    let mut found = Configuration::default();
    let size = size_of::<Configuration>();
    // SAFETY: the kernel writes at most the size that it is told.
    let known = check(unsafe {
        libc::ptrace(
            PTRACE_GET_RSEQ_CONFIGURATION,
            thread.tid,
            size,
            std::ptr::from_mut(&mut found),
        )
    });
    if known.is_err() || found.at == 0 {
        return None; // older than Linux 5.13, or none registered
    }
    let word = |address: u64| {
        let mut bytes = [0; 8];
        read(address, &mut bytes).ok()?;
        Some(u64::from_ne_bytes(bytes))
    };
    let sequence = word(found.at + UNDER_WAY).filter(|sequence| *sequence != 0)?;
    // struct rseq_cs: version and flags, first instruction, length, where to go instead.
    let (first, length, instead) = (
        word(sequence + 8)?,
        word(sequence + 16)?,
        word(sequence + 24)?,
    );
    (at.wrapping_sub(first) < length).then_some(instead)
}
