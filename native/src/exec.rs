//! `squall-node exec --pid PID [--started TICKS] [--tty] -- COMMAND...`
//!
//! Run a command inside a container, whatever runtime made it: in every namespace and cgroup of
//! its init process, with that process's environment, working directory, user and capability
//! bounds. Ends with the command's exit status; SIGKILL of it ends the command too.

pub mod cgroups;

use crate::failure::{Failure, Outcome, While};
use crate::process::{become_program, die_with_parent, exit_status, started};
use nix::fcntl::OFlag;
use nix::sched::{setns, CloneFlags};
use nix::sys::signal::{kill, SigSet, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag};
use nix::unistd::{fork, pipe2, setgid, setgroups, setsid, setuid, ForkResult, Gid, Pid, Uid};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::process::exit;

/// Kernel's name and flag of each namespace; user first, for it gives the right to the others.
const NAMESPACES: [(&str, CloneFlags); 7] = [
    ("user", CloneFlags::CLONE_NEWUSER),
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("net", CloneFlags::CLONE_NEWNET),
    ("pid", CloneFlags::CLONE_NEWPID),
    ("mnt", CloneFlags::CLONE_NEWNS),
];

struct Orders {
    pid: i32,
    started: Option<u64>,
    tty: bool,
    command: Vec<String>,
}

/// All that is read and opened before the mount namespace changes and /proc with it.
struct Place {
    namespaces: Vec<(File, CloneFlags)>,
    cgroups: Vec<File>,
    directory: File,
    environment: Vec<u8>,
    user: Option<User>,
    bounds: u64,
}

struct User {
    uid: u32,
    gid: u32,
    groups: Vec<Gid>,
}

pub fn run(arguments: &[String]) -> Outcome<i32> {
    let orders = read(arguments)?;
    let place = open(orders.pid)?;
    // Checked after everything was opened: what is open now belongs to the process that was meant.
    if orders
        .started
        .is_some_and(|ticks| started(orders.pid) != Some(ticks))
    {
        return Err(Failure::new(format!("process {} has ended", orders.pid)));
    }
    for (file, flag) in &place.namespaces {
        setns(file, *flag).on(&format!("setns {flag:?}"))?;
    }
    SigSet::all().thread_block().on("sigmask")?;
    let (parent, held) = pipe2(OFlag::O_CLOEXEC).on("pipe")?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }.on("fork")? {
        ForkResult::Parent { child } => {
            drop((parent, place));
            let status = attend(child);
            drop(held);
            Ok(status)
        }
        ForkResult::Child => {
            drop(held);
            let failure = settle(&orders, place, &parent.into())
                .err()
                .unwrap_or_else(|| become_program(&orders.command));
            eprintln!("squall-node exec: {}", failure.message);
            exit(failure.status)
        }
    }
}

fn read(arguments: &[String]) -> Outcome<Orders> {
    let usage = || {
        Failure::new("usage: squall-node exec --pid PID [--started TICKS] [--tty] -- COMMAND...")
    };
    let mut orders = Orders {
        pid: 0,
        started: None,
        tty: false,
        command: Vec::new(),
    };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|text| text.parse::<u64>().ok());
        match word.as_str() {
            "--pid" => orders.pid = number().and_then(|n| n.try_into().ok()).ok_or_else(usage)?,
            "--started" => orders.started = Some(number().ok_or_else(usage)?),
            "--tty" => orders.tty = true,
            "--" => {
                orders.command = words.cloned().collect();
                break;
            }
            _ => return Err(usage()),
        }
    }
    if orders.pid == 0 || orders.command.is_empty() {
        return Err(usage());
    }
    Ok(orders)
}

fn open(pid: i32) -> Outcome<Place> {
    let of = |name: &str| format!("/proc/{pid}/{name}");
    let mut namespaces = Vec::new();
    for (name, flag) in NAMESPACES {
        let path = of(&format!("ns/{name}"));
        let theirs = fs::read_link(&path).on(&path)?;
        // Entering one's own user namespace is an error, entering others again is idle.
        if theirs != fs::read_link(format!("/proc/self/ns/{name}")).on(name)? {
            namespaces.push((File::open(&path).on(&path)?, flag));
        }
    }
    let status = fs::read_to_string(of("status")).on("status")?;
    let mapped = namespaces
        .iter()
        .any(|(_, flag)| *flag == CloneFlags::CLONE_NEWUSER);
    Ok(Place {
        namespaces,
        cgroups: cgroups::of(pid)?,
        directory: File::options()
            .read(true)
            .custom_flags(nix::libc::O_PATH | nix::libc::O_DIRECTORY)
            .open(of("cwd"))
            .on("cwd")?,
        environment: fs::read(of("environ")).on("environ")?,
        // In a user namespace of its own the container's root is whom runtimes run commands as.
        user: if mapped { None } else { Some(user(&status)?) },
        bounds: field(&status, "CapBnd")
            .and_then(|words| u64::from_str_radix(words.first()?, 16).ok())
            .ok_or_else(|| Failure::new("CapBnd is missing in /proc/PID/status"))?,
    })
}

fn field<'a>(status: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.split_whitespace().collect())
}

fn user(status: &str) -> Outcome<User> {
    let numbers = |name: &str| -> Option<Vec<u32>> {
        field(status, name)?
            .iter()
            .map(|word| word.parse().ok())
            .collect()
    };
    let effective = |name: &str| numbers(name)?.get(1).copied();
    (|| {
        Some(User {
            uid: effective("Uid")?,
            gid: effective("Gid")?,
            groups: numbers("Groups")?.into_iter().map(Gid::from_raw).collect(),
        })
    })()
    .ok_or_else(|| Failure::new("Uid, Gid or Groups are missing in /proc/PID/status"))
}

/// Last steps of the child: what is inherited must be that of the container.
fn settle(orders: &Orders, place: Place, parent: &File) -> Outcome<()> {
    for mut procs in place.cgroups {
        procs.write_all(b"0").on("cgroup.procs")?;
    }
    if orders.tty {
        setsid().on("setsid")?;
        // SAFETY: takes standard input and a number.
        let made = unsafe { nix::libc::ioctl(0, nix::libc::TIOCSCTTY, 0) };
        nix::errno::Errno::result(made).on("standard input as the terminal")?;
    }
    nix::unistd::fchdir(&place.directory).on("working directory")?;
    for (name, _) in std::env::vars_os() {
        std::env::remove_var(name);
    }
    for pair in place.environment.split(|octet| *octet == 0) {
        if let Some(cut) = pair
            .iter()
            .position(|octet| *octet == b'=')
            .filter(|cut| *cut > 0)
        {
            let text = |part: &[u8]| std::ffi::OsString::from_vec(part.to_vec());
            std::env::set_var(text(&pair[..cut]), text(&pair[cut + 1..]));
        }
    }
    for capability in (0..64).filter(|bit| place.bounds & (1 << bit) == 0) {
        // Numbers that this kernel has not are refused, which is as good.
        // SAFETY: takes plain numbers.
        unsafe { nix::libc::prctl(nix::libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    if let Some(user) = place.user {
        setgroups(&user.groups).on("setgroups")?;
        setgid(Gid::from_raw(user.gid)).on("setgid")?;
        setuid(Uid::from_raw(user.uid)).on("setuid")?;
    } else {
        setgid(Gid::from_raw(0))
            .and(setuid(Uid::from_raw(0)))
            .on("root of the container")?;
    }
    // Last, for a change of user takes it back.
    die_with_parent(parent)
}

/// Pass signals on and wait for the end.
fn attend(command: Pid) -> i32 {
    loop {
        match SigSet::all().wait() {
            Ok(Signal::SIGCHLD) => {
                if let Ok(status) = waitpid(command, Some(WaitPidFlag::WNOHANG)) {
                    if let Some(status) = exit_status(status) {
                        return status;
                    }
                }
            }
            Ok(other) => {
                let _ = kill(command, other);
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_the_effective_one() {
        let status = "Name:\tx\nUid:\t0\t1000\t0\t0\nGid:\t0\t100\t0\t0\nGroups:\t4 24 \n";
        let user = user(status).unwrap();
        assert_eq!((user.uid, user.gid, user.groups.len()), (1000, 100, 2));
        assert!(super::user("Uid:\t0\t0\t0\t0\n").is_err());
    }
}
