//! What is open on a file system of ours that stands nowhere any more.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::place::{mounts, stat};
use super::scan::{tasks, KCMP_FILES, KCMP_FS};

/// Mounts of the file system `device` (`0:53`) that these processes use, and that stand nowhere.
pub fn mounts_of(device: &str, pids: &[i32]) -> BTreeSet<u64> {
    let attached: BTreeSet<u64> = pids
        .iter()
        .flat_map(|pid| mounts(*pid).unwrap_or_default())
        .map(|mount| mount.id)
        .collect();
    let mut found = BTreeSet::new();
    for pid in pids {
        let of = |tid: i32, name: &str| format!("/proc/{pid}/task/{tid}/{name}");
        for task in tasks(*pid, KCMP_FS) {
            found.extend(mount_on(device, of(task.tid, "cwd")));
        }
        for task in tasks(*pid, KCMP_FILES) {
            found.extend(all_on(device, &of(task.tid, "fd")));
        }
        found.extend(all_on(device, &format!("/proc/{pid}/map_files")));
    }
    found.retain(|mount| !attached.contains(mount));
    found
}

fn all_on(device: &str, directory: &str) -> BTreeSet<u64> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path()).filter(|path| {
        // Pipes and sockets have names of another form.
        fs::read_link(path).is_ok_and(|link| link.is_absolute())
    });
    files.filter_map(|path| mount_on(device, path)).collect()
}

fn mount_on(device: &str, path: impl AsRef<Path>) -> Option<u64> {
    let file: OwnedFd = File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)
        .ok()?
        .into();
    let found = stat(file.as_fd()).ok()?;
    let own = format!("{}:{}", found.stx_dev_major, found.stx_dev_minor);
    (own == device).then_some(found.stx_mnt_id)
}
