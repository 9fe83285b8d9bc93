//! Registers, signal frame and the code that runs inside, on 64-bit Arm.

mod frame;

pub use frame::frame;
#[cfg(target_arch = "aarch64")]
pub use frame::lost;

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
/// Bits of the state that say which kind of branch was the last: after some, guarded code faults
/// unless it begins with a landing pad, which no instruction of ours is.
const BRANCH_TYPE: u64 = 0xc00;

const FUTEX: u64 = 98;
const NANOSLEEP: u64 = 101;
const CLOCK_NANOSLEEP: u64 = 115;
const RESTART: u64 = 128;
const FUTEX_COMMAND: u64 = 0x7f;

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

    /// Before an instruction that calls the kernel: a wait for some time waits for what is left of it.
    ///
    /// The kernel, too, has another call take it up, but only at the very stop that interrupted it,
    /// and it does not tell. Who was stopped before such a call had begun is taken for one in it.
    pub fn take_up_wait(&mut self) {
        let for_some_time = match self.x[8] {
            NANOSLEEP => true,
            CLOCK_NANOSLEEP => self.x[1] & libc::TIMER_ABSTIME as u64 == 0,
            FUTEX => self.x[1] & FUTEX_COMMAND == libc::FUTEX_WAIT as u64 && self.x[3] != 0,
            _ => false,
        };
        if for_some_time {
            self.x[8] = RESTART;
        }
    }

    /// About to make a system call with the instruction at `at`.
    pub fn calling(&self, at: u64, call: &Call) -> Self {
        let mut next = *self;
        next.x[..6].copy_from_slice(&call.arguments);
        next.x[8] = call.number;
        next.pc = at;
        next.pstate &= !BRANCH_TYPE;
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
        next.pstate &= !BRANCH_TYPE;
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

#[cfg(test)]
mod on_arm;
#[cfg(all(test, target_arch = "aarch64"))]
mod on_kernel;

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(next.is_native());
    }

    #[test]
    fn a_wait_for_some_time_is_not_begun_anew_and_others_are() {
        let after = |number: u64, arguments: [u64; 4]| {
            let mut registers = Registers::default();
            registers.x[..4].copy_from_slice(&arguments);
            registers.x[8] = number;
            registers.take_up_wait();
            registers.x[8]
        };
        assert_eq!(after(NANOSLEEP, [1, 0, 0, 0]), RESTART);
        assert_eq!(after(CLOCK_NANOSLEEP, [1, 0, 9, 0]), RESTART);
        assert_eq!(after(CLOCK_NANOSLEEP, [1, 1, 9, 0]), CLOCK_NANOSLEEP);
        let (private_wait, private_wait_until, private_wake) = (0x80, 0x89, 0x81);
        assert_eq!(after(FUTEX, [9, private_wait, 0, 9]), RESTART);
        for (command, until) in [
            (private_wait, 0),
            (private_wait_until, 9),
            (private_wake, 9),
        ] {
            assert_eq!(after(FUTEX, [9, command, 0, until]), FUTEX);
        }
        assert_eq!(after(63, [0, 1, 2, 3]), 63);
    }
}
