//! Requests that have to wait, and the threads that serve them when their time has come.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::device::Buffer;
use super::rules::{Compiled, Decision};
use super::workers::{Hands, STACK};
use super::Shared;
use crate::system::log;

const MOST_THREADS: usize = 8;
/// A thread without work waits so long for some before it ends.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often to look whether a rule has gone, and whether somebody who was interrupted is killed.
const LOOK: Duration = Duration::from_millis(50);

/// All that waits, soonest first.
#[derive(Default)]
pub struct Delays {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: BTreeMap<(Instant, u64), Parked>,
    due: HashMap<u64, Instant>,
    /// Requests that were interrupted and go on waiting: a file's reader is not to see EINTR.
    interrupted: Vec<u64>,
    /// Interrupted before they were parked.
    early: VecDeque<u64>,
    threads: usize,
    idle: usize,
    /// Somebody waits for the soonest; the others for work.
    watched: bool,
    /// Of the rules that all of it was last held against.
    generation: u64,
    stopped: bool,
}

struct Parked {
    buffer: Buffer,
    decision: Decision,
}

impl Queue {
    fn remove(&mut self, unique: u64) -> Option<Parked> {
        let due = self.due.remove(&unique)?;
        self.interrupted.retain(|one| *one != unique);
        self.waiting.remove(&(due, unique))
    }

    fn pop_due(&mut self, now: Instant) -> Option<Parked> {
        let (&(due, unique), _) = self.waiting.first_key_value()?;
        if due > now {
            return None;
        }
        let parked = self.remove(unique)?;
        parked.decision.waited_longer(now - due);
        Some(parked)
    }

    /// Lets those go on that wait for rules that are not in force any more.
    fn reconsider(&mut self, rules: &Compiled) {
        if self.generation == rules.generation {
            return;
        }
        self.generation = rules.generation;
        for ((due, unique), mut parked) in std::mem::take(&mut self.waiting) {
            let due = due - parked.decision.spare(rules);
            self.due.insert(unique, due);
            self.waiting.insert((due, unique), parked);
        }
    }

    /// Takes those out whose callers are being killed: nobody will see what is answered.
    fn doomed(&mut self) -> Vec<Parked> {
        let dying = |unique: &u64| {
            let due = self.due.get(unique)?;
            let parked = self.waiting.get(&(*due, *unique))?;
            is_dying(parked.buffer.header().pid).then_some(*unique)
        };
        let dead: Vec<u64> = self.interrupted.iter().filter_map(dying).collect();
        dead.into_iter()
            .filter_map(|unique| self.remove(unique))
            .collect()
    }
}

impl Delays {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a request wait until `due`.
    pub fn park(shared: &Arc<Shared>, due: Instant, buffer: Buffer, decision: Decision) {
        let unique = buffer.header().unique;
        let delays = &shared.delays;
        let mut queue = delays.queue();
        if decision.generation() != queue.generation {
            queue.generation = 0; // its rules may have gone while it came here
        }
        queue.due.insert(unique, due);
        queue
            .waiting
            .insert((due, unique), Parked { buffer, decision });
        if queue.early.contains(&unique) {
            queue.early.retain(|one| *one != unique);
            queue.interrupted.push(unique);
        }
        let soonest = queue
            .waiting
            .first_key_value()
            .is_some_and(|(key, _)| key.1 == unique);
        let starts = queue.threads == 0;
        queue.threads += usize::from(starts);
        drop(queue);
        if starts {
            start(shared);
        } else if soonest {
            delays.changed.notify_all(); // the watcher waits for a later one
        }
    }

    /// Somebody has had a signal. Only being killed ends a wait.
    pub fn interrupt(shared: &Arc<Shared>, unique: u64) {
        let mut queue = shared.delays.queue();
        if !queue.due.contains_key(&unique) {
            if queue.early.len() == 16 {
                queue.early.pop_front();
            }
            queue.early.push_back(unique);
            return;
        }
        queue.interrupted.push(unique);
        drop(queue);
        shared.delays.changed.notify_all();
    }

    /// Has all that waits be served now.
    pub fn release(&self) {
        let mut queue = self.queue();
        let now = Instant::now();
        for ((_, unique), parked) in std::mem::take(&mut queue.waiting) {
            queue.due.insert(unique, now);
            queue.waiting.insert((now, unique), parked);
        }
        drop(queue);
        self.changed.notify_all();
    }

    pub fn stop(&self) {
        self.queue().stopped = true;
        self.changed.notify_all();
    }
}

/// Starts a thread that was counted already.
fn start(shared: &Arc<Shared>) {
    let own = Arc::clone(shared);
    let builder = std::thread::Builder::new()
        .name("delays".to_owned())
        .stack_size(STACK);
    let started = builder.spawn(move || {
        // SAFETY: plain call: wake up when told, not 50 us later.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
        match Hands::of_thread() {
            Ok(hands) => work(&own, hands),
            Err(error) => log(&format!("files: a thread: {error}")),
        }
    });
    if let Err(error) = started {
        log(&format!("files: a thread: {error}"));
        shared.delays.queue().threads -= 1;
    }
}

fn work(shared: &Arc<Shared>, mut hands: Hands) {
    let delays = &shared.delays;
    let mut queue = delays.queue();
    while !queue.stopped {
        queue.reconsider(&shared.rules.now());
        for parked in queue.doomed() {
            let unique = parked.buffer.header().unique;
            shared.device.done(unique, Err(libc::EINTR));
        }
        if let Some(mut parked) = queue.pop_due(Instant::now()) {
            let alone =
                queue.idle == 0 && !queue.waiting.is_empty() && queue.threads < MOST_THREADS;
            queue.threads += usize::from(alone);
            drop(queue);
            if alone {
                start(shared); // this one may have to wait for a disk
            } else {
                delays.changed.notify_one();
            }
            shared.finish(&mut parked.buffer, &parked.decision, &mut hands);
            drop(parked);
            queue = delays.queue();
            continue;
        }
        let soonest = queue.waiting.first_key_value().map(|(key, _)| key.0);
        let watches = soonest.is_some() && !queue.watched;
        let wait = match soonest.filter(|_| watches) {
            Some(due) => due.saturating_duration_since(Instant::now()).min(LOOK),
            None => PATIENCE,
        };
        queue.idle += 1;
        queue.watched |= watches;
        let (woken, timeout) = delays
            .changed
            .wait_timeout(queue, wait)
            .unwrap_or_else(PoisonError::into_inner);
        queue = woken;
        queue.idle -= 1;
        if watches {
            queue.watched = false;
        } else if timeout.timed_out() && (queue.idle > 0 || queue.waiting.is_empty()) {
            break;
        }
    }
    queue.threads -= 1;
}

/// Is this thread being killed, or gone?
fn is_dying(tid: u32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{tid}/status")) else {
        return tid != 0; // 0: the kernel itself, or somebody of another pid namespace
    };
    let pending = |line: &str| u64::from_str_radix(line.trim(), 16).unwrap_or(0);
    let kills = 1 << (libc::SIGKILL - 1);
    let mut lines = status.lines();
    lines.any(|line| match line.split_once(':') {
        Some(("SigPnd" | "ShdPnd", set)) => pending(set) & kills != 0,
        Some(("State", state)) => state.trim_start().starts_with(['Z', 'X']),
        _ => false,
    })
}
