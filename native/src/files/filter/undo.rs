//! What one file held when it was last synced, as far as it was written to since.
//!
//! Before bytes are overwritten they are kept, so that losing power means putting them back. Until
//! then the file itself is always up to date: whoever ends this process loses nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::device::Errno;
use super::rules::Counted;
use super::sys;

/// Bytes kept of all files together, before a file is synced early, as a kernel would do that is
/// short of memory.
const MOST_KEPT: u64 = 1 << 30;
const STEP: usize = 64 << 10;

/// Where overwritten bytes are kept: a file without a name.
pub struct Spill {
    file: File,
    room: Mutex<Room>,
}

#[derive(Default)]
struct Room {
    end: u64,
    /// Bytes that are still of use.
    live: u64,
}

impl Spill {
    /// Makes one on a disk if there is any, else in memory.
    pub fn new() -> std::io::Result<Self> {
        let unnamed = |directory: &str| {
            use std::os::unix::fs::OpenOptionsExt;
            let mut options = File::options();
            let options = options.read(true).write(true).mode(0o600);
            options
                .custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC)
                .open(Path::new(directory))
        };
        let on_disk = unnamed("/var/tmp").or_else(|_| unnamed("/tmp"));
        let file = on_disk.or_else(|_| {
            // SAFETY: the name outlives the call; the descriptor is new and ours.
            unsafe {
                let fd =
                    crate::system::check(libc::memfd_create(c"spill".as_ptr(), libc::MFD_CLOEXEC))?;
                std::io::Result::Ok(File::from(OwnedFd::from_raw_fd(fd)))
            }
        })?;
        Ok(Self {
            file,
            room: Mutex::default(),
        })
    }

    fn room(&self) -> std::sync::MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, bytes: &[u8]) -> Result<u64, Errno> {
        let mut room = self.room();
        let at = room.end;
        let put = sys::pwrite(self.file.as_raw_fd(), bytes, at)?;
        if put < bytes.len() {
            return Err(libc::ENOSPC);
        }
        room.end += bytes.len() as u64;
        room.live += bytes.len() as u64;
        Ok(at)
    }

    fn drop_kept(&self, bytes: u64) {
        let mut room = self.room();
        room.live = room.live.saturating_sub(bytes);
        if room.live == 0 && room.end > 0 {
            let _ = sys::truncate(self.file.as_raw_fd(), 0);
            room.end = 0;
        }
    }
}

/// A range that was written to and not synced.
#[derive(Clone, Copy)]
struct Dirty {
    length: u64,
    /// Where its bytes are kept; `None`: there were none, or zeros.
    kept: Option<u64>,
}

/// What was written to one file since it was last synced.
pub struct Undo {
    /// The file, for reading and writing.
    file: OwnedFd,
    /// The rule that it is remembered for.
    pub owner: Arc<Counted>,
    /// Its size then.
    size: u64,
    dirty: BTreeMap<u64, Dirty>,
}

impl Undo {
    pub fn new(file: OwnedFd, owner: Arc<Counted>) -> Result<Self, Errno> {
        let size = sys::stat(file.as_raw_fd())?.st_size as u64;
        Ok(Self {
            file,
            owner,
            size,
            dirty: BTreeMap::new(),
        })
    }

    /// Must be called before these bytes change.
    pub fn before(&mut self, begin: u64, length: u64, spill: &Spill) -> Result<(), Errno> {
        if spill.room().live > MOST_KEPT {
            sys::sync(self.file.as_raw_fd(), true)?;
            self.synced(spill)?;
        }
        for (at, end) in self.clean_within(begin, begin.saturating_add(length)) {
            let split = self.size.clamp(at, end);
            self.keep(at, split, spill)?;
            if split < end {
                self.dirty.insert(
                    split,
                    Dirty {
                        length: end - split,
                        kept: None,
                    },
                );
            }
        }
        Ok(())
    }

    /// Must be called before the size changes.
    pub fn before_resize(&mut self, size: u64, spill: &Spill) -> Result<(), Errno> {
        let now = sys::stat(self.file.as_raw_fd())?.st_size as u64;
        self.before(size.min(now), size.abs_diff(now), spill)
    }

    /// All of it is on the disk now.
    pub fn synced(&mut self, spill: &Spill) -> Result<(), Errno> {
        spill.drop_kept(self.kept());
        self.dirty.clear();
        self.size = sys::stat(self.file.as_raw_fd())?.st_size as u64;
        Ok(())
    }

    /// These bytes are on the disk now (`O_DSYNC`); what lies before them may not be.
    pub fn synced_range(&mut self, begin: u64, length: u64, spill: &Spill) {
        let end = begin + length;
        let touched: Vec<u64> = self.dirty.range(..end).map(|(&at, _)| at).collect();
        for at in touched {
            let Some(found) = self
                .dirty
                .get(&at)
                .copied()
                .filter(|found| at + found.length > begin)
            else {
                continue;
            };
            self.dirty.remove(&at);
            let found_end = at + found.length;
            if at < begin {
                self.dirty.insert(
                    at,
                    Dirty {
                        length: begin - at,
                        ..found
                    },
                );
            }
            if found_end > end {
                let kept = found.kept.map(|kept| kept + (end - at));
                self.dirty.insert(
                    end,
                    Dirty {
                        length: found_end - end,
                        kept,
                    },
                );
            }
            if found.kept.is_some() {
                spill.drop_kept(found_end.min(end) - at.max(begin));
            }
        }
        self.size = self.size.max(end);
    }

    /// Puts back what was there, for good; returns how many written bytes that has cost.
    pub fn lose(&mut self, spill: &Spill) -> Result<u64, Errno> {
        let fd = self.file.as_raw_fd();
        sys::truncate(fd, self.size)?;
        let mut bytes = vec![0; STEP];
        for (&at, dirty) in &self.dirty {
            let end = (at + dirty.length).min(self.size);
            let mut place = at;
            while place < end {
                let step = ((end - place) as usize).min(STEP);
                match dirty.kept {
                    Some(kept) => read_all(spill, &mut bytes[..step], kept + (place - at))?,
                    None => bytes[..step].fill(0),
                }
                write_all(fd, &bytes[..step], place)?;
                place += step as u64;
            }
        }
        let lost = self.dirty.values().map(|dirty| dirty.length).sum();
        sys::sync(fd, false)?;
        self.synced(spill)?;
        Ok(lost)
    }

    /// Forgets all of it; the file stays as it is.
    pub fn forget(self, spill: &Spill) {
        spill.drop_kept(self.kept());
    }

    /// Is there nothing to lose?
    pub fn is_clean(&self) -> bool {
        self.dirty.is_empty()
    }

    fn kept(&self) -> u64 {
        let kept = self.dirty.values().filter(|dirty| dirty.kept.is_some());
        kept.map(|dirty| dirty.length).sum()
    }

    fn keep(&mut self, begin: u64, end: u64, spill: &Spill) -> Result<(), Errno> {
        let mut bytes = Vec::new();
        let mut at = begin;
        while at < end {
            bytes.resize(((end - at) as usize).min(STEP), 0);
            let got = sys::pread(self.file.as_raw_fd(), &mut bytes, at)?;
            let (length, kept) = match got {
                0 => (end - at, None), // cut since, and noted where it was
                got => (got as u64, Some(spill.keep(&bytes[..got])?)),
            };
            self.dirty.insert(at, Dirty { length, kept });
            at += length;
        }
        Ok(())
    }

    /// Ranges between `begin` and `end` that were not written to.
    fn clean_within(&self, begin: u64, end: u64) -> Vec<(u64, u64)> {
        let before = self.dirty.range(..begin).next_back();
        let mut at = before.map_or(begin, |(start, dirty)| (start + dirty.length).max(begin));
        let mut clean = Vec::new();
        for (&start, dirty) in self.dirty.range(begin..end) {
            if start > at {
                clean.push((at, start));
            }
            at = at.max(start + dirty.length);
        }
        if at < end {
            clean.push((at, end));
        }
        clean
    }
}

fn read_all(spill: &Spill, into: &mut [u8], at: u64) -> Result<(), Errno> {
    match sys::pread(spill.file.as_raw_fd(), into, at)? {
        got if got == into.len() => Ok(()),
        _ => Err(libc::EIO),
    }
}

fn write_all(fd: i32, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let put = sys::pwrite(fd, bytes, at)?;
        bytes = &bytes[put..];
        at += put as u64;
    }
    Ok(())
}

#[cfg(test)]
#[path = "undo_tests.rs"]
mod tests;
