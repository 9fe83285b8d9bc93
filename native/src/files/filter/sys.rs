//! System calls on what the directory below holds, with their errors as the kernel wants them back.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use super::device::Errno;

/// The error of the last system call.
pub fn errno() -> Errno {
    std::io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}

pub fn check<T: Into<i64> + Copy>(returned: T) -> Result<T, Errno> {
    match returned.into() < 0 {
        true => Err(errno()),
        false => Ok(returned),
    }
}

pub fn own(returned: i32) -> Result<OwnedFd, Errno> {
    check(returned)?;
    // SAFETY: the kernel has just made it, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(returned) })
}

/// The path by which the kernel finds an open file again, whatever has become of its name.
pub fn path_of(fd: RawFd) -> CString {
    CString::new(format!("/proc/self/fd/{fd}")).unwrap_or_default() // digits hold no NUL
}

/// Opens once more what a descriptor stands for, with other flags; files and directories alone.
///
/// The kernel itself opens devices and pipes for whoever asks. Where it takes one for a file, because
/// a rule says so, whoever asks may not be let in by us: we may open every device of the node.
pub fn reopen(fd: RawFd, flags: i32) -> Result<OwnedFd, Errno> {
    let looks_only = flags & libc::O_PATH != 0;
    if !looks_only
        && !matches!(
            stat(fd)?.st_mode & libc::S_IFMT,
            libc::S_IFREG | libc::S_IFDIR
        )
    {
        return Err(libc::EACCES);
    }
    // SAFETY: the path outlives the call.
    own(unsafe { libc::open(path_of(fd).as_ptr(), flags | libc::O_CLOEXEC) })
}

pub fn open_at(dir: RawFd, name: &CStr, flags: i32, mode: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: the name outlives the call.
    own(unsafe {
        libc::openat(
            dir,
            name.as_ptr(),
            flags | libc::O_CLOEXEC,
            mode as libc::c_uint,
        )
    })
}

/// Opens (`O_PATH`) a path below a directory, through no symbolic link.
pub fn open_beneath(dir: RawFd, path: Vec<u8>) -> Result<OwnedFd, Errno> {
    let path = CString::new(path).map_err(|_| libc::EINVAL)?;
    // SAFETY: all zero is a valid value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS;
    // SAFETY: path and `how` outlive the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            dir,
            path.as_ptr(),
            &how,
            size_of::<libc::open_how>(),
        )
    };
    own(fd as i32)
}

pub fn stat(fd: RawFd) -> Result<libc::stat64, Errno> {
    let mut stat = MaybeUninit::<libc::stat64>::uninit();
    // SAFETY: the name is empty, and there is room for the answer.
    check(unsafe { libc::fstatat64(fd, c"".as_ptr(), stat.as_mut_ptr(), libc::AT_EMPTY_PATH) })?;
    // SAFETY: filled by the call, which has succeeded.
    Ok(unsafe { stat.assume_init() })
}

pub fn statvfs(fd: RawFd) -> Result<libc::statfs64, Errno> {
    let mut stat = MaybeUninit::<libc::statfs64>::uninit();
    // SAFETY: there is room for the answer, and it is filled when the call succeeds.
    unsafe {
        check(libc::fstatfs64(fd, stat.as_mut_ptr()))?;
        Ok(stat.assume_init())
    }
}

pub fn pread(fd: RawFd, into: &mut [u8], offset: u64) -> Result<usize, Errno> {
    // SAFETY: the slice is as long as said.
    let got = unsafe { libc::pread64(fd, into.as_mut_ptr().cast(), into.len(), offset as i64) };
    check(got as i64).map(|got| got as usize)
}

pub fn pwrite(fd: RawFd, from: &[u8], offset: u64) -> Result<usize, Errno> {
    // SAFETY: the slice is as long as said.
    let put = unsafe { libc::pwrite64(fd, from.as_ptr().cast(), from.len(), offset as i64) };
    check(put as i64).map(|put| put as usize)
}

/// Writes at the end, wherever that is.
pub fn append(fd: RawFd, from: &[u8]) -> Result<usize, Errno> {
    let part = libc::iovec {
        iov_base: from.as_ptr().cast_mut().cast(),
        iov_len: from.len(),
    };
    // SAFETY: the slice is as long as said, and is only read.
    let put = unsafe { libc::pwritev2(fd, &part, 1, 0, libc::RWF_APPEND) };
    check(put as i64).map(|put| put as usize)
}

pub fn truncate(fd: RawFd, size: u64) -> Result<(), Errno> {
    // SAFETY: plain call.
    check(unsafe { libc::ftruncate64(fd, size as i64) }).map(drop)
}

pub fn sync(fd: RawFd, data_only: bool) -> Result<(), Errno> {
    // SAFETY: plain calls.
    check(unsafe {
        if data_only {
            libc::fdatasync(fd)
        } else {
            libc::fsync(fd)
        }
    })
    .map(drop)
}
