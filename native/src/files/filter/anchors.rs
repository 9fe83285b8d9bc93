//! Descriptors that stand for files, of which few are kept open.
//!
//! A file is found again by a handle of its file system; where that has none (overlayfs), by its path.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use super::device::Errno;
use super::nodes::{lock, Node, Nodes};
use super::sys;

/// Descriptors kept open for files that are found again without.
const ANCHORS: usize = 256;

impl Nodes {
    /// A descriptor of the node, perhaps `O_PATH`.
    pub fn fd(&self, node: &Node) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(anchor) = &lock(&node.state).anchor {
            return Ok(Arc::clone(anchor));
        }
        let found = match &node.handle {
            Some(handle) => handle.open(self.mount.as_raw_fd(), libc::O_PATH | libc::O_NOFOLLOW)?,
            None => self.by_path(node)?,
        };
        let anchor = Arc::new(found);
        lock(&node.state).anchor = Some(Arc::clone(&anchor));
        self.anchored(node.id);
        Ok(anchor)
    }

    pub fn fd_of(&self, id: u64) -> Result<Arc<OwnedFd>, Errno> {
        self.fd(&*self.get(id)?)
    }

    /// Keeps it open until the kernel forgets it.
    pub fn pin(&self, node: &Node) -> Result<(), Errno> {
        let fd = self.fd(node)?;
        lock(&node.state).pinned = Some(fd);
        Ok(())
    }

    fn by_path(&self, node: &Node) -> Result<OwnedFd, Errno> {
        for path in self.paths(node) {
            let Ok(fd) = sys::open_beneath(self.mount.as_raw_fd(), path) else {
                continue;
            };
            let stat = sys::stat(fd.as_raw_fd())?;
            if (stat.st_dev, stat.st_ino) == (node.dev, node.ino) {
                return Ok(fd);
            }
        }
        Err(libc::ESTALE) // the kernel then looks the name up once more
    }

    /// Counts an open descriptor, and closes the oldest that nobody uses.
    pub fn anchored(&self, id: u64) {
        let mut queue = lock(&self.anchored);
        queue.push_back(id);
        for _ in 0..2 {
            if queue.len() <= ANCHORS {
                return;
            }
            let Some(oldest) = queue.pop_front() else {
                return;
            };
            let Ok(node) = self.get(oldest) else { continue };
            let mut state = lock(&node.state);
            let used = state
                .anchor
                .as_ref()
                .is_some_and(|anchor| Arc::strong_count(anchor) > 1);
            // What is open may have lost its name to somebody else, and must be found all the same.
            let open = node.handle.is_none() && state.passthrough + state.direct > 0;
            match used || open {
                true => queue.push_back(oldest),
                false => state.anchor = None,
            }
        }
    }
}
