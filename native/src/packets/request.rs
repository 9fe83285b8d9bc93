//! What the agent asks for, as types; `squall.linux.packets` is the other end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::rpc::Refusal;

/// Make exactly this be in force.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Set {
    /// A script for our table only; empty: no table.
    pub nft: String,
    pub lanes: Vec<Lane>,
    /// Seconds to hold on after the connection is gone.
    pub lease: f64,
    /// Seconds of boot time at which all ends.
    pub deadline: Option<f64>,
}

impl Set {
    /// Refuses what the types allow but nobody can mean.
    pub fn check(&self) -> Result<(), Refusal> {
        let mut seen = BTreeMap::new();
        for lane in &self.lanes {
            if seen.insert(lane.device.as_str(), ()).is_some() {
                let device = &lane.device;
                return Err(Refusal::invalid(format!("two lanes for device {device}")));
            }
            if lane.rules.is_empty() {
                let device = &lane.device;
                return Err(Refusal::invalid(format!(
                    "a lane without rules on {device}"
                )));
            }
        }
        Ok(())
    }
}

/// The rules of one device, in the order in which a packet passes them.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Lane {
    pub device: String,
    pub rules: Vec<Rule>,
}

/// What happens to packets towards `peers`; `None` means all that leaves the device.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub source: String,
    /// Network, as `10.0.0.7/32`, and destination port; 0 means any.
    pub peers: Option<Vec<(String, u16)>>,
    pub impairment: Impairment,
}

/// `squall.injection.world.network.Impairment`: percents and bytes; zero means "does not".
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Impairment {
    pub delay_us: u64,
    pub jitter_us: u64,
    pub delay_correlation: f64,
    pub loss: f64,
    pub loss_correlation: f64,
    pub duplicate: f64,
    pub duplicate_correlation: f64,
    pub corrupt: f64,
    pub corrupt_correlation: f64,
    pub reorder: f64,
    pub reorder_correlation: f64,
    pub reorder_gap: u32,
    pub rate: u64,
    pub bandwidth_rate: u64,
    pub bandwidth_buffer: u64,
    pub bandwidth_limit: u64,
    pub bandwidth_peakrate: u64,
    pub bandwidth_minburst: u64,
}

impl Impairment {
    /// Does it treat every packet of a train alike? Then trains need not be taken apart.
    pub fn spares_trains(&self) -> bool {
        let by_chance = self.loss + self.duplicate + self.corrupt + self.reorder;
        by_chance == 0.0 && self.rate == 0 && self.bandwidth_rate == 0
    }
}

/// What one source did to packets so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    pub packets: u64,
    pub delayed: u64,
    pub dropped: u64,
    pub duplicated: u64,
    pub corrupted: u64,
    pub reordered: u64,
    pub delay_us_sum: u64,
    /// Of the packets that were let through, headers included.
    pub bytes: u64,
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.delayed += other.delayed;
        self.dropped += other.dropped;
        self.duplicated += other.duplicated;
        self.corrupted += other.corrupted;
        self.reordered += other.reordered;
        self.delay_us_sum += other.delay_us_sum;
        self.bytes += other.bytes;
    }
}
