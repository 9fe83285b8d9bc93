//! One thread that we trace.

use std::ffi::c_void;
use std::fs;
use std::io;

use super::machine::{self, Registers};
use crate::system::check;

/// Seccomp filters rest while we trace (a constant that libc lacks).
const PTRACE_O_SUSPEND_SECCOMP: libc::c_int = 1 << 21;
const PTRACE_GETSIGMASK: libc::c_uint = 0x420a;
const PTRACE_SETSIGMASK: libc::c_uint = 0x420b;
const PTRACE_EVENT_STOP: i32 = 128;
/// Registers as ELF core dumps name them.
const NT_PRSTATUS: usize = 1;
/// Longer than any state of floating point and vector registers.
const LARGEST_VECTOR_STATE: usize = 16 << 10;

/// Why a thread stands still, or that it does not.
#[derive(Debug, PartialEq, Eq)]
pub enum Report {
    Running,
    /// It stopped since we asked, or together with its group: its registers may be changed.
    Stopped,
    /// It enters or leaves a system call.
    AtCall,
    /// A signal waits to be delivered.
    Signal(i32),
    Ended,
}

/// Floating point and vector registers.
pub struct Vectors {
    /// As a signal frame has them.
    pub state: Vec<u8>,
    /// A set of registers that lose something by each system call, and what is in it.
    pub lost: Option<(usize, Vec<u8>)>,
}

/// A thread that is ours to stop. It goes on as it was when this process ends.
#[derive(Debug)]
pub struct Thread {
    pub tid: i32,
}

impl Thread {
    /// Begins to trace, without stopping it.
    pub fn seize(tid: i32) -> io::Result<Self> {
        request(
            libc::PTRACE_SEIZE,
            tid,
            0,
            libc::PTRACE_O_TRACESYSGOOD as usize,
        )?;
        Ok(Self { tid })
    }

    /// Asks it to stop.
    pub fn interrupt(&self) -> io::Result<()> {
        request(libc::PTRACE_INTERRUPT, self.tid, 0, 0)
    }

    /// What it has come to, without waiting for it.
    pub fn report(&self) -> io::Result<Report> {
        let mut status = 0;
        // SAFETY: the status outlives the call.
        let found =
            check(unsafe { libc::waitpid(self.tid, &mut status, libc::WNOHANG | libc::__WALL) })?;
        Ok(if found == 0 {
            Report::Running
        } else if !libc::WIFSTOPPED(status) {
            Report::Ended
        } else if status >> 16 == PTRACE_EVENT_STOP {
            Report::Stopped
        } else {
            match libc::WSTOPSIG(status) {
                signal if signal == libc::SIGTRAP | 0x80 => Report::AtCall,
                signal => Report::Signal(signal),
            }
        })
    }

    /// Lets it go on to user space, with a signal or 0.
    pub fn go_on(&self, signal: i32) -> io::Result<()> {
        request(libc::PTRACE_CONT, self.tid, 0, signal as usize)
    }

    /// Lets it go on to its next entry into, or exit from, a system call.
    pub fn go_on_to_call(&self) -> io::Result<()> {
        request(libc::PTRACE_SYSCALL, self.tid, 0, 0)
    }

    /// Ends the tracing of a stopped thread.
    pub fn detach(&self) -> io::Result<()> {
        request(libc::PTRACE_DETACH, self.tid, 0, 0)
    }

    /// Lets system calls pass whatever its seccomp filters say, until it is traced no more.
    pub fn suspend_seccomp(&self) -> io::Result<()> {
        let options = libc::PTRACE_O_TRACESYSGOOD | PTRACE_O_SUSPEND_SECCOMP;
        request(libc::PTRACE_SETOPTIONS, self.tid, 0, options as usize)
    }

    /// Does a seccomp filter look at its system calls?
    pub fn is_filtered(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.tid)).unwrap_or_default();
        let mut lines = status.lines();
        let mode = lines.find_map(|line| line.strip_prefix("Seccomp:"));
        mode.is_some_and(|mode| mode.trim() != "0")
    }

    pub fn registers(&self) -> io::Result<Registers> {
        let mut registers = Registers::default();
        let bytes = self.transfer(libc::PTRACE_GETREGSET, NT_PRSTATUS, registers.bytes())?;
        if bytes == size_of::<Registers>() {
            Ok(registers)
        } else {
            Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a program for another kind of processor, as one of 32 bits",
            ))
        }
    }

    pub fn set_registers(&self, registers: &Registers) -> io::Result<()> {
        let mut registers = *registers;
        self.transfer(libc::PTRACE_SETREGSET, NT_PRSTATUS, registers.bytes())
            .map(drop)
    }

    pub fn vectors(&self) -> io::Result<Vectors> {
        Ok(Vectors {
            state: self.state_of(machine::VECTOR_SET)?,
            lost: machine::lost(|set| self.state_of(set)),
        })
    }

    /// Gives back what system calls took of them.
    pub fn give_back(&self, vectors: &Vectors) -> io::Result<()> {
        let Some((set, state)) = &vectors.lost else {
            return Ok(());
        };
        self.transfer(libc::PTRACE_SETREGSET, *set, &mut state.clone())
            .map(drop)
    }

    fn state_of(&self, set: usize) -> io::Result<Vec<u8>> {
        let mut state = vec![0; LARGEST_VECTOR_STATE];
        let bytes = self.transfer(libc::PTRACE_GETREGSET, set, &mut state)?;
        state.truncate(bytes);
        Ok(state)
    }

    pub fn blocked_signals(&self) -> io::Result<u64> {
        let mut mask = 0_u64;
        let into = std::ptr::from_mut(&mut mask) as usize;
        request(PTRACE_GETSIGMASK, self.tid, size_of::<u64>(), into)?;
        Ok(mask)
    }

    pub fn block_signals(&self, mask: u64) -> io::Result<()> {
        let from = std::ptr::from_ref(&mask) as usize;
        request(PTRACE_SETSIGMASK, self.tid, size_of::<u64>(), from)
    }

    fn transfer(&self, verb: libc::c_uint, set: usize, bytes: &mut [u8]) -> io::Result<usize> {
        let mut vector = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast::<c_void>(),
            iov_len: bytes.len(),
        };
        let vector_at = std::ptr::from_mut(&mut vector) as usize;
        request(verb, self.tid, set, vector_at)?;
        Ok(vector.iov_len)
    }
}

/// Who traces a process already: its number and name.
pub fn tracer(pid: i32) -> Option<(i32, String)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"))?;
    let tracer: i32 = line.trim().parse().ok().filter(|pid| *pid != 0)?;
    let name = fs::read_to_string(format!("/proc/{tracer}/comm")).unwrap_or_default();
    Some((tracer, name.trim().to_owned()))
}

fn request(verb: libc::c_uint, tid: i32, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: whoever passes an address keeps what is there alive and of the length that it says.
    check(unsafe { libc::ptrace(verb, tid, address, data) }).map(drop)
}
