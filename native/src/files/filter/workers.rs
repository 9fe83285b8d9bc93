//! Threads that take requests from the kernel: as many as there are requests that wait for a disk.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::caller::Rights;
use super::device::{Buffer, LARGEST_DATA};
use super::{pruning, Shared};
use crate::packets::random::Random;
use crate::system::log;

const MOST: usize = 24;
/// So many stay when there is nothing to do.
const KEPT: usize = 4;
const PR_SET_IO_FLUSHER: i32 = 57;
/// Of each; what is not used costs nothing.
pub const STACK: usize = 128 << 10;

/// How many there are.
#[derive(Default)]
pub struct Workers {
    all: AtomicUsize,
    idle: AtomicUsize,
    stopped: AtomicBool,
    threads: Mutex<Vec<libc::pthread_t>>,
}

/// What a thread serves requests with.
pub struct Hands {
    pub rights: Rights,
    pub random: Random,
}

impl Hands {
    pub fn of_thread() -> io::Result<Self> {
        // Not to wait, when short of memory, for pages that wait for us to be written back.
        // SAFETY: plain call; what it needs (CAP_SYS_RESOURCE) may be missing.
        unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) };
        Ok(Self {
            rights: Rights::of_thread()?,
            random: Random::from_os()?,
        })
    }
}

/// Starts the first; it starts the others when all are busy.
pub fn start(shared: &Arc<Shared>) -> io::Result<()> {
    let workers = &shared.workers;
    workers.all.fetch_add(1, Ordering::SeqCst);
    workers.idle.fetch_add(1, Ordering::SeqCst);
    let buffer = Buffer::new(LARGEST_DATA)?;
    let own = Arc::clone(shared);
    let builder = std::thread::Builder::new()
        .name("files".to_owned())
        .stack_size(STACK);
    let started = builder.spawn(move || {
        match Hands::of_thread() {
            Ok(hands) => work(&own, buffer, hands),
            Err(error) => {
                own.workers.idle.fetch_sub(1, Ordering::SeqCst);
                log(&format!("files: a thread: {error}"));
            }
        }
        own.workers.all.fetch_sub(1, Ordering::SeqCst);
    });
    match started {
        Ok(_) => Ok(()),
        Err(error) => {
            workers.all.fetch_sub(1, Ordering::SeqCst);
            workers.idle.fetch_sub(1, Ordering::SeqCst);
            Err(error)
        }
    }
}

fn work(shared: &Arc<Shared>, mut buffer: Buffer, mut hands: Hands) {
    let workers = &shared.workers;
    // SAFETY: plain call.
    let me = unsafe { libc::pthread_self() };
    workers.threads().push(me);
    while !workers.stopped.load(Ordering::SeqCst) {
        if let Err(error) = shared.device.receive(&mut buffer) {
            match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN | libc::ENOENT) => continue,
                Some(libc::ENODEV) => break, // unmounted
                _ => {
                    log(&format!("files: /dev/fuse: {error}"));
                    break;
                }
            }
        }
        let last_idle = workers.idle.fetch_sub(1, Ordering::SeqCst) == 1;
        if last_idle && workers.all.load(Ordering::SeqCst) < MOST {
            let _ = start(shared); // else this one serves on alone
        }
        shared.serve(&mut buffer, &mut hands);
        pruning::consider(shared);
        if workers.idle.fetch_add(1, Ordering::SeqCst) >= KEPT {
            break;
        }
        let quiet = || shared.device.is_quiet(Duration::from_secs(1));
        if buffer.is_outgrown() || buffer.is_large() && quiet() {
            buffer.trim();
        }
    }
    workers.idle.fetch_sub(1, Ordering::SeqCst);
    workers.threads().retain(|&one| one != me);
}

impl Workers {
    fn threads(&self) -> std::sync::MutexGuard<'_, Vec<libc::pthread_t>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends them all, in a second at most; one that waits for a disk ends when that has answered.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        have_signals_interrupt();
        for _ in 0..1000 {
            let threads = self.threads();
            if threads.is_empty() {
                return;
            }
            for &thread in threads.iter() {
                // SAFETY: a thread takes itself off the list, under its lock, before it ends.
                unsafe { libc::pthread_kill(thread, libc::SIGUSR2) };
            }
            drop(threads);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// From now on SIGUSR2 does nothing but end the system call that a thread waits in.
pub fn have_signals_interrupt() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the handler does nothing; without SA_RESTART the signal interrupts a read.
    unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
        libc::sigaction(libc::SIGUSR2, &action, std::ptr::null_mut());
    }
}
