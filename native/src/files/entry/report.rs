//! What came of moving open files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What was done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub descriptors: usize,
    pub mappings: usize,
    pub directories: usize,
    /// What stays where it was, by reason.
    pub left: BTreeMap<String, usize>,
    pub stops: usize,
    pub longest_stop_us: u64,
}

impl Report {
    /// Adds what was done at another time.
    pub fn merge(&mut self, other: Self) {
        self.descriptors += other.descriptors;
        self.mappings += other.mappings;
        self.directories += other.directories;
        self.stops += other.stops;
        self.longest_stop_us = self.longest_stop_us.max(other.longest_stop_us);
        for (reason, count) in other.left {
            *self.left.entry(reason).or_default() += count;
        }
    }
}
