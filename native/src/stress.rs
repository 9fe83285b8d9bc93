//! `squall-node stress --pid PID [--started TICKS] [--cpu PERCENT] [--oom-score-adj N] -- COMMAND...`
//!
//! Run a program that uses up what a container is given: in every cgroup of the container from its
//! first instruction on, as nobody, without a right and in none of the container's namespaces.
//! Prints `running PID` and leaves a process of its own behind, which holds the program until it
//! ends, the container's init process ends, or SIGTERM; killing the holder ends the program too.
//!
//! With `--cpu`, all processes of the program together get that many percent of one processor: they
//! are stopped and continued by what the kernel says they have used, so that neither preemption nor
//! a frequency that changes makes it less or more.

use crate::exec::cgroups;
use crate::failure::{Failure, Outcome, While};
use crate::process::{become_program, die_with_parent, pidfd, started};
use nix::fcntl::OFlag;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::prctl;
use nix::sys::signal::{killpg, SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::time::{clock_gettime, ClockId};
use nix::unistd::{
    chdir, close, dup2_stderr, dup2_stdin, dup2_stdout, fork, pipe2, setgid, setgroups, setpgid,
    setsid, setuid, ForkResult, Gid, Pid, Uid,
};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::exit;
use std::time::{Duration, Instant};

/// How often the program is stopped or continued at most. Shorter costs more and gains nothing:
/// who samples load does so over hundreds of milliseconds.
const SLICE: Duration = Duration::from_millis(10);
/// Processor time that was not to be had is made up for, but not for longer than this.
const MOST_CREDIT: Duration = Duration::from_millis(100);
/// New workers are noticed this late.
const LOOK_FOR_WORKERS: Duration = Duration::from_millis(100);
/// What the program may take to clean up after SIGTERM.
const GRACE: Duration = Duration::from_secs(1);
/// Owns no file; the user and group that the kernel itself takes for "somebody else".
const NOBODY: u32 = 65534;

struct Orders {
    pid: i32,
    started: Option<u64>,
    cpu_percent: Option<f64>,
    oom_score_adj: Option<i32>,
    command: Vec<String>,
}

pub fn run(arguments: &[String]) -> Outcome<i32> {
    let orders = read(arguments)?;
    let (said, saying) = pipe2(OFlag::O_CLOEXEC).on("pipe")?;
    // SAFETY: this process has one thread.
    if let ForkResult::Child = unsafe { fork() }.on("fork")? {
        drop(said);
        let mut saying = File::from(saying);
        if let Err(failure) = start(&orders, &mut saying) {
            let _ = saying.write_all(failure.message.as_bytes());
        }
        crate::aside::leave();
        exit(0)
    }
    drop(saying);
    let mut answer = String::new();
    File::from(said).read_to_string(&mut answer).on("pipe")?;
    if !answer.starts_with("running ") {
        return Err(Failure::new(answer));
    }
    println!("{answer}");
    Ok(0)
}

/// Start the program, say so, and hold it; in a session of its own, nobody's child.
fn start(orders: &Orders, answer: &mut File) -> Outcome<()> {
    let target = pidfd(orders.pid).on("the target")?;
    let cgroups = cgroups::of(orders.pid)?;
    // Checked after all is open: what is open now belongs to the process that was meant.
    if orders
        .started
        .is_some_and(|ticks| started(orders.pid) != Some(ticks))
    {
        return Err(Failure::new(format!("process {} has ended", orders.pid)));
    }
    setsid().on("setsid")?;
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD]);
    SigSet::all().thread_block().on("sigmask")?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .on("signalfd")?;
    let (parent, held) = pipe2(OFlag::O_CLOEXEC).on("pipe")?;
    let child = launch(orders, cgroups, (parent, &held))?;
    write!(answer, "running {child}").on("pipe")?;
    // Whoever started us waits for all of these to close.
    *answer = silence()?;
    hold(child, &target, &signals, orders.cpu_percent)?;
    drop(held);
    Ok(())
}

/// Start the program; returns once it runs.
///
/// `parent` is a pipe whose reading end, the first, tells the child whether we still live.
fn launch(orders: &Orders, cgroups: Vec<File>, parent: (OwnedFd, &OwnedFd)) -> Outcome<Pid> {
    let (said, saying) = pipe2(OFlag::O_CLOEXEC).on("pipe")?;
    // SAFETY: this process has one thread.
    let child = match unsafe { fork() }.on("fork")? {
        ForkResult::Child => {
            let _ = close(parent.1.as_raw_fd());
            drop(said);
            let failure = settle(orders, cgroups, &File::from(parent.0))
                .err()
                .unwrap_or_else(|| become_program(&orders.command));
            let _ = File::from(saying).write_all(failure.message.as_bytes());
            exit(failure.status)
        }
        ForkResult::Parent { child } => child,
    };
    drop(saying);
    let mut failure = String::new();
    // Ends when the program runs: its end of the pipe closes then.
    File::from(said).read_to_string(&mut failure).on("pipe")?;
    if failure.is_empty() {
        Ok(child)
    } else {
        Err(Failure::new(failure))
    }
}

/// Let go of the streams we were started with.
fn silence() -> Outcome<File> {
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.on("/dev/null")?;
    dup2_stdin(&null).on("/dev/null")?;
    dup2_stdout(&null).on("/dev/null")?;
    dup2_stderr(&null).on("/dev/null")?;
    Ok(null)
}

fn read(arguments: &[String]) -> Outcome<Orders> {
    let usage = || {
        Failure::new(
            "usage: squall-node stress --pid PID [--started TICKS] [--cpu PERCENT] \
             [--oom-score-adj N] -- COMMAND...",
        )
    };
    let mut orders = Orders {
        pid: 0,
        started: None,
        cpu_percent: None,
        oom_score_adj: None,
        command: Vec::new(),
    };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            orders.command = words.cloned().collect();
            break;
        }
        let value = words.next().ok_or_else(usage)?;
        match word.as_str() {
            "--pid" => orders.pid = value.parse().map_err(|_| usage())?,
            "--started" => orders.started = Some(value.parse().map_err(|_| usage())?),
            "--cpu" => orders.cpu_percent = Some(value.parse().map_err(|_| usage())?),
            "--oom-score-adj" => orders.oom_score_adj = Some(value.parse().map_err(|_| usage())?),
            _ => return Err(usage()),
        }
    }
    if orders.pid <= 0 || orders.command.is_empty() {
        return Err(usage());
    }
    Ok(orders)
}

/// Last steps of the child before it becomes the program.
fn settle(orders: &Orders, cgroups: Vec<File>, parent: &File) -> Outcome<()> {
    for mut procs in cgroups {
        procs.write_all(b"0").on("cgroup.procs")?;
    }
    if let Some(adjustment) = orders.oom_score_adj {
        fs::write("/proc/self/oom_score_adj", adjustment.to_string()).on("oom_score_adj")?;
    }
    setpgid(Pid::this(), Pid::from_raw(0)).on("setpgid")?;
    // Arguments come from whoever may write an experiment, who need not be root on this node.
    setgroups(&[]).on("setgroups")?;
    setgid(Gid::from_raw(NOBODY)).on("setgid")?;
    setuid(Uid::from_raw(NOBODY)).on("setuid")?;
    prctl::set_no_new_privs().on("PR_SET_NO_NEW_PRIVS")?;
    die_with_parent(parent)?; // last: the kernel forgets it when the user changes
    silence()?;
    chdir("/tmp").on("/tmp")
}

/// Wait for the end of the program or of its right to run; steer it until then.
fn hold(
    child: Pid,
    target: &impl AsFd,
    signals: &SignalFd,
    cpu_percent: Option<f64>,
) -> Outcome<()> {
    let mut steering = cpu_percent.map(|percent| Steering::new(child, percent));
    let pause = match steering {
        Some(_) => PollTimeout::try_from(SLICE).unwrap_or(PollTimeout::ZERO),
        None => PollTimeout::NONE,
    };
    loop {
        let mut polled = [
            PollFd::new(target.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut polled, pause).on("poll")?;
        if polled[0].any().unwrap_or(true) {
            return end(child);
        }
        while let Some(signal) = signals.read_signal().on("signalfd")? {
            if signal.ssi_signo != Signal::SIGCHLD as u32 {
                return end(child);
            }
        }
        if ended(child)? {
            return Ok(());
        }
        if let Some(steering) = &mut steering {
            steering.steer();
        }
    }
}

/// Ask the program to end and clean up, then kill what is left of it.
fn end(child: Pid) -> Outcome<()> {
    let _ = killpg(child, Signal::SIGTERM);
    let _ = killpg(child, Signal::SIGCONT);
    let until = Instant::now() + GRACE;
    while Instant::now() < until {
        if ended(child)? {
            return Ok(());
        }
        std::thread::sleep(SLICE);
    }
    let _ = killpg(child, Signal::SIGKILL);
    // Not waited for: a frozen process dies when it thaws.
    Ok(())
}

/// Has the program ended? Then whatever it left behind in its group is killed.
fn ended(child: Pid) -> Outcome<bool> {
    let state = WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT | WaitPidFlag::WEXITED;
    let id = nix::sys::wait::Id::Pid(child);
    if nix::sys::wait::waitid(id, state).on("waitid")? == WaitStatus::StillAlive {
        return Ok(false);
    }
    // Before it is reaped: until then nobody else can have its number.
    let _ = killpg(child, Signal::SIGKILL);
    waitpid(child, None).on("waitpid")?;
    Ok(true)
}

/// Gives the processes of a program a fixed share of one processor.
struct Steering {
    child: Pid,
    share: f64,
    /// Seconds of processor time that are still to be used.
    credit: f64,
    at: Instant,
    looked: Option<Instant>,
    /// Processor time used so far, by process.
    used: HashMap<i32, Duration>,
    stopped: bool,
}

impl Steering {
    fn new(child: Pid, percent: f64) -> Self {
        Self {
            child,
            share: percent / 100.0,
            credit: 0.0,
            at: Instant::now(),
            looked: None,
            used: HashMap::new(),
            stopped: false,
        }
    }

    /// Stop or continue the program, by what it has used since the last time.
    fn steer(&mut self) {
        let now = Instant::now();
        let earned = (now - self.at).as_secs_f64() * self.share;
        self.at = now;
        if self
            .looked
            .is_none_or(|last| now - last >= LOOK_FOR_WORKERS)
        {
            self.looked = Some(now);
            for pid in workers(self.child) {
                self.used.entry(pid).or_default();
            }
        }
        let most = MOST_CREDIT.as_secs_f64() * self.share;
        self.credit = (self.credit + earned - self.spent()).min(most);
        let stop = self.credit <= 0.0;
        if stop != self.stopped {
            let signal = if stop {
                Signal::SIGSTOP
            } else {
                Signal::SIGCONT
            };
            let _ = killpg(self.child, signal);
            self.stopped = stop;
        }
    }

    fn spent(&mut self) -> f64 {
        let mut spent = Duration::ZERO;
        self.used.retain(|pid, before| match processor_time(*pid) {
            Some(now) => {
                spent += now.saturating_sub(*before);
                *before = now;
                true
            }
            None => false,
        });
        spent.as_secs_f64()
    }
}

/// The program and its children: proc_pid_task(5), `children`.
fn workers(child: Pid) -> Vec<i32> {
    let listed = fs::read_to_string(format!("/proc/{child}/task/{child}/children"));
    let children = listed.unwrap_or_default();
    let children = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    children.chain([child.as_raw()]).collect()
}

/// What all threads of a process have used of a processor; None when it is gone.
fn processor_time(pid: i32) -> Option<Duration> {
    // clock_getcpuclockid(3) gives just this number: the clock of a process, by scheduler time.
    let clock = ClockId::from_raw((!pid << 3) | 2);
    clock_gettime(clock).ok().map(Duration::from)
}
