//! What a file system finds a file by again, without its name and without an open descriptor.

use std::os::fd::{OwnedFd, RawFd};

use super::device::Errno;
use super::sys::{self, errno};

/// Longest handle that is kept; those of ext4, xfs and tmpfs have 8 to 24 bytes, of btrfs up to 40.
const LONGEST: usize = 40;

#[repr(C)]
struct Raw {
    length: u32,
    kind: i32,
    bytes: [u8; LONGEST],
}

/// A handle.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FileHandle {
    kind: i32,
    length: u8,
    bytes: [u8; LONGEST],
}

impl FileHandle {
    /// Asks for that of an open file.
    pub fn of(fd: RawFd) -> Result<Self, Errno> {
        let mut raw = Raw {
            length: LONGEST as u32,
            kind: 0,
            bytes: [0; LONGEST],
        };
        let mut mount = 0i32;
        // SAFETY: the name is empty, and `raw` says how long it is.
        let done = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                fd,
                c"".as_ptr(),
                &mut raw,
                &mut mount,
                libc::AT_EMPTY_PATH,
            )
        };
        match done {
            0 => Ok(Self {
                kind: raw.kind,
                length: raw.length as u8,
                bytes: raw.bytes,
            }),
            _ => Err(errno()),
        }
    }

    /// Opens the file again; `mount` is any open file of its file system.
    pub fn open(&self, mount: RawFd, flags: i32) -> Result<OwnedFd, Errno> {
        let raw = Raw {
            length: u32::from(self.length),
            kind: self.kind,
            bytes: self.bytes,
        };
        // SAFETY: `raw` outlives the call, which only reads it.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                mount,
                &raw,
                flags | libc::O_CLOEXEC,
            )
        };
        sys::own(fd as i32)
    }

    /// Can it be opened? Some file systems give handles that only tell files apart.
    pub fn is_decodable(&self, mount: RawFd) -> bool {
        !matches!(
            self.open(mount, libc::O_PATH),
            Err(libc::EOPNOTSUPP | libc::EINVAL | libc::EPERM)
        )
    }
}
