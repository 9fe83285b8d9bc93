//! Opens what is to stand in place of an open file, before anybody is stopped for it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::descriptions::Description;
use super::mappings::{is_same, Mapping, Traits};
use super::place::{open_below, stat};
use crate::system::{check, own};

/// Flags that a file keeps from when it was opened.
const KEPT: i32 = libc::O_ACCMODE
    | libc::O_APPEND
    | libc::O_NONBLOCK
    | libc::O_DIRECT
    | libc::O_NOATIME
    | libc::O_SYNC
    | libc::O_DSYNC
    | libc::O_PATH;
/// Those of them that may change later.
const CHANGEABLE: i32 =
    libc::O_APPEND | libc::O_NONBLOCK | libc::O_DIRECT | libc::O_NOATIME | libc::O_ASYNC;
const STRICT: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS;

pub const REMOVED: &str = "removed while open";
pub const NO_FILE: &str = "neither file nor directory";
pub const REFUSED: &str = "could not be opened again";
pub const SEALED: &str = "sealed mapping";

/// Which way files are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the real directory to a mount of ours.
    In,
    /// And back.
    Out,
    /// From a mount of ours to itself.
    Again,
}

/// Where files are opened anew.
pub struct Source<'a> {
    /// The directory in which they are opened.
    pub to: &'a OwnedFd,
    /// The directory as it is without us.
    pub real: &'a OwnedFd,
    pub way: Way,
    /// The process of the filter: what it has open, it has for somebody.
    pub filter: Option<i32>,
}

impl Source<'_> {
    /// Opens what stands in place of an open file; why not, where that is not possible.
    pub fn open(&self, one: &Description) -> Result<OwnedFd, &'static str> {
        let all = flags(&one.copy);
        let flags = all & KEPT;
        if one.removed {
            return self.rescue(one.inode, flags).ok_or(REMOVED);
        }
        let real = open_below(
            self.real,
            &one.path,
            libc::O_PATH | libc::O_NOFOLLOW,
            STRICT,
        );
        let Ok(real) = real else {
            return self.rescue(one.inode, flags).ok_or(REMOVED);
        };
        let found = stat(real.as_fd()).map_err(|_| REFUSED)?;
        let kind = u32::from(found.stx_mode) & libc::S_IFMT;
        let by_path = flags & libc::O_PATH != 0;
        if !by_path && kind != libc::S_IFREG && kind != libc::S_IFDIR {
            return Err(NO_FILE);
        }
        if self.way == Way::In && !same_file(&one.copy, &found) {
            return Err(REMOVED);
        }
        if by_path {
            return open_below(self.to, &one.path, flags | libc::O_NOFOLLOW, STRICT)
                .map_err(|_| REFUSED);
        }
        // A file may have kept the same bit of O_TMPFILE.
        let more = if kind == libc::S_IFDIR {
            all & libc::O_DIRECTORY
        } else {
            0
        };
        self.open_at(&one.path, flags | more)
    }

    /// Opens a file or a directory: the target may have put a device there meanwhile, which we may
    /// open and it may not.
    fn open_at(&self, path: &Path, flags: i32) -> Result<OwnedFd, &'static str> {
        let found = open_below(self.to, path, libc::O_PATH | libc::O_NOFOLLOW, STRICT);
        open_found(&found.map_err(|_| REFUSED)?, flags)
    }

    /// The same for a mapping.
    pub fn open_mapped(&self, one: &Mapping, traits: &Traits) -> Result<OwnedFd, &'static str> {
        let flags = if one.needs_writing(traits) {
            libc::O_RDWR
        } else {
            libc::O_RDONLY
        };
        if traits.sealed {
            return Err(SEALED);
        }
        if one.removed {
            return self.rescue(one.inode, flags).ok_or(REMOVED);
        }
        let Ok(real) = open_below(
            self.real,
            &one.path,
            libc::O_PATH | libc::O_NOFOLLOW,
            STRICT,
        ) else {
            return self.rescue(one.inode, flags).ok_or(REMOVED);
        };
        if self.way == Way::In && !is_same(one, &real) {
            return Err(REMOVED);
        }
        self.open_at(&one.path, flags)
    }

    /// Opens a directory that somebody is in.
    pub fn open_directory(&self, path: &Path) -> Option<OwnedFd> {
        open_below(self.to, path, libc::O_PATH | libc::O_DIRECTORY, STRICT).ok()
    }

    /// A file without a name is still open in the filter: opens it from there.
    fn rescue(&self, inode: u64, flags: i32) -> Option<OwnedFd> {
        let filter = self.filter?;
        let entries = fs::read_dir(format!("/proc/{filter}/fd")).ok()?;
        entries.flatten().find_map(|entry| {
            let path = entry.path();
            let link = fs::read_link(&path).ok()?;
            if !link.as_os_str().as_encoded_bytes().ends_with(b" (deleted)") {
                return None;
            }
            let held: OwnedFd = fs::File::options()
                .read(true)
                .custom_flags(libc::O_PATH)
                .open(&path)
                .ok()?
                .into();
            let same = stat(held.as_fd()).ok()?.stx_ino == inode;
            same.then(|| open_found(&held, flags).ok()).flatten()
        })
    }
}

/// Opens what a descriptor (`O_PATH`) stands for, if that is a file or a directory.
fn open_found(found: &OwnedFd, flags: i32) -> Result<OwnedFd, &'static str> {
    let kind = stat(found.as_fd()).map_err(|_| REFUSED)?.stx_mode;
    if !matches!(
        u32::from(kind) & libc::S_IFMT,
        libc::S_IFREG | libc::S_IFDIR
    ) {
        return Err(NO_FILE);
    }
    let name = format!("/proc/self/fd/{}\0", found.as_raw_fd());
    // SAFETY: the name ends with a NUL, and outlives the call.
    own(unsafe { libc::open(name.as_ptr().cast(), flags | libc::O_CLOEXEC) }).map_err(|_| REFUSED)
}

/// Gives the new one the position and the flags of the old one. Nobody may use either meanwhile.
pub fn settle(old: &OwnedFd, new: &OwnedFd) {
    // SAFETY: plain numbers.
    unsafe {
        let position = libc::lseek(old.as_raw_fd(), 0, libc::SEEK_CUR);
        if position > 0 {
            libc::lseek(new.as_raw_fd(), position, libc::SEEK_SET);
        }
        let (was, is) = (flags(old), flags(new));
        if (was ^ is) & CHANGEABLE != 0 {
            libc::fcntl(new.as_raw_fd(), libc::F_SETFL, was);
        }
    }
}

fn flags(file: &OwnedFd) -> i32 {
    // SAFETY: plain numbers.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) }.max(0)
}

fn same_file(file: &OwnedFd, other: &libc::statx) -> bool {
    let ids = |one: &libc::statx| (one.stx_dev_major, one.stx_dev_minor, one.stx_ino);
    stat(file.as_fd()).is_ok_and(|found| ids(&found) == ids(other))
}

/// What was opened for mappings and working directories, by what it is for.
#[derive(Default)]
pub struct Opened {
    pub mapped: HashMap<(PathBuf, bool, u64), Result<OwnedFd, &'static str>>,
    pub directories: HashMap<PathBuf, Option<OwnedFd>>,
    pub traits: HashMap<(i32, u64, u64), Traits>,
}

impl Opened {
    /// Opens what these mappings need, and is not open yet.
    pub fn prepare(&mut self, source: &Source<'_>, mappings: &[Mapping]) {
        for one in mappings {
            let key = (one.pid, one.start, one.end);
            let traits = self.traits.entry(key).or_insert_with(|| one.traits());
            let file = (one.path.clone(), one.needs_writing(traits), one.inode);
            self.mapped
                .entry(file)
                .or_insert_with(|| source.open_mapped(one, traits));
        }
    }

    /// What was opened for a mapping; None where it has not been seen before.
    pub fn of(&self, one: &Mapping) -> Option<(&Traits, &Result<OwnedFd, &'static str>)> {
        let traits = self.traits.get(&(one.pid, one.start, one.end))?;
        let file = (one.path.clone(), one.needs_writing(traits), one.inode);
        Some((traits, self.mapped.get(&file)?))
    }
}

/// As many open files as the system lets this process have.
pub fn raise_limit() -> io::Result<()> {
    let most: u64 = fs::read_to_string("/proc/sys/fs/nr_open")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1 << 20);
    // SAFETY: the structures outlive the calls.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
        let wanted = libc::rlimit {
            rlim_cur: most,
            rlim_max: most,
        };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const wanted) == 0 {
            return Ok(());
        }
        limit.rlim_cur = limit.rlim_max; // beyond it only with CAP_SYS_RESOURCE
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)).map(drop)
    }
}
