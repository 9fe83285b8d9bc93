//! Which frame leaves when: pure, so that it is tested without a clock or a kernel.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::frame::Frame;
use super::netem::{Fate, Netem};
use super::networks::{Destination, Network, Networks};
use super::random::Random;
use super::request::{self, Counters};
use super::token_bucket::TokenBucket;
use crate::rpc::Refusal;

/// Bytes that may wait in one lane: 100 ms at 10 Gbit/s. More is dropped, and counted as unsent.
const ROOM: usize = 128 << 20;

/// A rule with its destinations understood.
pub struct Rule {
    asked: request::Rule,
    networks: Option<Networks>,
}

impl Rule {
    pub fn parse(asked: request::Rule) -> Result<Self, Refusal> {
        let networks = match &asked.peers {
            None => None,
            Some(peers) => {
                let parse = |(cidr, port): &(String, u16)| Network::parse(cidr, *port);
                let networks: Result<Vec<_>, _> = peers.iter().map(parse).collect();
                Some(Networks::new(networks?))
            }
        };
        Ok(Self { asked, networks })
    }

    /// None: all.
    pub fn networks(&self) -> Option<&Networks> {
        self.networks.as_ref()
    }

    fn matches(&self, destination: Destination) -> bool {
        self.networks
            .as_ref()
            .is_none_or(|networks| networks.contains(destination))
    }
}

/// A rule at work: netem first, then the token bucket.
struct Stage {
    rule: Rule,
    netem: Netem,
    bucket: Option<TokenBucket>,
    counters: Counters,
}

/// Where a waiting frame is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// Netem of this stage holds it.
    Netem(usize),
    /// The token bucket of this stage holds it.
    Bucket(usize),
    /// All is done; it only has to be sent.
    Exit,
}

struct Waiting {
    leaves: u64,
    /// Number of arrival: equal moments keep their order.
    order: u64,
    place: Place,
    /// When it came to the stage that holds it.
    entered: u64,
    frame: Frame,
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.leaves, self.order).cmp(&(other.leaves, other.order))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

/// The frames of one lane that wait, and the rules they wait for.
pub struct Scheduler {
    stages: Vec<Stage>,
    waiting: BinaryHeap<Reverse<Waiting>>,
    waiting_bytes: usize,
    arrivals: u64,
    random: Random,
    /// Frames lost without being asked.
    pub unsent: u64,
}

impl Scheduler {
    pub fn new(rules: Vec<Rule>, random: Random) -> Self {
        let mut scheduler = Self {
            stages: Vec::new(),
            waiting: BinaryHeap::new(),
            waiting_bytes: 0,
            arrivals: 0,
            random,
            unsent: 0,
        };
        scheduler.replace(rules, 0);
        scheduler
    }

    /// Puts other rules in force at `now`. A rule that stays keeps its packets, counters and state;
    /// what waits for one that goes is sent at once.
    pub fn replace(&mut self, rules: Vec<Rule>, now: u64) {
        let mut before: Vec<Option<Stage>> = self.stages.drain(..).map(Some).collect();
        let mut moved = vec![None; before.len()];
        for rule in rules {
            let same = before
                .iter()
                .position(|old| old.as_ref().is_some_and(|old| old.rule.asked == rule.asked));
            let stage = same.and_then(|index| {
                moved[index] = Some(self.stages.len());
                before[index].take()
            });
            self.stages.push(stage.unwrap_or_else(|| Stage {
                netem: Netem::new(&rule.asked.impairment, &mut self.random),
                bucket: TokenBucket::new(&rule.asked.impairment),
                counters: Counters::default(),
                rule,
            }));
        }
        let waiting = std::mem::take(&mut self.waiting).into_vec();
        let place = |Reverse(mut waiting): Reverse<Waiting>| {
            waiting.place = match waiting.place {
                Place::Netem(stage) => moved[stage].map_or(Place::Exit, Place::Netem),
                Place::Bucket(stage) => moved[stage].map_or(Place::Exit, Place::Bucket),
                Place::Exit => Place::Exit,
            };
            if waiting.place == Place::Exit {
                waiting.leaves = waiting.leaves.min(now);
            }
            Reverse(waiting)
        };
        self.waiting = waiting.into_iter().map(place).collect();
    }

    /// Takes a frame that arrived at `now` (ns).
    pub fn accept(&mut self, frame: Frame, now: u64) {
        match self.next_stage(0, &frame) {
            Some(stage) => self.enter(stage, frame, now),
            None => self.wait(now, now, Place::Exit, frame),
        }
    }

    /// When the next frame is due, in ns.
    pub fn next_due(&self) -> Option<u64> {
        self.waiting.peek().map(|Reverse(waiting)| waiting.leaves)
    }

    /// Gives the next frame that is to be sent by `now` (ns).
    pub fn pop(&mut self, now: u64) -> Option<Frame> {
        while self.next_due().is_some_and(|due| due <= now) {
            let Reverse(waiting) = self.waiting.pop()?;
            self.waiting_bytes -= waiting.frame.bytes.capacity();
            match waiting.place {
                Place::Exit => return Some(waiting.frame),
                Place::Netem(stage) if self.stages[stage].bucket.is_some() => {
                    self.enter_bucket(stage, waiting);
                }
                Place::Netem(stage) | Place::Bucket(stage) => {
                    let counters = &mut self.stages[stage].counters;
                    counters.bytes += waiting.frame.wire_bytes();
                    if waiting.leaves > waiting.entered {
                        counters.delayed += 1;
                        counters.delay_us_sum += (now - waiting.entered) / 1000;
                    }
                    match self.next_stage(stage + 1, &waiting.frame) {
                        None => return Some(waiting.frame),
                        // The moment asked for, not the one of waking up: errors do not add up.
                        Some(next) => self.enter(next, waiting.frame, waiting.leaves),
                    }
                }
            }
        }
        None
    }

    /// Gives every waiting frame, in order, at once.
    pub fn flush(&mut self) -> Vec<Frame> {
        let mut waiting = std::mem::take(&mut self.waiting).into_vec();
        waiting.sort_unstable_by(|Reverse(a), Reverse(b)| a.cmp(b));
        self.waiting_bytes = 0;
        waiting
            .into_iter()
            .map(|Reverse(waiting)| waiting.frame)
            .collect()
    }

    /// Tells what each rule did, by its source.
    pub fn counters(&self) -> Vec<(String, Counters)> {
        let told = |stage: &Stage| (stage.rule.asked.source.clone(), stage.counters);
        self.stages.iter().map(told).collect()
    }

    /// Finds the first stage from `index` on that is about this frame.
    fn next_stage(&self, index: usize, frame: &Frame) -> Option<usize> {
        let matches = |stage: &Stage| stage.rule.matches(frame.destination);
        (index..self.stages.len()).find(|&i| matches(&self.stages[i]))
    }

    fn enter(&mut self, index: usize, frame: Frame, now: u64) {
        let stage = &mut self.stages[index];
        let fates = stage
            .netem
            .decide(now, frame.wire_bytes(), &mut self.random);
        stage.counters.packets += 1;
        stage.counters.dropped += fates.dropped;
        stage.counters.duplicated += fates.duplicated;
        if let Some(fate) = fates.copy {
            self.hold(index, fate, frame.clone(), now);
        }
        if let Some(fate) = fates.original {
            self.hold(index, fate, frame, now);
        }
    }

    fn hold(&mut self, index: usize, fate: Fate, mut frame: Frame, now: u64) {
        let flipped = fate.corrupted && frame.flip_bit(|bits| self.random.below(bits));
        let counters = &mut self.stages[index].counters;
        counters.corrupted += u64::from(flipped);
        counters.reordered += u64::from(fate.reordered);
        self.wait(fate.leaves, now, Place::Netem(index), frame);
    }

    fn enter_bucket(&mut self, index: usize, waiting: Waiting) {
        let stage = &mut self.stages[index];
        let Some(bucket) = &mut stage.bucket else {
            return;
        };
        match bucket.departure(waiting.leaves, waiting.frame.wire_bytes()) {
            Some(leaves) => {
                self.wait(leaves, waiting.entered, Place::Bucket(index), waiting.frame);
            }
            None => stage.counters.dropped += 1,
        }
    }

    fn wait(&mut self, leaves: u64, entered: u64, place: Place, frame: Frame) {
        if self.waiting_bytes + frame.bytes.capacity() > ROOM {
            self.unsent += 1;
            return;
        }
        self.waiting_bytes += frame.bytes.capacity();
        self.arrivals += 1;
        self.waiting.push(Reverse(Waiting {
            leaves,
            order: self.arrivals,
            place,
            entered,
            frame,
        }));
    }
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
