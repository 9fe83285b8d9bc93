//! Opens what is to stand in place of an open file, before anybody is stopped for it.

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::descriptions::Description;
use super::mappings::{is_same, Mapping, Traits};
use super::place::{open_below, stat};
use super::places::Stay;
use super::service::Service;
use crate::files::identity;
use crate::system::{own, raise_descriptors};

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

/// How many names to look at for a file that has lost its own, while its users wait.
const MOST_NAMES: usize = 20_000;

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
    pub service: Service<'a>,
}

impl<'a> Source<'a> {
    /// The true directory, for what was open by a filter.
    pub fn out(real: &'a OwnedFd, service: Service<'a>) -> Self {
        Self {
            to: real,
            real,
            way: Way::Out,
            service,
        }
    }

    /// Opens what stands in place of an open file; why not, where that is not possible.
    pub fn open(&self, one: &Description) -> Result<OwnedFd, &'static str> {
        let all = flags(&one.copy);
        let flags = all & KEPT;
        let lost = Lost {
            identity: self.identity(&one.copy),
            inode: one.inode,
            removed: one.removed,
        };
        let Some(real) = self.true_file(&one.path, &lost) else {
            return self.rescue(&lost, flags).ok_or(REMOVED);
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
        self.open_at(&one.path, real, flags | more)
    }

    /// Opens a file or a directory: the target may have put a device there meanwhile, which we may
    /// open and it may not.
    fn open_at(&self, path: &Path, real: OwnedFd, flags: i32) -> Result<OwnedFd, &'static str> {
        if self.way == Way::Out {
            return open_found(&real, flags); // that one, whatever has its name by now
        }
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
        let lost = Lost {
            identity: one.file().ok().and_then(|file| self.identity(&file)),
            inode: one.inode,
            removed: one.removed,
        };
        let Some(real) = self.true_file(&one.path, &lost) else {
            return self.rescue(&lost, flags).ok_or(REMOVED);
        };
        if self.way == Way::In && !is_same(one, &real) {
            return Err(REMOVED);
        }
        self.open_at(&one.path, real, flags)
    }

    /// Opens a directory that somebody is in.
    pub fn open_directory(&self, stay: &Stay) -> Option<OwnedFd> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let lost = Lost {
            identity: stay.identity.filter(|_| self.way != Way::In),
            inode: 0,
            removed: stay.removed,
        };
        match self.true_file(&stay.path, &lost) {
            Some(_) => open_below(self.to, &stay.path, flags, STRICT).ok(),
            None => self.rescue(&lost, flags),
        }
    }

    fn identity(&self, file: &impl AsRawFd) -> Option<u32> {
        // On the way in, files are none of ours yet.
        (self.way != Way::In).then(|| identity::remembered(file))?
    }

    /// What has that name in the real directory, if that is the file: others may have renamed it
    /// behind our back, and put another one in its place.
    fn true_file(&self, path: &Path, wanted: &Lost) -> Option<OwnedFd> {
        if wanted.removed {
            return None;
        }
        let flags = libc::O_PATH | libc::O_NOFOLLOW;
        let real = open_below(self.real, path, flags, STRICT).ok()?;
        let found = stat(real.as_fd()).ok()?;
        let same = |identity| identity == identity::of_found(&found);
        (path.as_os_str().is_empty() || wanted.identity.is_none_or(same)).then_some(real)
    }

    /// A file that its path does not lead to: it is open in the filter, or kept, or has another name.
    fn rescue(&self, lost: &Lost, flags: i32) -> Option<OwnedFd> {
        if self.way != Way::Out {
            return None;
        }
        let kept = self
            .service
            .kept
            .iter()
            .map(|file| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())));
        let filters = self
            .service
            .filter
            .map(|pid| fs::read_dir(format!("/proc/{pid}/fd")));
        let filters = filters.into_iter().flatten().flatten().flatten();
        let mut open = kept.chain(filters.map(|entry| entry.path()));
        let open = open.find(|path| fs::metadata(path).is_ok_and(|found| lost.is(path, &found)));
        let (path, follow) = match open {
            Some(path) => (path, 0),
            None if self.service.filter.is_none() && !lost.removed => {
                (self.search(lost)?, libc::O_NOFOLLOW)
            }
            None => return None,
        };
        let held: OwnedFd = fs::File::options()
            .read(true)
            .custom_flags(libc::O_PATH | follow)
            .open(&path)
            .ok()?
            .into();
        let found = stat(held.as_fd()).ok()?;
        let same = lost
            .identity
            .is_none_or(|one| one == identity::of_found(&found));
        same.then(|| open_found(&held, flags).ok()).flatten()
    }

    /// Looks for it in the real directory.
    fn search(&self, lost: &Lost) -> Option<PathBuf> {
        let mut folders = vec![PathBuf::from(format!(
            "/proc/self/fd/{}",
            self.real.as_raw_fd()
        ))];
        let mut left = MOST_NAMES;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                left = left.checked_sub(1)?;
                let Ok(found) = entry.metadata() else {
                    continue;
                };
                if lost.is(&entry.path(), &found) {
                    return Some(entry.path());
                }
                if found.is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        None
    }
}

/// A file that is looked for.
struct Lost {
    /// Which true file it is, where the kernel remembers that.
    identity: Option<u32>,
    inode: u64,
    removed: bool,
}

impl Lost {
    fn is(&self, path: &Path, found: &fs::Metadata) -> bool {
        match self.identity {
            Some(identity) => identity == identity::of(found.dev(), found.ino()),
            None => {
                let link = fs::read_link(path).unwrap_or_default();
                let removed = link.as_os_str().as_encoded_bytes().ends_with(b" (deleted)");
                removed && found.ino() == self.inode
            }
        }
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

/// Was it opened to be written?
pub fn writes(file: &OwnedFd) -> bool {
    flags(file) & libc::O_ACCMODE != libc::O_RDONLY
}

fn same_file(file: &OwnedFd, other: &libc::statx) -> bool {
    let ids = |one: &libc::statx| (one.stx_dev_major, one.stx_dev_minor, one.stx_ino);
    stat(file.as_fd()).is_ok_and(|found| ids(&found) == ids(other))
}

/// What was opened for mappings and working directories, by what it is for.
#[derive(Default)]
pub struct Opened {
    /// Nobody serves what is to be replaced.
    pub dead: bool,
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
pub fn raise_limit() {
    let most: u64 = fs::read_to_string("/proc/sys/fs/nr_open")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1 << 20);
    raise_descriptors(most);
}
