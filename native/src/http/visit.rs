//! What is known of all connections, and of one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::RawFd;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use super::bodies::Purse;
use super::rules::{Door, Rules, Scope};
use super::secrets::Secrets;

/// Shared by the thread that is asked and the thread that serves connections.
#[derive(Default)]
pub struct World {
    rules: RwLock<Arc<Rules>>,
    secrets: RwLock<Arc<Secrets>>,
    /// Connections to clients.
    connections: Mutex<HashMap<RawFd, Arc<Stay>>>,
    /// TLS that could not be opened, by the name of the server.
    sealed: Mutex<BTreeMap<String, u64>>,
    /// Names whose clients have turned us away: they are passed through from then on.
    pinned: Mutex<HashSet<String>>,
    dialled: AtomicU64,
    /// Nothing that is under way is waited for any more.
    ends: AtomicBool,
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

    /// Ends the connections that rest, as their server would after a while, and asks the others to
    /// leave; says how many there are.
    pub fn end_resting(&self) -> usize {
        let connections = self.connections();
        for (&fd, stay) in connections.iter().filter(|(_, stay)| !stay.is_new()) {
            let told = stay.is_to_end.swap(true, SeqCst);
            if stay.rests.load(SeqCst) && !stay.is_told.load(Relaxed) {
                // What the client has sent is still read; then its end is seen, and passed on.
                // SAFETY: plain call; a descriptor is closed only after it left the table.
                unsafe { libc::shutdown(fd, libc::SHUT_RD) };
            } else if !told {
                let waker = stay.waker.lock();
                if let Some(waker) = waker.unwrap_or_else(PoisonError::into_inner).take() {
                    waker.wake();
                }
            }
        }
        connections.len()
    }

    /// All is about to end: also those are told to leave that have something under way.
    pub fn end_soon(&self) {
        self.ends.store(true, SeqCst);
        for stay in self.connections().values() {
            stay.is_to_end.store(false, SeqCst); // so that they are told once more
        }
    }

    /// How many connections have something under way.
    pub fn busy(&self) -> usize {
        let connections = self.connections();
        let busy = connections.values().filter(|stay| !stay.rests.load(SeqCst));
        busy.count()
    }

    /// Are there connections that the target has opened?
    pub fn has_outgoing(&self) -> bool {
        self.connections().values().any(|stay| stay.outgoing)
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<RawFd, Arc<Stay>>> {
        let connections = self.connections.lock();
        connections.unwrap_or_else(PoisonError::into_inner)
    }
}

/// So long after it has come, a client that has not spoken is about to.
const NEW: Duration = Duration::from_millis(200);

/// What somebody else may see of a connection, and do about it.
struct Stay {
    outgoing: bool,
    came: Instant,
    has_spoken: AtomicBool,
    /// It is between two exchanges.
    rests: AtomicBool,
    is_to_end: AtomicBool,
    /// Its client is told to leave, and not just left.
    is_told: AtomicBool,
    /// Of whoever may end it in good order.
    waker: Mutex<Option<Waker>>,
}

impl Stay {
    fn is_new(&self) -> bool {
        !self.has_spoken.load(Relaxed) && self.came.elapsed() < NEW
    }
}

/// One connection.
pub struct Visit {
    world: Arc<World>,
    pub door: Door,
    /// What its bodies take that are held.
    pub purse: Purse,
    client: RawFd,
    stay: Arc<Stay>,
    left: AtomicBool,
}

impl Visit {
    pub fn new(world: Arc<World>, door: Door, client: RawFd) -> Self {
        let stay = Arc::new(Stay {
            outgoing: door.1,
            came: Instant::now(),
            has_spoken: AtomicBool::new(false),
            rests: AtomicBool::new(true),
            is_to_end: AtomicBool::new(false),
            is_told: AtomicBool::new(false),
            waker: Mutex::default(),
        });
        world.connections().insert(client, stay.clone());
        Self {
            world,
            door,
            purse: Purse::default(),
            client,
            stay,
            left: AtomicBool::new(false),
        }
    }

    pub fn scope(&self) -> Option<Arc<Scope>> {
        self.world.rules().scope(self.door).cloned()
    }

    /// Something is under way: nobody ends it before that is over.
    pub fn busy(&self) {
        self.stay.has_spoken.store(true, Relaxed);
        self.stay.rests.store(false, SeqCst);
    }

    pub fn idle(&self) {
        self.stay.rests.store(true, SeqCst);
    }

    /// It can tell its client to leave, and does so when it is asked by `is_to_leave`.
    pub fn tells(&self) {
        self.stay.is_told.store(true, Relaxed);
    }

    /// Is it to end, whatever is under way?
    pub fn is_late(&self) -> bool {
        self.world.ends.load(SeqCst)
    }

    /// Is it to end with the exchange that is under way?
    pub fn leaves(&self) -> bool {
        self.stay.is_to_end.load(SeqCst)
    }

    /// Is it to end as soon as it can in good order? Wakes whoever has asked when it is.
    pub fn is_to_leave(&self, context: &Context) -> bool {
        let waker = self.stay.waker.lock();
        *waker.unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
        self.stay.is_to_end.load(SeqCst)
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
        self.world.connections().remove(&self.client);
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
