//! What is open in one place, and by whom: each file that was opened once is one.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::scan::{compare, tasks, Task, Where, KCMP_FILE, KCMP_FILES};
use crate::process::descriptor_of;

/// Who has an open file, and by which number.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    pub task: Task,
    pub number: i32,
    pub close_on_exec: bool,
}

/// A file that was opened once, and may be shared by several numbers and processes.
pub struct Description {
    /// A copy of ours: holds it, tells it from others, and knows its position.
    pub copy: OwnedFd,
    pub holders: Vec<Holder>,
    /// From the directory.
    pub path: PathBuf,
    pub removed: bool,
    pub inode: u64,
    /// What will stand in its place, once it is open; or why nothing will.
    pub instead: Option<Result<OwnedFd, &'static str>>,
    /// It has been moved already, and is what stands there now.
    pub done: bool,
}

/// All open files of one place.
#[derive(Default)]
pub struct Descriptions {
    pub all: Vec<Description>,
    /// Indices, in the kernel's order of open files, so that one is found quickly.
    order: Vec<usize>,
    /// Not closed yet, for who closes a file of a filter waits for that.
    spare: Vec<OwnedFd>,
    /// By its number, as a first guess: forked processes have them alike.
    guesses: HashMap<i32, (usize, bool)>,
}

impl Descriptions {
    /// Looks anew who holds what; what nobody holds any more is dropped, but not closed as long as
    /// nobody is `served` by a filter.
    pub fn look(&mut self, place: &Where, pids: &[i32], served: bool) {
        if served {
            self.spare.clear();
        }
        for one in &mut self.all {
            one.holders.clear();
        }
        for pid in pids {
            for task in tasks(*pid, KCMP_FILES) {
                self.look_at(place, task);
            }
        }
        self.drop_unheld();
    }

    fn look_at(&mut self, place: &Where, task: Task) {
        let directory = format!("/proc/{}/task/{}/fd", task.pid, task.tid);
        let Ok(entries) = fs::read_dir(&directory) else {
            return; // it has ended
        };
        for name in entries.flatten().map(|entry| entry.file_name()) {
            let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if self.is_guessed(task, number) {
                continue;
            }
            let Ok(link) = fs::read_link(format!("{directory}/{number}")) else {
                continue;
            };
            if let Some((path, removed)) = place.below(link.as_os_str().as_bytes()) {
                // One that is closed or replaced meanwhile is found in another round, or not at all.
                let _ = self.take(place, task, number, path, removed);
            }
        }
    }

    fn is_guessed(&mut self, task: Task, number: i32) -> bool {
        let Some(&(index, close_on_exec)) = self.guesses.get(&number) else {
            return false;
        };
        let copy = self.all[index].copy.as_raw_fd();
        let same = same(copy, task.tid, number);
        if same {
            self.all[index].holders.push(Holder {
                task,
                number,
                close_on_exec,
            });
        }
        same
    }

    fn take(
        &mut self,
        place: &Where,
        task: Task,
        number: i32,
        path: PathBuf,
        removed: bool,
    ) -> io::Result<()> {
        let info = Info::of(task, number)?;
        if !place.mounts.contains(&info.mount) {
            return Ok(());
        }
        let copy = descriptor_of(task.tid, number)?;
        let found = self.place_of(&copy);
        let index = match found {
            Ok(at) => {
                self.spare.push(copy);
                self.order[at]
            }
            Err(at) => {
                self.order.insert(at, self.all.len());
                self.all.push(Description {
                    copy,
                    holders: Vec::new(),
                    path,
                    removed,
                    inode: info.inode,
                    instead: None,
                    done: false,
                });
                self.all.len() - 1
            }
        };
        let close_on_exec = info.flags & libc::O_CLOEXEC != 0;
        self.guesses.insert(number, (index, close_on_exec));
        self.all[index].holders.push(Holder {
            task,
            number,
            close_on_exec,
        });
        Ok(())
    }

    /// From now on these are what stands in their place, so that they are known when found again.
    pub fn have_moved(&mut self, moved: &[usize]) {
        let gone: HashSet<usize> = moved.iter().copied().collect();
        self.order.retain(|index| !gone.contains(index));
        for index in moved {
            let one = &mut self.all[*index];
            if let Some(Ok(new)) = one.instead.take() {
                (one.copy, one.done) = (new, true);
                let at = self.place_of(&self.all[*index].copy);
                self.order.insert(at.unwrap_or_else(|at| at), *index);
            }
        }
    }

    /// Where a file is in the order, or would be.
    fn place_of(&self, copy: &OwnedFd) -> Result<usize, usize> {
        self.order
            .binary_search_by(|index| order(&self.all[*index].copy, copy))
    }

    fn drop_unheld(&mut self) {
        let mut moved = HashMap::new();
        let mut kept = 0;
        for (index, one) in self.all.iter().enumerate() {
            if !one.holders.is_empty() {
                moved.insert(index, kept);
                kept += 1;
            }
        }
        let all = std::mem::take(&mut self.all);
        let (held, gone): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|one| !one.holders.is_empty());
        self.all = held;
        self.spare.extend(gone.into_iter().map(|one| one.copy));
        self.order = self
            .order
            .iter()
            .filter_map(|index| moved.get(index).copied())
            .collect();
        self.guesses = self
            .guesses
            .iter()
            .filter_map(|(number, (index, cloexec))| {
                Some((*number, (*moved.get(index)?, *cloexec)))
            })
            .collect();
    }
}

/// The kernel's order of open files.
fn order(one: &OwnedFd, other: &OwnedFd) -> Ordering {
    let own = std::process::id() as i32;
    match compare(own, own, KCMP_FILE, one.as_raw_fd(), other.as_raw_fd()) {
        Some(1) => Ordering::Less,
        Some(2) => Ordering::Greater,
        _ => Ordering::Equal,
    }
}

/// Is our descriptor the same open file as that of another task?
pub fn same(copy: i32, tid: i32, number: i32) -> bool {
    compare(std::process::id() as i32, tid, KCMP_FILE, copy, number) == Some(0)
}

/// What fdinfo says of a descriptor.
#[derive(Debug, Default)]
pub struct Info {
    pub flags: i32,
    pub mount: u64,
    pub inode: u64,
    /// Lines that say which locks were taken by it.
    pub locks: Vec<String>,
}

impl Info {
    pub fn of(task: Task, number: i32) -> io::Result<Self> {
        let path = format!("/proc/{}/task/{}/fdinfo/{number}", task.pid, task.tid);
        Ok(Self::read(&fs::read_to_string(path)?))
    }

    fn read(text: &str) -> Self {
        let mut info = Self::default();
        for line in text.lines() {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            match name {
                "flags" => info.flags = i32::from_str_radix(value, 8).unwrap_or(0),
                "mnt_id" => info.mount = value.parse().unwrap_or(0),
                "ino" => info.inode = value.parse().unwrap_or(0),
                "lock" => info.locks.push(value.to_owned()),
                _ => {}
            }
        }
        info
    }
}

#[cfg(test)]
mod tests {
    use super::Info;

    #[test]
    fn fdinfo_is_read_with_its_locks() {
        let text = "pos:\t5\nflags:\t02100002\nmnt_id:\t29\nino:\t77\n\
                    lock:\t1: POSIX  ADVISORY  WRITE 12 00:2d:77 0 EOF\n";
        let info = Info::read(text);
        assert_eq!((info.mount, info.inode), (29, 77));
        assert_eq!(info.flags & libc::O_ACCMODE, libc::O_RDWR);
        assert_ne!(info.flags & libc::O_CLOEXEC, 0);
        assert_eq!(info.locks, ["1: POSIX  ADVISORY  WRITE 12 00:2d:77 0 EOF"]);
    }
}
