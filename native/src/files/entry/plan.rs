//! What each task is to do in one stop.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use super::descriptions::{Description, Holder};
use super::instead::{self, Opened};
use super::locks::{self, Lock};
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
    /// Locks on what was moved earlier: a process loses its own on a file that it closes once more.
    pub locks: Vec<(i32, Lock)>,
}

/// What is moved in one stop.
#[derive(Default)]
pub struct Plan<'a> {
    pub orders: BTreeMap<Task, Orders<'a>>,
    /// Descriptions that it moves.
    pub moved: Vec<usize>,
    pub postponed: usize,
}

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
        // What one process alone has open, without mappings and locks, is each for itself.
        let together = locked || !unit.mappings.is_empty() || is_shared(all, &unit);
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
        plan.postponed += add(&mut plan, all, opened, &unit, frozen, (locked, together));
        if locked && !unit.mappings.is_empty() {
            relock(&mut plan, all, inode, frozen);
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
    (locked, together): (bool, bool),
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
        let held = if locked { locks::of(one) } else { Vec::new() };
        for holder in &one.holders {
            plan.orders
                .entry(holder.task)
                .or_default()
                .swaps
                .push(Swap {
                    number: holder.number,
                    close_on_exec: holder.close_on_exec,
                    with: new,
                    locks: taken_by(&held, holder),
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

/// Has locks taken again that were moved earlier, by those who map the same file anew now.
fn relock(plan: &mut Plan<'_>, all: &[Description], inode: u64, frozen: &Frozen<'_>) {
    for one in all.iter().filter(|one| one.done && one.inode == inode) {
        for (holder, lock) in locks::of(one) {
            let orders = plan.orders.get_mut(&holder.task);
            if let Some(orders) = orders.filter(|_| frozen.is_still(holder.task.pid)) {
                orders.locks.push((holder.number, lock));
            }
        }
    }
}

/// Have several processes opened it? They may agree by locks that nobody holds at this moment, and
/// those of who was moved are none for who was not.
fn is_shared(all: &[Description], unit: &Unit<'_>) -> bool {
    let opened = || unit.descriptions.iter().map(|index| &all[*index]);
    let mut pids = opened().flat_map(|one| one.holders.iter().map(|holder| holder.task.pid));
    let first = pids.next();
    opened().count() > 1
        && pids.any(|pid| Some(pid) != first)
        && !opened().any(|one| matches!(one.instead, Some(Err(_))))
}

fn taken_by(held: &[(Holder, Lock)], holder: &Holder) -> Vec<Lock> {
    let same = |by: &Holder| by.task == holder.task && by.number == holder.number;
    let theirs = held.iter().filter(|(by, _)| same(by));
    theirs.map(|(_, lock)| *lock).collect()
}
