//! What is known about files: attributes, extended ones, and the space of their file system.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};

use super::abi::{self, fattr, init, Plain, STATX_SIZE};
use super::attributes;
use super::device::{Answer, Buffer, Errno};
use super::nodes::Node;
use super::serve::{take, text, Call, Outcome};
use super::sys::{self, path_of};
use super::Shared;

/// Attributes of files on their disk, as chattr(1) and xfs_io(8) change them.
const GET_FLAGS: u32 = 0x8008_6601;
const SET_FLAGS: u32 = 0x4008_6602;
const GET_XFLAGS: u32 = 0x801c_581f;
const SET_XFLAGS: u32 = 0x401c_5820;

impl Shared {
    pub fn getattr(&self, call: &Call, _body: &[u8]) -> Outcome {
        let node = self.nodes.get(call.header.nodeid)?;
        self.attr(call, &node, self.nodes.fd(&node)?.as_raw_fd())
    }

    fn attr(&self, call: &Call, node: &Node, fd: RawFd) -> Outcome {
        let stat = sys::stat(fd)?;
        node.seen(&stat);
        let mut attr = attributes::of(&stat, self.nodes.shown_ino(stat.st_dev, stat.st_ino));
        attributes::falsify(&mut attr, call.header.nodeid, call.decision);
        let attr_valid_nsec = self.attributes_valid();
        Ok(Answer::of(&abi::AttrOut {
            attr_valid_nsec,
            attr,
            ..Default::default()
        }))
    }

    pub fn setattr(&self, call: &Call, body: &[u8]) -> Outcome {
        let (asked, _): (abi::SetAttrIn, _) = take(body)?;
        let node = self.nodes.get(call.header.nodeid)?;
        let anchor = self.nodes.fd(&node)?;
        let fd = anchor.as_raw_fd();
        let has = |flag: u32| asked.valid & flag != 0;
        if has(fattr::UID | fattr::GID) {
            let uid = if has(fattr::UID) { asked.uid } else { u32::MAX };
            let gid = if has(fattr::GID) { asked.gid } else { u32::MAX };
            // SAFETY: the name is empty and outlives the call.
            sys::check(unsafe { libc::fchownat(fd, c"".as_ptr(), uid, gid, libc::AT_EMPTY_PATH) })?;
        }
        if has(fattr::MODE) {
            let mode = asked.mode & 0o7777;
            // The kernel has taken away the bits that the caller may not set.
            // SAFETY: the path outlives the call.
            let changed = call
                .hands
                .rights
                .trusted(|| unsafe { libc::chmod(path_of(fd).as_ptr(), mode) });
            sys::check(changed)?;
        }
        if has(fattr::SIZE) {
            let file = if has(fattr::FH) {
                self.open_files.get(asked.fh).ok()
            } else {
                None
            };
            let open = match &file {
                Some(_) => None,
                None => Some(sys::reopen(fd, libc::O_WRONLY)?),
            };
            let raw = open.as_ref().map_or_else(
                || file.as_ref().map_or(fd, |file| file.raw()),
                AsRawFd::as_raw_fd,
            );
            let resize = || self.resize(&node, raw, asked.size);
            match has(fattr::KILL_BITS) {
                true => resize(),
                false => call.hands.rights.trusted(resize),
            }?;
        }
        if has(fattr::ATIME | fattr::MTIME) {
            let moment = |wanted, now, sec: u64, nsec: u32| libc::timespec {
                tv_sec: sec as libc::time_t,
                tv_nsec: match (has(wanted), has(now)) {
                    (false, _) => libc::UTIME_OMIT,
                    (true, true) => libc::UTIME_NOW,
                    (true, false) => nsec as libc::c_long,
                },
            };
            let times = [
                moment(fattr::ATIME, fattr::ATIME_NOW, asked.atime, asked.atimensec),
                moment(fattr::MTIME, fattr::MTIME_NOW, asked.mtime, asked.mtimensec),
            ];
            // SAFETY: name and times outlive the call.
            sys::check(unsafe {
                libc::utimensat(fd, c"".as_ptr(), times.as_ptr(), libc::AT_EMPTY_PATH)
            })?;
        }
        self.attr(call, &node, fd)
    }

    pub fn statx(&self, call: &Call, body: &[u8]) -> Outcome {
        let (asked, _): (abi::StatxIn, _) = take(body)?;
        let fd = self.nodes.fd_of(call.header.nodeid)?;
        let mut found = MaybeUninit::<libc::statx>::zeroed();
        let flags = libc::AT_EMPTY_PATH | (asked.sx_flags as i32 & libc::AT_STATX_SYNC_TYPE);
        // SAFETY: the name is empty, and there is room for the answer.
        sys::check(unsafe {
            let into = found.as_mut_ptr();
            libc::statx(
                fd.as_raw_fd(),
                c"".as_ptr(),
                flags,
                asked.sx_mask | libc::STATX_BASIC_STATS,
                into,
            )
        })?;
        // SAFETY: zeroed, then filled; all of it is integers.
        let mut found = unsafe { found.assume_init() };
        let stat = sys::stat(fd.as_raw_fd())?;
        let mut attr = attributes::of(&stat, self.nodes.shown_ino(stat.st_dev, stat.st_ino));
        attributes::falsify(&mut attr, call.header.nodeid, call.decision);
        found.stx_mode = attr.mode as u16;
        (found.stx_ino, found.stx_size, found.stx_blocks) = (attr.ino, attr.size, attr.blocks);
        (found.stx_nlink, found.stx_uid, found.stx_gid) = (attr.nlink, attr.uid, attr.gid);
        for (into, sec, nsec) in [
            (&mut found.stx_atime, attr.atime, attr.atimensec),
            (&mut found.stx_mtime, attr.mtime, attr.mtimensec),
            (&mut found.stx_ctime, attr.ctime, attr.ctimensec),
        ] {
            (into.tv_sec, into.tv_nsec) = (sec as i64, nsec);
        }
        const { assert!(size_of::<libc::statx>() == STATX_SIZE) };
        // SAFETY: it is as long as said, and was zeroed, gaps included.
        let bytes: [u8; STATX_SIZE] = unsafe { std::mem::transmute(found) };
        let head = abi::StatxHead {
            attr_valid_nsec: self.attributes_valid(),
            ..Default::default()
        };
        Ok(Answer::two(head.bytes(), &bytes))
    }

    pub fn statfs(&self, call: &Call) -> Outcome {
        let node = self.nodes.get(call.header.nodeid)?;
        let stat = sys::statvfs(self.nodes.fd(&node)?.as_raw_fd())?;
        Ok(Answer::of(&attributes::of_file_system(
            &stat,
            self.space_left(&node),
        )))
    }

    pub fn setxattr(&self, call: &Call, body: &[u8]) -> Outcome {
        let (asked, rest) = match self.has(init::SETXATTR_EXT) {
            true => take(body)?,
            false => {
                let (old, rest): (abi::GetXattrIn, _) = take(body)?; // size, then flags
                let (size, flags) = (old.size, old.padding);
                (
                    abi::SetXattrIn {
                        size,
                        flags,
                        ..Default::default()
                    },
                    rest,
                )
            }
        };
        let (name, value) = text(rest)?;
        let value = value.get(..asked.size as usize).ok_or(libc::EINVAL)?;
        let fd = self.nodes.fd_of(call.header.nodeid)?;
        let path = path_of(fd.as_raw_fd());
        let set = || {
            let flags = asked.flags as i32;
            // SAFETY: path, name and value outlive the call.
            unsafe {
                libc::setxattr(
                    path.as_ptr(),
                    name.as_ptr(),
                    value.as_ptr().cast(),
                    value.len(),
                    flags,
                )
            }
        };
        // An access list changes the mode; the kernel says when that costs the set-group-id bit.
        let done = match asked.setxattr_flags & abi::ACL_KILL_SGID != 0 {
            true => set(),
            false => call.hands.rights.trusted(set),
        };
        sys::check(done).map(|_| Answer::Done)
    }

    pub fn getxattr(&self, call: &Call, buffer: &mut Buffer) -> Outcome {
        let (asked, rest): (abi::GetXattrIn, _) = take(buffer.body())?;
        let name = text(rest)?.0.to_owned(); // the answer takes its place
        let fd = self.nodes.fd_of(call.header.nodeid)?;
        let path = path_of(fd.as_raw_fd());
        let into = buffer.data(asked.size as usize)?;
        // SAFETY: path and name outlive the call, and there is as much room as said.
        let got = unsafe {
            let (into, length) = (into.as_mut_ptr().cast(), into.len());
            libc::getxattr(path.as_ptr(), name.as_ptr(), into, length)
        };
        let length = sys::check(got as i64)? as usize;
        match asked.size {
            0 => Ok(Answer::of(&abi::GetXattrOut {
                size: length as u32,
                padding: 0,
            })),
            _ => Ok(Answer::Data(length)),
        }
    }

    pub fn listxattr(&self, call: &Call, buffer: &mut Buffer) -> Outcome {
        let (asked, _): (abi::GetXattrIn, _) = take(buffer.body())?;
        let fd = self.nodes.fd_of(call.header.nodeid)?;
        let path = path_of(fd.as_raw_fd());
        let into = buffer.data(LONGEST_LIST)?;
        // SAFETY: the path outlives the call, and there is as much room as said.
        let got = unsafe { libc::listxattr(path.as_ptr(), into.as_mut_ptr().cast(), into.len()) };
        let mut length = sys::check(got as i64)? as usize;
        if holds_trusted(&into[..length]) && !may_administer(call.header.pid) {
            length = without_trusted(into, length);
        }
        match asked.size as usize {
            0 => Ok(Answer::of(&abi::GetXattrOut {
                size: length as u32,
                padding: 0,
            })),
            room if room < length => Err(libc::ERANGE),
            _ => Ok(Answer::Data(length)),
        }
    }

    pub fn removexattr(&self, call: &Call, body: &[u8]) -> Outcome {
        let (name, _) = text(body)?;
        let fd = self.nodes.fd_of(call.header.nodeid)?;
        let path = path_of(fd.as_raw_fd());
        // SAFETY: path and name outlive the call.
        sys::check(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) }).map(|_| Answer::Done)
    }

    /// Flags of files; of what else there is, the kernel says that there is none.
    pub fn ioctl(&self, body: &[u8]) -> Outcome {
        let (asked, rest): (abi::IoctlIn, _) = take(body)?;
        let (reads, writes) = match asked.cmd {
            GET_FLAGS => (4, 0),
            SET_FLAGS => (0, 4),
            GET_XFLAGS => (28, 0),
            SET_XFLAGS => (0, 28),
            _ => return Err(libc::ENOTTY),
        };
        let file = self.open_files.get(asked.fh)?;
        let mut value = [0u8; 32];
        value[..writes].copy_from_slice(rest.get(..writes).ok_or::<Errno>(libc::EINVAL)?);
        // SAFETY: these commands read and write no more than 28 bytes.
        let result =
            sys::check(unsafe { libc::ioctl(file.raw(), asked.cmd as _, value.as_mut_ptr()) })?;
        let head = abi::IoctlOut {
            result,
            ..Default::default()
        };
        Ok(Answer::two(
            head.bytes(),
            &value[..reads.min(asked.out_size as usize)],
        ))
    }
}

/// Longest list of names that the kernel gives.
pub const LONGEST_LIST: usize = 64 << 10;
const TRUSTED: &[u8] = b"trusted.";

fn holds_trusted(list: &[u8]) -> bool {
    list.split(|&byte| byte == 0)
        .any(|name| name.starts_with(TRUSTED))
}

/// Takes the names out that only administrators see; says how long the rest is.
fn without_trusted(list: &mut [u8], length: usize) -> usize {
    let (mut from, mut to) = (0, 0);
    while from < length {
        let end = list[from..length].iter().position(|&byte| byte == 0);
        let next = end.map_or(length, |end| from + end + 1);
        if !list[from..next].starts_with(TRUSTED) {
            list.copy_within(from..next, to);
            to += next - from;
        }
        from = next;
    }
    to
}

/// Has this thread CAP_SYS_ADMIN?
fn may_administer(tid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let caps = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let caps = caps.and_then(|caps| u64::from_str_radix(caps.trim(), 16).ok());
    caps.is_some_and(|caps| caps & 1 << 21 != 0)
}

#[cfg(test)]
mod tests {
    use super::{holds_trusted, without_trusted};

    #[test]
    fn names_for_administrators_go_and_the_others_stay() {
        let mut list = *b"user.a\0trusted.b\0security.c\0trusted.d\0";
        assert!(holds_trusted(&list));
        let whole = list.len();
        let length = without_trusted(&mut list, whole);
        assert_eq!(&list[..length], b"user.a\0security.c\0");
        assert!(!holds_trusted(&list[..length]));
    }
}
