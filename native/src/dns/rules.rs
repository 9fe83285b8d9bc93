//! What becomes of a query: the faults of one target, oldest first, and what each of them did.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{json, Value};

use super::message::{Query, Says, A, AAAA};
use super::pattern::Pattern;
use super::request::{self, Answer};

/// Networks of random addresses: those for benchmarks (RFC 2544) and for documents (RFC 3849), so
/// that no stranger is sent what was meant for somebody else.
const NOBODYS_FOUR: [u8; 2] = [198, 18];
const NOBODYS_SIX: [u8; 4] = [0x20, 0x01, 0x0d, 0xb8];

/// What one source did so far.
#[derive(Debug, Default)]
pub struct Counters {
    /// Queries that fit, and that no older fault answered.
    matched: AtomicU64,
    /// Of these, those that it was their turn to suffer.
    hit: AtomicU64,
    answered: AtomicU64,
    swallowed: AtomicU64,
    delayed: AtomicU64,
    delay_us_sum: AtomicU64,
}

impl Counters {
    pub fn state(&self) -> Value {
        json!({
            "matched": self.matched.load(Relaxed),
            "hit": self.hit.load(Relaxed),
            "answered": self.answered.load(Relaxed),
            "swallowed": self.swallowed.load(Relaxed),
            "delayed": self.delayed.load(Relaxed),
            "delay_us_sum": self.delay_us_sum.load(Relaxed),
        })
    }

    /// Counts a query that was held for so long on behalf of this source.
    pub fn held(&self, length: Duration) {
        self.delayed.fetch_add(1, Relaxed);
        self.delay_us_sum
            .fetch_add(length.as_micros() as u64, Relaxed);
    }
}

/// By which way a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Datagram,
    Stream,
}

/// What becomes of one query.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on as it is.
    Relayed,
    Answered(Vec<u8>),
    Swallowed,
}

/// How long a query waits for one source.
#[derive(Debug)]
pub struct Delay {
    pub counters: Arc<Counters>,
    pub length: Duration,
}

struct Rule {
    source: String,
    patterns: Vec<Pattern>,
    types: Vec<u16>,
    percent: f64,
    answer: Answer,
    delay_us: u64,
    jitter_us: u64,
    counters: Arc<Counters>,
}

/// All faults of one target.
#[derive(Default)]
pub struct Rules {
    rules: Vec<Rule>,
    chance: RandomState,
}

impl Rules {
    /// Takes over the counters of sources that go on. One source that was asked for by several
    /// containers of a pod acts once: they share their network.
    pub fn new(asked: &[request::Rule], before: &Self) -> Self {
        let mut rules: Vec<Rule> = Vec::new();
        for rule in asked {
            if rules.iter().any(|other| other.source == rule.source) {
                continue;
            }
            let known = before.rules.iter().find(|old| old.source == rule.source);
            rules.push(Rule {
                source: rule.source.clone(),
                patterns: rule
                    .patterns
                    .iter()
                    .map(|text| Pattern::new(text))
                    .collect(),
                types: rule.types.clone(),
                percent: rule.percent,
                answer: rule.answer.clone(),
                delay_us: rule.delay_us,
                jitter_us: rule.jitter_us,
                counters: known.map(|old| old.counters.clone()).unwrap_or_default(),
            });
        }
        Self {
            rules,
            chance: RandomState::new(),
        }
    }

    /// Counters by source.
    pub fn counters(&self) -> impl Iterator<Item = (&str, &Arc<Counters>)> {
        self.rules
            .iter()
            .map(|rule| (rule.source.as_str(), &rule.counters))
    }

    /// Does any of them still want what `counters` stand for?
    pub fn has(&self, counters: &Arc<Counters>) -> bool {
        self.rules
            .iter()
            .any(|rule| Arc::ptr_eq(&rule.counters, counters))
    }

    /// Asks one fault after the other: each may hold the query, the first that answers ends it.
    ///
    /// `second`: of any clock. The same query again within it meets the same chance, for some
    /// resolvers ask all servers at once.
    pub fn decide(
        &self,
        query: &Query<'_>,
        client: SocketAddr,
        way: Way,
        second: u64,
    ) -> (Fate, Vec<Delay>) {
        let mut delays = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.fits(query, way)) {
            rule.counters.matched.fetch_add(1, Relaxed);
            let draw =
                self.chance
                    .hash_one((rule.source.as_str(), client, query.id, &query.name, second));
            if share(draw) * 100.0 >= rule.percent {
                continue;
            }
            rule.counters.hit.fetch_add(1, Relaxed);
            if rule.delay_us + rule.jitter_us > 0 {
                let draw = share(self.chance.hash_one((draw, query.kind)));
                let off = (draw * 2.0 - 1.0) * rule.jitter_us as f64;
                let length = (rule.delay_us as f64 + off).max(0.0) as u64;
                delays.push(Delay {
                    counters: rule.counters.clone(),
                    length: Duration::from_micros(length),
                });
            }
            if let Some(fate) = rule.fate(query, way, || self.chance.hash_one((draw, "address"))) {
                return (fate, delays);
            }
        }
        (Fate::Relayed, delays)
    }
}

impl Rule {
    fn fits(&self, query: &Query<'_>, way: Way) -> bool {
        let able = match self.answer {
            Answer::Truncated => way == Way::Datagram,
            Answer::Addresses { .. } => matches!(query.kind, A | AAAA),
            _ => true,
        };
        able && (self.types.is_empty() || self.types.contains(&query.kind))
            && (self.patterns.is_empty()
                || self
                    .patterns
                    .iter()
                    .any(|pattern| pattern.fits(&query.name)))
    }

    /// How it ends a query; `None` leaves that to others.
    fn fate(&self, query: &Query<'_>, way: Way, random: impl FnOnce() -> u64) -> Option<Fate> {
        let most = match way {
            Way::Datagram => query.datagram_size(),
            Way::Stream => usize::MAX,
        };
        let says = match &self.answer {
            Answer::Relayed => return None,
            Answer::Nothing => {
                self.counters.swallowed.fetch_add(1, Relaxed);
                return Some(Fate::Swallowed);
            }
            Answer::Code { code } => Says::Code(*code),
            Answer::Truncated => Says::Truncated,
            Answer::Addresses { addresses } if addresses.is_empty() => {
                self.counters.answered.fetch_add(1, Relaxed);
                let address = nobodys(query.kind, random());
                return Some(Fate::Answered(
                    query.answer(&Says::Addresses(&[address]), most),
                ));
            }
            Answer::Addresses { addresses } => Says::Addresses(addresses),
        };
        self.counters.answered.fetch_add(1, Relaxed);
        Some(Fate::Answered(query.answer(&says, most)))
    }
}

/// A draw from 0 to 1, without 1.
fn share(draw: u64) -> f64 {
    (draw >> 11) as f64 / (1u64 << 53) as f64
}

fn nobodys(kind: u16, random: u64) -> IpAddr {
    let random = random.to_be_bytes();
    if kind == A {
        let [first, second] = NOBODYS_FOUR;
        // Two networks of 65,536, the first and last address of neither.
        let [third, last] = [random[1], random[2].clamp(1, 254)];
        Ipv4Addr::new(first, second | random[0] & 1, third, last).into()
    } else {
        let mut octets = [0; 16];
        octets[..4].copy_from_slice(&NOBODYS_SIX);
        octets[8..].copy_from_slice(&random);
        Ipv6Addr::from(octets).into()
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
