//! A thread that computes with all registers is entered, on a kernel of this processor.
//!
//! Scalable vectors are what is special here: a system call, as ours in that thread, loses them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::BRANCH_TYPE;
use crate::ptrace::call::Call;
use crate::ptrace::remote::Inside;
use crate::ptrace::thread::{Report, Thread};
use crate::system::check;

const BYTES: usize = 64 << 10;
/// From the start of the memory that is shared with the thread: what its registers were, and what
/// they are afterwards.
const BEFORE: usize = 16 << 10;
const AFTER: usize = 40 << 10;
const DUMP: usize = 16 << 10;
const HWCAP_SVE: u64 = 1 << 22;
const PATIENCE: Duration = Duration::from_secs(30);

// Fills Z0 to Z31, P1 to P15 and FFR, writes them to x0 + BEFORE, says so at x0, runs in circles until
// told at x0 + 8, and writes them to x0 + AFTER.
std::arch::global_asm!(
    ".pushsection .text",
    ".arch_extension sve",
    ".macro squall_dump at",
    "add x2, x0, #\\at, lsl #12",
    "add x3, x2, #2, lsl #12",
    ".irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    "str z\\r, [x2, #\\r, mul vl]",
    ".endr",
    ".irp r,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "str p\\r, [x3, #\\r, mul vl]",
    ".endr",
    "rdffr p0.b",
    "str p0, [x3]",
    ".endm",
    "squall_compute:",
    ".irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    "mov z\\r\\().b, #\\r + 1",
    ".endr",
    "ptrue p0.b, vl5",
    "wrffr p0.b",
    ".irp r,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "ptrue p\\r\\().h",
    ".endr",
    "squall_dump 4",
    "mov x1, #1",
    "str x1, [x0]",
    "1: ldr x1, [x0, #8]",
    "cbz x1, 1b",
    "squall_dump 10",
    "mov x0, #0",
    "mov x8, #93", // exit
    "svc #0",
    ".popsection",
);

/// A process that computes, with memory that is shared with it.
struct Computing {
    pid: i32,
    memory: *mut u8,
}

// SAFETY: the memory is read and written as atomic words, or when nobody writes to it.
unsafe impl Sync for Computing {}

impl Computing {
    /// None where this processor cannot have one.
    fn start() -> Option<Self> {
        extern "C" {
            fn squall_compute(memory: *mut u8) -> !;
        }
        // SAFETY: plain calls; the child does nothing but what is above, in memory of its own.
        unsafe {
            if libc::getauxval(libc::AT_HWCAP) & HWCAP_SVE == 0 {
                eprintln!("not tried: this processor has no scalable vectors");
                return None;
            }
            let rights = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
            let memory = libc::mmap(std::ptr::null_mut(), BYTES, rights, flags, -1, 0);
            assert_ne!(memory, libc::MAP_FAILED);
            let memory = memory.cast::<u8>();
            let pid = check(libc::fork()).unwrap();
            if pid == 0 {
                squall_compute(memory);
            }
            let computing = Self { pid, memory };
            computing.until(|| computing.word(0).load(Ordering::Acquire) == 1);
            Some(computing)
        }
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        // SAFETY: the memory is there as long as this is, and is aligned.
        unsafe { &*self.memory.cast::<AtomicU64>().add(index) }
    }

    fn dump(&self, at: usize) -> Vec<u8> {
        // SAFETY: within the memory, which the process has written to, or never will.
        unsafe { std::slice::from_raw_parts(self.memory.add(at), DUMP) }.to_vec()
    }

    fn until(&self, mut holds: impl FnMut() -> bool) {
        let started = Instant::now();
        while !holds() {
            assert!(started.elapsed() < PATIENCE, "process {} hangs", self.pid);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Its thread at a stop.
    fn stopped(&self) -> Thread {
        let thread = Thread::seize(self.pid).unwrap();
        thread.interrupt().unwrap();
        self.until(|| thread.report().unwrap() == Report::Stopped);
        thread
    }

    /// Lets it end, and sees whether its registers are what they were.
    fn has_all(&self) {
        self.word(1).store(1, Ordering::Release);
        let mut status = -1;
        // SAFETY: the status outlives the call.
        self.until(|| unsafe { libc::waitpid(self.pid, &raw mut status, libc::WNOHANG) } != 0);
        assert_eq!(status, 0);
        assert!(self.dump(BEFORE).iter().any(|byte| *byte != 0));
        assert!(self.dump(BEFORE) == self.dump(AFTER), "registers differ");
    }
}

impl Drop for Computing {
    fn drop(&mut self) {
        let status = std::ptr::null_mut();
        // SAFETY: plain calls; a child that has been waited for cannot be met again.
        unsafe {
            if libc::waitpid(self.pid, status, libc::WNOHANG | libc::__WALL) == 0 {
                libc::kill(self.pid, libc::SIGKILL);
                libc::waitpid(self.pid, status, libc::__WALL);
            }
            libc::munmap(self.memory.cast(), BYTES);
        }
    }
}

fn asked(computing: &Computing, inside: &mut Inside<'_>) {
    let call = Call::new(libc::SYS_getpid, &[]);
    let returned = inside.run(&[call, call]).unwrap();
    assert_eq!(returned, [i64::from(computing.pid); 2]);
}

#[test]
fn a_thread_that_computes_has_all_its_registers_when_it_is_left() {
    let Some(computing) = Computing::start() else {
        return;
    };
    let thread = computing.stopped();
    let mut inside = Inside::enter(&thread).unwrap();
    asked(&computing, &mut inside);
    inside.leave().unwrap();
    thread.detach().unwrap();
    computing.has_all();
}

#[test]
fn a_thread_that_computes_has_all_its_registers_when_we_die_in_it() {
    let Some(computing) = Computing::start() else {
        return;
    };
    let dies = || {
        // Its descriptors and what it traces end with a thread, as with a process.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES).unwrap();
        let thread = computing.stopped();
        let mut inside = Inside::enter(&thread).unwrap();
        asked(&computing, &mut inside);
        std::mem::forget(inside);
    };
    std::thread::scope(|scope| scope.spawn(dies).join().unwrap());
    computing.has_all();
}

#[test]
fn a_thread_is_entered_behind_any_kind_of_branch() {
    let Some(computing) = Computing::start() else {
        return;
    };
    let thread = computing.stopped();
    let mut registers = thread.registers().unwrap();
    registers.pstate |= BRANCH_TYPE;
    thread.set_registers(&registers).unwrap();
    let mut inside = Inside::enter(&thread).unwrap();
    asked(&computing, &mut inside);
    inside.leave().unwrap();
    thread.detach().unwrap();
    computing.has_all();
}
