//! Directories, read by the positions that their own file system gives.

use std::os::fd::AsRawFd;
use std::sync::PoisonError;

use super::abi::{self, DirentHead, OpenOut, Plain};
use super::device::{Answer, Buffer};
use super::open_files::{OpenFile, Served};
use super::serve::{take, Call, Outcome};
use super::sys;
use super::Shared;

/// Where the parts of a struct linux_dirent64 are.
const LENGTH: usize = 16;
const KIND: usize = 18;
const NAME: usize = 19;

impl Shared {
    pub fn opendir(&self, call: &Call) -> Outcome {
        let node = self.nodes.get(call.header.nodeid)?;
        let fd = sys::reopen(
            self.nodes.fd(&node)?.as_raw_fd(),
            libc::O_RDONLY | libc::O_DIRECTORY,
        )?;
        let fh = self.open_files.add(OpenFile::new(fd, node, Served::Us, 0));
        Ok(Answer::of(&OpenOut {
            fh,
            ..Default::default()
        }))
    }

    pub fn readdir(&self, buffer: &mut Buffer) -> Outcome {
        let (asked, _): (abi::ReadIn, _) = take(buffer.body())?;
        let dir = self.open_files.get(asked.fh)?;
        let mut position = dir.position.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = asked.offset as i64;
        if *position != wanted {
            // SAFETY: plain call; nobody else moves this descriptor while the lock is held.
            sys::check(unsafe { libc::lseek64(dir.raw(), wanted, libc::SEEK_SET) })?;
            *position = wanted;
        }
        let size = (asked.size as usize).min(super::device::LARGEST_DATA / 2);
        let (out, found) = buffer.data(size * 2)?.split_at_mut(size);
        // SAFETY: the slice is as long as said.
        let got = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                dir.raw(),
                found.as_mut_ptr(),
                found.len(),
            )
        };
        let got = sys::check(got)? as usize;
        let (written, whole) = translate(&found[..got], out, |ino| {
            self.nodes.shown_ino(dir.node.dev, ino)
        });
        match whole {
            true => *position = last_position(&found[..got]).unwrap_or(wanted),
            false => *position = -1, // the descriptor is further on than what was told
        }
        Ok(Answer::Data(written))
    }
}

/// Rewrites entries as FUSE has them; says how much was written, and whether all of them found room.
fn translate(mut found: &[u8], out: &mut [u8], shown: impl Fn(u64) -> u64) -> (usize, bool) {
    let mut at = 0;
    while let Some((entry, rest)) = next(found) {
        let name = &entry[NAME..];
        let name = &name[..name
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(name.len())];
        let head = DirentHead {
            ino: shown(number(entry, 0)),
            off: number(entry, 8),
            namelen: name.len() as u32,
            kind: u32::from(entry[KIND]),
        };
        let end = at + (size_of::<DirentHead>() + name.len()).next_multiple_of(8);
        if end > out.len() {
            return (at, false);
        }
        let place = &mut out[at..end];
        place.fill(0);
        place[..size_of::<DirentHead>()].copy_from_slice(head.bytes());
        place[size_of::<DirentHead>()..][..name.len()].copy_from_slice(name);
        (at, found) = (end, rest);
    }
    (at, true)
}

fn last_position(mut found: &[u8]) -> Option<i64> {
    let mut last = None;
    while let Some((entry, rest)) = next(found) {
        last = Some(number(entry, 8) as i64);
        found = rest;
    }
    last
}

fn next(found: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u16::from_ne_bytes(found.get(LENGTH..LENGTH + 2)?.try_into().ok()?);
    (usize::from(length) > NAME).then(|| found.split_at_checked(usize::from(length)))?
}

fn number(entry: &[u8], at: usize) -> u64 {
    let bytes: Result<[u8; 8], _> = entry[at..at + 8].try_into();
    bytes.map_or(0, u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::translate;

    fn entry(ino: u64, off: u64, name: &str) -> Vec<u8> {
        let length = (19 + name.len() + 1).next_multiple_of(8);
        let mut bytes = [ino.to_ne_bytes(), off.to_ne_bytes()].concat();
        bytes.extend((length as u16).to_ne_bytes());
        bytes.push(libc::DT_REG);
        bytes.extend(name.as_bytes());
        bytes.resize(length, 0);
        bytes
    }

    #[test]
    fn entries_keep_number_position_kind_and_name() {
        let found = [entry(5, 70, "a"), entry(6, 71, "longer-name")].concat();
        let mut out = [9; 128];
        let (length, whole) = translate(&found, &mut out, |ino| ino);
        assert_eq!((length, whole), (32 + 40, true));
        assert_eq!(out[..8], 5u64.to_ne_bytes());
        assert_eq!(out[8..16], 70u64.to_ne_bytes());
        assert_eq!(out[16..20], 1u32.to_ne_bytes());
        assert_eq!(out[20..24], 8u32.to_ne_bytes());
        assert_eq!(out[24..32], *b"a\0\0\0\0\0\0\0");
        assert_eq!(out[32 + 24..][..11], *b"longer-name");
    }

    #[test]
    fn what_has_no_room_is_left_for_later() {
        let found = [entry(5, 70, "a"), entry(6, 71, "b")].concat();
        assert_eq!(translate(&found, &mut [0; 63], |ino| ino), (32, false));
        assert_eq!(translate(&found, &mut [0; 64], |ino| ino), (64, true));
    }
}
