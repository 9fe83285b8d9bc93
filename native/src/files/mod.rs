//! The file faults of one target, held by one process.
//!
//! It serves a filter for each volume. Beside it stands a guardian (`guardian.rs`), which puts the
//! filters into the running container (`entry`), and takes them out of it even if this process dies.

pub mod entry;
pub mod filter;
mod guardian;
mod guarding;
pub mod identity;
mod kept;
mod lock;
mod messages;
pub mod request;
mod volume;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use serde_json::{json, Value};

use crate::failure::{Failure, Outcome, While};
use crate::holder::{self, failure, Holding, Options, Term};
use crate::process;
use crate::rpc::Refusal;
use crate::system;
use guardian::Guardian;
use request::{Counters, Set};
use volume::{conflict, Held};

/// How long to try to give open files back when all is to end.
const GIVES_UP: Duration = Duration::from_secs(15);

/// Runs `squall-node files`; returns the exit status.
pub fn run(arguments: &[String]) -> i32 {
    holder::run(arguments, "files", ["--pid", "--started"], Files::prepare)
}

/// Runs `squall-node files-restore [--pid PID [--started TICKS]]`: takes away what dead processes of
/// ours have left, in the container of one process or in all.
pub fn restore(arguments: &[String]) -> Outcome<i32> {
    let value = |name: &str| -> Outcome<Option<u64>> {
        let mut pairs = arguments.chunks(2);
        let found = pairs.find(|pair| pair[0] == name);
        let word = found.map(|pair| pair.get(1).and_then(|word| word.parse().ok()));
        match word {
            Some(None) => Err(Failure::new(
                "usage: files-restore [--pid PID [--started TICKS]]",
            )),
            Some(number) => Ok(number),
            None => Ok(None),
        }
    };
    let (pid, ticks) = (value("--pid")?, value("--started")?);
    let pid = pid.map(|pid| pid as i32);
    if ticks.is_some() && pid.and_then(process::started) != ticks {
        return Ok(0); // whoever had that number has ended, and its mounts with it
    }
    let report = entry::restore::restore(pid).on("give files back")?;
    println!("{}", json!(report));
    Ok(0)
}

/// The volumes of one target.
struct Files {
    pid: i32,
    lease: f64,
    deadline: Option<f64>,
    /// As they were asked for.
    asked: Value,
    volumes: BTreeMap<String, Held>,
    guardian: Guardian,
    target: OwnedFd,
    gone: Epoll,
}

impl Files {
    fn prepare(options: &Options<2>) -> Result<Self, Failure> {
        let [pid, ticks] = &options.others;
        let (Ok(pid), Ok(ticks)) = (pid.parse::<i32>(), ticks.parse::<u64>()) else {
            return Err(Failure::new("--pid and --started are numbers"));
        };
        let target = process::pidfd(pid).map_err(io::Error::from);
        let target = target.map_err(failure(format!("process {pid}")))?;
        if process::started(pid) != Some(ticks) {
            return Err(Failure {
                message: format!("process {pid} has ended"),
                status: system::EXIT_TRY_AGAIN,
            });
        }
        let guardian = Guardian::start(pid).map_err(failure("start the guardian"))?;
        let gone = watch(&[target.as_fd(), guardian.socket()]).map_err(failure("epoll"))?;
        Ok(Self {
            pid,
            lease: options.lease_seconds,
            deadline: None,
            asked: json!([]),
            volumes: BTreeMap::new(),
            guardian,
            target,
            gone,
        })
    }

    fn set(&mut self, arguments: Value) -> Result<(), Refusal> {
        let asked = arguments["volumes"].clone();
        let set: Set = serde_json::from_value(arguments).map_err(Refusal::invalid)?;
        set.check()?;
        for volume in &set.volumes {
            filter::Rules::new(volume)?;
        }
        // A filter must not come to stand over another one, nor below it.
        let paths: Vec<String> = self.volumes.keys().cloned().collect();
        for path in paths {
            let wanted = set.volumes.iter().any(|one| one.path == path);
            if !wanted && set.volumes.iter().any(|one| conflict(&one.path, &path)) {
                self.leave(&path)?;
            }
        }
        let mut entered = Vec::new();
        for volume in &set.volumes {
            if self.volumes.contains_key(&volume.path) {
                continue;
            }
            match Held::enter(self.pid, volume, &self.guardian) {
                Ok(held) => {
                    self.volumes.insert(volume.path.clone(), held);
                    entered.push(volume.path.clone());
                }
                Err(refusal) => {
                    for path in entered {
                        self.leave(&path)?;
                    }
                    return Err(refusal);
                }
            }
        }
        for volume in &set.volumes {
            if let Some(held) = self.volumes.get_mut(&volume.path) {
                held.follow(volume, &self.guardian)?;
            }
        }
        let unwanted = |path: &&String| set.volumes.iter().all(|one| one.path != **path);
        let unwanted: Vec<String> = self.volumes.keys().filter(unwanted).cloned().collect();
        for path in unwanted {
            self.leave(&path)?;
        }
        (self.lease, self.deadline, self.asked) = (set.lease, set.deadline, asked);
        Ok(())
    }

    fn state(&self) -> Value {
        let mut counters: BTreeMap<String, Counters> = BTreeMap::new();
        for (source, more) in self.volumes.values().flat_map(Held::counters) {
            *counters.entry(source).or_default() += more;
        }
        let bypassing: usize = self.volumes.values().map(Held::bypassing).sum();
        let at: BTreeMap<&String, Value> = self
            .volumes
            .iter()
            .map(|(path, held)| (path, held.told()))
            .collect();
        json!({
            "volumes": self.asked,
            "lease": self.lease,
            "deadline": self.deadline,
            "counters": counters,
            "bypassing": bypassing,
            "entered": at,
        })
    }

    fn leave(&mut self, path: &str) -> Result<(), Refusal> {
        let Some(held) = self.volumes.get_mut(path) else {
            return Ok(());
        };
        held.leave(&self.guardian)?;
        self.volumes.remove(path);
        Ok(())
    }

    /// The guardian cannot: a process of its own does, by the mark.
    fn leave_without_guardian(&mut self) {
        for held in self.volumes.values() {
            held.rest();
        }
        let pid = self.pid.to_string();
        let done = std::env::current_exe().and_then(|exe| {
            Command::new(exe)
                .args(["files-restore", "--pid", &pid])
                .status()
        });
        match done {
            Ok(status) if status.success() => {}
            other => system::log(&format!("files-restore: {other:?}")),
        }
        self.volumes.clear();
    }

    fn has_ended(&self) -> bool {
        let now = Some(Duration::ZERO);
        system::poll([self.target.as_raw_fd()], now).is_ok_and(|[ended]| ended)
    }
}

impl Holding for Files {
    fn term(&self) -> Term {
        Term {
            lease: self.lease,
            deadline: self.deadline,
        }
    }

    fn act(&mut self, verb: &str, arguments: Value) -> Result<Value, Refusal> {
        match verb {
            "set" => self.set(arguments).map(|()| json!({})),
            "state" => Ok(self.state()),
            "lose" => self
                .volumes
                .values()
                .try_for_each(Held::lose)
                .map(|()| json!({})),
            verb => Err(Refusal::invalid(format!("no such verb: {verb}"))),
        }
    }

    fn let_go(&mut self) {
        if self.has_ended() {
            for held in self.volumes.values() {
                if let Err(refusal) = held.lose() {
                    system::log(&refusal.to_string());
                }
            }
        }
        let mut started = Instant::now();
        while let Some(path) = self.volumes.keys().next_back().cloned() {
            if process::is_frozen(self.pid) && !self.has_ended() {
                // Nobody waits for the filter, and without it its files would be lost.
                self.volumes.values().for_each(Held::rest);
                started = Instant::now();
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
            let Err(refusal) = self.leave(&path) else {
                continue;
            };
            system::log(&refusal.to_string());
            let watched = system::poll([self.guardian.socket().as_raw_fd()], Some(Duration::ZERO));
            if watched.is_ok_and(|[dead]| dead) || started.elapsed() > GIVES_UP {
                self.leave_without_guardian();
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        self.asked = json!([]);
    }

    fn gone(&self) -> Option<RawFd> {
        Some(self.gone.0.as_raw_fd())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.let_go();
        self.guardian.quit();
    }
}

/// A descriptor that becomes readable with any of these.
fn watch(fds: &[std::os::fd::BorrowedFd<'_>]) -> io::Result<Epoll> {
    let all = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for fd in fds {
        all.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    }
    Ok(all)
}
