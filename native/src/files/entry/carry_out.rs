//! Has a process that stands still do what is planned for it.

use std::io;
use std::time::Duration;

use super::locks::{Bridges, Retaken};
use super::moves;
use super::plan::Orders;
use super::scan::Task;
use crate::files::lock::Family;
use crate::ptrace::freeze::Frozen;
use crate::ptrace::remote::Inside;
use crate::system::{check, log};

/// How often to try to get a lock that others have, a millisecond apart: who reads will soon be done.
const ATTEMPTS: usize = 50;
/// What a process may have open beyond its limit while it is given others.
const MORE_DESCRIPTORS: u64 = 512;

/// Has one task do what is planned for it; gives how much of it failed.
pub fn carry_out(
    frozen: &Frozen<'_>,
    task: Task,
    orders: &Orders<'_>,
    bridges: &Bridges,
) -> io::Result<usize> {
    let thread = frozen
        .thread(task.pid, task.tid)
        .ok_or(io::ErrorKind::NotFound)?;
    let limit = Limit::raised(task.pid);
    let mut inside = Inside::enter(thread)?;
    let mut failed = 0;
    for directory in &orders.stays {
        failed += usize::from(moves::go_to(&mut inside, directory).is_err());
    }
    let exclusive = orders
        .locks
        .iter()
        .filter(|one| one.own && one.lock.exclusive);
    moves::lock(&mut inside, &exclusive.map(sharing).collect::<Vec<_>>())?;
    bridges.lay(&orders.locks);
    // Locks come last: a process loses its own on a file when it closes any descriptor of it, as
    // those by which it is given what to map.
    failed += moves::remap(&mut inside, &orders.remaps)?;
    failed += moves::swap(&mut inside, &orders.swaps)?;
    let partly = orders
        .locks
        .iter()
        .filter(|one| one.lock.family != Family::Whole);
    moves::lock(&mut inside, &partly.map(sharing).collect::<Vec<_>>())?;
    let left = inside.leave();
    drop(limit);
    left.map(|()| failed)
}

/// Has a task take the rest of its locks, which nobody else of those who stand still has now.
pub fn lock(frozen: &Frozen<'_>, task: Task, orders: &Orders<'_>) -> io::Result<()> {
    let rest = |one: &&Retaken| one.lock.exclusive || one.lock.family == Family::Whole;
    let mut rest: Vec<Retaken> = orders.locks.iter().filter(rest).copied().collect();
    if rest.is_empty() {
        return Ok(());
    }
    let thread = frozen
        .thread(task.pid, task.tid)
        .ok_or(io::ErrorKind::NotFound)?;
    let mut inside = Inside::enter(thread)?;
    for attempt in 1.. {
        let missed = moves::lock(&mut inside, &rest)?;
        if missed.is_empty() || attempt == ATTEMPTS {
            for (_, error) in missed {
                log(&format!("a lock on an open file is lost: {error}"));
            }
            break;
        }
        rest = missed.into_iter().map(|(one, _)| one).collect();
        std::thread::sleep(Duration::from_millis(1));
    }
    inside.leave()
}

fn sharing(one: &Retaken) -> Retaken {
    Retaken {
        lock: one.lock.shared(),
        ..*one
    }
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
