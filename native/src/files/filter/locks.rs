//! Locks that processes take by a filter are taken on the true file: whoever has it open in another
//! way, as one in another container, or one who is not moved yet, meets them.
//!
//! Each owner has an open file of its own there, whose locks are those of fcntl(2)'s open file
//! descriptions. The guardian has it open as well, so that nothing is unlocked if this process dies.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::abi::{self, InHeader};
use super::device::{Answer, Errno};
use super::nodes::Node;
use super::open_files::OpenFile;
use super::serve::{take, Outcome};
use super::{sys, Filter, Shared};
use crate::files::entry::service::LockHolder;
use crate::files::lock::{give_up, held, held_for, in_the_way, loosen, Family, Had, Lock, Taker};
use crate::system::log;

/// What one owner has locked of one file.
pub struct Hold {
    id: u64,
    /// The kernel's number of the process or of the open file.
    owner: u64,
    whole: bool,
    /// By which open file it began.
    pub fh: u64,
    pub fd: OwnedFd,
    taker: Taker,
}

/// How often to look whether who asks has come to wait for the answer.
const ON_ITS_WAY: usize = 1000;

/// All of them, by their node.
#[derive(Default)]
pub struct Locks(Mutex<Table>);

type Table = HashMap<u64, Vec<Arc<Hold>>>;

/// Of all filters of this process: the guardian knows holds by it.
static LAST: AtomicU64 = AtomicU64::new(0);

impl Locks {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, node: &Node) -> Vec<Arc<Hold>> {
        self.table().get(&node.id).cloned().unwrap_or_default()
    }

    fn which(&self, fits: impl Fn(&Hold) -> bool) -> Vec<Arc<Hold>> {
        let table = self.table();
        let all = table.values().flatten();
        all.filter(|hold| fits(hold)).cloned().collect()
    }

    fn find(&self, node: &Node, asked: &abi::LockIn) -> Option<Arc<Hold>> {
        let table = self.table();
        let same = |one: &&Arc<Hold>| one.owner == asked.owner && one.whole == is_whole(asked);
        table.get(&node.id)?.iter().find(same).cloned()
    }
}

impl LockHolder for Filter {
    fn list(&self, inodes: &BTreeSet<u64>) -> Vec<Had> {
        let asked = self
            .0
            .locks
            .which(|hold| inodes.contains(&hold.taker.inode));
        let locks = asked
            .iter()
            .map(|hold| held_for(&hold.fd, hold.id, hold.taker));
        locks.flatten().collect()
    }

    fn loosen(&self, ids: &BTreeSet<u64>) {
        let asked = self.0.locks.which(|hold| ids.contains(&hold.id));
        asked.iter().for_each(|hold| loosen(&hold.fd));
    }

    fn let_go(&self, ids: &BTreeSet<u64>) {
        for hold in self.0.locks.which(|hold| ids.contains(&hold.id)) {
            let _ = give_up(&hold.fd, hold.taker.family, 0, 0);
        }
    }
}

impl Shared {
    /// Takes or gives up a lock, or says that somebody else has it (EAGAIN).
    pub fn setlk(&self, header: &InHeader, body: &[u8]) -> Result<(), Errno> {
        match self.wanted_lock(header, body)? {
            Some((hold, lock)) => lock.take(&hold.fd, false).map_err(errno),
            None => Ok(()),
        }
    }

    /// What is to be locked, and by which open file; what is to be unlocked is so then.
    pub fn wanted_lock(
        &self,
        header: &InHeader,
        body: &[u8],
    ) -> Result<Option<(Arc<Hold>, Lock)>, Errno> {
        let (asked, _): (abi::LockIn, _) = take(body)?;
        let file = self.open_files.get(asked.fh)?;
        let known = self.locks.find(&file.node, &asked);
        let lock = lock_of(&asked);
        if asked.kind as libc::c_int == libc::F_UNLCK {
            if let Some(hold) = known {
                give_up(&hold.fd, lock.family, lock.start, lock.length).map_err(errno)?;
            }
            return Ok(None);
        }
        let able = |hold: &Hold| match (lock.family, lock.exclusive) {
            (Family::Whole, _) => true,
            (_, true) => mode(&hold.fd) != libc::O_RDONLY,
            (_, false) => mode(&hold.fd) != libc::O_WRONLY,
        };
        let hold = match known {
            Some(hold) if able(&hold) => hold,
            known => self.new_hold(header, &asked, &file, known)?,
        };
        Ok(Some((hold, lock)))
    }

    pub fn getlk(&self, body: &[u8]) -> Outcome {
        let (asked, _): (abi::LockIn, _) = take(body)?;
        let file = self.open_files.get(asked.fh)?;
        let lock = lock_of(&asked);
        let known = self.locks.find(&file.node, &asked);
        let fd = known.as_ref().map_or(&file.fd, |hold| &hold.fd);
        let Some((other, pid)) = in_the_way(fd, &lock).map_err(errno)? else {
            return Ok(Answer::of(&abi::LockOut {
                kind: libc::F_UNLCK as u32,
                ..Default::default()
            }));
        };
        let pid = match pid {
            ..=0 => self.locker(&file.node, &asked, &other).unwrap_or(0),
            pid => pid,
        };
        let last = match other.length {
            0 => i64::MAX,
            length => other.start + length - 1,
        };
        Ok(Answer::of(&abi::LockOut {
            start: other.start as u64,
            end: last as u64,
            kind: libc::c_int::from(other.structure().l_type) as u32,
            pid: pid as u32,
        }))
    }

    /// A process has closed a descriptor of a file: it loses all that it has locked of it.
    pub fn flush(&self, nodeid: u64, body: &[u8]) -> Result<(), Errno> {
        let (asked, _): (abi::FlushIn, _) = take(body)?;
        let node = self.nodes.get(nodeid)?;
        self.unlock_all_of(&node, |hold| hold.owner == asked.lock_owner && !hold.whole);
        Ok(())
    }

    pub fn unlock_all_of(&self, node: &Node, which: impl Fn(&Hold) -> bool) {
        let mut table = self.locks.table();
        let Some(holds) = table.get_mut(&node.id) else {
            return;
        };
        let (gone, stay): (Vec<_>, Vec<_>) = holds.drain(..).partition(|hold| which(hold));
        *holds = stay;
        if holds.is_empty() {
            table.remove(&node.id);
        }
        drop(table);
        for hold in gone {
            // To close it would not be enough: the guardian has it, too.
            let _ = give_up(&hold.fd, hold.taker.family, 0, 0);
            self.keep_lock_no_more(hold.id, hold.taker);
        }
    }

    /// An open file for the locks of an owner who has none, or one who may do less than is needed.
    fn new_hold(
        &self,
        header: &InHeader,
        asked: &abi::LockIn,
        file: &OpenFile,
        former: Option<Arc<Hold>>,
    ) -> Result<Arc<Hold>, Errno> {
        let node = &file.node;
        let anchor = self.nodes.fd(node)?;
        let wanted = match mode(&file.fd) {
            libc::O_RDONLY if former.is_none() => libc::O_RDONLY,
            _ => libc::O_RDWR | libc::O_APPEND, // that may be all that is allowed
        };
        let open = |flags| sys::reopen(anchor.as_raw_fd(), flags);
        let fd = open(wanted).or_else(|_| open(mode(&file.fd)))?;
        let (family, number) = by_call(header.pid, is_whole(asked));
        let taker = Taker {
            inode: self.nodes.shown_ino(node.dev, node.ino),
            family,
            pid: asked.pid as i32,
            number,
        };
        if let Some(former) = former {
            let locks = held(&former.fd);
            self.unlock_all_of(node, |hold| hold.id == former.id);
            for lock in locks {
                if let Err(error) = lock.take(&fd, false) {
                    log(&format!("a lock is lost: {error}"));
                }
            }
        }
        let hold = Arc::new(Hold {
            id: LAST.fetch_add(1, Ordering::Relaxed),
            owner: asked.owner,
            whole: is_whole(asked),
            fh: asked.fh,
            fd,
            taker,
        });
        let mut table = self.locks.table();
        table.entry(node.id).or_default().push(Arc::clone(&hold));
        drop(table);
        self.keep_lock(hold.id, hold.taker, &hold.fd);
        Ok(hold)
    }

    /// Which process has a lock like this one, by us.
    fn locker(&self, node: &Node, asked: &abi::LockIn, lock: &Lock) -> Option<i32> {
        let others = self.locks.of(node).into_iter();
        let mut others = others.filter(|hold| hold.owner != asked.owner && !hold.whole);
        let found = others.find(|hold| {
            let has = |one: &Lock| one.start == lock.start && one.length == lock.length;
            held(&hold.fd).iter().any(has)
        });
        found.map(|hold| hold.taker.pid)
    }
}

pub fn errno(error: std::io::Error) -> Errno {
    match error.raw_os_error() {
        Some(libc::EACCES) => libc::EAGAIN,
        other => other.unwrap_or(libc::EIO),
    }
}

fn is_whole(asked: &abi::LockIn) -> bool {
    asked.lock_flags & abi::LOCK_WHOLE != 0
}

fn lock_of(asked: &abi::LockIn) -> Lock {
    let family = match is_whole(asked) {
        true => Family::Whole,
        false => Family::OpenFile,
    };
    let length = match asked.end >= i64::MAX as u64 {
        true => 0,
        false => (asked.end - asked.start + 1) as i64,
    };
    Lock {
        family,
        exclusive: asked.kind as libc::c_int == libc::F_WRLCK,
        start: asked.start as i64,
        length,
    }
}

fn mode(file: &OwnedFd) -> i32 {
    // SAFETY: plain call.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) & libc::O_ACCMODE }
}

/// What a thread that waits for us has called, and by which descriptor: the kernel does not tell
/// whether a lock is the process's or the open file's: proc(5), /proc/pid/syscall.
fn by_call(tid: u32, whole: bool) -> (Family, i32) {
    let told = || fs::read_to_string(format!("/proc/{tid}/syscall")).unwrap_or_default();
    let mut text = told();
    for _ in 0..ON_ITS_WAY {
        if text.trim() != "running" {
            break;
        }
        std::thread::sleep(Duration::from_micros(20)); // it has asked us, and does not sleep yet
        text = told();
    }
    let mut words = text.split_whitespace().skip(1);
    let mut word = || {
        let word = words.next()?.strip_prefix("0x")?;
        u64::from_str_radix(word, 16).ok()
    };
    let number = word().map_or(-1, |number| number as i32);
    let command = word().map_or(-1, |command| command as i32);
    let family = match command {
        _ if whole => Family::Whole,
        libc::F_OFD_SETLK | libc::F_OFD_SETLKW => Family::OpenFile,
        _ => Family::Process,
    };
    (family, number)
}
