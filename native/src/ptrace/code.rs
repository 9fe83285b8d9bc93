//! Code inside of other processes: ours, and an instruction of theirs.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::machine;

/// The code that runs inside.
pub fn bytes() -> &'static [u8] {
    extern "C" {
        static squall_inside: u8;
        static squall_inside_end: u8;
    }
    // SAFETY: the two labels enclose the code of this processor's module.
    unsafe {
        let start = &raw const squall_inside;
        let length = (&raw const squall_inside_end).offset_from(start);
        std::slice::from_raw_parts(start, length as usize)
    }
}

/// Where code is in a process: that of the kernel's own page first, then that of the C library.
pub fn code_of(tid: i32) -> io::Result<Vec<(u64, u64)>> {
    let maps = std::fs::read_to_string(format!("/proc/{tid}/maps"))?;
    let rank = |line: &str| match line {
        line if line.ends_with("[vdso]") => 0,
        line if line.contains("/libc") || line.contains("/ld-") => 1,
        _ => 2,
    };
    let mut code: Vec<(u64, u64, i32)> = maps
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (start, end) = words.next()?.split_once('-')?;
            words.next()?.contains('x').then_some(())?;
            let number = |hex| u64::from_str_radix(hex, 16).ok();
            Some((number(start)?, number(end)?, rank(line)))
        })
        .collect();
    code.sort_by_key(|(.., rank)| *rank);
    Ok(code
        .into_iter()
        .map(|(start, end, _)| (start, end))
        .collect())
}

/// Finds one of these sequences of instructions.
pub fn find(code: &[(u64, u64)], memory: &File, wanted: &[&[u8]]) -> Option<u64> {
    const MOST: u64 = 4 << 20; // enough of a C library
    const STEP: u64 = 64 << 10;
    const OVERLAP: u64 = 16; // longer than any sequence, less an instruction
    for (start, end) in code {
        let end = (*end).min(start + MOST);
        let mut bytes = Vec::new();
        for start in (*start..end).step_by(STEP as usize) {
            bytes.resize(((end - start).min(STEP + OVERLAP)) as usize, 0);
            if memory.read_exact_at(&mut bytes, start).is_err() {
                break;
            }
            if let Some(at) = wanted.iter().find_map(|wanted| position(&bytes, wanted)) {
                return Some(start + at as u64);
            }
        }
    }
    None
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let aligned = |at: usize| wanted.len() % 4 != 0 || at.is_multiple_of(4);
    let mut places = bytes.windows(wanted.len()).enumerate();
    let found = places.find(|(at, found)| *found == wanted && aligned(*at));
    found.map(|(at, _)| at)
}

/// Finds an instruction that calls the kernel: in the kernel's own page, else in other code.
pub fn gate(tid: i32, memory: &File) -> io::Result<u64> {
    let found = find(&code_of(tid)?, memory, &[machine::CALL_INSTRUCTION]);
    found.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::Unsupported,
            format!("thread {tid} has no instruction that calls the kernel"),
        )
    })
}
