//! Registers, signal frame and the code that runs inside, on x86-64.

use super::call::Call;
use super::thread::Vectors;

/// `syscall`.
pub const CALL_INSTRUCTION: &[u8] = &[0x0f, 0x05];
/// `syscall; ret`.
pub const CALL_AND_RETURN: &[u8] = &[0x0f, 0x05, 0xc3];
/// `mov rax, 15; syscall`, in two ways to write it.
pub const RETURNS_BY_FRAME: &[&[u8]] = &[
    &[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05],
    &[0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05],
];
/// What a return takes off the stack.
pub const RETURN_BYTES: u64 = 8;
/// NT_X86_XSTATE.
pub const VECTOR_SET: usize = 0x202;

/// `struct user_regs_struct`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    rbp: u64,
    rbx: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rax: u64,
    rcx: u64,
    rdx: u64,
    rsi: u64,
    rdi: u64,
    orig_rax: u64,
    rip: u64,
    cs: u64,
    eflags: u64,
    rsp: u64,
    ss: u64,
    fs_base: u64,
    gs_base: u64,
    ds: u64,
    es: u64,
    fs: u64,
    gs: u64,
}

/// Selector of code of 64 bits.
const USER_CS: u64 = 0x33;
/// Flags that would change what our code does: trap, direction, nested task, resume, alignment.
const FLAGS_TO_CLEAR: u64 = 0x100 | 0x400 | 0x4000 | 0x1_0000 | 0x4_0000;
/// Not within a system call.
const NO_CALL: u64 = u64::MAX;

const ERESTARTSYS: u64 = (-512_i64) as u64;
const ERESTARTNOINTR: u64 = (-513_i64) as u64;
const ERESTARTNOHAND: u64 = (-514_i64) as u64;
const ERESTART_RESTARTBLOCK: u64 = (-516_i64) as u64;

impl Registers {
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: plain numbers without padding.
        unsafe {
            std::slice::from_raw_parts_mut(std::ptr::from_mut(self).cast::<u8>(), size_of::<Self>())
        }
    }

    /// Can our code run in this thread?
    pub fn is_native(&self) -> bool {
        self.cs == USER_CS
    }

    pub fn at(&self) -> u64 {
        self.rip
    }

    /// Goes on elsewhere; a system call that was interrupted is not taken up again.
    pub fn go_on_at(&mut self, at: u64) {
        (self.rip, self.orig_rax) = (at, NO_CALL);
    }

    /// What a signal frame must hold for an interrupted system call to be taken up again, which
    /// the kernel does only for a thread that it has stopped itself.
    pub fn with_call_taken_up(&self) -> Self {
        let mut fixed = *self;
        if (self.orig_rax as i64) < 0 {
            return fixed;
        }
        match self.rax {
            ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND => {
                fixed.rax = self.orig_rax;
                fixed.rip -= CALL_INSTRUCTION.len() as u64;
            }
            ERESTART_RESTARTBLOCK => fixed.rax = (-i64::from(libc::EINTR)) as u64,
            _ => {}
        }
        fixed
    }

    /// Before an instruction that calls the kernel: here no call was interrupted, for those are
    /// behind it.
    pub fn take_up_wait(&mut self) {}

    /// About to make a system call with the instruction at `at`.
    pub fn calling(&self, at: u64, call: &Call) -> Self {
        let [rdi, rsi, rdx, r10, r8, r9] = call.arguments;
        Self {
            rip: at,
            rax: call.number,
            orig_rax: NO_CALL,
            eflags: self.eflags & !FLAGS_TO_CLEAR,
            rdi,
            rsi,
            rdx,
            r10,
            r8,
            r9,
            ..*self
        }
    }

    /// With a return to `end` on `stack` ahead; there it stands already.
    pub fn coming_back(self, stack: u64, _end: u64) -> Self {
        Self { rsp: stack, ..self }
    }

    /// About to run our code at `code`, told what to do at `orders`.
    pub fn running(&self, code: u64, orders: u64, frame: u64) -> Self {
        Self {
            rip: code,
            rsp: frame,
            r12: orders,
            orig_rax: NO_CALL,
            eflags: self.eflags & !FLAGS_TO_CLEAR,
            ..*self
        }
    }

    pub fn returned(&self) -> i64 {
        self.rax as i64
    }
}

// Runs calls in order, says so, waits for the next lot; when nobody is there any more, returns by
// the signal frame. r12: orders, as `remote.rs` lays them out; rsp: the frame.
std::arch::global_asm!(
    ".pushsection .rodata",
    ".globl squall_inside",
    ".globl squall_inside_end",
    ".hidden squall_inside",
    ".hidden squall_inside_end",
    "squall_inside:",
    "1: mov r13, [r12]",   // how many
    "lea rbx, [r12 + 16]", // the first
    "2: test r13, r13",
    "jz 4f",
    "mov rdi, [rbx + 8]",
    "mov rsi, [rbx + 16]",
    "mov rdx, [rbx + 24]",
    "mov r10, [rbx + 32]",
    "mov r8, [rbx + 40]",
    "mov r9, [rbx + 48]",
    "test byte ptr [rbx + 56], 1",
    "jz 3f",
    "movsxd rdi, dword ptr [rdi]", // the descriptor is at that address
    "3: test byte ptr [rbx + 56], 2",
    "jz 6f",
    "movsxd r8, dword ptr [r8]",
    "6: mov rax, [rbx]",
    "syscall",
    "mov [rbx + 64], rax",
    "add rbx, 80",
    "dec r13",
    "jmp 2b",
    "4: mov rdi, [r12 + 8]", // the socket
    "mov rsi, r12",
    "mov edx, 1",
    "mov r10d, 0x4000", // MSG_NOSIGNAL
    "xor r8d, r8d",
    "xor r9d, r9d",
    "mov eax, 44", // sendto
    "syscall",
    "5: mov rdi, [r12 + 8]",
    "lea rsi, [rsp - 16]",
    "mov edx, 1",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "xor r9d, r9d",
    "mov eax, 45", // recvfrom
    "syscall",
    "cmp rax, 1",
    "je 1b",
    "cmp rax, -4", // EINTR
    "je 5b",
    "mov rdi, [r12 + 8]",
    "mov eax, 3", // close
    "syscall",
    "mov eax, 15", // rt_sigreturn
    "syscall",
    "squall_inside_end:",
    ".popsection",
);

const XSTATE_SOFTWARE_AT: usize = 464;
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;
/// Floating point state with extensions, and a stack segment that is restored as it is.
const UC_FLAGS: u64 = 0x7;
/// A mode that there is not: the kernel then leaves the alternate stack as it is.
const UC_STACK_FLAGS: u64 = 0x7;
/// From the start of the frame, without the return address, to the vectors; a multiple of 64.
const VECTORS_AT: usize = 512;

/// What each system call takes of the vector registers: nothing.
pub fn lost(_: impl Fn(usize) -> std::io::Result<Vec<u8>>) -> Option<(usize, Vec<u8>)> {
    None
}

/// A signal frame by which the thread gets `registers` back, and what rsp is to be for that.
///
/// `at` is a multiple of 64.
pub fn frame(registers: &Registers, mask: u64, vectors: &Vectors, at: u64) -> (Vec<u8>, u64) {
    let one = registers;
    let segments = one.cs | one.ss << 48;
    let words = [
        UC_FLAGS,
        0,
        0,
        UC_STACK_FLAGS,
        0,
        one.r8,
        one.r9,
        one.r10,
        one.r11,
        one.r12,
        one.r13,
        one.r14,
        one.r15,
        one.rdi,
        one.rsi,
        one.rbp,
        one.rbx,
        one.rdx,
        one.rax,
        one.rcx,
        one.rsp,
        one.rip,
        one.eflags,
        segments,
        0,
        0,
        0,
        0,
        at + VECTORS_AT as u64,
    ];
    let mut frame: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    frame.resize(frame.len() + 64, 0);
    frame.extend_from_slice(&mask.to_ne_bytes());
    frame.resize(VECTORS_AT, 0);
    let mut state = vectors.state.clone();
    if state.len() > XSTATE_SOFTWARE_AT + 48 {
        let features: [u8; 8] = std::array::from_fn(|i| state[XSTATE_SOFTWARE_AT + i]);
        let length = state.len() as u32;
        let mut software = FP_XSTATE_MAGIC1.to_ne_bytes().to_vec();
        software.extend_from_slice(&(length + 4).to_ne_bytes());
        software.extend_from_slice(&features);
        software.extend_from_slice(&length.to_ne_bytes());
        state[XSTATE_SOFTWARE_AT..XSTATE_SOFTWARE_AT + software.len()].copy_from_slice(&software);
        state.extend_from_slice(&FP_XSTATE_MAGIC2.to_ne_bytes());
    }
    frame.extend_from_slice(&state);
    (frame, at)
}
