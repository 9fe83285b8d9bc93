//! Makes all that a container has open in one place be what stands there now.
//!
//! In rounds: look and open without stopping anybody; stop all of them, look again, and move as much
//! as fits into a short stop; let go. Until a look finds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::descriptions::Descriptions;
use super::instead::{self, Opened, Source, Way};
use super::mappings::{self, Mapping};
use super::moves;
use super::places::{self, Stay};
use super::plan::{plan, Found, Orders};
use super::scan::{processes, Task, Where};
use crate::ptrace::freeze::{Freezer, Frozen};
use crate::ptrace::remote::Inside;
use crate::rpc::Refusal;
use crate::system::check;

/// How long one stop is to take, without what it takes to look again.
const STOP: Duration = Duration::from_millis(40);
/// How long to wait for those who do not stop at once.
const PATIENCE: Duration = Duration::from_millis(30);
/// How long to try again with those who never stop.
const GIVE_UP: Duration = Duration::from_secs(10);
const FIRST_SLICE: usize = 200;
/// What a process may have open beyond its limit while it is given others.
const MORE_DESCRIPTORS: u64 = 512;

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
pub struct Manner<'a> {
    /// Run once, when all stand still that can.
    pub nudge: Option<&'a mut dyn FnMut()>,
    /// Everything in one stop, however long that takes.
    pub at_once: bool,
}

/// One place to move from, and where to.
pub struct Job<'a> {
    pub from: &'a Where,
    pub source: &'a Source<'a>,
}

/// Moves everything that is open in each place to where its source leads.
pub fn repoint(jobs: &[Job<'_>], mut manner: Manner<'_>) -> Result<Report, Refusal> {
    let _ = instead::raise_limit(); // the limit that there is may do
    let slice = if manner.at_once {
        usize::MAX
    } else {
        FIRST_SLICE
    };
    let mut works: Vec<Work<'_>> = jobs.iter().map(|job| Work::new(job, slice)).collect();
    let namespaces: BTreeSet<PathBuf> = jobs
        .iter()
        .flat_map(|job| job.from.namespaces.clone())
        .collect();
    let mut freezer = Freezer::default();
    let (mut stops, mut longest) = (0, Duration::ZERO);
    let mut stuck = 0;
    let (mut moved, mut progress) = (0, Instant::now());
    loop {
        let mut clean = true;
        for work in &mut works {
            clean &= work
                .look(&processes(&work.from.namespaces), true)
                .is_empty();
        }
        if clean && manner.nudge.is_none() {
            break;
        }
        let stop = Instant::now();
        let mut nudge = manner.nudge.take();
        let all = || processes(&namespaces);
        let frozen = freezer.freeze(all, PATIENCE, &mut || {
            if let Some(nudge) = nudge.take() {
                nudge();
            }
        })?;
        let done: Result<Vec<usize>, Refusal> =
            works.iter_mut().map(|work| work.round(&frozen)).collect();
        drop(frozen);
        let took = stop.elapsed();
        (stops, longest) = (stops + 1, longest.max(took));
        let postponed: usize = done?.into_iter().sum();
        let now: usize = works.iter_mut().map(Work::remember).sum();
        if now > moved {
            (moved, progress) = (now, Instant::now());
        } else if postponed > 0 && progress.elapsed() > GIVE_UP {
            stuck = postponed;
            break;
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
    if stuck > 0 {
        report
            .left
            .insert("its process could not be stopped".to_owned(), stuck);
    }
    Ok(report)
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
            opened: Opened::default(),
            slice,
            remapped: BTreeSet::new(),
            moved: Vec::new(),
            report: Report::default(),
            left: BTreeMap::new(),
        }
    }

    /// Looks at everybody; what has just been found is opened where `open` says so.
    fn look(&mut self, pids: &[i32], open: bool) -> Found {
        self.descriptions.look(self.from, pids);
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
                let open = |path: &PathBuf| self.source.open_directory(path);
                self.opened.directories.entry(path).or_insert_with_key(open);
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
        let plan = plan(all, &self.opened, &found, frozen, self.slice);
        let mut failed = 0;
        for (task, orders) in &plan.orders {
            match carry_out(frozen, *task, orders) {
                Ok(more) => failed += more,
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {} // it has ended
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    return Err(Refusal::unsupported(error));
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
        if self.slice == usize::MAX {
            return;
        }
        let ratio = STOP.as_secs_f64() / took.as_secs_f64().max(1e-4);
        let next = self.slice as f64 * ratio.clamp(0.25, 3.0);
        self.slice = (next as usize).clamp(50, 5_000);
    }
}

/// Has one task do what is planned for it; gives how much of it failed.
fn carry_out(frozen: &Frozen<'_>, task: Task, orders: &Orders<'_>) -> io::Result<usize> {
    let thread = frozen
        .thread(task.pid, task.tid)
        .ok_or(io::ErrorKind::NotFound)?;
    let limit = Limit::raised(task.pid);
    let mut inside = Inside::enter(thread)?;
    let mut failed = 0;
    for directory in &orders.stays {
        failed += usize::from(moves::go_to(&mut inside, directory).is_err());
    }
    failed += moves::swap(&mut inside, &orders.swaps)?;
    failed += moves::remap(&mut inside, &orders.remaps)?;
    let left = inside.leave();
    drop(limit);
    left.map(|()| failed)
}

/// A process that may have a few more descriptors open than usual, for as long as this is there.
struct Limit {
    pid: i32,
    was: libc::rlimit,
}

impl Limit {
    fn raised(pid: i32) -> Option<Self> {
        let nothing = std::ptr::null();
        // SAFETY: the structures outlive the calls.
        unsafe {
            let mut was: libc::rlimit = std::mem::zeroed();
            check(libc::prlimit(
                pid,
                libc::RLIMIT_NOFILE,
                nothing,
                &raw mut was,
            ))
            .ok()?;
            let more = was.rlim_cur.saturating_add(MORE_DESCRIPTORS);
            let raised = libc::rlimit {
                rlim_cur: more,
                rlim_max: was.rlim_max.max(more),
            };
            let nowhere = std::ptr::null_mut();
            check(libc::prlimit(
                pid,
                libc::RLIMIT_NOFILE,
                &raw const raised,
                nowhere,
            ))
            .ok()?;
            Some(Self { pid, was })
        }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        let nowhere = std::ptr::null_mut();
        // SAFETY: the structure outlives the call; that the process has ended is fine.
        unsafe { libc::prlimit(self.pid, libc::RLIMIT_NOFILE, &raw const self.was, nowhere) };
    }
}
