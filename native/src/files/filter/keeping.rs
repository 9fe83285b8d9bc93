//! Files that are open and have lost a name: the guardian has them open as well.
//!
//! If this process died, nobody else could say where they are; the last ones would be gone at once.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use serde_json::json;

use super::nodes::{self, Node};
use super::{Filter, Shared};
use crate::files::messages;

impl Filter {
    /// Has such files sent to `keeper`: `[device, inode]` with a descriptor, and without one when
    /// nobody has it open any longer.
    pub fn keep_with(&self, keeper: OwnedFd) {
        let _ = self.0.keeper.set(keeper); // it has none yet
    }
}

impl Shared {
    /// Has a file kept that has lost a name, if it is open.
    pub fn keep(&self, node: &Node) {
        let Ok(fd) = self.nodes.fd(node) else { return };
        let mut state = nodes::state(node);
        if state.kept || state.passthrough + state.direct == 0 {
            return;
        }
        state.kept = self.tell_keeper(node, Some(&fd)).is_ok();
    }

    /// It is open no longer.
    pub fn keep_no_more(&self, node: &Node) {
        if self.tell_keeper(node, None).is_err() {
            crate::system::log("the guardian keeps a file that is not open any more");
        }
    }

    fn tell_keeper(&self, node: &Node, fd: Option<&OwnedFd>) -> io::Result<()> {
        let keeper = self.keeper.get().ok_or(io::ErrorKind::NotConnected)?;
        let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
        messages::send(keeper, &json!([node.dev, node.ino]), &fds)
    }
}
