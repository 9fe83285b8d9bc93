//! System calls of ours in a thread that stands still.
//!
//! A little code runs inside, takes lots of calls from us, and sends a word over a socket after each
//! lot. When our end of it closes, it puts the thread back by the signal frame that lies ready: so
//! the target goes on as if nothing had been, whatever has become of us.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::call::{outcome, Call, CALL_BYTES};
use super::code::{self, gate};
use super::machine::{self, Registers};
use super::thread::{Report, Vectors};
use super::way_back::WayBack;
use super::{parcel, restartable, Thread};
use crate::system::{check, own};

/// Most calls in one lot.
pub const LOT: usize = 1024;
const ORDERS_BYTES: usize = 16;
const PAGE: usize = 4096;
/// From the start of the data: the frame (after room for what the code receives), then the orders,
/// then what callers put there.
const FRAME_AT: usize = 64;
const ORDERS_AT: usize = 5 * PAGE;
const ROOM_AT: usize = ORDERS_AT + ORDERS_BYTES + LOT * CALL_BYTES;
/// Bytes that callers may use.
pub const ROOM: usize = 8 * PAGE;
const DATA_BYTES: usize = (ROOM_AT + ROOM).next_multiple_of(PAGE);
const CODE_BYTES: usize = PAGE;

/// How long one of our calls may take until the thread is given up.
const PATIENCE: Duration = Duration::from_secs(3);

/// A thread with our code in it. The process must not run otherwise meanwhile.
pub struct Inside<'a> {
    thread: &'a Thread,
    memory: File,
    was: Registers,
    blocked: u64,
    vectors: Vectors,
    /// Address of an instruction that calls the kernel.
    gate: u64,
    /// Where it can return to by itself even from single calls.
    way_back: Option<WayBack>,
    code: u64,
    data: u64,
    ours: OwnedFd,
    theirs: i32,
    /// Does our code run? Else the thread stands still.
    runs: bool,
    left: bool,
}

impl<'a> Inside<'a> {
    /// Enters a thread that is stopped.
    pub fn enter(thread: &'a Thread) -> io::Result<Self> {
        let tid = thread.tid;
        let memory = File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/{tid}/mem"))?;
        let read = |at: u64, into: &mut [u8]| memory.read_exact_at(into, at);
        let was = restartable::to_go_on_with(thread, read)?;
        if !was.is_native() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("thread {tid} runs code of another kind of processor"),
            ));
        }
        if thread.is_filtered() {
            thread.suspend_seccomp()?;
        }
        let gate = gate(tid, &memory)?;
        let blocked = thread.blocked_signals()?;
        let vectors = thread.vectors()?;
        let after = was.with_call_taken_up();
        let frame = |at| machine::frame(&after, blocked, &vectors, at);
        let way_back = WayBack::laid(tid, &memory, frame);
        let mut inside = Self {
            thread,
            memory,
            was,
            blocked,
            vectors,
            gate: way_back.as_ref().map_or(gate, |way| way.gate),
            way_back,
            code: 0,
            data: 0,
            // SAFETY: plain call; replaced before it is used.
            ours: own(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?,
            theirs: -1,
            runs: false,
            left: false,
        };
        // Only then its signals: from then on it gets them back whatever becomes of us.
        let idle = Call::new(libc::SYS_getpid, &[]);
        thread.set_registers(&inside.calling(&idle))?;
        thread.block_signals(u64::MAX)?;
        inside.settle()?; // dropped on an error: then the thread is put back
        Ok(inside)
    }

    fn settle(&mut self) -> io::Result<()> {
        let (read, write, run) = (libc::PROT_READ, libc::PROT_WRITE, libc::PROT_EXEC);
        self.code = self.map(CODE_BYTES, read | run)?;
        self.data = self.map(DATA_BYTES, read | write)?;
        self.memory.write_all_at(code::bytes(), self.code)?;
        let frame_at = self.data + FRAME_AT as u64;
        let after = self.was.with_call_taken_up();
        let (frame, stack) = machine::frame(&after, self.blocked, &self.vectors, frame_at);
        if FRAME_AT + frame.len() > ORDERS_AT {
            return Err(io::Error::other(
                "the state of this processor is larger than expected",
            ));
        }
        self.memory.write_all_at(&frame, frame_at)?;
        let kind = (libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC) as u64;
        let pair = [libc::AF_UNIX as u64, kind, 0, self.room()];
        outcome(self.call(&Call::new(libc::SYS_socketpair, &pair))?)?;
        let mut ends = [0; 8];
        self.read(self.room(), &mut ends)?;
        let end = |i: usize| i32::from_ne_bytes(std::array::from_fn(|byte| ends[4 * i + byte]));
        self.theirs = end(0);
        self.ours = crate::process::descriptor_of(self.thread.tid, end(1))?;
        outcome(self.call(&Call::new(libc::SYS_close, &[end(1) as u64]))?)?;
        self.order(&[])?;
        let orders = self.data + ORDERS_AT as u64;
        let registers = self.was.running(self.code, orders, stack);
        self.stop()?;
        self.thread.set_registers(&registers)?;
        self.runs = true;
        self.thread.go_on(0)?;
        self.await_word()
    }

    fn map(&self, length: usize, protection: libc::c_int) -> io::Result<u64> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let (length, rights) = (length as u64, protection as u64);
        let arguments = [0, length, rights, flags as u64, u64::MAX, 0];
        outcome(self.call(&Call::new(libc::SYS_mmap, &arguments))?)
    }

    /// Address of memory for callers: `ROOM` bytes.
    pub fn room(&self) -> u64 {
        self.data + ROOM_AT as u64
    }

    pub fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.memory.read_exact_at(into, at)
    }

    /// Writes, wherever the memory is the process's own, whatever its protection.
    pub fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.memory.write_all_at(bytes, at)
    }

    /// Does at most `LOT` calls in order, and gives what each returned: -errno where it failed.
    pub fn run(&mut self, calls: &[Call]) -> io::Result<Vec<i64>> {
        self.run_with(&[], |_| calls.to_vec())
    }

    /// The same with at most `GIFTS` descriptors of ours: `calls` is told the address of the array of
    /// their numbers inside (-1 where one could not be taken), and has to close them.
    pub fn run_with(
        &mut self,
        gifts: &[BorrowedFd<'_>],
        calls: impl FnOnce(u64) -> Vec<Call>,
    ) -> io::Result<Vec<i64>> {
        let at = self.room() + (ROOM - parcel::BYTES) as u64;
        let (parcel, numbers) = parcel::laid_out(at, gifts.len());
        let mut lot = Vec::new();
        if !gifts.is_empty() {
            self.write(at, &parcel)?;
            let flags = libc::MSG_CMSG_CLOEXEC as u64;
            lot.push(Call::new(
                libc::SYS_recvmsg,
                &[self.theirs as u64, at, flags],
            ));
        }
        let head = lot.len();
        lot.extend(calls(numbers));
        self.order(&lot)?;
        self.say_go()?;
        if !gifts.is_empty() {
            parcel::send(&self.ours, b"+", gifts)?; // after the word: the code waits for that first
        }
        let mut returned = self.returned(lot.len())?;
        let taken = returned.drain(..head).next().unwrap_or(0);
        outcome(taken)?;
        Ok(returned)
    }

    fn returned(&self, calls: usize) -> io::Result<Vec<i64>> {
        self.await_word()?;
        let mut done = vec![0; calls * CALL_BYTES];
        self.read(self.data + (ORDERS_AT + ORDERS_BYTES) as u64, &mut done)?;
        let results = done.chunks_exact(CALL_BYTES);
        Ok(results
            .map(|one| i64::from_ne_bytes(std::array::from_fn(|i| one[64 + i])))
            .collect())
    }

    /// Leaves the thread as it was when it was entered; it still stands still.
    pub fn leave(mut self) -> io::Result<()> {
        self.put_back()
    }

    fn put_back(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.left, true) {
            return Ok(());
        }
        self.stop()?;
        let mut calls = Vec::new();
        if self.theirs >= 0 {
            calls.push(Call::new(libc::SYS_close, &[self.theirs as u64]));
        }
        for (at, length) in [(self.data, DATA_BYTES), (self.code, CODE_BYTES)] {
            if at != 0 {
                calls.push(Call::new(libc::SYS_munmap, &[at, length as u64]));
            }
        }
        for call in calls {
            self.call(&call)?;
        }
        self.stop()?;
        self.thread.block_signals(self.blocked)?;
        self.thread.set_registers(&self.was)?;
        self.thread.give_back(&self.vectors)?;
        match &self.way_back {
            Some(way) => way.take_up(&self.memory),
            None => Ok(()),
        }
    }

    fn calling(&self, call: &Call) -> Registers {
        let next = self.was.calling(self.gate, call);
        match &self.way_back {
            Some(way) => next.coming_back(way.stack, way.end),
            None => next,
        }
    }

    /// A call without our code: the thread does only this one, and stops.
    fn call(&self, call: &Call) -> io::Result<i64> {
        self.thread.set_registers(&self.calling(call))?;
        for _ in ["on entry", "on exit"] {
            self.thread.go_on_to_call()?;
            self.await_report(&Report::AtCall, || self.thread.go_on_to_call())?;
        }
        Ok(self.thread.registers()?.returned())
    }

    /// Brings the thread to where the kernel takes up an interrupted call when it goes on.
    fn stop(&mut self) -> io::Result<()> {
        self.thread.interrupt()?;
        if !std::mem::replace(&mut self.runs, false) {
            self.thread.go_on(0)?;
        }
        self.await_report(&Report::Stopped, || Ok(()))
    }

    fn await_report(&self, wanted: &Report, go_on: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let started = Instant::now();
        loop {
            match self.thread.report()? {
                report if report == *wanted => return Ok(()),
                Report::Running if started.elapsed() > PATIENCE => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("thread {} does not come to a stop", self.thread.tid),
                    ));
                }
                Report::Running => std::thread::yield_now(),
                Report::Stopped => go_on()?,
                Report::AtCall => self.thread.go_on(0)?,
                report => self.meet(&report)?,
            }
        }
    }

    /// What may come although all signals are blocked.
    fn meet(&self, report: &Report) -> io::Result<()> {
        match report {
            Report::Signal(libc::SIGSTOP) => self.thread.go_on(libc::SIGSTOP),
            Report::Signal(signal) => Err(io::Error::other(format!(
                "our code in thread {} got signal {signal}",
                self.thread.tid
            ))),
            Report::Ended => Err(io::Error::from_raw_os_error(libc::ESRCH)),
            _ => self.thread.go_on(0),
        }
    }

    fn order(&self, calls: &[Call]) -> io::Result<()> {
        assert!(calls.len() <= LOT, "too many calls in one lot");
        let mut words = vec![calls.len() as u64, self.theirs as u64];
        words.extend(calls.iter().flat_map(Call::words));
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.write(self.data + ORDERS_AT as u64, &bytes)
    }

    fn say_go(&self) -> io::Result<()> {
        let socket = self.ours.as_raw_fd();
        // SAFETY: one byte that outlives the call.
        let sent = unsafe { libc::send(socket, b"!".as_ptr().cast(), 1, libc::MSG_NOSIGNAL) };
        check(sent as i64).map(drop)
    }

    fn await_word(&self) -> io::Result<()> {
        let started = Instant::now();
        loop {
            let [ready] =
                crate::system::poll([self.ours.as_raw_fd()], Some(Duration::from_millis(20)))?;
            if ready {
                // SAFETY: the duplicate is closed with the file.
                let mut word =
                    unsafe { File::from_raw_fd(check(libc::dup(self.ours.as_raw_fd()))?) };
                return match word.read(&mut [0; 8])? {
                    0 => Err(io::Error::from_raw_os_error(libc::ESRCH)),
                    _ => Ok(()),
                };
            }
            match self.thread.report()? {
                Report::Running if started.elapsed() > PATIENCE => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Report::Running => {}
                report => self.meet(&report)?,
            }
        }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let _ = self.put_back();
    }
}
