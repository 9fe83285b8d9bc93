//! The thread of one lane: frames come from the TAP device, wait, and go to the real one.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc;
use std::time::Duration;

use super::frame::{unstamp, Arrival, Frame};
use super::request::Counters;
use super::scheduler::{Rule, Scheduler};
use super::sender::{Sender, BATCH};
use super::tap::Tap;
use crate::system;

/// A sign of life is given this often, in ns; the classifier misses it after a second.
const HEARTBEAT: u64 = 250_000_000;

/// An idle CPU needs some 50 us to wake up, so we wake early and watch the clock, in ns.
const EARLY: u64 = 80_000;

/// Share of time that may go into watching the clock: one in so many.
const WATCHING_SHARE: u64 = 20;

/// Frames taken before looking at what is due.
const INTAKE: usize = 128;

/// With this many frames an intake they come in crowds, so looking at every one is a waste:
const CROWD: usize = 16;
/// then the next look is taken after so many ns. Their moments are stamped by the kernel.
const CROWD_REST: u64 = 100_000;

/// What the thread is told by its lane.
pub enum Order {
    Rules(Vec<Rule>, bool),
    Report(mpsc::Sender<Report>),
    /// Send all that waits, and end.
    Stop,
}

/// What a lane did so far.
pub struct Report {
    pub counters: Vec<(String, Counters)>,
    pub unsent: u64,
}

/// Everything the thread works with.
pub struct Pump {
    pub tap: Tap,
    pub sender: Sender,
    pub scheduler: Scheduler,
    pub device_address: [u8; 6],
    pub orders: mpsc::Receiver<Order>,
    /// Readable when there is an order.
    pub bell: OwnedFd,
    pub heartbeat: Heartbeat,
}

impl Pump {
    /// Works until it is told to stop. An error means that the TAP device is gone.
    pub fn run(mut self) -> io::Result<()> {
        prefer_this_thread();
        let mut batch = Vec::with_capacity(BATCH);
        let mut watched = Watching::default();
        loop {
            self.heartbeat.beat(monotonic());
            if self.obey() {
                return self.drain();
            }
            let taken = self.take()?;
            let now = monotonic();
            while let Some(frame) = self.scheduler.pop(now) {
                batch.push(frame);
                if batch.len() == BATCH {
                    self.send(&mut batch);
                }
            }
            self.send(&mut batch);
            if taken < INTAKE {
                self.rest(taken >= CROWD, &mut watched)?;
            }
        }
    }

    /// Carries out what was ordered; true: stop.
    fn obey(&mut self) -> bool {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Rules(rules, trains) => {
                    if let Err(error) = self.tap.take_trains(trains) {
                        system::log(&format!("offloads of the TAP device: {error}"));
                    }
                    self.scheduler.replace(rules, monotonic());
                }
                Order::Report(to) => {
                    let _ = to.send(Report {
                        counters: self.scheduler.counters(),
                        unsent: self.scheduler.unsent,
                    });
                }
                Order::Stop => return true,
            }
        }
        false
    }

    fn take(&mut self) -> io::Result<usize> {
        for taken in 0..INTAKE {
            let Some(mut bytes) = self.tap.read()? else {
                return Ok(taken);
            };
            let now = monotonic();
            match unstamp(&mut bytes, self.device_address, self.tap.address, now) {
                Arrival::Stray => {}
                Arrival::At(moment) => self.scheduler.accept(Frame::new(bytes), moment),
                Arrival::Unknown => self.scheduler.accept(Frame::new(bytes), now),
            }
        }
        Ok(INTAKE)
    }

    fn send(&mut self, batch: &mut Vec<Frame>) {
        if !batch.is_empty() {
            self.scheduler.unsent += self.sender.send(batch);
            for frame in batch.drain(..) {
                self.tap.recycle(frame.bytes);
            }
        }
    }

    /// Sleeps until something is due, comes in, or is ordered.
    fn rest(&mut self, crowded: bool, watched: &mut Watching) -> io::Result<()> {
        let now = monotonic();
        let due = self.scheduler.next_due().unwrap_or(u64::MAX);
        let wait = due.saturating_sub(now).min(HEARTBEAT);
        if crowded {
            let rest = Duration::from_nanos(wait.min(CROWD_REST));
            return system::poll([self.bell.as_raw_fd()], Some(rest))
                .and_then(|[rung]| self.quiet(rung));
        }
        let early = if watched.may(now) { EARLY } else { 0 };
        if wait > early {
            let fds = [self.bell.as_raw_fd(), self.tap.as_raw_fd()];
            let rest = Duration::from_nanos(wait - early);
            return system::poll(fds, Some(rest)).and_then(|[rung, _]| self.quiet(rung));
        }
        watched.until(due);
        Ok(())
    }

    /// Stops the bell.
    fn quiet(&self, rung: bool) -> io::Result<()> {
        if rung {
            let mut count = 0u64;
            // SAFETY: eight bytes, as an eventfd gives.
            unsafe { libc::read(self.bell.as_raw_fd(), (&raw mut count).cast(), 8) };
        }
        Ok(())
    }

    /// Sends what is still here; nothing new comes, for the link is gone by now.
    fn drain(mut self) -> io::Result<()> {
        while self.take()? > 0 {}
        let frames = self.scheduler.flush();
        for batch in frames.chunks(BATCH) {
            self.sender.send(batch);
        }
        Ok(())
    }
}

/// How much of the time went into watching the clock.
#[derive(Default)]
struct Watching {
    /// From this moment on it may be done again, in ns.
    again: u64,
}

impl Watching {
    fn may(&self, now: u64) -> bool {
        now >= self.again
    }

    /// Watches the clock until `due`; the time it took is saved up again before the next time.
    fn until(&mut self, due: u64) {
        let start = monotonic();
        let mut now = start;
        while now < due {
            std::hint::spin_loop();
            now = monotonic();
        }
        self.again = now + (now - start) * WATCHING_SHARE;
    }
}

/// The moment of our last sign of life, in memory that the classifier reads.
pub struct Heartbeat(*mut u64);

// SAFETY: the mapping belongs to whoever has this value; the kernel only reads it.
unsafe impl Send for Heartbeat {}

impl Heartbeat {
    pub const BYTES: u32 = 8;

    /// Maps an array of the kernel.
    pub fn map(array: &OwnedFd) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let mapped = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                Self::BYTES as usize,
                protection,
                libc::MAP_SHARED,
                array.as_raw_fd(),
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(mapped.cast()))
    }

    /// Says that we are alive at `now` (ns of CLOCK_MONOTONIC).
    pub fn beat(&self, now: u64) {
        // SAFETY: mapped for as long as `self` lives; aligned, as a mapping is.
        unsafe { self.0.write_volatile(now) }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        // SAFETY: mapped by us, once.
        unsafe { libc::munmap(self.0.cast(), Self::BYTES as usize) };
    }
}

fn monotonic() -> u64 {
    system::clock(libc::CLOCK_MONOTONIC)
}

/// A late wake-up is an error in the delay, so this thread comes before others, and its timers are
/// not put together with others'.
fn prefer_this_thread() {
    const NICE: libc::c_int = -10;
    // SAFETY: plain calls about this thread; where they are refused, it is merely less exact.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1);
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
    }
}
