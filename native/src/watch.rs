//! `squall-node watch --pid AGENT --lease SECONDS [--heartbeat SECONDS] --lock FILE -- COMMAND...`
//!
//! When the agent has died and nobody has taken its place for one lease, run the command once. What
//! it and we say is appended to FILE with the extension `log`: the agent's output is the agent's alone.
//!
//! With `--heartbeat`, an agent that writes nothing to our standard input for so long counts as dead:
//! it is stopped, or hangs. It is killed first, so that it cannot come back in the middle. One that
//! has not written anything yet is still starting, for which a busy machine may take longer.
//!
//! Taking its place means starting a watcher on the same lock file: its content names the watcher
//! in charge, and whoever finds another name there, or no file, leaves without a word. The lock itself is held
//! while the name is written and while the command runs, so a new agent that waits for its
//! watcher's first line never works against a recovery that is under way.

use crate::failure::{Failure, Outcome, While};
use crate::process::{exit_status, kill, pidfd, started};
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{signal, SigHandler, Signal};
use nix::sys::wait::waitpid;
use nix::time::{clock_gettime, clock_nanosleep, ClockId, ClockNanosleepFlags};
use nix::unistd::{chdir, dup2_stderr, dup2_stdout, fork, setsid, ForkResult};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a watcher whose agent has died looks whether another one has taken its place.
const LOOK: Duration = Duration::from_secs(1);
/// How long an agent that starts may take until its heart first beats.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

struct Orders {
    pid: i32,
    lease: Duration,
    heartbeat: Option<Duration>,
    lock: PathBuf,
    command: Vec<String>,
}

pub fn run(arguments: &[String]) -> Outcome<i32> {
    let orders = read(arguments)?;
    // Taken first: an agent that dies from here on is noticed.
    let agent = pidfd(orders.pid).ok();
    let _ = setsid(); // fails where we lead a session already
    chdir("/").on("chdir /")?;
    for ignored in [Signal::SIGHUP, Signal::SIGINT] {
        // SAFETY: ignoring installs no code.
        unsafe { signal(ignored, SigHandler::SigIgn) }.on("signal")?;
    }
    let me = format!(
        "{} {}",
        std::process::id(),
        started(std::process::id() as i32).unwrap_or(0)
    );
    {
        let mut lock = locked(&orders.lock)?;
        lock.set_len(0).on("lock")?;
        lock.write_all(me.as_bytes()).on("lock")?;
    }
    println!("watching");
    // From here on nobody may be left who reads what our agent's output goes to, and whoever does
    // must not wait for us.
    speak_into(&orders.lock.with_extension("log"))?;
    let mut hung = false;
    if let Some(agent) = agent {
        hung = await_end(&agent, orders.heartbeat)?;
    }
    // Somebody who hung was silent for that long already.
    if !hung && !wait_unless(orders.lease, || replaced(&orders.lock, &me)) {
        return Ok(0);
    }

    let mut lock = locked(&orders.lock)?;
    let mut charged = String::new();
    lock.read_to_string(&mut charged).on("lock")?;
    if charged != me {
        return Ok(0);
    }
    let status = carry_out(&orders.command)?;
    let _ = lock.rewind().and_then(|()| lock.set_len(0));
    Ok(status)
}

fn read(arguments: &[String]) -> Outcome<Orders> {
    let usage = || {
        Failure::new(
            "usage: squall-node watch --pid PID --lease SECONDS [--heartbeat SECONDS] --lock FILE \
             -- COMMAND...",
        )
    };
    let cut = arguments
        .iter()
        .position(|word| word == "--")
        .ok_or_else(usage)?;
    let option = |name: &str| {
        arguments[..cut]
            .chunks_exact(2)
            .find(|pair| pair[0] == name)
            .map(|pair| pair[1].as_str())
    };
    let lease = option("--lease").and_then(seconds_of);
    Ok(Orders {
        pid: option("--pid")
            .and_then(|text| text.parse().ok())
            .ok_or_else(usage)?,
        lease: lease.ok_or_else(usage)?,
        heartbeat: match option("--heartbeat") {
            Some(text) => Some(seconds_of(text).ok_or_else(usage)?),
            None => None,
        },
        // Absolute, for this process leaves the directory it was started in.
        lock: std::path::absolute(option("--lock").ok_or_else(usage)?).on("--lock")?,
        command: arguments[cut + 1..].to_vec(),
    })
}

fn seconds_of(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

/// Wait until the agent has ended; kill it when its heart has not beaten for too long. Was it killed?
fn await_end(agent: &OwnedFd, heartbeat: Option<Duration>) -> Outcome<bool> {
    let input = std::io::stdin();
    let mut patience = heartbeat.map(|most| most.max(STARTS_WITHIN));
    let mut listens = heartbeat.is_some();
    let mut hung = false;
    loop {
        let beats = if listens {
            PollFlags::POLLIN
        } else {
            PollFlags::empty()
        };
        let mut polled = [
            PollFd::new(agent.as_fd(), PollFlags::POLLIN),
            PollFd::new(input.as_fd(), beats),
        ];
        match poll(
            if listens {
                &mut polled
            } else {
                &mut polled[..1]
            },
            patience.map_or(PollTimeout::NONE, |most| {
                PollTimeout::try_from(most).unwrap_or(PollTimeout::MAX)
            }),
        ) {
            Err(nix::Error::EINTR) => continue,
            Ok(0) if listens => {
                println!(
                    "the agent has not moved for {} s; it is killed",
                    patience.unwrap_or_default().as_secs_f64()
                );
                kill(agent)?;
                (listens, hung) = (false, true);
            }
            _ if polled[0].any().unwrap_or(true) => return Ok(hung),
            _ => {
                // At the end of it the agent is ending, or has closed it: only its end counts then.
                patience = heartbeat;
                let mut beat = [0; 64];
                listens = nix::unistd::read(input.as_fd(), &mut beat).unwrap_or(0) > 0;
            }
        }
    }
}

fn locked(path: &Path) -> Outcome<Flock<File>> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .on(&path.to_string_lossy())?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .on(&path.to_string_lossy())
}

/// Does the lock file name another watcher, or is it gone, as after the clean end of a later agent?
///
/// Looked at without the lock: whoever writes it has made it empty before, and is no reason to go yet.
fn replaced(lock: &Path, me: &str) -> bool {
    match std::fs::read_to_string(lock) {
        Ok(charged) => !charged.is_empty() && charged != me,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Sleep on the clock that goes on while the machine is suspended, as the leases do; false when
/// there is no reason to wait any more.
fn wait_unless(time: Duration, over: impl Fn() -> bool) -> bool {
    let ends = now() + time;
    loop {
        if over() {
            return false;
        }
        let left = ends.saturating_sub(now());
        if left.is_zero() {
            return true;
        }
        let part = left.min(LOOK).into();
        let _ = clock_nanosleep(ClockId::CLOCK_BOOTTIME, ClockNanosleepFlags::empty(), &part);
    }
}

fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

fn speak_into(log: &Path) -> Outcome<()> {
    let log = File::options()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(log)
        .on(&log.to_string_lossy())?;
    dup2_stdout(&log).and(dup2_stderr(&log)).on("dup2")
}

/// Run the command and wait for it; the lock is not inherited.
fn carry_out(command: &[String]) -> Outcome<i32> {
    // SAFETY: this process has one thread.
    match unsafe { fork() }.on("fork")? {
        ForkResult::Child => {
            let failure = crate::process::become_program(command);
            eprintln!("squall-node watch: {}", failure.message);
            std::process::exit(failure.status)
        }
        ForkResult::Parent { child } => loop {
            if let Some(status) = waitpid(child, None).map(exit_status).on("waitpid")? {
                return Ok(status);
            }
        },
    }
}
