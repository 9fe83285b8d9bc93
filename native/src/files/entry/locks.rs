//! Locks on open files, carried over to what stands in their place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use super::descriptions::{Description, Holder, Info};
use super::instead::writes;
use super::plan::Plan;
use super::service::LockHolder;
use crate::files::lock::{give_up, Family, Had, Lock};
use crate::ptrace::call::Call;
use crate::ptrace::freeze::Frozen;

/// How a process takes a lock; `at`: where the bytes of `bytes` lie inside.
pub fn call(lock: &Lock, number: i32, at: u64) -> Call {
    let number = number as u64;
    let command = match lock.family {
        Family::Process => libc::F_SETLK,
        Family::OpenFile => libc::F_OFD_SETLK,
        Family::Whole => {
            let operation = lock.operation(false) as u64;
            return Call::new(libc::SYS_flock, &[number, operation]);
        }
    };
    Call::new(libc::SYS_fcntl, &[number, command as u64, at])
}

/// Its `struct flock`.
pub fn bytes(lock: &Lock) -> Vec<u8> {
    let lock = lock.structure();
    // SAFETY: plain numbers, made from all zero.
    unsafe { std::slice::from_raw_parts((&raw const lock).cast::<u8>(), size_of::<libc::flock>()) }
        .to_vec()
}

/// Numbers of the files that anybody holds a lock of.
pub fn locked() -> BTreeSet<u64> {
    let text = fs::read_to_string("/proc/locks").unwrap_or_default();
    let inode = |line: &str| {
        let words = line
            .split_whitespace()
            .find(|word| word.matches(':').count() == 2);
        words?.rsplit(':').next()?.parse().ok()
    };
    text.lines().filter_map(inode).collect()
}

/// A lock to take again.
#[derive(Clone, Copy)]
pub struct Retaken {
    /// By this descriptor.
    pub number: i32,
    pub inode: u64,
    pub lock: Lock,
    /// The process itself has it until then.
    pub own: bool,
}

/// Between two owners nobody else is to get what one of them has: whoever had it alone shares it
/// first, and we have it, too, until the other shares it; then that one has it alone again.
/// Nobody else can have it alone meanwhile. With flock(2) there is no such way.
#[derive(Default)]
pub struct Bridges {
    files: BTreeMap<u64, OwnedFd>,
    /// Those of the filter whose locks others take again.
    held: BTreeSet<u64>,
    /// Copies of ours of what had locks itself.
    moved: Vec<(OwnedFd, Family)>,
}

impl Bridges {
    /// Has all locks of the files of a plan taken again by those who had them.
    ///
    /// Also where a file was moved earlier: a process loses its own on a file that it closes once
    /// more.
    pub fn plan(
        plan: &mut Plan<'_>,
        all: &[Description],
        holder: &dyn LockHolder,
        frozen: &Frozen<'_>,
    ) -> Self {
        let mut bridges = Self::default();
        for (index, one) in all.iter().enumerate() {
            if !plan.locked.contains(&one.inode) {
                continue;
            }
            let moves = plan.moved.contains(&index);
            for (holder, lock) in of(one) {
                let Some(orders) = plan.orders.get_mut(&holder.task) else {
                    continue;
                };
                orders.locks.push(Retaken {
                    number: holder.number,
                    inode: one.inode,
                    lock,
                    own: lock.family == Family::Process,
                });
                if moves && lock.family != Family::Process {
                    bridges.moves(one, lock);
                }
            }
        }
        if plan.locked.is_empty() {
            return bridges;
        }
        for had in holder.list(&plan.locked) {
            // Who has opened it where it leads to, and nowhere else, keeps what it has.
            let taker = taker(all, &had).filter(|taker| frozen.is_still(taker.task.pid));
            if let Some(taker) = taker {
                bridges.held.insert(had.id);
                let orders = plan.orders.entry(taker.task).or_default();
                orders.locks.push(Retaken {
                    number: taker.number,
                    inode: had.by.inode,
                    lock: had.lock,
                    own: false,
                });
            }
        }
        if !bridges.held.is_empty() {
            holder.loosen(&bridges.held);
        }
        for one in all.iter().filter(|one| plan.locked.contains(&one.inode)) {
            let file = match &one.instead {
                Some(Ok(new)) => new, // for who comes out, that is the true file
                _ => &one.copy,
            };
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            if let Ok(file) = fs::File::open(path) {
                bridges.files.entry(one.inode).or_insert(file.into());
            }
        }
        bridges
    }

    fn moves(&mut self, one: &Description, lock: Lock) {
        if lock.family == Family::OpenFile && lock.exclusive {
            let _ = lock.shared().take(&one.copy, false);
        }
        if let Ok(copy) = one.copy.try_clone() {
            self.moved.push((copy, lock.family));
        }
    }

    /// Shares what is to be taken again.
    pub fn lay(&self, locks: &[Retaken]) {
        for one in locks.iter().filter(|one| one.lock.family != Family::Whole) {
            if let Some(file) = self.files.get(&one.inode) {
                let own = Lock {
                    family: Family::OpenFile,
                    ..one.lock.shared()
                };
                let _ = own.take(file, false);
            }
        }
    }

    /// Lets the new owners have them alone.
    pub fn release(self, holder: &dyn LockHolder) {
        for (copy, family) in &self.moved {
            let _ = give_up(copy, *family, 0, 0); // our copy would hold it
        }
        if !self.held.is_empty() {
            holder.let_go(&self.held);
        }
    }
}

/// Who is to have a lock again: by the descriptor by which it was taken, if that is still there.
fn taker<'a>(all: &'a [Description], had: &Had) -> Option<&'a Holder> {
    let by = &had.by;
    let able = |one: &&Description| {
        let needs = had.lock.exclusive && by.family != Family::Whole;
        one.inode == by.inode && (!needs || writes(&one.copy))
    };
    let holders = || all.iter().filter(able).flat_map(|one| &one.holders);
    let own = || holders().filter(|holder| holder.task.pid == by.pid);
    let inherited = || holders().filter(|_| by.family != Family::Process);
    own()
        .find(|holder| holder.number == by.number)
        .or_else(|| own().next())
        .or_else(|| inherited().find(|holder| holder.number == by.number))
        .or_else(|| inherited().next())
}

/// The locks taken by each holder of a description, those of the open file itself once.
fn of(description: &Description) -> Vec<(Holder, Lock)> {
    let mut found: Vec<(Holder, Lock)> = Vec::new();
    for holder in &description.holders {
        let Ok(info) = Info::of(holder.task, holder.number) else {
            continue;
        };
        for lock in info.locks.iter().filter_map(|line| Lock::read(line)) {
            let known = |(other, same): &(Holder, Lock)| {
                let alike = other.task.pid == holder.task.pid;
                *same == lock && (lock.family != Family::Process || alike)
            };
            if !found.iter().any(known) {
                found.push((*holder, lock));
            }
        }
    }
    found
}
