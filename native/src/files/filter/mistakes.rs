//! Wrong bytes in what is read or written.

use super::rules::{count, Decision};
use crate::files::request::{Filling, Mistake};
use crate::packets::random::Random;

/// Spoils `data` as the rules that hit say; nothing else ever does.
pub fn spoil(data: &mut [u8], decision: &Decision, random: &mut Random) {
    for one in decision.hits() {
        if let Some(mistake) = one.rule.mistake.as_ref().filter(|_| !data.is_empty()) {
            make(data, mistake, random);
            count(&one.counted.mistaken, 1);
        }
    }
}

/// At least one place of at least one byte, at most as many and as long as allowed.
fn make(data: &mut [u8], mistake: &Mistake, random: &mut Random) {
    let most = usize::try_from(mistake.max_occurrences)
        .unwrap_or(usize::MAX)
        .min(data.len());
    for _ in 0..=random.below(most) {
        let at = random.below(data.len());
        let longest = usize::try_from(mistake.max_length)
            .unwrap_or(usize::MAX)
            .min(data.len() - at);
        let place = &mut data[at..][..=random.below(longest)];
        match mistake.filling {
            Filling::Zero => place.fill(0),
            Filling::Random => place.fill_with(|| random.draw() as u8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::make;
    use crate::files::request::{Filling, Mistake};
    use crate::packets::random::Random;

    #[test]
    fn places_are_as_many_and_as_long_as_allowed() {
        let mut random = Random::seeded(1);
        for (occurrences, length) in [(1, 1), (3, 10), (1, 1 << 40), (1 << 40, 1)] {
            let mistake = Mistake {
                filling: Filling::Zero,
                max_occurrences: occurrences,
                max_length: length,
            };
            for size in [1, 2, 100] {
                let mut data = vec![1; size];
                make(&mut data, &mistake, &mut random);
                let wrong = data.iter().filter(|&&byte| byte == 0).count() as u64;
                assert!(wrong >= 1 && wrong <= occurrences.saturating_mul(length).min(size as u64));
            }
        }
    }

    #[test]
    fn random_bytes_differ() {
        let mistake = Mistake {
            filling: Filling::Random,
            max_occurrences: 1,
            max_length: 100,
        };
        let mut data = vec![1; 1000];
        let mut random = Random::seeded(2);
        (0..10).for_each(|_| make(&mut data, &mistake, &mut random));
        let kinds: std::collections::BTreeSet<u8> = data.into_iter().collect();
        assert!(kinds.len() > 10);
    }
}
