//! Sleep that ends on the microsecond; tokio's own counts milliseconds.
//!
//! One descriptor serves all who sleep, so that a delay costs none when many are under way.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::io::Interest;

use crate::system::{check, own};

thread_local! {
    static SLEEPERS: RefCell<Sleepers> = const { RefCell::new(Sleepers::none()) };
}

/// Who sleeps on this thread, by when they are to wake.
struct Sleepers {
    timer: Option<OwnedFd>,
    waiting: BTreeMap<(Instant, u64), Waker>,
    count: u64,
}

/// Opens the timer of this thread, and starts to wake those who sleep; within a `LocalSet`.
pub fn begin() -> io::Result<()> {
    let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
    // SAFETY: plain call.
    let timer: OwnedFd = own(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) })?;
    let watched = timer.try_clone()?;
    // SAFETY: the descriptor is owned, so it stays open and the same for as long as it is watched.
    let watched = unsafe { AsyncFd::register_with_interest(watched, Interest::READABLE) }?;
    SLEEPERS.with_borrow_mut(|sleepers| sleepers.timer = Some(timer));
    tokio::task::spawn_local(async move {
        while let Ok(mut ready) = watched.readable().await {
            ready.clear_ready();
            let due = SLEEPERS.with_borrow_mut(|sleepers| sleepers.due(Instant::now()));
            due.into_iter().for_each(Waker::wake);
        }
    });
    Ok(())
}

/// Waits for `time` of CLOCK_MONOTONIC.
pub fn sleep(time: Duration) -> Sleep {
    Sleep {
        until: Instant::now() + time,
        place: None,
    }
}

pub struct Sleep {
    until: Instant,
    /// Under which a waker is left.
    place: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<()> {
        if Instant::now() >= self.until {
            return Poll::Ready(());
        }
        SLEEPERS.with_borrow_mut(|sleepers| {
            let place = *self.place.get_or_insert_with(|| sleepers.place());
            sleepers.wait((self.until, place), context.waker().clone());
        });
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            SLEEPERS.with_borrow_mut(|sleepers| sleepers.waiting.remove(&(self.until, place)));
        }
    }
}

impl Sleepers {
    const fn none() -> Self {
        Self {
            timer: None,
            waiting: BTreeMap::new(),
            count: 0,
        }
    }

    fn place(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    fn wait(&mut self, key: (Instant, u64), waker: Waker) {
        self.waiting.insert(key, waker);
        if self.waiting.first_key_value().map(|(first, _)| *first) == Some(key) {
            self.arm(key.0.saturating_duration_since(Instant::now()));
        }
    }

    /// Takes out those whose time has come, and sets the timer for the next.
    fn due(&mut self, now: Instant) -> Vec<Waker> {
        let later = self.waiting.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut self.waiting, later);
        if let Some(((next, _), _)) = self.waiting.first_key_value() {
            let time = next.saturating_duration_since(now);
            self.arm(time);
        }
        due.into_values().collect()
    }

    fn arm(&self, time: Duration) {
        let none = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let time = time.max(Duration::from_nanos(1)); // all zero would disarm it
        let spec = libc::itimerspec {
            it_interval: none,
            it_value: libc::timespec {
                tv_sec: time.as_secs() as libc::time_t,
                tv_nsec: libc::c_long::from(time.subsec_nanos()),
            },
        };
        let Some(timer) = &self.timer else { return };
        // SAFETY: `spec` outlives the call, which fails for wrong arguments only.
        let set =
            unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &spec, std::ptr::null_mut()) };
        debug_assert!(check(set).is_ok());
    }
}
