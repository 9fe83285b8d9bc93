//! A token bucket filter: tc-tbf(8), net/sched/sch_tbf.c, computed ahead instead of polled.

use std::collections::VecDeque;

use super::request::Impairment;

/// One bucket: a rate, and how much of it may have been saved up.
struct Bucket {
    /// Bytes per second.
    rate: u64,
    /// Time to fill it, in ns.
    size: i64,
    /// What is in it at the last departure, as time at its rate, in ns.
    tokens: i64,
}

impl Bucket {
    fn full(rate: u64, bytes: u64) -> Self {
        let size = time(rate, bytes);
        Self {
            rate,
            size,
            tokens: size,
        }
    }

    /// What would be left, `later` ns after the last departure, with `bytes` gone.
    fn left(&self, later: u64, bytes: u64) -> i64 {
        let filled = self
            .tokens
            .saturating_add(i64::try_from(later).unwrap_or(i64::MAX));
        filled.min(self.size) - time(self.rate, bytes)
    }
}

/// Time to send `bytes`, in ns.
fn time(rate: u64, bytes: u64) -> i64 {
    let time = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    i64::try_from(time).unwrap_or(i64::MAX)
}

/// Packets leave in order, as tokens allow; what finds too many waiting is dropped.
pub struct TokenBucket {
    average: Bucket,
    peak: Option<Bucket>,
    /// A longer packet can never leave.
    longest: u64,
    /// Bytes that may wait.
    limit: u64,
    /// When each waiting packet leaves, and its bytes.
    waiting: VecDeque<(u64, u64)>,
    backlog: u64,
    last_departure: u64,
}

impl TokenBucket {
    /// None where no bandwidth is asked. A peak rate counts only with a burst, as tc wants it.
    pub fn new(asked: &Impairment) -> Option<Self> {
        let has_peak = asked.bandwidth_peakrate > 0 && asked.bandwidth_minburst > 0;
        (asked.bandwidth_rate > 0).then(|| Self {
            average: Bucket::full(asked.bandwidth_rate, asked.bandwidth_buffer),
            peak: has_peak
                .then(|| Bucket::full(asked.bandwidth_peakrate, asked.bandwidth_minburst)),
            longest: if has_peak {
                asked.bandwidth_buffer.min(asked.bandwidth_minburst)
            } else {
                asked.bandwidth_buffer
            },
            limit: asked.bandwidth_limit,
            waiting: VecDeque::new(),
            backlog: 0,
            last_departure: 0,
        })
    }

    /// Says when a packet that arrives `now` (ns) leaves, or None when it is dropped.
    ///
    /// Must be called in the order of `now`.
    pub fn departure(&mut self, now: u64, bytes: u64) -> Option<u64> {
        while let Some(&(leaves, gone)) = self.waiting.front() {
            if leaves > now {
                break;
            }
            self.backlog -= gone;
            self.waiting.pop_front();
        }
        if bytes > self.longest || self.backlog + bytes > self.limit {
            return None;
        }
        let earliest = now.max(self.last_departure);
        let later = earliest - self.last_departure;
        let buckets = || std::iter::once(&self.average).chain(&self.peak);
        let lacking = buckets()
            .map(|bucket| -bucket.left(later, bytes))
            .max()
            .unwrap_or(0);
        let wait = lacking.max(0) as u64;
        for bucket in std::iter::once(&mut self.average).chain(&mut self.peak) {
            bucket.tokens = bucket.left(later + wait, bytes);
        }
        let leaves = earliest + wait;
        self.last_departure = leaves;
        self.waiting.push_back((leaves, bytes));
        self.backlog += bytes;
        Some(leaves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn bucket(buffer: u64, limit: u64) -> TokenBucket {
        TokenBucket::new(&Impairment {
            bandwidth_rate: 1_000_000, // 1000 bytes take 1 ms
            bandwidth_buffer: buffer,
            bandwidth_limit: limit,
            ..Impairment::default()
        })
        .unwrap()
    }

    #[test]
    fn a_burst_leaves_at_once_and_the_rest_at_the_rate() {
        let mut bucket = bucket(3_000, 1_000_000);
        let leaves: Vec<_> = (0..6)
            .map(|_| bucket.departure(0, 1_000).unwrap() / MS)
            .collect();
        assert_eq!(leaves, [0, 0, 0, 1, 2, 3]);
    }

    #[test]
    fn an_idle_bucket_fills_up_to_its_size_only() {
        let mut bucket = bucket(2_000, 1_000_000);
        bucket.departure(0, 2_000);
        let leaves: Vec<_> = (0..4)
            .map(|_| bucket.departure(1_000 * MS, 1_000).unwrap() / MS)
            .collect();
        assert_eq!(leaves, [1_000, 1_000, 1_001, 1_002]);
    }

    #[test]
    fn what_exceeds_the_limit_or_the_bucket_is_dropped() {
        let mut bucket = bucket(1_000, 2_500);
        assert_eq!(bucket.departure(0, 1_001), None);
        assert_eq!(bucket.departure(0, 1_000), Some(0));
        assert_eq!(bucket.departure(1, 1_000).map(|at| at / MS), Some(1));
        assert_eq!(bucket.departure(1, 1_000).map(|at| at / MS), Some(2));
        assert_eq!(bucket.departure(1, 1_000), None);
        assert_eq!(bucket.departure(MS, 1_000).map(|at| at / MS), Some(3));
    }

    #[test]
    fn a_peak_rate_spreads_the_burst() {
        let mut bucket = TokenBucket::new(&Impairment {
            bandwidth_rate: 1_000_000,
            bandwidth_buffer: 100_000,
            bandwidth_limit: 1_000_000,
            bandwidth_peakrate: 2_000_000,
            bandwidth_minburst: 1_000,
            ..Impairment::default()
        })
        .unwrap();
        let leaves: Vec<_> = (0..4)
            .map(|_| bucket.departure(0, 1_000).unwrap())
            .collect();
        assert_eq!(leaves, [0, MS / 2, MS, MS * 3 / 2]);
    }

    #[test]
    fn over_a_long_time_the_rate_is_kept() {
        let mut bucket = bucket(10_000, 100_000);
        let mut sent = 0;
        for i in 0..100_000 {
            if bucket
                .departure(i * MS / 10, 500)
                .is_some_and(|leaves| leaves < 10_000 * MS)
            {
                sent += 500;
            }
        }
        assert!((9_990_000..=10_010_500).contains(&sent), "{sent}");
    }
}
