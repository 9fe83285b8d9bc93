//! `squall-node sandbox SPEC.json`: one container of a local workload.
//!
//! Three processes. The starter waits until the command runs, says so and leaves. The shim stays
//! outside the container, survives whoever asked for it and writes the exit status down. Init is
//! pid 1 inside: it reaps, passes signals on, and ends with its command. A SIGKILL of the shim
//! reaches init as its parent-death signal, and one of init ends its pid namespace: there is never
//! half a container.

mod init;
mod log;

use crate::failure::{Failure, Outcome, While};
use crate::process::{exit_status, pidfd, started};
use nix::poll::{poll, PollFd, PollFlags};
use nix::sched::{unshare, CloneFlags};
use nix::sys::signal::{signal, SigHandler, Signal};
use nix::sys::wait::waitpid;
use nix::unistd::{
    chdir, dup2_stderr, dup2_stdin, dup2_stdout, fork, pipe2, setsid, ForkResult, Pid,
};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::exit;
use std::time::{SystemTime, UNIX_EPOCH};

const LOG_LIMIT: u64 = 16 << 20;
const LOG_KEPT: u64 = 4 << 20;
const LOG_CHECK_MS: u16 = 2000;

/// What to start. Its environment is the one that the starter was given.
#[derive(Deserialize)]
struct Spec {
    command: Vec<String>,
    hostname: String,
    directory: PathBuf,
    /// Bind mount of the network namespace to join.
    network: PathBuf,
    /// Directories, one for each hierarchy, to enter before the command starts.
    cgroups: Vec<PathBuf>,
    /// Files to show in place of others; a place that does not exist is left out.
    files: Vec<(PathBuf, PathBuf)>,
    /// Directory below which no mount is taken along: a container must not keep the namespaces of
    /// others alive.
    without: PathBuf,
    /// Gets stdout and stderr, appended.
    log: PathBuf,
    /// Gets `Running` once the command has started.
    state: PathBuf,
    /// Gets `Ended` once it has ended.
    exit: PathBuf,
}

#[derive(Serialize)]
struct Running {
    shim: i32,
    shim_started: u64,
    init: i32,
    init_started: u64,
    /// Unix time in seconds.
    at: f64,
}

#[derive(Serialize)]
struct Ended {
    /// 128 + n after signal n.
    status: i32,
    /// Why the command did not start; empty when it did.
    message: String,
    at: f64,
}

pub fn run(arguments: &[String]) -> Outcome<i32> {
    let [path] = arguments else {
        return Err(Failure::new("usage: squall-node sandbox SPEC.json"));
    };
    let text = fs::read(path).on(path)?;
    let spec: Spec = serde_json::from_slice(&text).on(path)?;
    let (reading, writing) = pipe()?;
    // SAFETY: this process has one thread, here and in every fork below.
    match unsafe { fork() }.on("fork")? {
        ForkResult::Parent { .. } => {
            drop(writing);
            report(reading)
        }
        ForkResult::Child => {
            drop(reading);
            exit(shim(&spec, writing))
        }
    }
}

/// Wait for the shim's word: the state as JSON, or `!` and what went wrong.
fn report(mut from: File) -> Outcome<i32> {
    let mut word = String::new();
    from.read_to_string(&mut word).on("report")?;
    match word.strip_prefix('!') {
        Some(message) => Err(Failure::new(message)),
        None if word.is_empty() => Err(Failure::new("the shim was killed")),
        None => {
            println!("{word}");
            Ok(0)
        }
    }
}

/// Start init, tell how that went, and outlive it.
fn shim(spec: &Spec, told: File) -> i32 {
    let mut told = Some(told);
    let (status, message) = match start(spec, &mut told) {
        Ok((init, running)) => {
            tell(told, &running);
            told = None;
            (outlive(init, &spec.log), String::new())
        }
        Err(failure) => (failure.status, failure.message),
    };
    let word = format!("!{message}");
    let at = unix_time();
    let ended = serde_json::to_vec(&Ended {
        status,
        message,
        at,
    })
    .unwrap_or_default();
    let written = write_whole(&spec.exit, &ended);
    // Told last: whoever hears of it finds it written down.
    tell(told, word.as_bytes());
    i32::from(written.is_err())
}

fn tell(starter: Option<File>, word: &[u8]) {
    if let Some(mut starter) = starter {
        let _ = starter.write_all(word);
    }
}

/// Wait for the end of init; see to it meanwhile that its log does not fill the disk.
fn outlive(init: Pid, log: &Path) -> i32 {
    let handle = pidfd(init.as_raw());
    loop {
        if let Ok(handle) = &handle {
            let mut polled = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
            if poll(&mut polled, LOG_CHECK_MS) == Ok(0) {
                let _ = log::shorten(log, LOG_LIMIT, LOG_KEPT);
                continue;
            }
        }
        match waitpid(init, None).map(exit_status) {
            Ok(Some(status)) => return status,
            Ok(None) | Err(nix::Error::EINTR) => {}
            Err(_) => return 255,
        }
    }
}

/// Become a process of nobody's, and fork init; returns when the command runs.
fn start(spec: &Spec, told: &mut Option<File>) -> Outcome<(Pid, Vec<u8>)> {
    setsid().on("setsid")?;
    chdir("/").on("chdir /")?;
    for ignored in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: ignoring installs no code.
        unsafe { signal(ignored, SigHandler::SigIgn) }.on("signal")?;
    }
    let nothing = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .on("/dev/null")?;
    dup2_stdin(&nothing)
        .and(dup2_stdout(&nothing))
        .and(dup2_stderr(&nothing))
        .on("dup2")?;
    drop(nothing);

    let (parent, held) = pipe()?; // nobody writes: it hangs up when the shim is gone
    let (mut failed, failing) = pipe()?;
    unshare(CloneFlags::CLONE_NEWPID).on("unshare pid")?;
    // SAFETY: one thread.
    match unsafe { fork() }.on("fork")? {
        ForkResult::Child => {
            drop((held, failed, told.take()));
            exit(init::live(spec, &parent, failing))
        }
        ForkResult::Parent { child } => {
            std::mem::forget(held); // open for as long as the shim lives
            drop((parent, failing));
            let mut message = String::new();
            failed.read_to_string(&mut message).on("init")?;
            if let Some((status, message)) = message.split_once(' ') {
                let _ = waitpid(child, None);
                return Err(Failure {
                    message: message.to_owned(),
                    status: status.parse().unwrap_or(1),
                });
            }
            let running = running(child.as_raw())?;
            write_whole(&spec.state, &running)?;
            Ok((child, running))
        }
    }
}

fn running(init: i32) -> Outcome<Vec<u8>> {
    let shim = std::process::id() as i32;
    serde_json::to_vec(&Running {
        shim,
        shim_started: started(shim).unwrap_or(0),
        init,
        init_started: started(init).unwrap_or(0),
        at: unix_time(),
    })
    .on("state")
}

fn pipe() -> Outcome<(File, File)> {
    let (reading, writing) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).on("pipe")?;
    Ok((File::from(reading), File::from(writing)))
}

/// Readers see the whole file or none.
fn write_whole(path: &Path, content: &[u8]) -> Outcome<()> {
    let draft = path.with_extension("draft");
    fs::write(&draft, content)
        .and_then(|()| fs::rename(&draft, path))
        .on(&path.to_string_lossy())
}

fn unix_time() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
