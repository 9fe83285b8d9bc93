//! Working directories in one place.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::place::mount_of;
use super::scan::{tasks, Task, Where, KCMP_FS};
use crate::files::identity;

/// A task whose working directory is in the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stay {
    pub task: Task,
    /// From the directory.
    pub path: PathBuf,
    pub removed: bool,
    /// Which true directory it is, if it is one of ours.
    pub identity: Option<u32>,
}

/// Those of a process: threads may have one of their own.
pub fn of(place: &Where, pid: i32) -> Vec<Stay> {
    let found = |task: Task| {
        let name = format!("/proc/{}/task/{}/cwd", task.pid, task.tid);
        let link = fs::read_link(&name).ok()?;
        let (path, removed) = place.below(link.as_os_str().as_bytes())?;
        let open = File::options()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(&name)
            .ok()?;
        place
            .mounts
            .contains(&mount_of(&open).ok()?)
            .then_some(Stay {
                task,
                path,
                removed,
                identity: identity::remembered(&open),
            })
    };
    tasks(pid, KCMP_FS).into_iter().filter_map(found).collect()
}
