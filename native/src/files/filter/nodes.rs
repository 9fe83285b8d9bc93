//! The files that the kernel knows of, by the numbers it was given for them.
//!
//! Of few files a descriptor is kept open (`anchors.rs`); of few that nobody uses anything at all.

use std::collections::{HashMap, VecDeque};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::abi::ROOT_ID;
use super::device::Errno;
use super::file_handle::FileHandle;
use super::sys;
use super::undo::Undo;

/// Files known before the kernel is asked to forget those that nobody uses; each takes about half
/// a kilobyte.
const MOST: usize = 2048;

/// Whether the file system gives handles by which it finds its files again.
const UNTRIED: u8 = 0;
const USEFUL: u8 = 1;
const USELESS: u8 = 2;

/// One file of the directory below, by whatever names.
pub struct Node {
    pub id: u64,
    /// Numbers of its file system below, and of itself there.
    pub dev: u64,
    pub ino: u64,
    pub handle: Option<FileHandle>,
    pub is_dir: bool,
    /// Had it set-user-id or set-group-id bits when last looked at?
    privileged: AtomicBool,
    pub state: Mutex<State>,
    /// What writes have to hold, one by one, where a rule keeps account of them.
    pub writes: Mutex<Option<Box<Undo>>>,
}

/// What changes about a node.
#[derive(Default)]
pub struct State {
    pub anchor: Option<Arc<OwnedFd>>,
    /// The same, where it would not be found any more: it has no name.
    pub pinned: Option<Arc<OwnedFd>>,
    /// Directory and name; the last one stays when it is removed.
    pub names: Vec<(u64, Box<[u8]>)>,
    pub nameless: bool,
    /// Which rules fit its path, and for which rules and tree that was found out.
    pub verdict: Option<((u64, u64), u64)>,
    /// Open files that the kernel serves, and their backing; open files that we serve alone.
    pub passthrough: u32,
    pub backing: Option<i32>,
    pub direct: u32,
    /// The guardian has it open as well.
    pub kept: bool,
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    dev: u64,
    ino: u64,
    handle: Option<FileHandle>,
}

struct Known {
    node: Arc<Node>,
    lookups: u64,
}

#[derive(Default)]
struct Tables {
    by_id: HashMap<u64, Known>,
    by_key: HashMap<Key, u64>,
    last: u64,
}

/// All nodes.
pub struct Nodes {
    tables: Mutex<Tables>,
    /// Those with an open descriptor, and all of them, oldest first.
    pub anchored: Mutex<VecDeque<u64>>,
    by_age: Mutex<VecDeque<u64>>,
    /// Any descriptor that reaches the file system, for its handles.
    pub mount: OwnedFd,
    root_dev: u64,
    handles: AtomicU8,
    /// Counts what moves whole subtrees.
    pub tree: AtomicU64,
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    /// Notes what stat(2) has said.
    pub fn seen(&self, stat: &libc::stat64) {
        let bits = stat.st_mode & (libc::S_ISUID | libc::S_ISGID);
        self.privileged.store(bits != 0, Ordering::Relaxed);
    }

    pub fn is_privileged(&self) -> bool {
        self.privileged.load(Ordering::Relaxed)
    }
}

impl Nodes {
    /// Begins with the directory that `underlying` stands for.
    pub fn new(underlying: OwnedFd) -> std::io::Result<Self> {
        let mount = sys::reopen(underlying.as_raw_fd(), libc::O_RDONLY | libc::O_DIRECTORY)
            .map_err(std::io::Error::from_raw_os_error)?;
        let stat = sys::stat(underlying.as_raw_fd()).map_err(std::io::Error::from_raw_os_error)?;
        let nodes = Self {
            tables: Mutex::new(Tables {
                last: ROOT_ID,
                ..Tables::default()
            }),
            anchored: Mutex::default(),
            by_age: Mutex::default(),
            mount,
            root_dev: stat.st_dev,
            handles: AtomicU8::new(UNTRIED),
            tree: AtomicU64::new(0),
        };
        let state = State {
            anchor: Some(Arc::new(underlying)),
            ..State::default()
        };
        let node = Arc::new(Node {
            id: ROOT_ID,
            dev: stat.st_dev,
            ino: stat.st_ino,
            handle: None, // its descriptor stays open
            is_dir: true,
            privileged: AtomicBool::new(false),
            state: Mutex::new(state),
            writes: Mutex::default(),
        });
        lock(&nodes.tables)
            .by_id
            .insert(ROOT_ID, Known { node, lookups: 1 });
        Ok(nodes)
    }

    pub fn get(&self, id: u64) -> Result<Arc<Node>, Errno> {
        let tables = lock(&self.tables);
        tables
            .by_id
            .get(&id)
            .map(|known| Arc::clone(&known.node))
            .ok_or(libc::ESTALE)
    }

    pub fn all(&self) -> Vec<Arc<Node>> {
        lock(&self.tables)
            .by_id
            .values()
            .map(|known| Arc::clone(&known.node))
            .collect()
    }

    /// The node of a file just found in a directory, counted as looked up once more.
    pub fn found(
        &self,
        fd: OwnedFd,
        stat: &libc::stat64,
        parent: u64,
        name: Option<&CStr>,
    ) -> Arc<Node> {
        let handle = self.handle(fd.as_raw_fd(), stat.st_dev);
        let key = Key {
            dev: stat.st_dev,
            ino: stat.st_ino,
            handle,
        };
        let mut tables = lock(&self.tables);
        let id = *tables.by_key.get(&key).unwrap_or(&0);
        let node = match tables.by_id.get_mut(&id) {
            Some(known) => {
                known.lookups += 1;
                Arc::clone(&known.node)
            }
            None => {
                tables.last += 1;
                let id = tables.last;
                let node = Arc::new(Node {
                    id,
                    dev: stat.st_dev,
                    ino: stat.st_ino,
                    handle: key.handle.clone(),
                    is_dir: stat.st_mode & libc::S_IFMT == libc::S_IFDIR,
                    privileged: AtomicBool::new(false),
                    state: Mutex::default(),
                    writes: Mutex::default(),
                });
                tables.by_key.insert(key, id);
                let known = Known {
                    node: Arc::clone(&node),
                    lookups: 1,
                };
                tables.by_id.insert(id, known);
                let mut by_age = lock(&self.by_age);
                if by_age.len() > 2 * MOST {
                    by_age.retain(|id| tables.by_id.contains_key(id));
                }
                by_age.push_back(id);
                drop(by_age);
                node
            }
        };
        drop(tables);
        node.seen(stat);
        let mut state = lock(&node.state);
        let fresh = state.anchor.is_none();
        if fresh {
            state.anchor = Some(Arc::new(fd));
        }
        if let Some(name) = name {
            let alone = node.is_dir || stat.st_nlink <= 1;
            if self.named(&mut state, parent, name.to_bytes(), alone) && node.is_dir {
                self.tree.fetch_add(1, Ordering::Relaxed);
            }
        }
        drop(state);
        if fresh {
            self.anchored(node.id);
        }
        node
    }

    /// The node with that name, if the kernel knows of it.
    pub fn known(&self, parent: &OwnedFd, name: &CStr) -> Option<Arc<Node>> {
        let fd = sys::open_at(parent.as_raw_fd(), name, libc::O_PATH | libc::O_NOFOLLOW, 0).ok()?;
        let stat = sys::stat(fd.as_raw_fd()).ok()?;
        let handle = self.handle(fd.as_raw_fd(), stat.st_dev);
        let key = Key {
            dev: stat.st_dev,
            ino: stat.st_ino,
            handle,
        };
        let tables = lock(&self.tables);
        let id = tables.by_key.get(&key)?;
        tables.by_id.get(id).map(|known| Arc::clone(&known.node))
    }

    /// Are there more than are worth their memory?
    pub fn is_crowded(&self) -> bool {
        lock(&self.tables).by_id.len() > MOST
    }

    /// The oldest of them; they are the youngest then.
    pub fn oldest(&self, most: usize) -> Vec<u64> {
        let tables = lock(&self.tables);
        let mut queue = lock(&self.by_age);
        let count = queue.len().min(most);
        let mut oldest: Vec<u64> = queue.drain(..count).collect();
        oldest.retain(|id| tables.by_id.contains_key(id));
        queue.extend(&oldest);
        oldest
    }

    /// The kernel has dropped so many references.
    pub fn forget(&self, id: u64, count: u64) {
        let mut tables = lock(&self.tables);
        let Some(known) = tables.by_id.get_mut(&id) else {
            return;
        };
        known.lookups = known.lookups.saturating_sub(count);
        // What is written and not synced may yet be lost; that must not be forgotten.
        let clean = |node: &Node| {
            let writes = node.writes.try_lock();
            writes.is_ok_and(|undo| undo.as_ref().is_none_or(|undo| undo.is_clean()))
        };
        if known.lookups == 0 && id != ROOT_ID && clean(&known.node) {
            if let Some(known) = tables.by_id.remove(&id) {
                let (dev, ino) = (known.node.dev, known.node.ino);
                let handle = known.node.handle.clone();
                tables.by_key.remove(&Key { dev, ino, handle });
                drop(tables); // closing may take its time
            }
        }
    }

    /// Number to show for a file: its own, told apart where another file system is mounted below.
    pub fn shown_ino(&self, dev: u64, ino: u64) -> u64 {
        match dev == self.root_dev {
            true => ino,
            false => ino ^ dev.wrapping_mul(0x9E37_79B9_0000_0000),
        }
    }

    fn handle(&self, fd: RawFd, dev: u64) -> Option<FileHandle> {
        let tried = self.handles.load(Ordering::Relaxed);
        if dev != self.root_dev || tried == USELESS {
            return None;
        }
        let handle = FileHandle::of(fd);
        if tried == UNTRIED {
            // Some cannot be opened (overlayfs), and then tell too little.
            let opens = |handle: &FileHandle| handle.is_decodable(self.mount.as_raw_fd());
            let usable = handle.as_ref().is_ok_and(opens);
            self.handles
                .store(if usable { USEFUL } else { USELESS }, Ordering::Relaxed);
            return handle.ok().filter(|_| usable);
        }
        handle.ok()
    }
}

/// Locks what changes about a node.
pub fn state(node: &Node) -> MutexGuard<'_, State> {
    lock(&node.state)
}
