//! All threads of a few processes, stopped together for a moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use super::thread::{tracer, Report};
use super::Thread;
use crate::rpc::Refusal;

/// How long to wait for those who run, where they would see errors if they were let go.
const NUDGED: Duration = Duration::from_secs(1);

/// Stops processes, and keeps an eye on threads that have not stopped when asked.
#[derive(Default)]
pub struct Freezer {
    /// Asked to stop, and still within the kernel: as the parent of a vfork, or in wait for a disk.
    lingering: Vec<Thread>,
}

/// Processes that stand still until this is dropped.
pub struct Frozen<'a> {
    freezer: &'a mut Freezer,
    stopped: BTreeMap<i32, Vec<Thread>>,
    moving: BTreeSet<i32>,
    /// Why the first of those could not be stopped who must not be stopped by us.
    pub refused: Option<Refusal>,
}

impl Freezer {
    /// Stops all that `processes` names, again and again until it names no other.
    ///
    /// Then `nudge` may help those who do not stop; it is the end of what they use, so whoever only
    /// waits for a processor is waited for longer. Who has not stopped after `patience` twice is told
    /// by `Frozen::is_still`.
    pub fn freeze(
        &mut self,
        processes: impl Fn() -> Vec<i32>,
        patience: Duration,
        nudge: Option<&mut dyn FnMut()>,
    ) -> Frozen<'_> {
        self.settle();
        let started = Instant::now();
        let mut frozen = Frozen {
            freezer: self,
            stopped: BTreeMap::new(),
            moving: BTreeSet::new(),
            refused: None,
        };
        let mut seen: BTreeSet<i32> = frozen.freezer.lingering.iter().map(|one| one.tid).collect();
        let mut asked: Vec<(i32, Thread)> = Vec::new();
        loop {
            let before = seen.len();
            for pid in processes() {
                for tid in threads(pid) {
                    if frozen.freezer.lingering.iter().any(|one| one.tid == tid) {
                        frozen.moving.insert(pid);
                    }
                    if seen.insert(tid) {
                        match ask(pid, tid) {
                            Ok(thread) => asked.extend(thread.map(|thread| (pid, thread))),
                            Err(refusal) => {
                                frozen.moving.insert(pid);
                                frozen.refused.get_or_insert(refusal);
                            }
                        }
                    }
                }
            }
            frozen.await_stops(&mut asked, started + patience);
            if seen.len() == before || started.elapsed() > 2 * patience {
                break;
            }
        }
        let nudged = nudge.map(|nudge| nudge()).map(|()| Instant::now());
        frozen.await_stops(&mut asked, Instant::now() + patience);
        let running = |asked: &[(i32, Thread)]| asked.iter().any(|(pid, one)| runs(*pid, one.tid));
        while nudged.is_some_and(|since| since.elapsed() < NUDGED) && running(&asked) {
            frozen.await_stops(&mut asked, Instant::now() + patience);
        }
        for (pid, thread) in asked {
            frozen.moving.insert(pid);
            frozen.freezer.lingering.push(thread);
        }
        frozen
    }

    /// Lets go of those that have come to a stop at last; false while there are others.
    pub fn settle(&mut self) -> bool {
        self.lingering.retain(|thread| match thread.report() {
            Ok(Report::Running) => true,
            Ok(Report::Signal(signal)) => thread.go_on(signal).is_ok(),
            Ok(Report::AtCall) => thread.go_on(0).is_ok(),
            Ok(Report::Stopped) => {
                let _ = thread.detach();
                false
            }
            Ok(Report::Ended) | Err(_) => false,
        });
        self.lingering.is_empty()
    }
}

impl Frozen<'_> {
    /// Does all of this process stand still?
    pub fn is_still(&self, pid: i32) -> bool {
        !self.moving.contains(&pid) && self.stopped.contains_key(&pid)
    }

    /// Do all of them?
    pub fn is_complete(&self) -> bool {
        self.moving.is_empty()
    }

    pub fn thread(&self, pid: i32, tid: i32) -> Option<&Thread> {
        self.stopped.get(&pid)?.iter().find(|one| one.tid == tid)
    }

    fn await_stops(&mut self, asked: &mut Vec<(i32, Thread)>, until: Instant) {
        loop {
            let mut waiting = Vec::new();
            for (pid, thread) in asked.drain(..) {
                match thread.report() {
                    Ok(Report::Stopped) => self.stopped.entry(pid).or_default().push(thread),
                    Ok(Report::Signal(signal)) => {
                        let _ = thread.go_on(signal);
                        waiting.push((pid, thread));
                    }
                    Ok(Report::AtCall) => {
                        let _ = thread.go_on(0);
                        waiting.push((pid, thread));
                    }
                    Ok(Report::Running) => waiting.push((pid, thread)),
                    Ok(Report::Ended) | Err(_) => {}
                }
            }
            *asked = waiting;
            if asked.is_empty() || Instant::now() > until {
                return;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        for thread in self.stopped.values().flatten() {
            let _ = thread.detach();
        }
    }
}

/// Numbers of the threads of a process; none when it has ended.
pub fn threads(pid: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"));
    let names = entries.into_iter().flatten().flatten();
    names
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Asks a thread to stop; None where it has ended.
fn ask(pid: i32, tid: i32) -> Result<Option<Thread>, Refusal> {
    let asked = Thread::seize(tid).and_then(|thread| thread.interrupt().map(|()| thread));
    match asked {
        Ok(thread) => Ok(Some(thread)),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(_) if has_ended(pid, tid) => Ok(None),
        Err(error) => Err(refusal(pid, tid, &error)),
    }
}

fn has_ended(pid: i32, tid: i32) -> bool {
    matches!(state(pid, tid), None | Some('Z' | 'X'))
}

/// Does it run, or would if it were its turn?
fn runs(pid: i32, tid: i32) -> bool {
    state(pid, tid) == Some('R')
}

fn state(pid: i32, tid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")?.1.chars().next()
}

fn refusal(pid: i32, tid: i32, error: &io::Error) -> Refusal {
    match tracer(tid) {
        Some((by, name)) => Refusal::try_again(format!(
            "process {pid} is traced by {name} (process {by}); files that it has open can be \
             re-pointed once that has let go of it"
        )),
        None => Refusal::unsupported(format!(
            "process {pid} cannot be traced: {error}; needed is CAP_SYS_PTRACE, and \
             kernel.yama.ptrace_scope below 3"
        )),
    }
}
