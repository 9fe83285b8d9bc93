//! Who is in a container, and what they have open in one place.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::process::is_frozen;
use crate::ptrace::freeze::threads;
use crate::rpc::Refusal;

pub const KCMP_FILE: i32 = 0;
pub const KCMP_FILES: i32 = 2;
pub const KCMP_FS: i32 = 3;
/// What the kernel adds to the path of a file that has been removed.
const REMOVED: &str = " (deleted)";

/// A process, or one of its threads that has something of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Task {
    pub pid: i32,
    pub tid: i32,
}

/// The mount namespace of a process, as the kernel names it.
pub fn namespace(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()
}

/// Processes in one of these mount namespaces, but for us.
pub fn processes(namespaces: &BTreeSet<PathBuf>) -> Vec<i32> {
    let own = std::process::id() as i32;
    all_processes()
        .filter(|pid| *pid != own)
        .filter(|pid| namespace(*pid).is_some_and(|found| namespaces.contains(&found)))
        .collect()
}

/// Refuses where a process stands still in a frozen cgroup: nothing can be moved until it goes on.
pub fn go_on(namespaces: &BTreeSet<PathBuf>) -> Result<(), Refusal> {
    match processes(namespaces).into_iter().find(|pid| is_frozen(*pid)) {
        Some(pid) => Err(Refusal::try_again(format!(
            "process {pid} stands still in a frozen cgroup; what it has open can be moved when it goes on"
        ))),
        None => Ok(()),
    }
}

pub fn all_processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The process's first thread, and those that do not share `what` with it.
pub fn tasks(pid: i32, what: i32) -> Vec<Task> {
    let others = threads(pid).into_iter();
    let others = others.filter(|tid| *tid != pid && compare(pid, *tid, what, 0, 0) != Some(0));
    let first = first_alive(pid);
    std::iter::once(first)
        .chain(others.filter(|tid| *tid != first))
        .map(|tid| Task { pid, tid })
        .collect()
}

/// Who acts for a process.
pub fn first(pid: i32) -> Task {
    Task {
        pid,
        tid: first_alive(pid),
    }
}

/// The first thread, unless it has ended before the others.
fn first_alive(pid: i32) -> i32 {
    if fs::read_link(format!("/proc/{pid}/cwd")).is_ok() {
        return pid;
    }
    let mut others = threads(pid).into_iter();
    let alive = |tid: &i32| fs::read_link(format!("/proc/{pid}/task/{tid}/cwd")).is_ok();
    others.find(alive).unwrap_or(pid)
}

/// Are two things the same? 0: yes; 1 and 2: which comes first in an order of the kernel's.
pub fn compare(one: i32, other: i32, what: i32, first: i32, second: i32) -> Option<i64> {
    // SAFETY: plain numbers.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, one, other, what, first, second) };
    (order >= 0).then_some(order)
}

/// Where descriptors or mappings are to be looked for.
pub struct Where {
    pub namespaces: BTreeSet<PathBuf>,
    /// Directory, from the root of its mount namespace.
    pub path: PathBuf,
    pub mounts: BTreeSet<u64>,
}

impl Where {
    /// On mounts that stand nowhere any more: what is there is shown from their roots.
    pub fn nowhere(namespaces: BTreeSet<PathBuf>, mounts: BTreeSet<u64>) -> Self {
        Self {
            namespaces,
            path: PathBuf::from("/"),
            mounts,
        }
    }

    /// The way from the directory to what the kernel shows as `link`, and whether it was removed.
    pub fn below(&self, link: &[u8]) -> Option<(PathBuf, bool)> {
        let (path, removed) = match link.strip_suffix(REMOVED.as_bytes()) {
            Some(path) => (path, true),
            None => (link, false),
        };
        let own = self.path.as_os_str().as_bytes();
        let rest = path.strip_prefix(if own == b"/" { &[][..] } else { own })?;
        if rest.is_empty() {
            return Some((PathBuf::new(), removed));
        }
        let rest = rest.strip_prefix(b"/")?;
        Some((PathBuf::from(OsStr::from_bytes(rest)), removed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> Where {
        Where {
            namespaces: BTreeSet::new(),
            path: path.into(),
            mounts: BTreeSet::new(),
        }
    }

    #[test]
    fn only_what_is_below_counts() {
        let data = place("/data");
        assert_eq!(data.below(b"/data"), Some((PathBuf::new(), false)));
        assert_eq!(data.below(b"/data/a/b"), Some(("a/b".into(), false)));
        assert_eq!(data.below(b"/data/a (deleted)"), Some(("a".into(), true)));
        assert_eq!(data.below(b"/database"), None);
        assert_eq!(data.below(b"socket:[1]"), None);
        assert_eq!(place("/").below(b"/etc"), Some(("etc".into(), false)));
    }

    #[test]
    fn a_process_is_found_by_its_mount_namespace() {
        let own = namespace(std::process::id() as i32).unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let found = processes(&BTreeSet::from([own]));
        assert!(found.contains(&(child.id() as i32)));
        assert!(!found.contains(&(std::process::id() as i32)));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
