//! What `sandbox`, `exec` and `watch` know about processes.

use crate::exec::cgroups;
use crate::failure::{Failure, Outcome, While};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::wait::WaitStatus;
use nix::unistd::execvp;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Start time in clock ticks after boot (field 22 of stat): tells a process from a later one with
/// the same number. None when there is no such process.
pub fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; what follows it starts with field 3.
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// Does this process stand still because its cgroup, or one above it, is frozen? It can be neither
/// stopped nor moved then, and does not end before it is let go.
pub fn is_frozen(pid: i32) -> bool {
    let hierarchies = cgroups::hierarchies(&pid.to_string()).unwrap_or_default();
    hierarchies.iter().any(|one| {
        let read =
            |name: &str| std::fs::read_to_string(format!("{}{}/{name}", one.point, one.path));
        // cgroup v1 has the one file, v2 the other; roots have none.
        read("freezer.state").is_ok_and(|state| state.trim() != "THAWED")
            || read("cgroup.events")
                .is_ok_and(|events| events.lines().any(|line| line == "frozen 1"))
    })
}

/// A descriptor that becomes readable when the process has ended.
pub fn pidfd(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes plain numbers and returns a new descriptor or -1.
    let fd = unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, pid, 0) };
    // SAFETY: nobody else owns the new descriptor.
    Errno::result(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A copy of a descriptor of another process, or of one of its threads (from Linux 6.9 on, where it
/// is not the first one).
pub fn descriptor_of(tid: i32, number: i32) -> std::io::Result<OwnedFd> {
    const PIDFD_THREAD: i32 = nix::libc::O_EXCL;
    const OF_THE_LEADER: i32 = 0;
    let copy = |flags: i32| {
        // SAFETY: the calls take plain numbers and return a new descriptor or -1.
        unsafe {
            let process =
                crate::system::own(
                    nix::libc::syscall(nix::libc::SYS_pidfd_open, tid, flags) as i32
                )?;
            crate::system::own(nix::libc::syscall(
                nix::libc::SYS_pidfd_getfd,
                process.as_raw_fd(),
                number,
                0,
            ) as i32)
        }
    };
    copy(OF_THE_LEADER).or_else(|_| copy(PIDFD_THREAD))
}

/// SIGKILL by a handle, so that nobody else with that number is hit; that it has ended is fine.
pub fn kill(process: &OwnedFd) -> Outcome<()> {
    let (fd, signal) = (process.as_raw_fd(), Signal::SIGKILL as i32);
    let nobody = std::ptr::null::<nix::libc::siginfo_t>();
    // SAFETY: the descriptor is open, and no information about the signal is passed.
    let sent =
        unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_send_signal, fd, signal, nobody, 0) };
    match Errno::result(sent) {
        Err(Errno::ESRCH) => Ok(()),
        sent => sent.map(drop).on("pidfd_send_signal"),
    }
}

/// Die with the parent: SIGKILL when it is gone, at once if it is gone already.
///
/// `parent` is the reading end of a pipe that only the parent can write to: inside a new pid
/// namespace getppid() cannot tell.
pub fn die_with_parent(parent: &impl AsFd) -> Outcome<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).on("PR_SET_PDEATHSIG")?;
    let mut polled = [PollFd::new(parent.as_fd(), PollFlags::empty())];
    match poll(&mut polled, PollTimeout::ZERO) {
        Ok(0) => Ok(()),
        _ => Err(Failure::new("the parent is gone")),
    }
}

/// Exit status as a shell tells it: 128 + n after signal n.
pub fn exit_status(status: WaitStatus) -> Option<i32> {
    match status {
        WaitStatus::Exited(_, code) => Some(code),
        WaitStatus::Signaled(_, signal, _) => Some(128 + signal as i32),
        _ => None,
    }
}

/// Become another program; returns only if that fails.
pub fn become_program(command: &[String]) -> Failure {
    let Ok(arguments) = command
        .iter()
        .map(|word| CString::new(word.as_str()))
        .collect::<Result<Vec<_>, _>>()
    else {
        return Failure::new("a word of the command has a NUL in it");
    };
    let Some(program) = arguments.first() else {
        return Failure::new("the command is empty");
    };
    // Ours: Rust ignores SIGPIPE, and the mask of the caller is inherited.
    // SAFETY: SIG_DFL is a valid disposition; no handler runs.
    unsafe { nix::libc::signal(nix::libc::SIGPIPE, nix::libc::SIG_DFL) };
    let _ = nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    let Err(error) = execvp(program, &arguments);
    let status = if matches!(error, Errno::ENOENT | Errno::ENOTDIR) {
        127
    } else {
        126
    };
    Failure {
        message: format!("{}: {}", command[0], error.desc()),
        status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::Pid;

    #[test]
    fn a_process_knows_when_it_started_and_a_missing_one_does_not() {
        assert!(started(std::process::id() as i32).is_some_and(|ticks| ticks > 0));
        assert_eq!(started(i32::MAX), None);
    }

    #[test]
    fn a_stopped_process_is_killed_by_its_handle_and_one_that_has_ended_is_no_failure() {
        let mut sleeper = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        let handle = pidfd(sleeper.id() as i32).unwrap();
        nix::sys::signal::kill(Pid::from_raw(sleeper.id() as i32), Signal::SIGSTOP).unwrap();
        assert!(kill(&handle).is_ok());
        assert!(!sleeper.wait().unwrap().success());
        assert!(kill(&handle).is_ok());
    }

    #[test]
    fn an_end_by_signal_is_told_as_a_shell_does() {
        let pid = Pid::from_raw(1);
        assert_eq!(exit_status(WaitStatus::Exited(pid, 3)), Some(3));
        assert_eq!(
            exit_status(WaitStatus::Signaled(pid, Signal::SIGKILL, false)),
            Some(137)
        );
        assert_eq!(exit_status(WaitStatus::StillAlive), None);
    }

    #[test]
    fn a_program_that_is_not_there_is_told_from_one_that_cannot_run() {
        assert_eq!(become_program(&["/nosuch".into()]).status, 127);
        assert_eq!(become_program(&["/proc/self/stat".into()]).status, 126);
    }
}
