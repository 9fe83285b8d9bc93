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

/// Finds an instruction that calls the kernel: in the kernel's own page, else in other code.
pub fn gate(tid: i32, memory: &File) -> io::Result<u64> {
    const MOST: u64 = 4 << 20; // enough of a C library
    let maps = std::fs::read_to_string(format!("/proc/{tid}/maps"))?;
    let mut code: Vec<(u64, u64, bool)> = maps
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (start, end) = words.next()?.split_once('-')?;
            words.next()?.contains('x').then_some(())?;
            let number = |hex| u64::from_str_radix(hex, 16).ok();
            Some((number(start)?, number(end)?, !line.ends_with("[vdso]")))
        })
        .collect();
    code.sort_by_key(|(.., other)| *other);
    for (start, end, _) in code {
        let mut bytes = vec![0; (end - start).min(MOST) as usize];
        if memory.read_exact_at(&mut bytes, start).is_err() {
            continue;
        }
        let wanted = machine::CALL_INSTRUCTION;
        let mut places = bytes.windows(wanted.len()).enumerate();
        let aligned = |at: usize| wanted.len() != 4 || at.is_multiple_of(4);
        if let Some((at, _)) = places.find(|(at, found)| *found == wanted && aligned(*at)) {
            return Ok(start + at as u64);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        format!("thread {tid} has no instruction that calls the kernel"),
    ))
}
