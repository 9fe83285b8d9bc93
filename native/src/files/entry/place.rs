//! Where in a container a filter stands: the directory below it, and the mounts that count.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::rpc::Refusal;
use crate::system::{check, own};

/// What /proc/PID/mountinfo says of our mounts, so that whoever finds one knows whose it is.
pub const SOURCE: &str = "squall-files";
pub const SUBTYPE: &str = "squall";

/// A mount, as a line of mountinfo has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub id: u64,
    pub parent: u64,
    pub device: String,
    /// What of its file system it shows; with `//deleted` where that is gone.
    pub root: PathBuf,
    /// Where it stands, from the root of its namespace.
    pub point: PathBuf,
    pub options: Vec<String>,
    pub kind: String,
    pub source: String,
}

impl Mount {
    pub fn is_ours(&self) -> bool {
        self.kind == format!("fuse.{SUBTYPE}") && self.source == SOURCE
    }

    /// Where the mount of ours stood that may be on this one, for a moment, as `below` says.
    pub fn home(&self) -> Option<&Path> {
        let home = self.source.strip_prefix(SOURCE)?.strip_prefix(':')?;
        (self.kind == "tmpfs").then(|| Path::new(home))
    }

    pub fn is_shared(&self) -> bool {
        self.options
            .iter()
            .any(|option| option.starts_with("shared:"))
    }
}

/// The mounts of the namespace of a process, in the order in which they were made.
pub fn mounts(pid: i32) -> io::Result<Vec<Mount>> {
    let text = fs::read(format!("/proc/{pid}/mountinfo"))?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().filter_map(mount).collect())
}

fn mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let before: Vec<&str> = before.split(' ').collect();
    let mut after = after.split(' ');
    Some(Mount {
        id: before.first()?.parse().ok()?,
        parent: before.get(1)?.parse().ok()?,
        device: (*before.get(2)?).to_owned(),
        root: PathBuf::from(unescaped(before.get(3)?)),
        point: PathBuf::from(unescaped(before.get(4)?)),
        options: before[5..]
            .iter()
            .map(|option| (*option).to_owned())
            .collect(),
        kind: after.next()?.to_owned(),
        source: unescaped(after.next()?),
    })
}

/// Blanks, tabs, line ends, backslashes and, in sources, hashes are written as three octal digits.
fn unescaped(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\043", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "#", "\\"])
        .fold(text.to_owned(), |text, (code, plain)| {
            text.replace(code, plain)
        })
}

/// A directory of a container, opened before anything of ours stands on it.
#[derive(Debug)]
pub struct Place {
    /// From the root of the mount namespace, without symbolic links.
    pub path: PathBuf,
    pub directory: OwnedFd,
}

impl Place {
    /// Finds what the container means by `path`.
    pub fn find(pid: i32, path: &str) -> Result<Self, Refusal> {
        let root = File::options()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
            .open(format!("/proc/{pid}/root"))
            .map_err(|error| Refusal::try_again(format!("/proc/{pid}/root: {error}")))?;
        let directory = open_below(
            &root,
            Path::new(path.trim_start_matches('/')),
            libc::O_PATH | libc::O_DIRECTORY,
            libc::RESOLVE_IN_ROOT,
        )
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT) => Refusal::invalid(format!("{path}: no such directory there")),
            Some(libc::ENOTDIR) => Refusal::invalid(format!("{path} is not a directory there")),
            _ => Refusal::try_again(format!("{path}: {error}")),
        })?;
        let unknown = |error| Refusal::try_again(format!("{path}: {error}"));
        let found = shown(&directory).map_err(unknown)?;
        if found == Path::new("/") {
            let message =
                format!("{path} leads to the root of the container; name a directory in it");
            return Err(Refusal::invalid(message));
        }
        if is_of_kernel(&directory).map_err(unknown)? {
            // Who asks there is judged by who opens, and we may do more than any target.
            let message =
                format!("{path} is the kernel's own, and holds no files of the container");
            return Err(Refusal::invalid(message));
        }
        Ok(Self {
            path: found,
            directory,
        })
    }

    /// The mount that it is in, and those that stand below it: what is open on them is below it.
    pub fn mounts(&self, pid: i32) -> io::Result<BTreeSet<u64>> {
        let own = mount_of(&self.directory)?;
        let mut found = BTreeSet::from([own]);
        let mounts = mounts(pid)?;
        let mut grown = true;
        while grown {
            let inner = mounts.iter().filter(|mount| {
                mount.point.starts_with(&self.path)
                    && found.contains(&mount.parent)
                    && !(mount.parent == own && mount.point == self.path)
            });
            let before = found.len();
            found.extend(inner.map(|mount| mount.id).collect::<Vec<_>>());
            grown = found.len() > before;
        }
        Ok(found)
    }
}

/// File systems in which the kernel shows and takes what is its own.
const OF_KERNEL: [libc::c_long; 11] = [
    libc::BPF_FS_MAGIC,
    libc::CGROUP2_SUPER_MAGIC,
    libc::CGROUP_SUPER_MAGIC,
    libc::DEBUGFS_MAGIC,
    libc::DEVPTS_SUPER_MAGIC,
    libc::NSFS_MAGIC,
    libc::PROC_SUPER_MAGIC,
    libc::SECURITYFS_MAGIC,
    libc::SELINUX_MAGIC,
    libc::SYSFS_MAGIC,
    libc::TRACEFS_MAGIC,
];

fn is_of_kernel(directory: &OwnedFd) -> io::Result<bool> {
    // SAFETY: all zero is a valid statfs, and outlives the call.
    let found = unsafe {
        let mut found: libc::statfs = std::mem::zeroed();
        check(libc::fstatfs(directory.as_raw_fd(), &raw mut found))?;
        found.f_type as libc::c_long
    };
    Ok(OF_KERNEL.contains(&found))
}

/// Opens something below a directory; `resolve` bounds where the way may lead.
pub fn open_below(
    directory: &impl AsRawFd,
    path: &Path,
    flags: i32,
    resolve: u64,
) -> io::Result<OwnedFd> {
    let name = if path.as_os_str().is_empty() {
        CString::from(c".")
    } else {
        CString::new(path.as_os_str().as_bytes())?
    };
    // SAFETY: all zero is a valid open_how; name and structure outlive the call.
    unsafe {
        let mut how: libc::open_how = std::mem::zeroed();
        how.flags = (flags | libc::O_CLOEXEC) as u64;
        how.resolve = resolve;
        own(check(libc::syscall(
            libc::SYS_openat2,
            directory.as_raw_fd(),
            name.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        ))? as i32)
    }
}

/// Where the kernel says that an open file is, from the root of its mount namespace.
pub fn shown(file: &impl AsRawFd) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// What stat(2) says, without asking a file system that would have to ask somebody else.
pub fn stat(file: BorrowedFd<'_>) -> io::Result<libc::statx> {
    // SAFETY: all zero is a valid statx; name and structure outlive the call.
    unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        check(libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC,
            libc::STATX_TYPE | libc::STATX_INO | libc::STATX_MNT_ID,
            &raw mut found,
        ))?;
        Ok(found)
    }
}

/// The mount that an open file is on.
pub fn mount_of(file: &impl AsRawFd) -> io::Result<u64> {
    // Not by /proc, which is another one inside of a container.
    // SAFETY: all zero is a valid statx; name and structure outlive the call.
    let found = unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        check(libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC,
            libc::STATX_MNT_ID,
            &raw mut found,
        ))?;
        found
    };
    if found.stx_mask & libc::STATX_MNT_ID == 0 {
        return Err(io::Error::other(
            "this kernel tells no mount of an open file",
        ));
    }
    Ok(found.stx_mnt_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read_with_its_blanks_and_optional_fields() {
        let line = "98 61 0:53 / /var/my\\040data rw,relatime shared:7 master:2 - fuse.squall \
                    squall-files rw";
        let found = mount(line).unwrap();
        assert_eq!((found.id, found.parent), (98, 61));
        assert_eq!(found.point, Path::new("/var/my data"));
        assert!(found.is_ours() && found.is_shared());
    }

    #[test]
    fn what_lacks_the_mark_is_not_ours() {
        let fuse = "98 61 0:53 / /data rw - fuse.sshfs squall-files rw";
        assert!(!mount(fuse).unwrap().is_ours());
        let other = "98 61 0:53 / /data rw - fuse.squall other rw";
        assert!(!mount(other).unwrap().is_ours());
    }
}
