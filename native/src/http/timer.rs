//! Sleep that ends on the microsecond; tokio's own counts milliseconds.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::io::Interest;

use crate::system::{check, own};

/// Waits for `time` of CLOCK_MONOTONIC.
pub async fn sleep(time: Duration) -> io::Result<()> {
    let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
    // SAFETY: plain call.
    let timer: OwnedFd = own(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) })?;
    let none = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let spec = libc::itimerspec {
        it_interval: none,
        it_value: libc::timespec {
            tv_sec: time.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(time.subsec_nanos().max(1)), // all zero would disarm it
        },
    };
    // SAFETY: `spec` outlives the call.
    check(unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &spec, std::ptr::null_mut()) })?;
    // SAFETY: the descriptor is owned, so it stays open and the same for as long as it is watched.
    unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?
        .readable()
        .await
        .map(drop)
}
