//! `squall-node sandbox SPEC.json`: one container of a local workload.
//!
//! Three processes. The starter waits until the command runs, says so and leaves. The shim stays
//! outside the container, survives whoever asked for it and writes the exit status down. Init is
//! pid 1 inside: it reaps, passes signals on, and ends with its command. A SIGKILL of the shim
//! reaches init as its parent-death signal, and one of init ends its pid namespace: there is never
//! half a container.

use crate::failure::{Failure, Outcome, While};
use crate::process::{become_program, die_with_parent, exit_status, started};
use nix::mount::{mount, umount2, MntFlags, MsFlags};
use nix::sched::{setns, unshare, CloneFlags};
use nix::sys::signal::{kill, signal, SigHandler, SigSet, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag};
use nix::unistd::{
    chdir, dup2_stderr, dup2_stdin, dup2_stdout, fork, pipe2, setsid, ForkResult, Pid,
};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::exit;
use std::time::{SystemTime, UNIX_EPOCH};

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
    let outcome = start(spec, &mut told);
    if let Some(mut told) = told {
        let _ = match &outcome {
            Ok((_, running)) => told.write_all(running),
            Err(failure) => write!(told, "!{}", failure.message),
        };
    }
    let ended = match outcome {
        Ok((init, _)) => {
            let status = loop {
                match waitpid(init, None).map(exit_status) {
                    Ok(Some(status)) => break status,
                    Ok(None) | Err(nix::Error::EINTR) => {}
                    Err(_) => break 255,
                }
            };
            Ended {
                status,
                message: String::new(),
                at: unix_time(),
            }
        }
        Err(failure) => Ended {
            status: failure.status,
            message: failure.message,
            at: unix_time(),
        },
    };
    i32::from(write_whole(&spec.exit, &serde_json::to_vec(&ended).unwrap_or_default()).is_err())
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
            exit(init(spec, &parent, failing))
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

/// Life as pid 1; `failing` closes unwritten when the command has been executed.
fn init(spec: &Spec, parent: &File, mut failing: File) -> i32 {
    let command = die_with_parent(parent)
        .and_then(|()| enter(spec))
        .and_then(|()| spawn(spec, &failing));
    match command {
        Err(failure) => {
            let _ = write!(failing, "{} {}", failure.status, failure.message);
            failure.status
        }
        Ok(command) => {
            drop(failing);
            attend(command)
        }
    }
}

/// Take the place that the container was given.
fn enter(spec: &Spec) -> Outcome<()> {
    for cgroup in &spec.cgroups {
        let procs = cgroup.join("cgroup.procs");
        fs::write(&procs, "0").on(&procs.to_string_lossy())?;
    }
    let network = File::open(&spec.network).on(&spec.network.to_string_lossy())?;
    setns(&network, CloneFlags::CLONE_NEWNET).on("setns net")?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)
        .on("unshare mnt, uts, ipc")?;
    nix::unistd::sethostname(&spec.hostname).on("sethostname")?;

    let nothing = None::<&str>;
    // Slave: mounts of the host appear and vanish inside, none of ours gets out.
    mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        nothing,
    )
    .on("mount /")?;
    for place in mounts_below(&spec.without)? {
        umount2(&place, MntFlags::MNT_DETACH).on(&place.to_string_lossy())?;
    }
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), safe, nothing).on("mount /proc")?;
    for (source, place) in &spec.files {
        if place.exists() {
            mount(Some(source), place, nothing, MsFlags::MS_BIND, nothing).on(&format!(
                "{} on {}",
                source.display(),
                place.display()
            ))?;
        }
    }
    chdir(&spec.directory).on(&spec.directory.to_string_lossy())
}

fn mounts_below(directory: &Path) -> Outcome<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").on("mountinfo")?;
    let places = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from);
    Ok(places
        .filter(|place| place.starts_with(directory) && place != directory)
        .collect())
}

/// Fork the command, its output in the log.
fn spawn(spec: &Spec, failing: &File) -> Outcome<Pid> {
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&spec.log)
        .on(&spec.log.to_string_lossy())?;
    // All of them wait for sigwait in `attend`; the command gets an empty mask.
    SigSet::all().thread_block().on("sigmask")?;
    // SAFETY: one thread.
    match unsafe { fork() }.on("fork")? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let failure = match setsid().and(dup2_stdout(&log)).and(dup2_stderr(&log)) {
                Err(error) => Failure::new(format!("stdout: {error}")),
                Ok(()) => {
                    for ignored in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM] {
                        // SAFETY: the default disposition is no code of ours.
                        let _ = unsafe { signal(ignored, SigHandler::SigDfl) };
                    }
                    become_program(&spec.command)
                }
            };
            let _ = write!(&mut &*failing, "{} {}", failure.status, failure.message);
            exit(failure.status)
        }
    }
}

/// Reap whoever dies, pass signals on to the command, and end when it does.
fn attend(command: Pid) -> i32 {
    loop {
        match SigSet::all().wait() {
            Ok(Signal::SIGCHLD) => loop {
                match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                    Ok(status) if status.pid() == Some(command) => {
                        if let Some(status) = exit_status(status) {
                            return status;
                        }
                    }
                    Ok(status) if status.pid().is_some() => {}
                    _ => break,
                }
            },
            Ok(other) => {
                let _ = kill(command, other);
            }
            Err(_) => {}
        }
    }
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
