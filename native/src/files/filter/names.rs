//! Names in directories: found, made, moved and removed.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};

use super::abi::{self, op, EntryOut};
use super::attributes;
use super::device::{Answer, Buffer, Errno};
use super::methods::Method;
use super::serve::{name, take, text, Call, Outcome};
use super::sys;
use super::Shared;
use crate::files::identity;

/// How long the kernel may take attributes for true. Names it asks for each time: others may change
/// them behind its back. A path of several directories asks for each only once in that time.
const ATTRIBUTES_VALID_NS: u32 = 10_000_000;

impl Shared {
    pub fn lookup(&self, call: &Call, body: &[u8]) -> Outcome {
        let (name, _) = name(body)?;
        let parent = self.nodes.fd_of(call.header.nodeid)?;
        self.entry(call, &parent, name)
            .map(|entry| Answer::of(&entry))
    }

    /// Tells the kernel of a file, which it then knows of once more.
    fn entry(&self, call: &Call, parent: &OwnedFd, name: &CStr) -> Result<EntryOut, Errno> {
        let fd = sys::open_at(parent.as_raw_fd(), name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
        self.entry_of(call, fd, Some(name))
    }

    /// The same for a file that is open.
    pub fn entry_of(
        &self,
        call: &Call,
        fd: OwnedFd,
        name: Option<&CStr>,
    ) -> Result<EntryOut, Errno> {
        let stat = sys::stat(fd.as_raw_fd())?;
        let node = self.nodes.found(fd, &stat, call.header.nodeid, name);
        let mut attr = attributes::of(&stat, self.nodes.shown_ino(stat.st_dev, stat.st_ino));
        attributes::falsify(&mut attr, node.id, call.decision);
        let attr_valid_nsec = self.attributes_valid();
        Ok(EntryOut {
            nodeid: node.id,
            generation: identity::of(node.dev, node.ino).into(),
            attr_valid_nsec,
            attr,
            ..Default::default()
        })
    }

    /// For how many nanoseconds the kernel need not ask again.
    pub fn attributes_valid(&self) -> u32 {
        match self.rules.now().concerns(Method::GetAttr) {
            true => 0,
            false => ATTRIBUTES_VALID_NS,
        }
    }

    pub fn mknod(&self, call: &Call, body: &[u8]) -> Outcome {
        let (asked, rest): (abi::MkNodIn, _) = take(body)?;
        self.made(call, rest, asked.umask, |parent, name| {
            let device = attributes::device(asked.rdev);
            // SAFETY: the name outlives the call.
            sys::check(unsafe { libc::mknodat(parent, name.as_ptr(), asked.mode, device) })
                .map(drop)
        })
    }

    pub fn mkdir(&self, call: &Call, body: &[u8]) -> Outcome {
        let (asked, rest): (abi::MkDirIn, _) = take(body)?;
        self.made(call, rest, asked.umask, |parent, name| {
            // SAFETY: the name outlives the call.
            sys::check(unsafe { libc::mkdirat(parent, name.as_ptr(), asked.mode) }).map(drop)
        })
    }

    pub fn symlink(&self, call: &Call, body: &[u8]) -> Outcome {
        let (target, _) = text(&body[name(body)?.0.count_bytes() + 1..])?;
        self.made(call, body, 0, |parent, name| {
            // SAFETY: both names outlive the call.
            sys::check(unsafe { libc::symlinkat(target.as_ptr(), parent, name.as_ptr()) }).map(drop)
        })
    }

    fn made(
        &self,
        call: &Call,
        body: &[u8],
        umask: u32,
        make: impl FnOnce(i32, &CStr) -> Result<(), Errno>,
    ) -> Outcome {
        let (name, _) = name(body)?;
        let parent = self.nodes.fd_of(call.header.nodeid)?;
        let rights = &call.hands.rights;
        rights.creating(&call.header, umask, || make(parent.as_raw_fd(), name))?;
        self.entry(call, &parent, name)
            .map(|entry| Answer::of(&entry))
    }

    pub fn link(&self, call: &Call, body: &[u8]) -> Outcome {
        let (asked, rest): (abi::LinkIn, _) = take(body)?;
        let (name, _) = name(rest)?;
        let (old, parent) = (
            self.nodes.fd_of(asked.oldnodeid)?,
            self.nodes.fd_of(call.header.nodeid)?,
        );
        let (old, dir) = (old.as_raw_fd(), parent.as_raw_fd());
        // SAFETY: both names outlive the call.
        sys::check(unsafe {
            libc::linkat(old, c"".as_ptr(), dir, name.as_ptr(), libc::AT_EMPTY_PATH)
        })?;
        self.entry(call, &parent, name)
            .map(|entry| Answer::of(&entry))
    }

    pub fn unlink(&self, call: &Call, body: &[u8], flags: i32) -> Outcome {
        let (name, _) = name(body)?;
        let parent = self.nodes.fd_of(call.header.nodeid)?;
        let victim = self.nodes.known(&parent, name);
        if let Some(victim) = &victim {
            self.nodes.pin(victim)?; // a handle may not find what has no name
            self.give_back_all(victim)?;
        }
        // SAFETY: the name outlives the call.
        sys::check(unsafe { libc::unlinkat(parent.as_raw_fd(), name.as_ptr(), flags) })?;
        if let Some(victim) = victim {
            self.nodes.renamed(&victim, call.header.nodeid, name, None);
            self.keep(&victim);
        }
        Ok(Answer::Done)
    }

    pub fn rename(&self, call: &Call, body: &[u8]) -> Outcome {
        let (to, flags, rest) = match call.header.opcode {
            op::RENAME => {
                take(body).map(|(asked, rest): (abi::RenameIn, _)| (asked.newdir, 0, rest))
            }
            _ => take(body)
                .map(|(asked, rest): (abi::Rename2In, _)| (asked.newdir, asked.flags, rest)),
        }?;
        let (old, rest) = name(rest)?;
        let (new, _) = name(rest)?;
        let from = call.header.nodeid;
        let (old_dir, new_dir) = (self.nodes.fd_of(from)?, self.nodes.fd_of(to)?);
        let (moved, victim) = (
            self.nodes.known(&old_dir, old),
            self.nodes.known(&new_dir, new),
        );
        let exchanges = flags & libc::RENAME_EXCHANGE != 0;
        if let Some(victim) = &victim {
            self.nodes.pin(victim)?; // a handle may not find what has no name
            if !exchanges && flags & libc::RENAME_NOREPLACE == 0 {
                self.give_back_all(victim)?;
            }
        }
        // SAFETY: both names outlive the call.
        let done = unsafe {
            let (old_dir, new_dir) = (old_dir.as_raw_fd(), new_dir.as_raw_fd());
            libc::syscall(
                libc::SYS_renameat2,
                old_dir,
                old.as_ptr(),
                new_dir,
                new.as_ptr(),
                flags,
            )
        };
        sys::check(done)?;
        let same = moved
            .as_ref()
            .zip(victim.as_ref())
            .is_some_and(|(one, other)| one.id == other.id);
        if same {
            return Ok(Answer::Done); // two names of one file: both stay
        }
        if let Some(victim) = victim {
            self.nodes
                .renamed(&victim, to, new, exchanges.then_some((from, old)));
            if !exchanges {
                self.keep(&victim);
            }
        }
        if let Some(moved) = moved {
            self.nodes.renamed(&moved, from, old, Some((to, new)));
        }
        Ok(Answer::Done)
    }

    pub fn readlink(&self, call: &Call, buffer: &mut Buffer) -> Outcome {
        let fd = self.nodes.fd_of(call.header.nodeid)?;
        let into = buffer.data(libc::PATH_MAX as usize)?;
        // SAFETY: the slice is as long as said.
        let got = unsafe {
            libc::readlinkat(
                fd.as_raw_fd(),
                c"".as_ptr(),
                into.as_mut_ptr().cast(),
                into.len(),
            )
        };
        sys::check(got as i64).map(|length| Answer::Data(length as usize))
    }
}
