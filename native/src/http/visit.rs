//! What is known of all connections, and of one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::rules::{Door, Rules, Scope};
use super::secrets::Secrets;

/// Shared by the thread that is asked and the thread that serves connections.
#[derive(Default)]
pub struct World {
    rules: RwLock<Arc<Rules>>,
    secrets: RwLock<Arc<Secrets>>,
    /// Connections to clients, and whether they rest between two exchanges.
    connections: Mutex<HashMap<RawFd, Arc<AtomicBool>>>,
    /// TLS that could not be opened, by the name of the server.
    sealed: Mutex<BTreeMap<String, u64>>,
    /// Names whose clients have turned us away: they are passed through from then on.
    pinned: Mutex<HashSet<String>>,
    dialled: AtomicU64,
}

/// Names told of sealed connections; a scanner could else fill our memory.
const NAMES: usize = 1000;

impl World {
    pub fn rules(&self) -> Arc<Rules> {
        self.rules
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn set_rules(&self, rules: Rules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    pub fn secrets(&self) -> Arc<Secrets> {
        self.secrets
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn set_secrets(&self, secrets: Arc<Secrets>) {
        *self.secrets.write().unwrap_or_else(PoisonError::into_inner) = secrets;
        let pinned = self.pinned.lock();
        pinned.unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub fn sealed(&self) -> BTreeMap<String, u64> {
        self.sealed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A number that was not given before.
    pub fn next(&self) -> u64 {
        self.dialled.fetch_add(1, Relaxed)
    }

    /// Ends the connections that rest, as their server would after a while; says how many do not.
    pub fn end_resting(&self) -> usize {
        let connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let resting = connections.iter().filter(|(_, rests)| rests.load(Relaxed));
        for (&fd, _) in resting {
            // What the client has sent is still read; then its end is seen, and passed on.
            // SAFETY: plain call; a descriptor is closed only after it left the table.
            unsafe { libc::shutdown(fd, libc::SHUT_RD) };
        }
        connections.len()
    }
}

/// One connection.
pub struct Visit {
    world: Arc<World>,
    pub door: Door,
    client: RawFd,
    rests: Arc<AtomicBool>,
    left: AtomicBool,
}

impl Visit {
    pub fn new(world: Arc<World>, door: Door, client: RawFd) -> Self {
        let rests = Arc::new(AtomicBool::new(true));
        let mut connections = world
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        connections.insert(client, rests.clone());
        drop(connections);
        Self {
            world,
            door,
            client,
            rests,
            left: AtomicBool::new(false),
        }
    }

    pub fn scope(&self) -> Option<Arc<Scope>> {
        self.world.rules().scope(self.door).cloned()
    }

    pub fn busy(&self) {
        self.rests.store(false, Relaxed);
    }

    pub fn idle(&self) {
        self.rests.store(true, Relaxed);
    }

    /// It speaks something that we do not.
    pub fn foreign(&self, held: &[u8], scope: Option<&Scope>) {
        let Some(scope) = scope else { return };
        match is_tls(held) {
            true => self.sealed("", scope),
            false => scope.count(|tally| &tally.foreign),
        }
    }

    /// It is TLS that we could not open.
    pub fn sealed(&self, server: &str, scope: &Scope) {
        scope.count(|tally| &tally.sealed);
        let mut sealed = self
            .world
            .sealed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if sealed.len() < NAMES || sealed.contains_key(server) {
            *sealed.entry(server.to_owned()).or_default() += 1;
        }
    }

    /// Has a client turned us away when we answered in this name?
    pub fn is_pinned(&self, server: &str) -> bool {
        let pinned = self.world.pinned.lock();
        pinned
            .unwrap_or_else(PoisonError::into_inner)
            .contains(server)
    }

    pub fn pin(&self, server: String) {
        let pinned = self.world.pinned.lock();
        let mut pinned = pinned.unwrap_or_else(PoisonError::into_inner);
        if pinned.len() < NAMES {
            pinned.insert(server);
        }
    }

    /// To be called before its descriptor is closed: another connection may get the same number.
    pub fn leave(&self) {
        if self.left.swap(true, Relaxed) {
            return;
        }
        let mut connections = self
            .world
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        connections.remove(&self.client);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Does a connection begin as TLS does? A handshake record of SSL 3 or later.
pub fn is_tls(start: &[u8]) -> bool {
    matches!(start, [0x16, 3, ..] | [0x16])
}
