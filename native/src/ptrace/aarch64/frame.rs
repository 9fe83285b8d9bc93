//! The signal frame that puts a thread back, and what a system call takes from it.

use super::Registers;
use crate::ptrace::thread::Vectors;

/// NT_ARM_SVE and NT_ARM_SSVE: scalable vectors, and those of streaming mode.
const SCALABLE_SET: usize = 0x405;
const STREAMING_SET: usize = 0x40b;

const INFO_BYTES: usize = 128;
/// A mode that there is not: the kernel then leaves the alternate stack as it is.
const UC_STACK_FLAGS: u64 = 0x7;
/// From the start of the frame to the machine's context, and to the records behind it.
const CONTEXT_AT: usize = INFO_BYTES + 176;
const RECORDS_AT: usize = INFO_BYTES + 464;
const FPSIMD_MAGIC: u32 = 0x4650_8001;
const FPSIMD_BYTES: u32 = 528;
const VECTOR_BYTES: usize = 512;
const SVE_MAGIC: u32 = 0x5356_4501;
/// Bytes of the records of a frame, unless one says that there are more elsewhere.
const RECORDS_BYTES: usize = 4096;
const NO_RECORD: usize = 16;
/// `struct user_sve_header`, and `struct sve_context` with its head; registers follow.
const SCALABLE_AT: usize = 16;

/// What each system call takes of the vector registers: of the scalable ones, all but what
/// `VECTOR_SET` has. At most one of the two sets is in use.
pub fn lost(read: impl Fn(usize) -> std::io::Result<Vec<u8>>) -> Option<(usize, Vec<u8>)> {
    const HAS_REGISTERS: u16 = 1;
    let in_use = |state: &Vec<u8>| half(state, 12) & HAS_REGISTERS != 0;
    [SCALABLE_SET, STREAMING_SET].into_iter().find_map(|set| {
        let state = read(set).ok().filter(in_use)?;
        Some((set, state))
    })
}

fn half(state: &[u8], at: usize) -> u16 {
    let bytes = state.get(at..at + 2);
    bytes.map_or(0, |bytes| u16::from_ne_bytes([bytes[0], bytes[1]]))
}

/// The record of a frame that holds scalable registers: Z0 to Z31, P0 to P15, and FFR.
fn scalable(set: usize, state: &[u8]) -> Option<Vec<u8>> {
    let length = half(state, 8); // of a vector
    let bytes = 34 * usize::from(length) + usize::from(length / 8);
    let registers = state.get(SCALABLE_AT..SCALABLE_AT + bytes)?;
    let size = (SCALABLE_AT + bytes).next_multiple_of(16);
    let mut record = SVE_MAGIC.to_ne_bytes().to_vec();
    record.extend_from_slice(&(size as u32).to_ne_bytes());
    record.extend_from_slice(&length.to_ne_bytes());
    record.extend_from_slice(&u16::from(set == STREAMING_SET).to_ne_bytes());
    record.resize(SCALABLE_AT, 0);
    record.extend_from_slice(registers);
    record.resize(size, 0);
    Some(record)
}

/// A signal frame by which the thread gets `registers` back, and what sp is to be for that.
///
/// `at` is a multiple of 16. Of vectors longer than 64 bytes, the first 16 bytes come back.
pub fn frame(registers: &Registers, mask: u64, vectors: &Vectors, at: u64) -> (Vec<u8>, u64) {
    let mut frame = vec![0; INFO_BYTES];
    let mut put = |words: &[u64]| {
        for word in words {
            frame.extend_from_slice(&word.to_ne_bytes());
        }
    };
    put(&[0, 0, 0, UC_STACK_FLAGS, 0, mask]);
    frame.resize(CONTEXT_AT + 8, 0); // after the address of a fault
    let mut put = |words: &[u64]| {
        for word in words {
            frame.extend_from_slice(&word.to_ne_bytes());
        }
    };
    put(&registers.x);
    put(&[registers.sp, registers.pc, registers.pstate]);
    frame.resize(RECORDS_AT, 0);
    if let Some((numbers, status)) = vectors.state.split_at_checked(VECTOR_BYTES) {
        frame.extend_from_slice(&FPSIMD_MAGIC.to_ne_bytes());
        frame.extend_from_slice(&FPSIMD_BYTES.to_ne_bytes());
        frame.extend_from_slice(&status[..8.min(status.len())]);
        frame.extend_from_slice(numbers);
    }
    let lost = vectors.lost.as_ref();
    if let Some(record) = lost.and_then(|(set, state)| scalable(*set, state)) {
        if frame.len() - RECORDS_AT + record.len() + NO_RECORD <= RECORDS_BYTES {
            frame.extend_from_slice(&record);
        }
    }
    frame.resize(frame.len() + NO_RECORD, 0);
    (frame, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_everything_where_the_kernel_looks_for_it() {
        let registers = Registers {
            x: std::array::from_fn(|index| index as u64 + 1),
            sp: 0x5000,
            pc: 0x4000,
            pstate: 0x6000_0000,
        };
        let mut state = vec![0xaa; VECTOR_BYTES];
        state.extend_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        let vectors = Vectors { state, lost: None };
        let (frame, sp) = frame(&registers, 0x55, &vectors, 0x1000);
        let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| frame[at + i]));
        assert_eq!(sp, 0x1000);
        assert_eq!(word(INFO_BYTES + 40), 0x55);
        assert_eq!(
            (word(CONTEXT_AT + 8), word(CONTEXT_AT + 8 + 30 * 8)),
            (1, 31)
        );
        assert_eq!(word(CONTEXT_AT + 8 + 32 * 8), 0x4000);
        assert_eq!(word(RECORDS_AT), 0x0210_4650_8001);
        assert_eq!(
            frame[RECORDS_AT + 8..RECORDS_AT + 17],
            [1, 2, 3, 4, 5, 6, 7, 8, 0xaa]
        );
    }

    #[test]
    fn scalable_vectors_are_a_record_of_their_own() {
        let (length, registers) = (32_u16, 34 * 32 + 4);
        let mut state = vec![0; 8];
        for half in [length, length, 1, 0] {
            state.extend_from_slice(&half.to_ne_bytes());
        }
        assert!(lost(|_| Ok(state[..12].to_vec())).is_none()); // what has no registers
        state.resize(SCALABLE_AT + registers, 0xbb);
        state.resize(state.len() + 24, 0); // to a multiple of 16, and what `VECTOR_SET` has, too
        let lost = lost(|set| match set {
            STREAMING_SET => Ok(state.clone()),
            _ => Err(std::io::ErrorKind::InvalidInput.into()),
        });
        let vectors = Vectors {
            state: vec![0; FPSIMD_BYTES as usize],
            lost,
        };
        let (frame, _) = frame(&Registers::default(), 0, &vectors, 0x1000);
        let record = &frame[RECORDS_AT + FPSIMD_BYTES as usize..];
        let size = SCALABLE_AT + registers.next_multiple_of(16);
        assert_eq!(record[..4], SVE_MAGIC.to_ne_bytes());
        assert_eq!(record[4..8], (size as u32).to_ne_bytes());
        assert_eq!(record[8..16], [32, 0, 1, 0, 0, 0, 0, 0]);
        assert!(record[SCALABLE_AT..][..registers]
            .iter()
            .all(|byte| *byte == 0xbb));
        assert!(record[SCALABLE_AT + registers..]
            .iter()
            .all(|byte| *byte == 0));
        assert_eq!(record.len(), size + NO_RECORD);
    }
}
