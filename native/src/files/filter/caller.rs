//! Whoever asked: what is created is theirs, by their rights and umask.
//!
//! The kernel has checked the rights already (`default_permissions`), so all that is left is to give
//! the new file its owner, and to keep or clear the bits that only some may set.

use std::io;

use super::abi::InHeader;
use crate::system::check;

const CAP_FSETID: u32 = 4;
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The rights of one thread: as it started, but without CAP_FSETID, so that the file system takes
/// set-user-id bits away where somebody writes.
pub struct Rights {
    own: [Sets; 2],
}

impl Rights {
    /// Takes the thread's rights, and separates its umask from that of the others.
    pub fn of_thread() -> io::Result<Self> {
        // SAFETY: plain call.
        check(unsafe { libc::unshare(libc::CLONE_FS) })?;
        let header = [VERSION_3, 0];
        let mut own = [Sets::default(); 2];
        // SAFETY: both arrays have the size that version 3 wants, and outlive the call.
        check(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), own.as_mut_ptr()) })?;
        for sets in &mut own {
            sets.effective = sets.permitted;
        }
        let rights = Self { own };
        rights.keeping(false);
        Ok(rights)
    }

    /// Does something that keeps the set-group-id bits it is asked to set.
    pub fn trusted<T>(&self, act: impl FnOnce() -> T) -> T {
        self.keeping(true);
        let done = act();
        self.keeping(false);
        done
    }

    /// Creates something in the name of whoever asked.
    pub fn creating<T>(&self, caller: &InHeader, umask: u32, create: impl FnOnce() -> T) -> T {
        // SAFETY: plain calls, which change this thread only: its umask is its own, and the raw
        // calls know nothing of the other threads.
        unsafe {
            libc::umask(umask as libc::mode_t);
            libc::syscall(libc::SYS_setfsgid, caller.gid);
            libc::syscall(libc::SYS_setfsuid, caller.uid);
        }
        self.keeping(true); // another user has lost what is needed in directories of a third one
        let created = create();
        // SAFETY: as above.
        unsafe {
            libc::syscall(libc::SYS_setfsuid, 0);
            libc::syscall(libc::SYS_setfsgid, 0);
        }
        self.keeping(false);
        created
    }

    fn keeping(&self, keep: bool) {
        let header = [VERSION_3, 0];
        let mut sets = self.own;
        if !keep {
            sets[0].effective &= !(1 << CAP_FSETID);
        }
        // SAFETY: both arrays outlive the call; giving up or taking what is permitted cannot fail.
        unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    }
}
