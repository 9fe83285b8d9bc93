//! What each task is to do in one stop.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use super::descriptions::Description;
use super::instead::{self, Opened};
use super::locks::{self, Retaken};
use super::mappings::Mapping;
use super::moves::{Remap, Swap};
use super::places::Stay;
use super::scan::{first, Task};
use crate::ptrace::freeze::Frozen;

/// What there is to move.
pub struct Found {
    /// Indices of descriptions.
    pub descriptions: Vec<usize>,
    pub mappings: Vec<Mapping>,
    pub stays: Vec<Stay>,
}

impl Found {
    pub fn is_empty(&self) -> bool {
        self.descriptions.is_empty() && self.mappings.is_empty() && self.stays.is_empty()
    }
}

/// What one task is to do.
#[derive(Default)]
pub struct Orders<'a> {
    pub swaps: Vec<Swap<'a>>,
    pub remaps: Vec<Remap<'a>>,
    pub stays: Vec<&'a OwnedFd>,
    /// Locks to take again, and by which descriptors.
    pub locks: Vec<Retaken>,
}

/// What is moved in one stop.
#[derive(Default)]
pub struct Plan<'a> {
    pub orders: BTreeMap<Task, Orders<'a>>,
    /// Descriptions that it moves.
    pub moved: Vec<usize>,
    pub postponed: usize,
    /// Files of which somebody has locks, all of which is moved.
    pub locked: BTreeSet<u64>,
}

/// Of a file that is open so often, each is moved for itself.
const MANY: usize = 64;

/// One file: what is open of it and what is mapped moves together, so that all see the same.
#[derive(Default)]
struct Unit<'a> {
    descriptions: Vec<usize>,
    mappings: Vec<&'a Mapping>,
}

/// Plans for those who stand still; at most `most` descriptors, but one file at least.
pub fn plan<'a>(
    all: &'a [Description],
    opened: &'a Opened,
    found: &'a Found,
    frozen: &Frozen<'_>,
    most: usize,
) -> Plan<'a> {
    let mut plan = Plan::default();
    for stay in &found.stays {
        match opened.directories.get(&stay.path) {
            Some(Some(directory)) if frozen.is_still(stay.task.pid) => {
                plan.orders
                    .entry(stay.task)
                    .or_default()
                    .stays
                    .push(directory);
            }
            _ => plan.postponed += 1,
        }
    }
    let mut units: BTreeMap<u64, Unit<'_>> = BTreeMap::new();
    for index in &found.descriptions {
        units
            .entry(all[*index].inode)
            .or_default()
            .descriptions
            .push(*index);
    }
    for one in &found.mappings {
        units.entry(one.inode).or_default().mappings.push(one);
    }
    let locked = locks::locked();
    let mut swaps = 0;
    for (inode, mut unit) in units {
        let locked = locked.contains(&inode);
        // What is open several times may be locked by one descriptor, and unlocked by another.
        let several = (2..=MANY).contains(&unit.descriptions.len());
        let together = locked || !unit.mappings.is_empty() || several && all_open(all, &unit);
        if !together {
            let before = unit.descriptions.len();
            unit.descriptions
                .retain(|index| all[*index].instead.is_some());
            unit.descriptions.truncate(most.saturating_sub(swaps));
            plan.postponed += before - unit.descriptions.len();
        } else if swaps > 0 && swaps + unit.descriptions.len() > most {
            plan.postponed += 1;
            continue;
        }
        swaps += unit.descriptions.len();
        let postponed = add(&mut plan, all, opened, &unit, frozen, together);
        plan.postponed += postponed;
        if locked && postponed == 0 {
            plan.locked.insert(inode);
        }
    }
    plan
}

/// Adds one file, unless somebody who has it does not stand still, or something of it is new.
fn add<'a>(
    plan: &mut Plan<'a>,
    all: &'a [Description],
    opened: &'a Opened,
    unit: &Unit<'a>,
    frozen: &Frozen<'_>,
    together: bool,
) -> usize {
    let ready = |index: &usize| {
        let one = &all[*index];
        matches!(one.instead, Some(Ok(_)))
            && one
                .holders
                .iter()
                .all(|holder| frozen.is_still(holder.task.pid))
    };
    let mapped = |one: &&Mapping| frozen.is_still(one.pid) && opened.of(one).is_some();
    let all_ready = unit.descriptions.iter().all(ready) && unit.mappings.iter().all(mapped);
    if together && !all_ready {
        return 1;
    }
    let mut postponed = 0;
    for index in &unit.descriptions {
        if !ready(index) {
            postponed += 1;
            continue;
        }
        let one = &all[*index];
        let Some(Ok(new)) = &one.instead else {
            continue;
        };
        instead::settle(&one.copy, new);
        plan.moved.push(*index);
        for holder in &one.holders {
            plan.orders
                .entry(holder.task)
                .or_default()
                .swaps
                .push(Swap {
                    number: holder.number,
                    close_on_exec: holder.close_on_exec,
                    with: new,
                });
        }
    }
    let mut seen = BTreeSet::new();
    for mapping in &unit.mappings {
        if let Some((traits, Ok(new))) = opened.of(mapping) {
            if seen.insert((mapping.pid, mapping.start)) {
                plan.orders
                    .entry(first(mapping.pid))
                    .or_default()
                    .remaps
                    .push(Remap {
                        mapping,
                        traits,
                        with: new,
                        dead: opened.dead,
                    });
            }
        }
    }
    postponed
}

/// Is nothing of it to stay where it is?
fn all_open(all: &[Description], unit: &Unit<'_>) -> bool {
    let mut opened = unit.descriptions.iter().map(|index| &all[*index]);
    !opened.any(|one| matches!(one.instead, Some(Err(_))))
}
