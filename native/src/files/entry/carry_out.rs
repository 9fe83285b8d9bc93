//! Has a process that stands still do what is planned for it.

use std::io;

use super::moves;
use super::plan::Orders;
use super::scan::Task;
use crate::ptrace::freeze::Frozen;
use crate::ptrace::remote::Inside;
use crate::system::check;

/// What a process may have open beyond its limit while it is given others.
const MORE_DESCRIPTORS: u64 = 512;

/// Has one task do what is planned for it; gives how much of it failed.
pub fn carry_out(frozen: &Frozen<'_>, task: Task, orders: &Orders<'_>) -> io::Result<usize> {
    let thread = frozen
        .thread(task.pid, task.tid)
        .ok_or(io::ErrorKind::NotFound)?;
    let limit = Limit::raised(task.pid);
    let mut inside = Inside::enter(thread)?;
    let mut failed = 0;
    for directory in &orders.stays {
        failed += usize::from(moves::go_to(&mut inside, directory).is_err());
    }
    // Locks come last: a process loses its own on a file when it closes any descriptor of it, as
    // those by which it is given what to map.
    failed += moves::remap(&mut inside, &orders.remaps)?;
    failed += moves::swap(&mut inside, &orders.swaps)?;
    moves::lock(&mut inside, orders)?;
    let left = inside.leave();
    drop(limit);
    left.map(|()| failed)
}

/// A process that may have a few more descriptors open than usual, for as long as this is there.
struct Limit {
    pid: i32,
    was: libc::rlimit,
}

impl Limit {
    fn raised(pid: i32) -> Option<Self> {
        let nothing = std::ptr::null();
        // SAFETY: the structures outlive the calls.
        unsafe {
            let mut was: libc::rlimit = std::mem::zeroed();
            check(libc::prlimit(
                pid,
                libc::RLIMIT_NOFILE,
                nothing,
                &raw mut was,
            ))
            .ok()?;
            let folder = format!("/proc/{pid}/fd");
            let open = std::fs::read_dir(folder).map_or(0, Iterator::count) as u64;
            if open.saturating_add(MORE_DESCRIPTORS) < was.rlim_cur {
                return None; // there is room; if we die, nobody would put the limit back
            }
            let more = was.rlim_cur.saturating_add(MORE_DESCRIPTORS);
            let raised = libc::rlimit {
                rlim_cur: more,
                rlim_max: was.rlim_max.max(more),
            };
            let nowhere = std::ptr::null_mut();
            check(libc::prlimit(
                pid,
                libc::RLIMIT_NOFILE,
                &raw const raised,
                nowhere,
            ))
            .ok()?;
            Some(Self { pid, was })
        }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        let nowhere = std::ptr::null_mut();
        // SAFETY: the structure outlives the call; that the process has ended is fine.
        unsafe { libc::prlimit(self.pid, libc::RLIMIT_NOFILE, &raw const self.was, nowhere) };
    }
}
