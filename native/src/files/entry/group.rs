//! Shared mounts, which one member leaves for a moment.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use super::attach::{move_mount, open_tree, OPEN_TREE_CLONE};
use super::place::mount_of;
use crate::system::check;

const MOVE_MOUNT_SET_GROUP: u32 = 0x100;

/// A group of mounts that tell one another of theirs, while one of them has left it.
pub struct Group {
    member: OwnedFd,
    left_by: OwnedFd,
}

impl Group {
    /// Takes the mount at `point`, in which `directory` is, out of its group until this is dropped.
    pub fn left(point: &Path, directory: &OwnedFd) -> io::Result<Self> {
        let left_by = open_tree(point, 0)?;
        if mount_of(&left_by)? != mount_of(directory)? {
            return Err(io::Error::other(format!(
                "{} is shared with other mount namespaces, and hidden by another mount",
                point.display()
            )));
        }
        let member = open_tree(point, OPEN_TREE_CLONE)?; // without a member its group would end
        let private = MountAttributes {
            propagation: libc::MS_PRIVATE,
            ..MountAttributes::default()
        };
        // SAFETY: name and structure outlive the call.
        check(unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                left_by.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH,
                &raw const private,
                size_of::<MountAttributes>(),
            )
        })?;
        Ok(Self { member, left_by })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = move_mount(&self.member, &self.left_by, MOVE_MOUNT_SET_GROUP) {
            crate::system::log(&format!(
                "a shared mount could not be shared again: {error}"
            ));
        }
    }
}

/// `struct mount_attr`.
#[repr(C)]
#[derive(Default)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}
