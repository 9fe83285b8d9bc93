//! Locks on open files, carried over to what stands in their place.

use std::collections::BTreeSet;
use std::fs;

use super::descriptions::{Description, Holder, Info};
use crate::ptrace::call::Call;

/// A lock, as fdinfo tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    pub family: Family,
    exclusive: bool,
    start: i64,
    /// 0: to the end of the file, however long it gets.
    length: i64,
}

/// Who owns a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// The process.
    Process,
    /// The open file.
    OpenFile,
    /// The open file, all of it.
    Whole,
}

impl Lock {
    /// Reads `1: POSIX  ADVISORY  WRITE 12 00:2d:77 0 EOF`; None for leases, and for who waits.
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace().skip(1);
        let family = match words.next()? {
            "POSIX" => Family::Process,
            "OFDLCK" => Family::OpenFile,
            "FLOCK" => Family::Whole,
            _ => return None,
        };
        let exclusive = words.nth(1)? == "WRITE";
        let start: i64 = words.nth(2)?.parse().ok()?;
        let length = match words.next()? {
            "EOF" => 0,
            end => end.parse::<i64>().ok()? - start + 1,
        };
        Some(Self {
            family,
            exclusive,
            start,
            length,
        })
    }

    fn structure(&self) -> libc::flock {
        // SAFETY: all zero is a valid flock.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = if self.exclusive {
            libc::F_WRLCK
        } else {
            libc::F_RDLCK
        } as _;
        lock.l_whence = libc::SEEK_SET as _;
        lock.l_start = self.start;
        lock.l_len = self.length;
        lock
    }

    /// The bytes of its `struct flock`.
    pub fn bytes(&self) -> Vec<u8> {
        let lock = self.structure();
        // SAFETY: plain numbers, made from all zero.
        unsafe {
            std::slice::from_raw_parts((&raw const lock).cast::<u8>(), size_of::<libc::flock>())
        }
        .to_vec()
    }

    /// How a process takes it; `at`: where its bytes lie inside.
    pub fn call(&self, number: i32, at: u64) -> Call {
        let number = number as u64;
        let command = match self.family {
            Family::Process => libc::F_SETLK,
            Family::OpenFile => libc::F_OFD_SETLK,
            Family::Whole => {
                let kind = if self.exclusive {
                    libc::LOCK_EX
                } else {
                    libc::LOCK_SH
                };
                return Call::new(libc::SYS_flock, &[number, (kind | libc::LOCK_NB) as u64]);
            }
        };
        Call::new(libc::SYS_fcntl, &[number, command as u64, at])
    }
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

/// The locks taken by each holder of a description, those of the open file itself once.
pub fn of(description: &Description) -> Vec<(Holder, Lock)> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_read_as_the_kernel_writes_them() {
        let lock = Lock::read("1: POSIX  ADVISORY  WRITE 12 00:2d:77 100 109").unwrap();
        assert_eq!((lock.family, lock.exclusive), (Family::Process, true));
        assert_eq!((lock.start, lock.length), (100, 10));
        let lock = Lock::read("1: FLOCK  ADVISORY  READ  12 00:2d:77 0 EOF").unwrap();
        assert_eq!(
            (lock.family, lock.exclusive, lock.length),
            (Family::Whole, false, 0)
        );
        assert_eq!(
            Lock::read("1: LEASE  ACTIVE    READ  12 00:2d:77 0 EOF"),
            None
        );
    }
}
