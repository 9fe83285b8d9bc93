//! Open files and directories, by the numbers that the kernel was given for them.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::device::Errno;
use super::nodes::Node;

/// Who serves reads and writes of an open file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Served {
    Kernel,
    Us,
    /// By us, and mappings by the kernel: it has the file open otherwise as well.
    Both,
}

/// One open file or directory.
pub struct OpenFile {
    pub fd: OwnedFd,
    pub node: Arc<Node>,
    pub served: Served,
    /// What is written is on the disk before it is answered.
    pub synced: bool,
    /// O_DIRECT, as far as `fd` has it.
    direct: AtomicI32,
    /// Where a directory is read from next.
    pub position: Mutex<i64>,
}

impl OpenFile {
    pub fn new(fd: OwnedFd, node: Arc<Node>, served: Served, flags: i32) -> Self {
        let direct = AtomicI32::new(flags & libc::O_DIRECT);
        Self {
            fd,
            node,
            served,
            synced: flags & libc::O_DSYNC != 0,
            direct,
            position: Mutex::new(0),
        }
    }

    pub fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Follows fcntl(F_SETFL, O_DIRECT) on the descriptor above.
    pub fn follow(&self, flags: u32) {
        let direct = flags as i32 & libc::O_DIRECT;
        if self.direct.swap(direct, Ordering::Relaxed) != direct {
            // SAFETY: plain calls; of what F_SETFL takes, only this one is ever changed.
            unsafe {
                let others = libc::fcntl(self.raw(), libc::F_GETFL) & !libc::O_DIRECT;
                libc::fcntl(self.raw(), libc::F_SETFL, others | direct);
            }
        }
    }
}

/// All of them.
#[derive(Default)]
pub struct OpenFiles(Mutex<Table>);

#[derive(Default)]
struct Table {
    by_number: HashMap<u64, Arc<OpenFile>>,
    last: u64,
}

impl OpenFiles {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, file: OpenFile) -> u64 {
        let mut table = self.table();
        table.last += 1;
        let number = table.last;
        table.by_number.insert(number, Arc::new(file));
        number
    }

    pub fn get(&self, number: u64) -> Result<Arc<OpenFile>, Errno> {
        self.table()
            .by_number
            .get(&number)
            .map(Arc::clone)
            .ok_or(libc::EBADF)
    }

    pub fn remove(&self, number: u64) -> Result<Arc<OpenFile>, Errno> {
        self.table().by_number.remove(&number).ok_or(libc::EBADF)
    }

    /// How many files are open in a way that is not wanted any more.
    pub fn bypassing(&self, unwanted: impl Fn(&OpenFile) -> bool) -> usize {
        let open: Vec<Arc<OpenFile>> = self.table().by_number.values().map(Arc::clone).collect();
        open.iter().filter(|file| unwanted(file)).count()
    }
}
