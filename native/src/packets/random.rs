//! Chance: a small generator, and netem's way of making one draw resemble the last.

use std::io;

use crate::system::check;

/// SplitMix64 (Steele, Lea, Flood 2014): one addition and three mixes a draw. Nothing here guards a
/// secret, so speed and evenness are all that counts.
pub struct Random(u64);

impl Random {
    /// Always the same sequence; for tests.
    #[cfg(test)]
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Seeded by the operating system.
    pub fn from_os() -> io::Result<Self> {
        let mut seed = [0u8; 8];
        // SAFETY: the buffer is as long as said; eight bytes are never cut short.
        check(unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) } as i64)?;
        Ok(Self(u64::from_ne_bytes(seed)))
    }

    /// An even draw from all u32.
    pub fn draw(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 32) as u32
    }

    /// An even draw from 0 to `end`, without `end`.
    pub fn below(&mut self, end: usize) -> usize {
        ((u64::from(self.draw()) * end as u64) >> 32) as usize
    }
}

/// Draws that lean on the one before by `rho`: a moving average, as netem's get_crandom.
///
/// With a correlation the draws crowd around the middle, so that small probabilities become
/// smaller still. That is what netem does, and what people who tune against it expect.
pub struct Correlated {
    rho: u64,
    last: u64,
}

impl Correlated {
    pub fn new(correlation_percent: f64, random: &mut Random) -> Self {
        Self {
            rho: u64::from(scaled(correlation_percent)),
            last: u64::from(random.draw()),
        }
    }

    pub fn draw(&mut self, random: &mut Random) -> u32 {
        let value = u64::from(random.draw());
        if self.rho == 0 {
            return value as u32;
        }
        let rho = self.rho + 1;
        self.last = (value * ((1 << 32) - rho) + self.last * rho) >> 32;
        self.last as u32
    }
}

/// Something that happens to a share of all packets.
pub struct Chance {
    share: u32,
    draws: Correlated,
}

impl Chance {
    pub fn new(percent: f64, correlation_percent: f64, random: &mut Random) -> Self {
        Self {
            share: scaled(percent),
            draws: Correlated::new(correlation_percent, random),
        }
    }

    /// Does it happen to this packet? Without a share nothing is drawn.
    pub fn happens(&mut self, random: &mut Random) -> bool {
        self.share > 0 && self.share >= self.draws.draw(random)
    }
}

/// A percentage as a share of all u32, as tc hands it to the kernel.
fn scaled(percent: f64) -> u32 {
    (percent / 100.0 * f64::from(u32::MAX)).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share_of(percent: f64, correlation: f64) -> f64 {
        let mut random = Random::seeded(7);
        let mut chance = Chance::new(percent, correlation, &mut random);
        let hits = (0..100_000).filter(|_| chance.happens(&mut random)).count();
        hits as f64 / 1000.0
    }

    #[test]
    fn a_share_is_hit_as_often_as_asked() {
        assert_eq!(share_of(0.0, 0.0), 0.0);
        assert!((share_of(10.0, 0.0) - 10.0).abs() < 0.5);
        assert_eq!(share_of(100.0, 0.0), 100.0);
    }

    #[test]
    fn correlated_draws_follow_each_other_and_crowd_in_the_middle() {
        let mut random = Random::seeded(7);
        let mut draws = Correlated::new(75.0, &mut random);
        let drawn: Vec<f64> = (0..50_000)
            .map(|_| f64::from(draws.draw(&mut random)) / f64::from(u32::MAX) - 0.5)
            .collect();
        let variance: f64 = drawn.iter().map(|x| x * x).sum();
        let covariance: f64 = drawn.windows(2).map(|pair| pair[0] * pair[1]).sum();
        assert!((covariance / variance - 0.75).abs() < 0.02);
        assert!(share_of(1.0, 75.0) < 0.1);
    }
}
