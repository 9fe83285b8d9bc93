//! What the guardian has open in case the filter dies.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use serde::{Deserialize, Serialize};

use super::entry::service::LockHolder;
use super::lock::{give_up, held_for, loosen, Had, Taker};
use super::messages;
use crate::system;

/// What a file is kept for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Keep {
    /// It is open in the target and has lost a name: its file system, and its number there.
    Nameless(u64, u64),
    /// Somebody has locks by this open file, which is known by that number.
    Lock(u64, Taker),
}

/// Those of one filter's process, which tells by a socket what to keep.
pub struct Kept {
    socket: Option<OwnedFd>,
    /// File systems and numbers of `files`.
    keys: Vec<(u64, u64)>,
    files: Vec<OwnedFd>,
    locks: HashMap<u64, (Taker, OwnedFd)>,
}

impl Kept {
    pub fn by(socket: OwnedFd) -> Self {
        Self {
            socket: Some(socket),
            keys: Vec::new(),
            files: Vec::new(),
            locks: HashMap::new(),
        }
    }

    /// Readable when there is something to take; negative when nothing will come any more.
    pub fn raw(&self) -> RawFd {
        self.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// Those without a name.
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
            let Ok((told, fds)) = messages::receive(socket) else {
                self.socket = None; // the other side has ended
                return;
            };
            let file = fds.into_iter().next();
            match serde_json::from_value(told) {
                Ok(Keep::Nameless(device, number)) => self.nameless((device, number), file),
                Ok(Keep::Lock(number, taker)) => {
                    self.locks.remove(&number);
                    self.locks.extend(file.map(|file| (number, (taker, file))));
                }
                Err(error) => system::log(&format!("guardian: {error}")),
            }
        }
    }

    fn nameless(&mut self, key: (u64, u64), file: Option<OwnedFd>) {
        if let Some(at) = self.keys.iter().position(|known| *known == key) {
            self.keys.swap_remove(at);
            self.files.swap_remove(at);
        }
        if let Some(file) = file {
            self.keys.push(key);
            self.files.push(file);
        }
    }
}

impl LockHolder for Kept {
    fn list(&self, inodes: &BTreeSet<u64>) -> Vec<Had> {
        let asked = self.locks.iter();
        let asked = asked.filter(|(_, (by, _))| inodes.contains(&by.inode));
        let locks = asked.map(|(id, (by, file))| held_for(file, *id, *by));
        locks.flatten().collect()
    }

    fn loosen(&self, ids: &BTreeSet<u64>) {
        let asked = ids.iter().filter_map(|id| self.locks.get(id));
        asked.for_each(|(_, file)| loosen(file));
    }

    fn let_go(&self, ids: &BTreeSet<u64>) {
        for (by, file) in ids.iter().filter_map(|id| self.locks.get(id)) {
            let _ = give_up(file, by.family, 0, 0);
        }
    }
}
