//! What netem does to one packet: tc-netem(8), net/sched/sch_netem.c.

use super::random::{Chance, Correlated, Random};
use super::request::Impairment;

/// The fate of one copy of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// When it goes on, in ns. May lie before its arrival: then it overtakes.
    pub leaves: u64,
    pub corrupted: bool,
    /// Sent at once, past those that wait.
    pub reordered: bool,
}

/// The fates of a packet: none when it is lost, two when it is doubled.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fates {
    pub original: Option<Fate>,
    pub copy: Option<Fate>,
    pub dropped: u64,
    pub duplicated: u64,
}

/// The state that one impairment keeps between packets.
pub struct Netem {
    delay_ns: i64,
    jitter_ns: i64,
    delay_draws: Correlated,
    loss: Chance,
    duplicate: Chance,
    corrupt: Chance,
    reorder: Chance,
    /// Every how many packets one may be sent at once; 0: never.
    gap: u32,
    /// Packets since the last that was sent at once.
    since_reordered: u32,
    /// Bytes per second of the line; 0: no limit.
    rate: u64,
    /// When the line is free, in ns.
    line_free: u64,
}

impl Netem {
    pub fn new(asked: &Impairment, random: &mut Random) -> Self {
        let nanoseconds = |us: u64| i64::try_from(us.saturating_mul(1000)).unwrap_or(i64::MAX);
        let gap = match asked.reorder {
            share if share > 0.0 => asked.reorder_gap.max(1), // as tc does
            _ => 0,
        };
        Self {
            delay_ns: nanoseconds(asked.delay_us),
            jitter_ns: nanoseconds(asked.jitter_us),
            delay_draws: Correlated::new(asked.delay_correlation, random),
            loss: Chance::new(asked.loss, asked.loss_correlation, random),
            duplicate: Chance::new(asked.duplicate, asked.duplicate_correlation, random),
            corrupt: Chance::new(asked.corrupt, asked.corrupt_correlation, random),
            reorder: Chance::new(asked.reorder, asked.reorder_correlation, random),
            gap,
            since_reordered: 0,
            rate: asked.rate,
            line_free: 0,
        }
    }

    /// Decides on a packet of `bytes` that arrives `now` (ns).
    pub fn decide(&mut self, now: u64, bytes: u64, random: &mut Random) -> Fates {
        let mut fates = Fates::default();
        let doubled = self.duplicate.happens(random);
        let lost = self.loss.happens(random);
        if doubled == lost {
            // Neither, or one copy made and one lost: netem counts them against each other.
            fates.original = Some(self.delay(now, bytes, random));
        } else if doubled {
            // The copy starts anew, so it can be lost, but is not doubled again.
            fates.duplicated = 1;
            if self.loss.happens(random) {
                fates.dropped = 1;
            } else {
                fates.copy = Some(self.delay(now, bytes, random));
            }
            fates.original = Some(self.delay(now, bytes, random));
        } else {
            fates.dropped = 1;
        }
        fates
    }

    fn delay(&mut self, now: u64, bytes: u64, random: &mut Random) -> Fate {
        let corrupted = self.corrupt.happens(random);
        let between = self.gap == 0 || self.since_reordered < self.gap - 1;
        if !between && self.reorder.happens(random) {
            self.since_reordered = 0;
            return Fate {
                leaves: now,
                corrupted,
                reordered: true,
            };
        }
        self.since_reordered = self.since_reordered.saturating_add(1);
        let mut delay = self.draw_delay(random);
        let mut from = now;
        if self.rate > 0 {
            if self.line_free > now {
                // Behind the last one: the time it waits for that counts as delay.
                delay = (delay - (self.line_free - now) as i64).max(0);
                from = self.line_free;
            }
            delay += (u128::from(bytes) * 1_000_000_000 / u128::from(self.rate)) as i64;
        }
        let leaves = from.saturating_add_signed(delay);
        self.line_free = self.line_free.max(leaves);
        Fate {
            leaves,
            corrupted,
            reordered: false,
        }
    }

    /// Even between delay - jitter and delay + jitter, as netem without a distribution table.
    fn draw_delay(&mut self, random: &mut Random) -> i64 {
        if self.jitter_ns == 0 {
            return self.delay_ns;
        }
        let drawn = i128::from(self.delay_draws.draw(random));
        let jitter = i128::from(self.jitter_ns);
        self.delay_ns + (((drawn * 2 * jitter) >> 32) - jitter) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn netem(asked: Impairment) -> (Netem, Random) {
        let mut random = Random::seeded(11);
        (Netem::new(&asked, &mut random), random)
    }

    /// Leaves of packets that arrive every millisecond; None where all copies are lost.
    fn leaves(asked: Impairment, count: u64) -> Vec<Option<u64>> {
        let (mut netem, mut random) = netem(asked);
        (0..count)
            .map(|i| {
                netem
                    .decide(i * MS, 100, &mut random)
                    .original
                    .map(|fate| fate.leaves)
            })
            .collect()
    }

    #[test]
    fn a_plain_delay_is_exact_and_keeps_the_order() {
        let asked = Impairment {
            delay_us: 10_000,
            ..Impairment::default()
        };
        let expected: Vec<_> = (0..5).map(|i| Some((i + 10) * MS)).collect();
        assert_eq!(leaves(asked, 5), expected);
    }

    #[test]
    fn jitter_is_even_around_the_delay_and_may_reorder() {
        let asked = Impairment {
            delay_us: 10_000,
            jitter_us: 5_000,
            ..Impairment::default()
        };
        let leaves: Vec<u64> = leaves(asked, 10_000).into_iter().flatten().collect();
        let held: Vec<u64> = (0..)
            .zip(&leaves)
            .map(|(i, leaves)| leaves - i * MS)
            .collect();
        let mean = held.iter().sum::<u64>() as f64 / held.len() as f64;
        assert!((mean / MS as f64 - 10.0).abs() < 0.1);
        assert!(held.iter().all(|held| (5 * MS..15 * MS).contains(held)));
        let outer = held
            .iter()
            .filter(|held| !(7_500_000..12_500_000).contains(*held))
            .count();
        assert!((4_700..5_300).contains(&outer), "not even: {outer}");
        assert!(leaves.windows(2).any(|pair| pair[1] < pair[0]));
    }

    #[test]
    fn losses_and_copies_come_as_often_as_asked() {
        let (mut netem, mut random) = netem(Impairment {
            loss: 10.0,
            duplicate: 20.0,
            corrupt: 5.0,
            ..Impairment::default()
        });
        let (mut dropped, mut copies, mut corrupted) = (0, 0, 0);
        for i in 0..100_000 {
            let fates = netem.decide(i, 100, &mut random);
            dropped += fates.dropped;
            copies += fates.duplicated;
            corrupted += u64::from(fates.original.is_some_and(|fate| fate.corrupted));
        }
        // 0.1 × 0.8 of originals and 0.1 of the copies; 0.2 × 0.9 copies.
        assert!((9_300..10_300).contains(&dropped), "{dropped}");
        assert!((17_500..18_500).contains(&copies), "{copies}");
        assert!((4_300..4_900).contains(&corrupted), "{corrupted}");
    }

    #[test]
    fn every_gap_th_packet_overtakes() {
        let asked = Impairment {
            delay_us: 10_000,
            reorder: 100.0,
            reorder_gap: 5,
            ..Impairment::default()
        };
        let at_once: Vec<usize> = leaves(asked, 20)
            .into_iter()
            .enumerate()
            .filter(|(i, leaves)| *leaves == Some(*i as u64 * MS))
            .map(|(i, _)| i)
            .collect();
        assert_eq!(at_once, [4, 9, 14, 19]);
    }

    #[test]
    fn a_line_sends_one_packet_after_the_other() {
        let asked = Impairment {
            delay_us: 1_000,
            rate: 100_000, // 100 bytes take 1 ms
            ..Impairment::default()
        };
        let (mut netem, mut random) = netem(asked);
        let mut leaves = |now| netem.decide(now, 100, &mut random).original.unwrap().leaves;
        assert_eq!(leaves(0), 2 * MS);
        assert_eq!(leaves(0), 3 * MS); // waits 2 ms, which eats up its delay
        assert_eq!(leaves(10 * MS), 12 * MS);
    }
}
