//! Those who wait for a lock that somebody else has: each has a thread here that waits for it.

use std::collections::{HashMap, VecDeque};
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::abi::InHeader;
use super::device::Errno;
use super::locks::{errno, Hold};
use super::workers::have_signals_interrupt;
use super::Shared;
use crate::files::lock::Lock;

const MOST: usize = 1000;
const STACK: usize = 64 << 10;
/// Those who were interrupted before they were known to wait.
const MOST_EARLY: usize = 64;

/// All who wait, by the number of their request.
#[derive(Default)]
pub struct Waits(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    all: HashMap<u64, Wait>,
    early: VecDeque<u64>,
}

struct Wait {
    interrupted: Arc<AtomicBool>,
    thread: libc::pthread_t,
}

impl Shared {
    /// Takes a lock when it is free, and answers then.
    pub fn lock_in_time(self: &Arc<Self>, header: &InHeader, body: &[u8]) {
        let outcome = match self.wanted_lock(header, body) {
            Ok(Some((hold, lock))) => match lock.take(&hold.fd, false).map_err(errno) {
                Err(libc::EAGAIN) => match self.wait_for(header.unique, hold, lock) {
                    Ok(()) => return,
                    failed => failed,
                },
                done => done,
            },
            other => other.map(drop),
        };
        self.device.done(header.unique, outcome);
    }

    fn wait_for(self: &Arc<Self>, unique: u64, hold: Arc<Hold>, lock: Lock) -> Result<(), Errno> {
        let mut waiting = self.waits.waiting();
        if waiting.all.len() >= MOST {
            return Err(libc::ENOLCK);
        }
        have_signals_interrupt();
        let early = waiting.early.len();
        waiting.early.retain(|one| *one != unique);
        let interrupted = Arc::new(AtomicBool::new(waiting.early.len() < early));
        let own = Arc::clone(self);
        let told = Arc::clone(&interrupted);
        let builder = std::thread::Builder::new()
            .name("locks".to_owned())
            .stack_size(STACK);
        let started = builder.spawn(move || {
            let outcome = taken(&hold, &lock, &told);
            own.waits.waiting().all.remove(&unique);
            own.device.done(unique, outcome);
        });
        let thread = started.map_err(|_| libc::ENOLCK)?.as_pthread_t();
        let wait = Wait {
            interrupted,
            thread,
        };
        waiting.all.insert(unique, wait); // it cannot have been removed: that needs what we hold
        Ok(())
    }
}

/// Waits until it is free, or nobody waits any longer.
fn taken(hold: &Hold, lock: &Lock, interrupted: &AtomicBool) -> Result<(), Errno> {
    while !interrupted.load(Ordering::SeqCst) {
        match lock.take(&hold.fd, true) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(errno(error)),
        }
    }
    Err(libc::EINTR) // the kernel has it asked for once more, where the signal allows that
}

impl Waits {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody has had a signal: waits no longer.
    pub fn interrupt(&self, unique: u64) {
        let mut waiting = self.waiting();
        if !waiting.all.contains_key(&unique) {
            if waiting.early.len() == MOST_EARLY {
                waiting.early.pop_front();
            }
            waiting.early.push_back(unique);
            return;
        }
        drop(waiting);
        self.end(|one| one == unique);
    }

    pub fn stop(&self) {
        self.end(|_| true);
    }

    /// Ends some waits, in a second at most: a signal that comes before the system call is lost.
    fn end(&self, which: impl Fn(u64) -> bool) {
        for attempt in 0..1000 {
            let waiting = self.waiting();
            let mut left = waiting
                .all
                .iter()
                .filter(|(unique, _)| which(**unique))
                .peekable();
            if left.peek().is_none() {
                return;
            }
            for (_, wait) in left {
                wait.interrupted.store(true, Ordering::SeqCst);
                // SAFETY: a thread takes itself off the list, under its lock, before it ends.
                unsafe { libc::pthread_kill(wait.thread, libc::SIGUSR2) };
            }
            drop(waiting);
            std::thread::sleep(Duration::from_micros(if attempt < 20 { 50 } else { 1000 }));
        }
    }
}
