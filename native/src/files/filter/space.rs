//! A disk that is full after so many bytes more.

use std::sync::{Mutex, PoisonError};

/// Bytes by which files may grow.
pub struct Budget {
    bytes: u64,
    used: Mutex<u64>,
}

impl Budget {
    pub fn new(bytes: u64) -> Self {
        Self {
            bytes,
            used: Mutex::new(0),
        }
    }

    pub fn left(&self) -> u64 {
        self.bytes - self.change(|_| ())
    }

    /// Takes as much of `wanted` as there is.
    pub fn take(&self, wanted: u64) -> u64 {
        let mut granted = 0;
        self.change(|used| {
            granted = wanted.min(self.bytes - *used);
            *used += granted;
        });
        granted
    }

    /// Files have shrunk; what they had before the rule began is not given back.
    pub fn give_back(&self, freed: u64) {
        self.change(|used| *used = used.saturating_sub(freed));
    }

    fn change(&self, change: impl FnOnce(&mut u64)) -> u64 {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut used);
        *used
    }
}

/// What a change to a file takes of several budgets; given back when it does not come to be.
pub struct Taken<'a>(pub Vec<&'a Budget>, pub u64);

impl<'a> Taken<'a> {
    /// Takes `wanted` bytes from each, or as many as the smallest of them has.
    pub fn from(budgets: Vec<&'a Budget>, wanted: u64) -> Self {
        let mut granted = wanted;
        for (at, budget) in budgets.iter().enumerate() {
            let got = budget.take(granted);
            budgets[..at]
                .iter()
                .for_each(|earlier| earlier.give_back(granted - got));
            granted = got;
        }
        Self(budgets, granted)
    }

    /// Only so many of them were used.
    pub fn used(&mut self, used: u64) {
        let unused = self.1.saturating_sub(used);
        self.0.iter().for_each(|budget| budget.give_back(unused));
        self.1 -= unused;
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, Taken};

    #[test]
    fn a_budget_ends_and_comes_back() {
        let budget = Budget::new(10);
        assert_eq!((budget.take(7), budget.take(7), budget.take(1)), (7, 3, 0));
        budget.give_back(4);
        assert_eq!((budget.left(), budget.take(9)), (4, 4));
        budget.give_back(100);
        assert_eq!(budget.left(), 10);
    }

    #[test]
    fn the_smallest_budget_decides_and_the_others_lose_no_more() {
        let (large, small) = (Budget::new(100), Budget::new(5));
        let mut taken = Taken::from(vec![&large, &small], 50);
        assert_eq!((taken.1, large.left(), small.left()), (5, 95, 0));
        taken.used(2);
        assert_eq!((taken.1, large.left(), small.left()), (2, 98, 3));
    }
}
