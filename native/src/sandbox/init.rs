//! Pid 1 of a container: takes its place, starts its command, reaps and passes signals on.

use super::Spec;
use crate::failure::{Failure, Outcome, While};
use crate::process::{become_program, die_with_parent, exit_status};
use crate::system::enter_network_at;
use nix::mount::{mount, umount2, MntFlags, MsFlags};
use nix::sched::{unshare, CloneFlags};
use nix::sys::signal::{kill, signal, SigHandler, SigSet, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag};
use nix::unistd::{chdir, dup2_stderr, dup2_stdout, fork, setsid, ForkResult, Pid};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::exit;

/// Life as pid 1; `failing` closes unwritten when the command has been executed.
pub fn live(spec: &Spec, parent: &File, mut failing: File) -> i32 {
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
    enter_network_at(&spec.network).on(&spec.network.to_string_lossy())?;
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
