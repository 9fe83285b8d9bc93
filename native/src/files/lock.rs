//! Locks of fcntl(2) and flock(2): what they are, and who has them.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::system::check;

/// A lock, as fdinfo tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    pub family: Family,
    pub exclusive: bool,
    pub start: i64,
    /// 0: to the end of the file, however long it gets.
    pub length: i64,
}

/// Who owns a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// The process.
    Process,
    /// The open file.
    OpenFile,
    /// The open file, all of it.
    Whole,
}

/// Who has taken locks of a file by a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taker {
    /// The file's number, as it is shown.
    pub inode: u64,
    pub family: Family,
    pub pid: i32,
    /// Of the descriptor by which the first was taken.
    pub number: i32,
}

/// A lock that somebody has had by a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Had {
    /// Of the open file that has it for them.
    pub id: u64,
    pub by: Taker,
    pub lock: Lock,
}

impl Lock {
    /// Reads `1: POSIX  ADVISORY  WRITE 12 00:2d:77 0 EOF`; None for leases, and for who waits.
    pub fn read(line: &str) -> Option<Self> {
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

    pub fn shared(&self) -> Self {
        Self {
            exclusive: false,
            ..*self
        }
    }

    pub fn structure(&self) -> libc::flock {
        let kind = if self.exclusive {
            libc::F_WRLCK
        } else {
            libc::F_RDLCK
        };
        structure(kind, self.start, self.length)
    }

    /// What flock(2) is asked for.
    pub fn operation(&self, wait: bool) -> libc::c_int {
        let kind = if self.exclusive {
            libc::LOCK_EX
        } else {
            libc::LOCK_SH
        };
        kind | if wait { 0 } else { libc::LOCK_NB }
    }

    /// Takes it for this open file, whoever it is for.
    pub fn take(&self, file: &OwnedFd, wait: bool) -> io::Result<()> {
        if self.family == Family::Whole {
            // SAFETY: plain call.
            return check(unsafe { libc::flock(file.as_raw_fd(), self.operation(wait)) }).map(drop);
        }
        let command = if wait {
            libc::F_OFD_SETLKW
        } else {
            libc::F_OFD_SETLK
        };
        apply(file, command, &self.structure())
    }
}

/// Those of an open file of ours, by whatever descriptor.
pub fn held(file: &OwnedFd) -> Vec<Lock> {
    let path = format!("/proc/self/fdinfo/{}", file.as_raw_fd());
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.strip_prefix("lock:"));
    lines.filter_map(Lock::read).collect()
}

/// Gives up what an open file has locked there; length 0: to its end.
pub fn give_up(file: &OwnedFd, family: Family, start: i64, length: i64) -> io::Result<()> {
    match family {
        // SAFETY: plain call.
        Family::Whole => check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_UN) }).map(drop),
        _ => apply(
            file,
            libc::F_OFD_SETLK,
            &structure(libc::F_UNLCK, start, length),
        ),
    }
}

/// Those of an open file that has them for somebody else.
pub fn held_for(file: &OwnedFd, id: u64, by: Taker) -> Vec<Had> {
    let locks = held(file).into_iter().map(|lock| Lock {
        family: by.family,
        ..lock
    });
    locks.map(|lock| Had { id, by, lock }).collect()
}

/// Makes the locks of an open file shared, but for those of flock(2).
pub fn loosen(file: &OwnedFd) {
    for lock in held(file) {
        if lock.exclusive && lock.family != Family::Whole {
            let _ = lock.shared().take(file, false); // where it may not be read, it stays as it is
        }
    }
}

/// The lock of another open file that keeps one from being taken, and whose process that is: -1
/// where it belongs to an open file.
pub fn in_the_way(file: &OwnedFd, lock: &Lock) -> io::Result<Option<(Lock, i32)>> {
    let mut found = lock.structure();
    // SAFETY: the structure outlives the call.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut found) })?;
    let other = Lock {
        family: lock.family,
        exclusive: libc::c_int::from(found.l_type) == libc::F_WRLCK,
        start: found.l_start,
        length: found.l_len,
    };
    let free = libc::c_int::from(found.l_type) == libc::F_UNLCK;
    Ok((!free).then_some((other, found.l_pid)))
}

fn apply(file: &OwnedFd, command: libc::c_int, lock: &libc::flock) -> io::Result<()> {
    // SAFETY: the structure outlives the call.
    check(unsafe { libc::fcntl(file.as_raw_fd(), command, std::ptr::from_ref(lock)) }).map(drop)
}

fn structure(kind: libc::c_int, start: i64, length: i64) -> libc::flock {
    // SAFETY: all zero is a valid flock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as _;
    lock.l_whence = libc::SEEK_SET as _;
    lock.l_start = start;
    lock.l_len = length;
    lock
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
