//! A file system of ours, made here, put into place in another mount namespace, and taken away.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::Value;

use super::group::Group;
use super::place::{mount_of, open_below, stat, SOURCE, SUBTYPE};
use crate::files::messages;
use crate::system::{check, own};

const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
pub(super) const OPEN_TREE_CLONE: u32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;

/// `ST_` flags of statvfs and the mount attributes that mean the same.
const SAME: [(u64, u64); 6] = [
    (libc::ST_RDONLY, 0x1),
    (libc::ST_NOSUID, 0x2),
    (libc::ST_NODEV, 0x4),
    (libc::ST_NOEXEC, 0x8),
    (libc::ST_NOATIME, 0x10),
    (libc::ST_NODIRATIME, 0x80),
];

/// Opens /dev/fuse; by its number where there is none, as in the container of an agent.
pub fn device() -> io::Result<OwnedFd> {
    match File::options().read(true).write(true).open("/dev/fuse") {
        Ok(file) => Ok(file.into()),
        Err(missing) => numbered_device().map_err(|_| missing),
    }
}

/// The same device, made in a file system that is mounted nowhere and goes with this call.
fn numbered_device() -> io::Result<OwnedFd> {
    // SAFETY: plain calls; names outlive them.
    unsafe {
        let context =
            own(libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), FSOPEN_CLOEXEC) as i32)?;
        configure(&context, FSCONFIG_CMD_CREATE, None, None)?;
        let folder =
            own(libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) as i32)?;
        let number = libc::makedev(10, 229);
        check(libc::mknodat(
            folder.as_raw_fd(),
            c"fuse".as_ptr(),
            libc::S_IFCHR | 0o600,
            number,
        ))?;
        own(libc::openat(
            folder.as_raw_fd(),
            c"fuse".as_ptr(),
            libc::O_RDWR | libc::O_CLOEXEC,
        ))
    }
}

/// Makes the mount for `device` (/dev/fuse, open), to stand over `directory`; it stands nowhere yet.
///
/// What its mount forbids, as to write, is forbidden here as well.
pub fn make(device: &OwnedFd, directory: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: plain call.
    let context =
        own(unsafe { libc::syscall(libc::SYS_fsopen, c"fuse".as_ptr(), FSOPEN_CLOEXEC) } as i32)?;
    let set = |key: &CStr, value: &str| {
        let value = CString::new(value)?;
        configure(&context, FSCONFIG_SET_STRING, Some(key), Some(&value))
    };
    set(c"source", SOURCE)?;
    set(c"subtype", SUBTYPE)?;
    set(c"fd", &device.as_raw_fd().to_string())?;
    set(c"rootmode", "40000")?;
    set(c"user_id", "0")?;
    set(c"group_id", "0")?;
    for flag in [c"default_permissions", c"allow_other"] {
        configure(&context, FSCONFIG_SET_FLAG, Some(flag), None)?;
    }
    configure(&context, FSCONFIG_CMD_CREATE, None, None)?;
    let attributes = attributes(directory)?;
    // SAFETY: plain call.
    own(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            context.as_raw_fd(),
            FSMOUNT_CLOEXEC,
            attributes,
        )
    } as i32)
}

fn configure(
    context: &OwnedFd,
    verb: u32,
    key: Option<&CStr>,
    value: Option<&CStr>,
) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: strings outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            verb,
            pointer(key),
            pointer(value),
            0,
        )
    })
    .map(drop)
}

fn attributes(directory: &OwnedFd) -> io::Result<u64> {
    // SAFETY: all zero is a valid statvfs, and outlives the call.
    let flags = unsafe {
        let mut found: libc::statvfs = std::mem::zeroed();
        check(libc::fstatvfs(directory.as_raw_fd(), &raw mut found))?;
        found.f_flag
    };
    let set = SAME.iter().filter(|(flag, _)| flags & flag != 0);
    Ok(set.fold(0, |all, (_, attribute)| all | attribute))
}

/// Puts a mount over a directory in the mount namespace of a process.
///
/// Where the directory's own mount is shared, `shared` is where that stands: nobody else who shares
/// it gets ours.
pub fn put(
    namespace: &File,
    mount: &OwnedFd,
    directory: &OwnedFd,
    shared: Option<&Path>,
) -> io::Result<()> {
    inside(namespace, || {
        let _group = shared
            .map(|point| Group::left(point, directory))
            .transpose()?;
        move_mount(mount, directory, 0)
    })
}

/// Moves the mount that stands at `point`, if that is mount `id`, to another directory.
pub fn move_to(namespace: &File, point: &Path, id: u64, to: &OwnedFd) -> io::Result<()> {
    inside(namespace, || {
        move_mount(&known(Path::new(enter(point)?), id)?, to, 0)
    })
}

/// Takes away what stands at `path`, if that is mount `id`; `lazily`: though it is in use.
///
/// ESTALE where something else stands on it.
pub fn take_away(namespace: &File, path: &Path, id: u64, lazily: bool) -> io::Result<()> {
    inside(namespace, || {
        let name = enter(path)?;
        drop(known(Path::new(name), id)?);
        unmount(name, if lazily { libc::MNT_DETACH } else { 0 })
    })
}

/// Another mount of a directory of that namespace, which stands nowhere yet.
pub fn double(namespace: &File, directory: &OwnedFd) -> io::Result<OwnedFd> {
    found_inside(namespace, || {
        let flags = OPEN_TREE_CLONE | (libc::AT_EMPTY_PATH | libc::O_CLOEXEC) as u32;
        let (from, name) = (directory.as_raw_fd(), c"".as_ptr());
        // SAFETY: the name outlives the call.
        own(unsafe { libc::syscall(libc::SYS_open_tree, from, name, flags) } as i32)
    })
}

/// Puts a mount on top of mount `id`, which stands at `point`.
pub fn put_over(namespace: &File, mount: &OwnedFd, point: &Path, id: u64) -> io::Result<()> {
    inside(namespace, || {
        move_mount(mount, &known(Path::new(enter(point)?), id)?, 0)
    })
}

/// Puts a mount at `point`, unless what it shows is there already.
pub fn stand_in(namespace: &File, mount: &OwnedFd, point: &Path) -> io::Result<()> {
    inside(namespace, || {
        let there = open_tree(Path::new(enter(point)?), libc::AT_SYMLINK_NOFOLLOW as u32)?;
        let file = |one: &OwnedFd| {
            let found = stat(one.as_fd())?;
            io::Result::Ok((found.stx_dev_major, found.stx_dev_minor, found.stx_ino))
        };
        if file(&there)? == file(mount)? {
            return Ok(());
        }
        move_mount(mount, &there, 0)
    })
}

/// Goes to the directory that a mount stands in, and says by which name it does; in a child.
///
/// The container cannot rename what it is mounted over. Directories above it are another matter: it
/// could have a link in their place that leads to another mount, between one call and the next.
pub(super) fn enter(point: &Path) -> io::Result<&OsStr> {
    let (Some(above), Some(name)) = (point.parent(), point.file_name()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let root = File::open("/")?;
    let below = above.strip_prefix("/").unwrap_or(above);
    let above = open_below(&root, below, libc::O_PATH, libc::RESOLVE_NO_SYMLINKS)?;
    // SAFETY: plain call.
    check(unsafe { libc::fchdir(above.as_raw_fd()) })?;
    Ok(name)
}

/// Opens a mount by its name; ESTALE where another one stands there.
pub(super) fn known(name: &Path, id: u64) -> io::Result<OwnedFd> {
    let top = open_tree(name, libc::AT_SYMLINK_NOFOLLOW as u32)?;
    match mount_of(&top)? == id {
        true => Ok(top),
        false => Err(io::Error::from_raw_os_error(libc::ESTALE)),
    }
}

pub(super) fn open_tree(path: &Path, flags: u32) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let flags = flags | libc::O_CLOEXEC as u32;
    // SAFETY: the name outlives the call.
    own(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, name.as_ptr(), flags) } as i32)
}

pub(super) fn move_mount(mount: &OwnedFd, to: &OwnedFd, more: u32) -> io::Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH | more;
    let (from, to) = (mount.as_raw_fd(), to.as_raw_fd());
    // SAFETY: empty names, as the flags say.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            from,
            c"".as_ptr(),
            to,
            c"".as_ptr(),
            flags,
        )
    })
    .map(drop)
}

/// Takes away what stands at `name`, never where a link leads.
pub(super) fn unmount(name: &OsStr, flags: i32) -> io::Result<()> {
    let name = CString::new(name.as_bytes())?;
    // SAFETY: the name outlives the call.
    check(unsafe { libc::umount2(name.as_ptr(), flags | libc::UMOUNT_NOFOLLOW) }).map(drop)
}

/// Gives what `act` opens, as `inside` has it.
pub(super) fn found_inside(
    namespace: &File,
    act: impl FnOnce() -> io::Result<OwnedFd>,
) -> io::Result<OwnedFd> {
    let (ours, theirs) = messages::pair()?;
    inside(namespace, || {
        messages::send(&theirs, &Value::Null, &[act()?.as_fd()])
    })?;
    let (_, fds) = messages::receive(&ours)?;
    fds.into_iter().next().ok_or(io::ErrorKind::NotFound.into())
}

/// Does something in a mount namespace, in a child: its own stays as it is. One thread only.
pub(super) fn inside(namespace: &File, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    // SAFETY: this process has one thread, so the child may go on as it likes.
    let child = check(unsafe { libc::fork() })?;
    if child == 0 {
        let done = nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNS)
            .map_err(io::Error::from)
            .and_then(|()| act());
        let status = match done {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap_or(libc::EPROTO),
        };
        // SAFETY: ends at once; nothing is to be written or taken back.
        unsafe { libc::_exit(status.min(255)) };
    }
    let mut status = 0;
    // SAFETY: the status outlives the call.
    while let Err(error) = check(unsafe { libc::waitpid(child, &raw mut status, 0) }) {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
        (true, 0) => Ok(()),
        (true, errno) => Err(io::Error::from_raw_os_error(errno)),
        _ => Err(io::Error::other(
            "the process that was to mount has been killed",
        )),
    }
}
