//! Room for connections. Where none is left, new ones go straight to their servers: they feel no
//! fault, and nobody waits for a process that cannot take him in.

use std::cell::Cell;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;

use super::hooks::CONNECTIONS;
use crate::bpf;
use crate::system::{self, most_descriptors};

/// Where connections come in; the listeners must stay open as long.
pub struct Entrance {
    sockets: OwnedFd,
    listeners: [Option<RawFd>; 2],
}

impl Entrance {
    pub fn new(sockets: OwnedFd, listeners: [Option<RawFd>; 2]) -> Self {
        Self { sockets, listeners }
    }

    pub fn sockets(&self) -> &OwnedFd {
        &self.sockets
    }

    pub fn open(&self) -> io::Result<()> {
        for (place, listener) in (0u32..).zip(self.listeners) {
            if let Some(fd) = listener {
                bpf::insert(
                    &self.sockets,
                    &place.to_ne_bytes(),
                    &(fd as u64).to_ne_bytes(),
                )?;
            }
        }
        Ok(())
    }

    /// New connections go straight to their servers.
    pub fn shut(&self) {
        for place in 0u32..2 {
            let _ = bpf::remove(&self.sockets, &place.to_ne_bytes()); // or it was not there
        }
    }
}

/// Pairs of descriptors that are for other things.
const KEPT: usize = 20;

pub struct Room {
    entrance: Entrance,
    taken: Cell<usize>,
    shut: Cell<bool>,
    told: Cell<bool>,
}

/// One connection, and its place.
pub struct Guest(Rc<Room>);

impl Room {
    pub fn new(entrance: Entrance) -> Rc<Self> {
        Rc::new(Self {
            entrance,
            taken: Cell::new(0),
            shut: Cell::new(false),
            told: Cell::new(false),
        })
    }

    pub fn enter(self: &Rc<Self>) -> Guest {
        self.taken.set(self.taken.get() + 1);
        if self.taken.get() >= most() {
            self.shut("no more are held");
        }
        Guest(self.clone())
    }

    /// May one more be taken in? Who waits at the door then has to wait on.
    pub fn is_full(&self) -> bool {
        self.taken.get() + KEPT >= most_descriptors() / 2
    }

    /// Leads nobody to us for now.
    pub fn shut(&self, why: &str) {
        if !self.shut.replace(true) {
            self.entrance.shut();
            if !self.told.replace(true) {
                let count = self.taken.get();
                system::log(&format!(
                    "with {count} connections, {why}: new ones pass untouched until some end"
                ));
            }
        }
    }

    /// Leads them to us again, once there is room.
    pub fn look(&self) {
        if self.shut.get() && self.taken.get() <= most() / 4 * 3 {
            match self.entrance.open() {
                Ok(()) => self.shut.set(false),
                Err(error) => system::log(&format!("connections pass untouched: {error}")),
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.taken.set(self.0.taken.get() - 1);
        self.0.look();
    }
}

/// How many are taken in: two descriptors each, and a quarter is left for those who are on their
/// way to us already.
fn most() -> usize {
    (most_descriptors() / 8 * 3).clamp(1, CONNECTIONS as usize / 8 * 7)
}

/// How many may wait to be taken in. Who finds no place comes again in a second, and then straight
/// to his server, if there is no room.
pub fn queue() -> libc::c_int {
    const MOST: usize = 4096;
    (most_descriptors() / 8).clamp(64, MOST) as libc::c_int
}
