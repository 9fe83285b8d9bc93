//! Files of one place that are mapped into memory.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use super::place::{mount_of, stat};
use super::scan::Where;
use crate::ptrace::call::Call;

/// Bits of /proc/PID/pagemap.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_A_FILE: u64 = 1 << 61;
const FRAME: u64 = (1 << 55) - 1;
/// Bits of /proc/kpageflags: it was written to, or is on its way to its file.
const DIRTY: u64 = 1 << 4 | 1 << 8;

/// Letters of VmFlags, and the advice that they come from.
const ADVICE: [(&str, i32); 7] = [
    ("sr", libc::MADV_SEQUENTIAL),
    ("rr", libc::MADV_RANDOM),
    ("dc", libc::MADV_DONTFORK),
    ("dd", libc::MADV_DONTDUMP),
    ("mg", libc::MADV_MERGEABLE),
    ("hg", libc::MADV_HUGEPAGE),
    ("nh", libc::MADV_NOHUGEPAGE),
];

/// One mapping, as a line of maps has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub pid: i32,
    pub start: u64,
    pub end: u64,
    pub protection: i32,
    pub shared: bool,
    offset: u64,
    pub inode: u64,
    /// From the directory.
    pub path: PathBuf,
    pub removed: bool,
}

/// What maps does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// It may be made writable: its file was opened for that.
    pub may_write: bool,
    pub sealed: bool,
    locked: bool,
    unreserved: bool,
    advice: Vec<i32>,
}

impl Mapping {
    pub fn length(&self) -> u64 {
        self.end - self.start
    }

    /// A private mapping needs its file for reading only, whatever it may do to its own pages.
    pub fn needs_writing(&self, traits: &Traits) -> bool {
        self.shared && (traits.may_write || self.protection & libc::PROT_WRITE != 0)
    }

    /// What is mapped; None where it has gone.
    pub fn file(&self) -> io::Result<OwnedFd> {
        let path = format!(
            "/proc/{}/map_files/{:x}-{:x}",
            self.pid, self.start, self.end
        );
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(path)?;
        Ok(file.into())
    }

    pub fn traits(&self) -> Traits {
        let smaps = fs::read_to_string(format!("/proc/{}/smaps", self.pid)).unwrap_or_default();
        let head = format!("{:08x}-{:08x} ", self.start, self.end);
        let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&head));
        let flags = lines
            .find_map(|line| line.strip_prefix("VmFlags:"))
            .unwrap_or_default();
        let has = |letters: &str| flags.split_whitespace().any(|flag| flag == letters);
        Traits {
            may_write: has("mw"),
            sealed: has("sl"),
            locked: has("lo"),
            unreserved: has("nr"),
            advice: ADVICE
                .iter()
                .filter(|(letters, _)| has(letters))
                .map(|(_, advice)| *advice)
                .collect(),
        }
    }

    /// What the kernel says of each page, as in /proc/PID/pagemap.
    fn pages(&self) -> io::Result<Vec<u64>> {
        let page = page();
        let mut words = vec![0; (self.length() / page) as usize * 8];
        let pagemap = File::open(format!("/proc/{}/pagemap", self.pid))?;
        pagemap.read_exact_at(&mut words, self.start / page * 8)?;
        let word = |word: &[u8]| u64::from_ne_bytes(std::array::from_fn(|i| word[i]));
        Ok(words.chunks_exact(8).map(word).collect())
    }

    /// Passes what was written through it on to the true file, where nobody serves the one that is
    /// mapped any more: its pages are all there is.
    pub fn save(&self, file: &OwnedFd) {
        if self.shared && self.protection & libc::PROT_WRITE != 0 {
            if let Err(error) = self.try_to_save(file) {
                crate::system::log(&format!("what was written to a mapping is lost: {error}"));
            }
        }
    }

    fn try_to_save(&self, file: &OwnedFd) -> io::Result<()> {
        let page = page();
        let file = File::from(file.try_clone()?);
        let memory = File::open(format!("/proc/{}/mem", self.pid))?;
        let kernel = File::open("/proc/kpageflags").ok();
        let size = file.metadata()?.len();
        for (index, word) in self.pages()?.into_iter().enumerate() {
            let from = index as u64 * page;
            let length = size.saturating_sub(self.offset + from).min(page) as usize;
            if word & PRESENT == 0 || length == 0 || !is_dirty(kernel.as_ref(), word) {
                continue;
            }
            let mut written = vec![0; length];
            memory.read_exact_at(&mut written, self.start + from)?;
            file.write_all_at(&written, self.offset + from)?;
        }
        Ok(())
    }

    /// Pages of its own that the process has changed: runs of (address, length).
    pub fn changed(&self) -> io::Result<Vec<(u64, usize)>> {
        if self.shared {
            return Ok(Vec::new());
        }
        let page = page();
        let mut runs: Vec<(u64, usize)> = Vec::new();
        for (index, word) in self.pages()?.into_iter().enumerate() {
            if word & (PRESENT | SWAPPED) == 0 || word & OF_A_FILE != 0 {
                continue;
            }
            let at = self.start + index as u64 * page;
            match runs.last_mut() {
                Some((start, length)) if *start + *length as u64 == at => *length += page as usize,
                _ => runs.push((at, page as usize)),
            }
        }
        Ok(runs)
    }

    /// Maps the descriptor whose number lies at `number` inside: here, in one step with the end of
    /// what is here, or somewhere else for now.
    pub fn map(&self, traits: &Traits, number: u64, here: bool) -> Call {
        let mut flags = if self.shared {
            libc::MAP_SHARED
        } else {
            libc::MAP_PRIVATE
        };
        if traits.unreserved {
            flags |= libc::MAP_NORESERVE;
        }
        if here {
            flags |= libc::MAP_FIXED;
        }
        let at = if here { self.start } else { 0 };
        Call::new(
            libc::SYS_mmap,
            &[
                at,
                self.length(),
                self.protection as u64,
                flags as u64,
                number,
                self.offset,
            ],
        )
        .with_fifth_at()
    }

    /// Puts what was mapped at `from` here, in one step with the end of what is here.
    pub fn move_here(&self, from: u64) -> Call {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let length = self.length();
        Call::new(
            libc::SYS_mremap,
            &[from, length, length, flags as u64, self.start],
        )
    }

    /// Has what was written through it passed on to its file.
    pub fn write_back(&self) -> Call {
        let wait = libc::MS_SYNC as u64;
        Call::new(libc::SYS_msync, &[self.start, self.length(), wait])
    }

    /// What had been asked for it once it was there.
    pub fn asked_for(&self, traits: &Traits) -> Vec<Call> {
        let (start, length) = (self.start, self.length());
        let advice = traits.advice.iter();
        let mut calls: Vec<Call> = advice
            .map(|advice| Call::new(libc::SYS_madvise, &[start, length, *advice as u64]))
            .collect();
        if traits.locked {
            calls.push(Call::new(libc::SYS_mlock, &[start, length]));
        }
        calls
    }
}

/// Was a page written to, and has not come to its file yet? Where the kernel does not say, it was.
fn is_dirty(flags: Option<&File>, page: u64) -> bool {
    let mut bits = [0; 8];
    let told = flags.map(|flags| flags.read_exact_at(&mut bits, (page & FRAME) * 8));
    !matches!(told, Some(Ok(()))) || page & FRAME == 0 || u64::from_ne_bytes(bits) & DIRTY != 0
}

/// Bytes of a page: 4096 on most machines, up to 65536 on Arm.
fn page() -> u64 {
    // SAFETY: plain call.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

/// The mappings of one place in a process.
pub fn of(place: &Where, pid: i32) -> Vec<Mapping> {
    let Ok(maps) = fs::read(format!("/proc/{pid}/maps")) else {
        return Vec::new(); // it has ended
    };
    maps.split(|byte| *byte == b'\n')
        .filter_map(|line| mapping(place, pid, line))
        .filter(|found| {
            let mount = found.file().and_then(|file| mount_of(&file));
            mount.is_ok_and(|mount| place.mounts.contains(&mount))
        })
        .collect()
}

fn mapping(place: &Where, pid: i32, line: &[u8]) -> Option<Mapping> {
    let slash = line.iter().position(|byte| *byte == b'/')?;
    let (head, name) = line.split_at(slash);
    let (path, removed) = place.below(&plain(name))?;
    let mut words = std::str::from_utf8(head).ok()?.split_whitespace();
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = words.next()?.split_once('-')?;
    let rights = words.next()?;
    let bit = |letter: char, bit: i32| if rights.contains(letter) { bit } else { 0 };
    Some(Mapping {
        pid,
        start: hex(start)?,
        end: hex(end)?,
        protection: bit('r', libc::PROT_READ)
            | bit('w', libc::PROT_WRITE)
            | bit('x', libc::PROT_EXEC),
        shared: rights.ends_with('s'),
        offset: hex(words.next()?)?,
        inode: words.nth(1)?.parse().ok()?,
        path,
        removed,
    })
}

/// In maps a line end within a name is written as `\012`.
fn plain(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, after)) = rest.split_first() {
        rest = match rest.strip_prefix(b"\\012") {
            Some(after) => {
                plain.push(b'\n');
                after
            }
            None => {
                plain.push(*first);
                after
            }
        };
    }
    plain
}

/// Is what is mapped the file that `known` is?
pub fn is_same(mapping: &Mapping, known: &OwnedFd) -> bool {
    let ids = |file: &OwnedFd| {
        let found = stat(file.as_fd()).ok()?;
        Some((found.stx_dev_major, found.stx_dev_minor, found.stx_ino))
    };
    mapping.file().ok().and_then(|file| ids(&file)) == ids(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_line_of_maps_is_read_with_its_rights_and_its_name() {
        let place = Where {
            namespaces: BTreeSet::new(),
            path: "/data".into(),
            mounts: BTreeSet::new(),
        };
        let line = b"7f0000001000-7f0000003000 rw-s 00002000 fd:01 77   /data/my file";
        let found = mapping(&place, 1, line).unwrap();
        assert_eq!(
            (found.length(), found.offset, found.inode),
            (0x2000, 0x2000, 77)
        );
        assert!(found.shared && found.protection == libc::PROT_READ | libc::PROT_WRITE);
        assert_eq!(found.path, PathBuf::from("my file"));
        assert_eq!(
            mapping(&place, 1, b"7f00-7f01 r-xp 00000000 00:00 0  [vdso]"),
            None
        );
    }
}
