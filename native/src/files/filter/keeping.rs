//! What would be lost if this process died: the guardian has it open as well.
//!
//! That are files that are open and have lost a name, of which nobody else could say where they are,
//! and those by which processes have locked true files.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use serde_json::json;

use super::nodes::{self, Node};
use super::{Filter, Shared};
use crate::files::kept::Keep;
use crate::files::lock::Taker;
use crate::files::messages;

impl Filter {
    /// Has them sent to `keeper`: what it is with a descriptor, and without one when it is over.
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
        let told = self.tell_keeper(Keep::Nameless(node.dev, node.ino), Some(&fd));
        state.kept = told.is_ok();
    }

    /// It is open no longer.
    pub fn keep_no_more(&self, node: &Node) {
        let told = self.tell_keeper(Keep::Nameless(node.dev, node.ino), None);
        if told.is_err() {
            crate::system::log("the guardian keeps a file that is not open any more");
        }
    }

    /// Has locks kept that somebody is about to take.
    pub fn keep_lock(&self, id: u64, taker: Taker, fd: &OwnedFd) {
        if self.tell_keeper(Keep::Lock(id, taker), Some(fd)).is_err() && self.keeper.get().is_some()
        {
            crate::system::log("locks of a file are lost if this process dies");
        }
    }

    /// All of them have been given up.
    pub fn keep_lock_no_more(&self, id: u64, taker: Taker) {
        let _ = self.tell_keeper(Keep::Lock(id, taker), None); // what is kept has no locks any more
    }

    fn tell_keeper(&self, what: Keep, fd: Option<&OwnedFd>) -> io::Result<()> {
        let keeper = self.keeper.get().ok_or(io::ErrorKind::NotConnected)?;
        let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
        messages::send(keeper, &json!(what), &fds)
    }
}
