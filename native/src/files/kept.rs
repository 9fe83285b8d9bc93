//! Files that are open in the target and have lost a name, kept in case the filter dies.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use serde_json::Value;

use super::messages;
use crate::system;

/// Those of one filter's process, which tells by a socket what to keep.
pub struct Kept {
    socket: Option<OwnedFd>,
    /// File systems and numbers of `files`.
    keys: Vec<Value>,
    files: Vec<OwnedFd>,
}

impl Kept {
    pub fn by(socket: OwnedFd) -> Self {
        Self {
            socket: Some(socket),
            keys: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Readable when there is something to take; negative when nothing will come any more.
    pub fn raw(&self) -> RawFd {
        self.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    pub fn files(&self) -> &[OwnedFd] {
        &self.files
    }

    /// Follows what has been told by now.
    pub fn take(&mut self) {
        while let Some(socket) = &self.socket {
            let ready = system::poll([socket.as_raw_fd()], Some(std::time::Duration::ZERO));
            if !ready.is_ok_and(|[ready]| ready) {
                return;
            }
            let Ok((key, fds)) = messages::receive(socket) else {
                self.socket = None; // the other side has ended
                return;
            };
            if let Some(at) = self.keys.iter().position(|known| *known == key) {
                self.keys.swap_remove(at);
                self.files.swap_remove(at);
            }
            if let Some(file) = fds.into_iter().next() {
                self.keys.push(key);
                self.files.push(file);
            }
        }
    }
}
