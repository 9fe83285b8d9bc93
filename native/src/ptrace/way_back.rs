//! The way back of a thread that makes single calls for us: if we die in the midst of one, it
//! returns by a signal frame, and goes on as if nothing had been.
//!
//! The frame needs memory before there is any of ours: it lies at the low end of the first thread's
//! stack, where there is nothing: a handler of a signal would write there as well.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::code::{code_of, find};
use super::machine;

/// Larger than any frame, and what handlers of signals may need below it.
const SCRATCH: usize = 5 * 4096;
/// From the start of it to the frame: a multiple of 64.
const FRAME_AT: u64 = 4096;

pub struct WayBack {
    /// Address of an instruction that calls the kernel, with a return behind it.
    pub gate: u64,
    /// What the stack pointer is to be for that.
    pub stack: u64,
    /// Code that returns by a signal frame.
    pub end: u64,
    scratch: u64,
    was: Vec<u8>,
}

impl WayBack {
    /// Lays a frame ready; None where the process lacks what that needs.
    pub fn laid(
        tid: i32,
        memory: &File,
        frame: impl FnOnce(u64) -> (Vec<u8>, u64),
    ) -> Option<Self> {
        let (scratch, was) = unused(tid, memory)?;
        let code = code_of(tid).ok()?;
        let gate = find(&code, memory, &[machine::CALL_AND_RETURN])?;
        let end = find(&code, memory, machine::RETURNS_BY_FRAME)?;
        let (frame, stack) = frame(scratch + FRAME_AT);
        if FRAME_AT as usize + frame.len() > SCRATCH {
            return None;
        }
        memory.write_all_at(&frame, scratch + FRAME_AT).ok()?;
        let stack = stack - machine::RETURN_BYTES;
        if machine::RETURN_BYTES != 0 {
            memory.write_all_at(&end.to_ne_bytes(), stack).ok()?;
        }
        Some(Self {
            gate,
            stack,
            end,
            scratch,
            was,
        })
    }

    /// Leaves no trace of it.
    pub fn take_up(&self, memory: &File) -> io::Result<()> {
        memory.write_all_at(&self.was, self.scratch)
    }
}

/// The low end of the first thread's stack, and what is left there: nobody has been so deep, or
/// has come back long ago.
fn unused(tid: i32, memory: &File) -> Option<(u64, Vec<u8>)> {
    let maps = std::fs::read_to_string(format!("/proc/{tid}/maps")).ok()?;
    let line = maps.lines().find(|line| line.ends_with("[stack]"))?;
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    let number = |hex| u64::from_str_radix(hex, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    if end - start < 2 * SCRATCH as u64 {
        return None;
    }
    let mut bytes = vec![0; SCRATCH];
    memory.read_exact_at(&mut bytes, start).ok()?;
    let above = start + 2 * SCRATCH as u64..end;
    let dead = pointer_of_first(tid).is_some_and(|pointer| above.contains(&pointer));
    (dead || bytes.iter().all(|byte| *byte == 0)).then_some((start, bytes))
}

/// The stack pointer of the first thread, which stands still.
fn pointer_of_first(tid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let first = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    let call = std::fs::read_to_string(format!("/proc/{}/syscall", first.trim())).ok()?;
    let pointer = call.split_whitespace().rev().nth(1)?; // the last one is where its code is
    u64::from_str_radix(pointer.strip_prefix("0x")?, 16).ok()
}
