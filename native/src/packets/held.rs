//! What one process holds inside its namespace, and the change from one such state to the next.

use std::collections::BTreeMap;

use serde_json::{json, Value};

use super::lane::Lane;
use super::request::{self, Counters};
use crate::nft::Nft;
use crate::rpc::Refusal;

/// The one table that is ours in a namespace.
const TABLE: &str = "squall_network";

/// Everything in force.
pub struct Held {
    pub lease_seconds: f64,
    /// Seconds of boot time.
    pub deadline: Option<f64>,
    script: String,
    nft: Option<Nft>,
    lanes: Vec<Lane>,
    /// As they were asked for, to be told again to the letter.
    asked: Value,
}

impl Held {
    /// Nothing at all, for `lease_seconds`.
    pub fn nothing(lease_seconds: f64) -> Self {
        Self {
            lease_seconds,
            deadline: None,
            script: String::new(),
            nft: None,
            lanes: Vec::new(),
            asked: json!([]),
        }
    }

    /// Makes exactly `asked` be in force; on a refusal nothing has changed.
    pub fn set(&mut self, asked: Value) -> Result<(), Refusal> {
        let lanes = asked["lanes"].clone();
        let set: request::Set = serde_json::from_value(asked).map_err(Refusal::invalid)?;
        set.check()?;
        // All that may be refused comes first; new lanes that are not kept take themselves back.
        let mut fresh = Vec::new();
        let mut changed = Vec::new();
        for lane in &set.lanes {
            match self.lanes.iter().find(|held| held.device() == lane.device) {
                Some(held) if !held.is_attached() => fresh.push(Lane::open(lane)?),
                Some(held) if held.rules() != lane.rules => changed.push(held.prepare(lane)?),
                Some(_) => {}
                None => fresh.push(Lane::open(lane)?),
            }
        }
        for lane in &mut fresh {
            lane.attach()?;
        }
        self.set_table(set.nft)?;

        let wanted = |held: &Lane| set.lanes.iter().any(|lane| lane.device == held.device());
        self.lanes.retain(|held| wanted(held) && held.is_attached());
        for change in changed {
            if let Some(held) = self
                .lanes
                .iter_mut()
                .find(|held| held.device() == change.device())
            {
                held.change(change)?;
            }
        }
        self.lanes.append(&mut fresh);
        self.lease_seconds = set.lease;
        self.deadline = set.deadline;
        self.asked = lanes;
        Ok(())
    }

    /// Tells what was last set, but for lanes whose device is gone, and what the lanes did since.
    pub fn state(&self) -> Result<Value, Refusal> {
        let mut counters: BTreeMap<String, Counters> = BTreeMap::new();
        let mut unsent = 0;
        for lane in &self.lanes {
            let report = lane.report()?;
            unsent += report.unsent;
            for (source, counted) in report.counters {
                *counters.entry(source).or_default() += counted;
            }
        }
        Ok(json!({
            "nft": self.script,
            "lanes": self.attached(),
            "counters": counters,
            "unsent": unsent,
            "lease": self.lease_seconds,
            "deadline": self.deadline,
        }))
    }

    /// Reads our table from the kernel, as `nft -j` prints it; empty when there is none.
    pub fn list(&mut self) -> Result<String, Refusal> {
        let objects = self.nft.as_mut().map_or(Ok(Vec::new()), Nft::list)?;
        Ok(match objects.is_empty() {
            true => String::new(),
            false => json!({ "nftables": objects }).to_string(),
        })
    }

    fn attached(&self) -> Vec<&Value> {
        let attached = |asked: &&Value| {
            let mut lanes = self.lanes.iter();
            lanes.any(|held| asked["device"] == held.device() && held.is_attached())
        };
        let asked = self.asked.as_array().into_iter().flatten();
        asked.filter(attached).collect()
    }

    fn set_table(&mut self, script: String) -> Result<(), Refusal> {
        if script == self.script {
            return Ok(()); // running it again would reset its counters
        }
        if script.is_empty() {
            self.nft = None; // the kernel takes the table of a closed socket back
        } else {
            let mut nft = match self.nft.take() {
                Some(nft) => nft,
                None => Nft::open(TABLE)?,
            };
            let done = nft.run(&script);
            if done.is_ok() || !self.script.is_empty() {
                self.nft = Some(nft);
            }
            done?;
        }
        self.script = script;
        Ok(())
    }
}
