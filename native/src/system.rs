//! Thin, safe wrappers around the system calls that every module needs.

use nix::sched::{setns, CloneFlags};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

/// The arguments make no sense.
pub const EXIT_USAGE: i32 = 2;
/// The host lacks what is needed.
pub const EXIT_UNSUPPORTED: i32 = 3;
/// It may work the next time.
pub const EXIT_TRY_AGAIN: i32 = 4;

/// Writes one JSON line to stderr; that nobody may be reading it any more is fine.
pub fn log(message: &str) {
    let line = serde_json::json!({ "squall-node": std::process::id(), "message": message });
    let _ = writeln!(io::stderr(), "{line}");
}

/// Turns the -1 of a system call into the error it stands for.
pub fn check<T: Into<i64> + Copy>(returned: T) -> io::Result<T> {
    if returned.into() < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(returned)
    }
}

/// Takes ownership of a descriptor that a system call has just returned.
pub fn own(returned: libc::c_int) -> io::Result<OwnedFd> {
    check(returned)?;
    // SAFETY: the kernel has just made it, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(returned) })
}

/// Moves this thread, and those it starts, into an open network namespace.
pub fn enter_network(namespace: &File) -> io::Result<()> {
    Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?)
}

/// The same for one that a file stands for.
pub fn enter_network_at(path: impl AsRef<Path>) -> io::Result<()> {
    enter_network(&File::open(path)?)
}

/// How many descriptors this process may have open; it can be changed at any time.
pub fn most_descriptors() -> usize {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` outlives the call.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

/// Lets large pieces of memory be mappings of their own, which are the kernel's again when they are
/// freed; the library would by and by keep ever larger ones.
pub fn give_large_memory_back() {
    const LARGE: libc::c_int = 64 << 10;
    // SAFETY: plain call.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
}

/// Lets this process have as many descriptors open as it may ask for, and `wanted` where its
/// capabilities allow more; refused, it stays as it is.
pub fn raise_descriptors(wanted: u64) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: plain calls on a value of ours.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) != 0 {
            return;
        }
        for most in [limit.rlim_max, limit.rlim_max.max(wanted)] {
            (limit.rlim_cur, limit.rlim_max) = (most, most);
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

/// Sets an option of a socket; `T` is what that option is, see its manual page.
pub fn set_option<T: Copy>(
    socket: RawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: T,
) -> io::Result<()> {
    let bytes = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is as long as said, and outlives the call.
    check(unsafe { libc::setsockopt(socket, level, name, (&raw const value).cast(), bytes) })
        .map(drop)
}

/// Reads a clock, in nanoseconds.
pub fn clock(id: libc::clockid_t) -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` outlives the call; the clocks used here exist since Linux 2.6.39.
    unsafe { libc::clock_gettime(id, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Blocks the signals that ask for an end, and gives a descriptor that becomes readable with them.
pub fn signals_to_end() -> io::Result<OwnedFd> {
    // SAFETY: an all-zero set is valid, and is filled before it is used.
    unsafe {
        let mut wanted: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut wanted);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(&mut wanted, signal);
        }
        check(libc::sigprocmask(
            libc::SIG_BLOCK,
            &wanted,
            std::ptr::null_mut(),
        ))?;
        own(libc::signalfd(-1, &wanted, libc::SFD_CLOEXEC))
    }
}

/// Waits until one of `fds` is ready, and says which; all false when the time is over.
pub fn poll<const N: usize>(fds: [RawFd; N], wait: Option<Duration>) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|fd| libc::pollfd {
        fd, // poll(2) passes over negative ones
        events: libc::POLLIN,
        revents: 0,
    });
    let wait = wait.map(|wait| libc::timespec {
        tv_sec: wait.as_secs() as libc::time_t,
        tv_nsec: wait.subsec_nanos() as libc::c_long,
    });
    let wait = wait
        .as_ref()
        .map_or(std::ptr::null(), |wait| wait as *const libc::timespec);
    // SAFETY: array and timespec outlive the call.
    let ready = unsafe {
        libc::ppoll(
            polled.as_mut_ptr(),
            N as libc::nfds_t,
            wait,
            std::ptr::null(),
        )
    };
    match check(ready) {
        Ok(_) => Ok(polled.map(|polled| polled.revents != 0)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok([false; N]),
        Err(error) => Err(error),
    }
}

/// A timer on CLOCK_BOOTTIME: it counts the time that the machine is suspended.
pub struct BoottimeTimer(OwnedFd);

impl BoottimeTimer {
    /// Makes one that is not armed.
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain call.
        own(unsafe { libc::timerfd_create(libc::CLOCK_BOOTTIME, libc::TFD_CLOEXEC) }).map(Self)
    }

    /// Arms it for a moment in nanoseconds after boot, or disarms it.
    pub fn arm(&self, at: Option<u64>) -> io::Result<()> {
        let at = at.map_or(0, |at| at.max(1)); // 0 would disarm it
        let spec = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: libc::timespec {
                tv_sec: (at / 1_000_000_000) as libc::time_t,
                tv_nsec: (at % 1_000_000_000) as libc::c_long,
            },
        };
        // SAFETY: `spec` outlives the call.
        check(unsafe {
            libc::timerfd_settime(
                self.0.as_raw_fd(),
                libc::TFD_TIMER_ABSTIME,
                &spec,
                std::ptr::null_mut(),
            )
        })
        .map(drop)
    }
}

impl AsRawFd for BoottimeTimer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
