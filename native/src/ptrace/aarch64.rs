//! Registers, signal frame and the code that runs inside, on 64-bit Arm.

use super::call::Call;

/// `svc #0`.
pub const CALL_INSTRUCTION: &[u8] = &[0x01, 0x00, 0x00, 0xd4];
/// `svc #0; ret`.
pub const CALL_AND_RETURN: &[u8] = &[0x01, 0x00, 0x00, 0xd4, 0xc0, 0x03, 0x5f, 0xd6];
/// `mov x8, #139; svc #0`, as in the kernel's own page.
pub const RETURNS_BY_FRAME: &[&[u8]] = &[&[0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4]];
/// What a return takes off the stack: it goes by a register.
pub const RETURN_BYTES: u64 = 0;
/// NT_PRFPREG.
pub const VECTOR_SET: usize = 2;

/// `struct user_pt_regs`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    x: [u64; 31],
    sp: u64,
    pc: u64,
    pstate: u64,
}

/// Bit of the state that says 32-bit code.
const MODE_32: u64 = 0x10;

impl Registers {
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: plain numbers without padding.
        unsafe {
            std::slice::from_raw_parts_mut(std::ptr::from_mut(self).cast::<u8>(), size_of::<Self>())
        }
    }

    /// Can our code run in this thread?
    pub fn is_native(&self) -> bool {
        self.pstate & MODE_32 == 0
    }

    pub fn at(&self) -> u64 {
        self.pc
    }

    pub fn go_on_at(&mut self, at: u64) {
        self.pc = at;
    }

    /// What a signal frame must hold for an interrupted system call to be taken up again: here the
    /// kernel has put the thread before the call when it stopped it.
    pub fn with_call_taken_up(&self) -> Self {
        *self
    }

    /// About to make a system call with the instruction at `at`.
    pub fn calling(&self, at: u64, call: &Call) -> Self {
        let mut next = *self;
        next.x[..6].copy_from_slice(&call.arguments);
        next.x[8] = call.number;
        next.pc = at;
        next
    }

    /// With a return to `end` ahead, and that stack.
    pub fn coming_back(self, stack: u64, end: u64) -> Self {
        let mut next = self;
        (next.sp, next.x[30]) = (stack, end);
        next
    }

    /// About to run our code at `code`, told what to do at `orders`.
    pub fn running(&self, code: u64, orders: u64, frame: u64) -> Self {
        let mut next = *self;
        next.x[19] = orders;
        (next.pc, next.sp) = (code, frame);
        next
    }

    pub fn returned(&self) -> i64 {
        self.x[0] as i64
    }
}

// Runs calls in order, says so, waits for the next lot; when nobody is there any more, returns by
// the signal frame. x19: orders, as `remote.rs` lays them out; sp: the frame.
#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".pushsection .rodata",
    ".balign 4",
    ".globl squall_inside",
    ".globl squall_inside_end",
    ".hidden squall_inside",
    ".hidden squall_inside_end",
    "squall_inside:",
    "1: ldr x20, [x19]", // how many
    "add x21, x19, #16", // the first
    "2: cbz x20, 4f",
    "ldr x0, [x21, #8]",
    "ldr x1, [x21, #16]",
    "ldr x2, [x21, #24]",
    "ldr x3, [x21, #32]",
    "ldr x4, [x21, #40]",
    "ldr x5, [x21, #48]",
    "ldr x9, [x21, #56]",
    "tbz w9, #0, 3f",
    "ldrsw x0, [x0]", // the descriptor is at that address
    "3: tbz w9, #1, 6f",
    "ldrsw x4, [x4]",
    "6: ldr x8, [x21]",
    "svc #0",
    "str x0, [x21, #64]",
    "add x21, x21, #80",
    "sub x20, x20, #1",
    "b 2b",
    "4: ldr x0, [x19, #8]", // the socket
    "mov x1, x19",
    "mov x2, #1",
    "mov x3, #0x4000", // MSG_NOSIGNAL
    "mov x4, #0",
    "mov x5, #0",
    "mov x8, #206", // sendto
    "svc #0",
    "5: ldr x0, [x19, #8]",
    "sub x1, sp, #16",
    "mov x2, #1",
    "mov x3, #0",
    "mov x4, #0",
    "mov x5, #0",
    "mov x8, #207", // recvfrom
    "svc #0",
    "cmp x0, #1",
    "b.eq 1b",
    "cmn x0, #4", // EINTR
    "b.eq 5b",
    "ldr x0, [x19, #8]",
    "mov x8, #57", // close
    "svc #0",
    "mov x8, #139", // rt_sigreturn
    "svc #0",
    "squall_inside_end:",
    ".popsection",
);

const INFO_BYTES: usize = 128;
/// A mode that there is not: the kernel then leaves the alternate stack as it is.
const UC_STACK_FLAGS: u64 = 0x7;
/// From the start of the frame to the machine's context, and to the records behind it.
const CONTEXT_AT: usize = INFO_BYTES + 176;
const RECORDS_AT: usize = INFO_BYTES + 464;
const FPSIMD_MAGIC: u32 = 0x4650_8001;
const FPSIMD_BYTES: u32 = 528;
const VECTOR_BYTES: usize = 512;

/// A signal frame by which the thread gets `registers` back, and what sp is to be for that.
///
/// `at` is a multiple of 16.
pub fn frame(registers: &Registers, mask: u64, vectors: &[u8], at: u64) -> (Vec<u8>, u64) {
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
    if let Some((numbers, status)) = vectors.split_at_checked(VECTOR_BYTES) {
        frame.extend_from_slice(&FPSIMD_MAGIC.to_ne_bytes());
        frame.extend_from_slice(&FPSIMD_BYTES.to_ne_bytes());
        frame.extend_from_slice(&status[..8.min(status.len())]);
        frame.extend_from_slice(numbers);
    }
    frame.resize(frame.len() + 16, 0); // no more records
    (frame, at)
}

#[cfg(test)]
#[path = "aarch64_tests.rs"]
mod on_arm;

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
        let mut vectors = vec![0xaa; VECTOR_BYTES];
        vectors.extend_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
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
        assert!(registers.is_native());
    }

    #[test]
    fn a_call_has_its_number_and_arguments_where_the_kernel_looks_for_them() {
        let call = Call::new(57, &[3, 4]);
        let next = Registers::default().calling(0x4000, &call);
        assert_eq!(
            (next.x[8], next.x[0], next.x[1], next.at()),
            (57, 3, 4, 0x4000)
        );
        let next = next.running(0x100, 0x200, 0x300);
        assert_eq!((next.pc, next.x[19], next.sp), (0x100, 0x200, 0x300));
    }
}
