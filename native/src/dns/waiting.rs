//! Queries that wait for their time.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use super::rules::{Delay, Rules};
use super::streams::Key;

/// Bytes that all of them may take; what comes then does not wait.
const MOST_BYTES: usize = 32 << 20;
/// What one takes beside its messages.
const EACH: usize = 256;

/// Packets of one socket that the kernel holds for us. They fill the socket's own buffer, so that a
/// target that asks much over one socket would wait in send(2): of the others we hold copies.
const MOST_HELD: usize = 32;

/// What becomes of a query once it has waited.
pub enum Then {
    /// A packet that the kernel holds goes on; of whose socket it is.
    Pass(u32, SocketAddr),
    /// A packet that was dropped is sent again.
    Send(Packet),
    /// One that was dropped is answered.
    Answer(Packet, Vec<u8>),
    Relay(Key, Vec<u8>),
    /// A query, and the answer to it.
    Reply(Key, Vec<u8>, Vec<u8>),
}

/// A copy of a packet.
pub struct Packet {
    /// From the IP header on.
    pub bytes: Vec<u8>,
    /// Index of the device that it was to leave by.
    pub device: u32,
}

struct One {
    until: u64,
    /// Keeps the order of those that wait equally long.
    number: u64,
    delays: Vec<Delay>,
    then: Then,
}

/// All that wait, the first to go on top.
#[derive(Default)]
pub struct Waiting {
    all: BinaryHeap<Reverse<One>>,
    numbers: u64,
    bytes: usize,
    /// How many packets the kernel holds, by their sockets.
    held: HashMap<SocketAddr, usize>,
}

impl Waiting {
    /// When the first of them is due, on the clock that `add` is given.
    pub fn next(&self) -> Option<u64> {
        self.all.peek().map(|Reverse(first)| first.until)
    }

    /// Is there room for no more?
    pub fn full(&self) -> bool {
        self.bytes >= MOST_BYTES
    }

    /// May the kernel hold one more packet of a socket?
    pub fn may_hold(&self, client: SocketAddr) -> bool {
        self.held.get(&client).is_none_or(|&held| held < MOST_HELD)
    }

    /// Lets one wait for all its `delays`.
    pub fn add(&mut self, now: u64, delays: Vec<Delay>, then: Then) {
        let length: Duration = delays.iter().map(|delay| delay.length).sum();
        self.numbers += 1;
        self.bytes += then.bytes();
        if let Then::Pass(_, client) = then {
            *self.held.entry(client).or_default() += 1;
        }
        self.all.push(Reverse(One {
            until: now + length.as_nanos() as u64,
            number: self.numbers,
            delays,
            then,
        }));
    }

    /// Takes one whose time has come, and counts how long it waited.
    pub fn due(&mut self, now: u64) -> Option<Then> {
        if self.next()? > now {
            return None;
        }
        let Reverse(due) = self.all.pop()?;
        // What it took longer than it should is the host's, and felt in every part.
        let late = Duration::from_nanos(now - due.until);
        for delay in &due.delays {
            delay.counters.held(delay.length + late);
        }
        self.forget(&due.then);
        Some(due.then)
    }

    /// Takes all those that wait for a fault that is not among `rules`, each to go to its server.
    pub fn without_reason(&mut self, rules: &Rules) -> Vec<Then> {
        let stays = |one: &One| one.delays.iter().all(|delay| rules.has(&delay.counters));
        let all = std::mem::take(&mut self.all).into_vec();
        let (stay, mut go): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| stays(&one.0));
        self.all = stay.into();
        go.sort_unstable_by_key(|Reverse(one)| one.number);
        go.into_iter()
            .map(|Reverse(one)| {
                self.forget(&one.then);
                match one.then {
                    Then::Answer(packet, _) => Then::Send(packet),
                    Then::Reply(key, query, _) => Then::Relay(key, query),
                    then => then,
                }
            })
            .collect()
    }

    fn forget(&mut self, then: &Then) {
        self.bytes -= then.bytes();
        if let Then::Pass(_, client) = then {
            if let Some(held) = self.held.get_mut(client) {
                *held -= 1;
                if *held == 0 {
                    self.held.remove(client);
                }
            }
        }
    }
}

impl Then {
    fn bytes(&self) -> usize {
        EACH + match self {
            Self::Pass(..) => 0,
            Self::Send(packet) => packet.bytes.len(),
            Self::Answer(packet, answer) => packet.bytes.len() + answer.len(),
            Self::Relay(_, query) => query.len(),
            Self::Reply(_, query, answer) => query.len() + answer.len(),
        }
    }
}

impl PartialEq for One {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for One {}

impl PartialOrd for One {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for One {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.until, self.number).cmp(&(other.until, other.number))
    }
}
