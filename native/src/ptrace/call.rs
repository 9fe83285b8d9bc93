//! System calls, as orders.

use std::io;

/// What one takes in the memory of who does it.
pub const CALL_BYTES: usize = 80;

/// A system call to do.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub number: u64,
    pub arguments: [u64; 6],
    /// Bit 0: the first argument is the address of an `int` that holds it; bit 1: the fifth is.
    indirect: u64,
}

impl Call {
    pub fn new(number: libc::c_long, arguments: &[u64]) -> Self {
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        Self {
            number: number as u64,
            arguments: all,
            indirect: 0,
        }
    }

    /// As the code inside reads it; the last word but one is for what it returns.
    pub fn words(&self) -> [u64; CALL_BYTES / 8] {
        let [a, b, c, d, e, f] = self.arguments;
        [self.number, a, b, c, d, e, f, self.indirect, 0, 0]
    }

    /// Its first argument is the address of an `int` that holds the descriptor.
    pub fn with_descriptor_at(self) -> Self {
        Self {
            indirect: 1,
            ..self
        }
    }

    /// The same for its fifth argument, as of mmap.
    pub fn with_fifth_at(self) -> Self {
        Self {
            indirect: 2,
            ..self
        }
    }
}

/// Turns -errno into an error.
pub fn outcome(returned: i64) -> io::Result<u64> {
    match returned {
        -4095..=-1 => Err(io::Error::from_raw_os_error(-returned as i32)),
        returned => Ok(returned as u64),
    }
}
