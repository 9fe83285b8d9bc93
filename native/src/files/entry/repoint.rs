//! Makes all that a container has open in one place be what stands there now.
//!
//! In rounds: look and open without stopping anybody; stop all of them, look again, and move as much
//! as fits into a short stop; let go. Until a look finds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::away;
use super::carry_out::{carry_out, lock};
use super::descriptions::Descriptions;
use super::instead::{self, Opened, Source, Way};
use super::locks::Bridges;
use super::mappings::{self, Mapping};
use super::places::{self, Stay};
use super::plan::{plan, Found};
use super::scan::{go_on, processes, Where};
use crate::ptrace::freeze::{Freezer, Frozen};
use crate::rpc::Refusal;

/// How long one stop is to take, without what it takes to look again.
const STOP: Duration = Duration::from_millis(40);
/// How long to wait for those who do not stop at once.
const PATIENCE: Duration = Duration::from_millis(30);
/// How long to try again with those who never stop.
const GIVE_UP: Duration = Duration::from_secs(10);
/// How long to try for a moment in which all stand still, and nothing is left to move.
const FOR_ALL: Duration = Duration::from_secs(2);
const FIRST_SLICE: usize = 200;
const LARGE_SLICE: usize = 1_000;
/// Where all is moved in one stop.
const LARGEST_SLICE: usize = 3_000;

const UNSTOPPABLE: &str = "its process could not be stopped";
const FOREIGN: &str = "its program is for another kind of processor";

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

/// How to go about it.
#[derive(Default)]
pub struct Manner<'a> {
    /// Run once, when all stand still that can.
    pub nudge: Option<&'a mut dyn FnMut()>,
    /// Run while all stand still, and nothing is left to move, until it has succeeded.
    pub finish: Option<&'a mut dyn FnMut() -> bool>,
    /// Everything in one stop, however long that takes.
    pub at_once: bool,
}

/// One place to move from, and where to.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    pub from: &'a Where,
    pub source: &'a Source<'a>,
}

/// Moves everything that is open in each place to where its source leads.
pub fn repoint(jobs: &[Job<'_>], mut manner: Manner<'_>) -> Result<Report, Refusal> {
    instead::raise_limit();
    // SAFETY: plain call. Others wait for us; where that is not allowed, they wait longer.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
    let slice = if manner.at_once {
        LARGEST_SLICE
    } else {
        FIRST_SLICE
    };
    let mut works: Vec<Work<'_>> = jobs.iter().map(|job| Work::new(job, slice)).collect();
    let namespaces: BTreeSet<PathBuf> = jobs
        .iter()
        .flat_map(|job| job.from.namespaces.clone())
        .collect();
    go_on(&namespaces)?;
    let mut freezer = Freezer::default();
    let (mut stops, mut longest) = (0, Duration::ZERO);
    let (mut stuck, started) = (0, Instant::now());
    let (mut moved, mut progress) = (0, Instant::now());
    loop {
        let mut clean = true;
        for work in &mut works {
            clean &= work
                .look(&processes(&work.from.namespaces), true)
                .is_empty();
        }
        if started.elapsed() > FOR_ALL {
            manner.finish = None;
        }
        if clean && manner.nudge.is_none() && manner.finish.is_none() {
            break;
        }
        let stop = Instant::now();
        let all = || processes(&namespaces);
        let mut nudge = manner.nudge.take().map(|nudge| {
            || {
                works.iter().for_each(Work::save);
                nudge();
            }
        });
        let nudge = nudge.as_mut().map(|nudge| nudge as &mut dyn FnMut());
        let nudged = nudge.is_some();
        let mut frozen = freezer.freeze(all, PATIENCE, nudge);
        if !nudged {
            works.iter().for_each(Work::save);
        }
        works.iter_mut().for_each(|work| work.served = true);
        let done = rounds(&mut works, &frozen, manner.at_once);
        if matches!(done, Ok(0)) {
            let mut dead = works.iter().rev().filter(|work| work.opened.dead);
            dead.all(|work| away::vanish(work.from, work.source));
        }
        let now: usize = works.iter_mut().map(Work::remember).sum();
        let all_moved = matches!(done, Ok(0)) && frozen.is_complete();
        if all_moved && manner.finish.as_mut().is_some_and(|finish| finish()) {
            manner.finish = None;
        }
        let refused = frozen.refused.take();
        drop(frozen);
        let took = stop.elapsed();
        (stops, longest) = (stops + 1, longest.max(took));
        let postponed = done?;
        if let Some(refusal) = refused.filter(|_| postponed > 0) {
            return Err(refusal); // all others have been moved
        }
        if now > moved {
            (moved, progress) = (now, Instant::now());
        } else if postponed > 0 && progress.elapsed() > GIVE_UP {
            stuck = postponed;
            break;
        }
        if all_moved && manner.finish.is_none() {
            break; // what has been opened since is in the right place, or will be looked for
        }
        std::thread::sleep(took.min(Duration::from_millis(50)));
    }
    while !freezer.settle() && progress.elapsed() < GIVE_UP {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut report = Report {
        stops,
        longest_stop_us: longest.as_micros() as u64,
        ..Report::default()
    };
    for work in &works {
        report.add(work);
    }
    let unable = works.iter().map(|work| work.unable.len()).sum();
    for (reason, count) in [(UNSTOPPABLE, stuck), (FOREIGN, unable)] {
        if count > 0 {
            report.left.insert(reason.to_owned(), count);
        }
    }
    Ok(report)
}

/// One round, or as many as there is something to do for; gives how much was postponed.
fn rounds(works: &mut [Work<'_>], frozen: &Frozen<'_>, all: bool) -> Result<usize, Refusal> {
    let mut moved = 0;
    loop {
        let mut postponed = 0;
        for work in works.iter_mut() {
            postponed += work.round(frozen)?;
        }
        if !all || postponed == 0 {
            return Ok(postponed);
        }
        let now = works.iter_mut().map(Work::remember).sum();
        if now == moved {
            return Ok(postponed);
        }
        moved = now;
    }
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

    fn add(&mut self, work: &Work<'_>) {
        self.descriptors += work.report.descriptors;
        self.mappings += work.report.mappings;
        self.directories += work.report.directories;
        for (reason, count) in &work.left {
            *self.left.entry((*reason).to_owned()).or_default() += count;
        }
    }
}

struct Work<'a> {
    from: &'a Where,
    source: &'a Source<'a>,
    descriptions: Descriptions,
    opened: Opened,
    /// Most descriptors to move in one stop.
    slice: usize,
    /// Mappings that have been moved from a mount to itself.
    remapped: BTreeSet<(i32, u64, u64)>,
    /// Nobody waits for a dead filter, and nothing is lost any more when its files are closed.
    served: bool,
    /// Processes that nothing can be done in.
    unable: BTreeSet<i32>,
    /// Descriptions that were moved in the last stop.
    moved: Vec<usize>,
    report: Report,
    left: BTreeMap<&'static str, usize>,
}

impl<'a> Work<'a> {
    fn new(job: &Job<'a>, slice: usize) -> Self {
        Self {
            from: job.from,
            source: job.source,
            descriptions: Descriptions::default(),
            opened: Opened {
                dead: job.source.way == Way::Out && job.source.service.filter.is_none(),
                ..Opened::default()
            },
            slice,
            remapped: BTreeSet::new(),
            served: job.source.way != Way::Out || job.source.service.filter.is_some(),
            unable: BTreeSet::new(),
            moved: Vec::new(),
            report: Report::default(),
            left: BTreeMap::new(),
        }
    }

    /// Passes on what was written to mappings, while all stand still, and before anything is closed:
    /// that writes such pages back, or loses them if nobody serves that.
    fn save(&self) {
        if self.served {
            return;
        }
        let pids = processes(&self.from.namespaces);
        for one in pids.iter().flat_map(|pid| mappings::of(self.from, *pid)) {
            if let Some((_, Ok(file))) = self.opened.of(&one) {
                one.save(file);
            }
        }
    }

    /// Looks at everybody; what has just been found is opened where `open` says so.
    fn look(&mut self, pids: &[i32], open: bool) -> Found {
        let able = pids.iter().filter(|pid| !self.unable.contains(pid));
        let pids: &[i32] = &able.copied().collect::<Vec<i32>>();
        self.descriptions.look(self.from, pids, self.served);
        let mut mappings: Vec<Mapping> = pids
            .iter()
            .flat_map(|pid| mappings::of(self.from, *pid))
            .collect();
        mappings.retain(|one| !self.remapped.contains(&(one.pid, one.start, one.end)));
        let again = self.source.way == Way::Again;
        let places = pids.iter().filter(|_| !again); // a working directory stays as it is
        let mut stays: Vec<Stay> = places.flat_map(|pid| places::of(self.from, *pid)).collect();
        if open {
            // No more than can be moved at once: descriptors of ours are not without end.
            let new = self.descriptions.all.iter_mut();
            let new = new.filter(|one| one.instead.is_none() && !one.done);
            for one in new.take(self.slice) {
                one.instead = Some(self.source.open(one));
            }
            self.opened.prepare(self.source, &mappings);
            for stay in &stays {
                let path = stay.path.clone();
                let open = || self.source.open_directory(stay);
                self.opened.directories.entry(path).or_insert_with(open);
            }
        }
        self.left.clear();
        let mut leave = |reason| *self.left.entry(reason).or_default() += 1;
        mappings.retain(|one| match self.opened.of(one) {
            Some((_, Err(reason))) => {
                leave(*reason);
                false
            }
            _ => true,
        });
        stays.retain(|stay| match self.opened.directories.get(&stay.path) {
            Some(None) => {
                leave(instead::REMOVED);
                false
            }
            _ => true,
        });
        let all = self.descriptions.all.iter().enumerate();
        let descriptions = all.filter(|(_, one)| match one.instead {
            Some(Err(reason)) => {
                leave(reason);
                false
            }
            _ => !one.done,
        });
        Found {
            descriptions: descriptions.map(|(index, _)| index).collect(),
            mappings,
            stays,
        }
    }

    /// While all stand still: looks again, and moves as much as fits. Gives how much was postponed.
    fn round(&mut self, frozen: &Frozen<'_>) -> Result<usize, Refusal> {
        let pids: Vec<i32> = processes(&self.from.namespaces);
        let found = self.look(&pids, self.source.way == Way::Out);
        let started = Instant::now();
        let all = &self.descriptions.all;
        let mut plan = plan(all, &self.opened, &found, frozen, self.slice);
        let holder = self.source.service.locks;
        let bridges = Bridges::plan(&mut plan, all, holder, frozen);
        let mut failed = 0;
        for (task, orders) in &plan.orders {
            match carry_out(frozen, *task, orders, &bridges) {
                Ok(more) => failed += more,
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {} // it has ended
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    if self.source.way != Way::Out {
                        return Err(Refusal::unsupported(error));
                    }
                    crate::system::log(&format!("process {}: {error}", task.pid));
                    self.unable.insert(task.pid); // the others are not to suffer for it
                    continue;
                }
                Err(error) => {
                    let doing = format!("re-point what process {} has open", task.pid);
                    return Err(Refusal::of_kernel(doing, &error));
                }
            }
            self.report.descriptors += orders.swaps.len();
            self.report.mappings += orders.remaps.len();
            self.report.directories += orders.stays.len();
        }
        bridges.release(holder);
        for (task, orders) in &plan.orders {
            if let Err(error) = lock(frozen, *task, orders) {
                crate::system::log(&format!("locks of process {}: {error}", task.pid));
            }
        }
        if failed > 0 {
            crate::system::log(&format!(
                "{failed} descriptors or mappings could not be replaced"
            ));
        }
        let postponed = plan.postponed;
        if self.source.way == Way::Again {
            let remaps = plan.orders.values().flat_map(|orders| &orders.remaps);
            let places = remaps.map(|one| (one.mapping.pid, one.mapping.start, one.mapping.end));
            self.remapped.extend(places);
        }
        self.moved = plan.moved;
        self.adapt(started.elapsed());
        Ok(postponed + failed)
    }

    /// Notes what has been moved, so that it is known at once when it is seen again; how much in all.
    fn remember(&mut self) -> usize {
        self.descriptions
            .have_moved(&std::mem::take(&mut self.moved));
        self.report.descriptors + self.report.mappings + self.report.directories
    }

    fn adapt(&mut self, took: Duration) {
        if self.slice == LARGEST_SLICE {
            return;
        }
        let ratio = STOP.as_secs_f64() / took.as_secs_f64().max(1e-4);
        let next = self.slice as f64 * ratio.clamp(0.25, 3.0);
        self.slice = (next as usize).clamp(50, LARGE_SLICE);
    }
}
