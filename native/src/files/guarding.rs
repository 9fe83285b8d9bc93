//! The guardian's own life: it obeys the filter's process, and acts when that dies.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::entry::instead::raise_limit;
use super::entry::passage::{self, Standing};
use super::entry::place::{mount_of, Place};
use super::entry::repoint::Report;
use super::entry::service::Service;
use super::guardian::{Asked, Order, Told};
use super::kept::Kept;
use super::messages;
use crate::process;
use crate::rpc::Refusal;
use crate::system::{self, check};

/// How often to look whether the filter moves.
const LOOK: Duration = Duration::from_secs(2);
/// How often what a dead filter has left is tried to be taken back, once a second: a process that
/// is traced cannot be helped before its tracer lets go of it.
const ATTEMPTS: usize = 600;
/// After how many of them the mounts go, though somebody still has something open there.
const PATIENT_ATTEMPTS: usize = 3;

/// A volume that is watched.
struct Volume {
    standing: Standing,
    /// /dev/fuse: as long as it is open, whoever asks the dead filter waits.
    device: OwnedFd,
}

/// What a guardian knows.
pub struct Watch {
    socket: OwnedFd,
    filter: OwnedFd,
    filter_pid: i32,
    target: i32,
    volumes: Vec<Volume>,
    kept: Kept,
}

impl Watch {
    pub fn new(
        socket: OwnedFd,
        kept: OwnedFd,
        filter: OwnedFd,
        filter_pid: i32,
        target: i32,
    ) -> Self {
        Self {
            socket,
            filter,
            filter_pid,
            target,
            volumes: Vec::new(),
            kept: Kept::by(kept),
        }
    }

    /// Until it is told to end, or the filter has died and all is given back; the exit status.
    pub fn live(&mut self) -> i32 {
        raise_limit();
        let mut stopped = 0;
        loop {
            let fds = [&self.filter, &self.socket].map(AsRawFd::as_raw_fd);
            match system::poll([fds[0], fds[1], self.kept.raw()], Some(LOOK)) {
                Ok([true, ..]) => return self.take_back(),
                Ok([false, false, true]) => self.kept.take(),
                Ok([false, false, false]) => {
                    stopped = if stands_still(self.filter_pid) {
                        stopped + 1
                    } else {
                        0
                    };
                    if stopped > 2 && !self.volumes.is_empty() {
                        system::log("the filter has been stopped: it is killed");
                        let _ = process::kill(&self.filter);
                    }
                }
                Ok([_, true, _]) => match messages::receive(&self.socket) {
                    Ok((order, fds)) => match serde_json::from_value(order) {
                        Ok(Order::Quit) => return 0,
                        Ok(order) => {
                            let answer = self.obey(order, fds);
                            let _ = messages::send(&self.socket, &json!(Told::Done(answer)), &[]);
                        }
                        Err(error) => system::log(&format!("guardian: {error}")),
                    },
                    // It is about to die, or has closed its end: only its death counts.
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                },
                Err(error) => {
                    system::log(&format!("guardian: {error}"));
                    return 1;
                }
            }
        }
    }

    fn obey(&mut self, order: Order, fds: Vec<OwnedFd>) -> Result<Report, Refusal> {
        let kernel = |error: io::Error| Refusal::of_kernel("guardian", &error);
        let target = self.target;
        match order {
            Order::Quit => Ok(Report::default()),
            Order::Enter { path } => {
                let [device, mount, directory]: [OwnedFd; 3] = fds
                    .try_into()
                    .map_err(|_| Refusal::try_again("three descriptors are needed"))?;
                let id = mount_of(&mount).map_err(kernel)?;
                let copy = |fd: &OwnedFd| fd.try_clone().map_err(kernel);
                let place = Place {
                    path: path.clone(),
                    directory: copy(&directory)?,
                };
                let standing = Standing { place, id };
                self.volumes.push(Volume { standing, device });
                let place = Place { path, directory };
                let entered = self.in_child(|watch| {
                    let locks = Asked(&watch.socket);
                    passage::enter(target, place, mount, &locks).map(|(_, report)| report)
                });
                if entered.is_err() {
                    self.volumes.pop();
                }
                entered
            }
            Order::Renew { path } => self.in_child(|watch| {
                let one = found(&watch.volumes, &path)?;
                passage::renew(target, &one.standing, watch.alive(&Asked(&watch.socket)))
            }),
            Order::Leave { path } => {
                let left = self.in_child(|watch| {
                    let one = found(&watch.volumes, &path)?;
                    let locks = Asked(&watch.socket);
                    passage::leave(&[&one.standing], watch.alive(&locks), None, false)
                })?;
                self.volumes.retain(|one| one.standing.place.path != path);
                Ok(left)
            }
        }
    }

    fn alive<'a>(&self, locks: &'a Asked<'_>) -> Service<'a> {
        Service {
            filter: Some(self.filter_pid),
            kept: &[],
            locks,
        }
    }

    fn dead(&self) -> Service<'_> {
        Service {
            filter: None,
            kept: self.kept.files(),
            locks: &self.kept,
        }
    }

    /// Does something in a child, which does not keep /dev/fuse open: when filter and guardian die,
    /// nobody waits for ever. The child dies with the filter.
    fn in_child(
        &mut self,
        act: impl FnOnce(&Self) -> Result<Report, Refusal>,
    ) -> Result<Report, Refusal> {
        let kernel = |error: io::Error| Refusal::of_kernel("guardian", &error);
        let (reader, writer) = io::pipe().map_err(kernel)?;
        // SAFETY: there is one thread, so the child may go on as it likes.
        let child = check(unsafe { libc::fork() }).map_err(kernel)?;
        if child == 0 {
            drop(reader);
            for one in &self.volumes {
                close(&one.device);
            }
            end_with(writer, act(self));
        }
        drop((writer, act));
        let fds = [reader.as_raw_fd(), self.filter.as_raw_fd()];
        let dead = loop {
            match system::poll([fds[0], fds[1], self.kept.raw()], None).map_err(kernel)? {
                [false, false, true] => self.kept.take(),
                [false, false, false] => {}
                [_, dead, _] => break dead,
            }
        };
        if dead {
            // SAFETY: our own child, not waited for yet.
            unsafe { libc::kill(child, libc::SIGKILL) };
            return Err(died());
        }
        told_by(child, reader)
    }

    /// The filter is dead: gives the target its files back, and takes the mounts away.
    fn take_back(&mut self) -> i32 {
        if self.volumes.is_empty() {
            return 0;
        }
        self.kept.take();
        system::log(&format!(
            "the filter {} has died: its files are given back",
            self.filter_pid
        ));
        let mut said = String::new();
        for number in 1..=ATTEMPTS {
            // Nobody there waits for us, and an attempt would lose what cannot be moved yet.
            while process::is_frozen(self.target) {
                std::thread::sleep(Duration::from_millis(100));
            }
            let done = if number <= PATIENT_ATTEMPTS + 1 {
                self.attempt(number > PATIENT_ATTEMPTS)
            } else {
                let standings: Vec<&Standing> =
                    self.volumes.iter().map(|one| &one.standing).collect();
                passage::follow(self.target, &standings, self.dead())
            };
            match done {
                Ok(report) => {
                    system::log(&json!(report).to_string());
                    return 0;
                }
                Err(refusal) if refusal.to_string() == said => {}
                Err(refusal) => {
                    said = refusal.to_string();
                    system::log(&said);
                }
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        1
    }

    fn attempt(&mut self, last: bool) -> Result<Report, Refusal> {
        let kernel = |error: io::Error| Refusal::of_kernel("guardian", &error);
        let (reader, writer) = io::pipe().map_err(kernel)?;
        // SAFETY: there is one thread, so the child may go on as it likes.
        let child = check(unsafe { libc::fork() }).map_err(kernel)?;
        if child == 0 {
            drop(reader);
            let standings: Vec<&Standing> = self.volumes.iter().map(|one| &one.standing).collect();
            let mut devices: Vec<&OwnedFd> = self.volumes.iter().map(|one| &one.device).collect();
            // From then on who waits for the filter gets an error, and stops right behind it.
            let mut abort = || devices.drain(..).for_each(close);
            end_with(
                writer,
                passage::leave(&standings, self.dead(), Some(&mut abort), last),
            );
        }
        drop(writer);
        for one in &mut self.volumes {
            // The child's are the last. A placeholder, for a descriptor must be owned by somebody.
            if let Ok(nothing) = self.filter.try_clone() {
                one.device = nothing;
            }
        }
        told_by(child, reader)
    }
}

fn found<'a>(volumes: &'a [Volume], path: &PathBuf) -> Result<&'a Volume, Refusal> {
    let one = volumes.iter().find(|one| one.standing.place.path == *path);
    one.ok_or_else(|| Refusal::try_again(format!("nothing of ours is at {}", path.display())))
}

/// Has somebody stopped this process, so that whoever asks it waits for ever?
fn stands_still(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    state.is_some_and(|rest| rest.starts_with(['T', 't']))
}

/// Closes a descriptor that its owner, in a child that ends soon, will not use any more.
fn close(fd: &OwnedFd) {
    // SAFETY: the child ends by _exit, so it is not closed once more.
    unsafe { libc::close(fd.as_raw_fd()) };
}

/// What a child has said by its end.
fn told_by(child: i32, mut reader: io::PipeReader) -> Result<Report, Refusal> {
    let mut answer = Vec::new();
    let _ = reader.read_to_end(&mut answer);
    wait_for(child);
    serde_json::from_slice(&answer).unwrap_or_else(|_| Err(died()))
}

fn died() -> Refusal {
    Refusal::try_again("the process that moves open files has died")
}

fn end_with(mut writer: io::PipeWriter, outcome: Result<Report, Refusal>) -> ! {
    let answer = serde_json::to_vec(&outcome).unwrap_or_default();
    let _ = writer.write_all(&answer);
    // SAFETY: ends at once, without dropping anything.
    unsafe { libc::_exit(0) }
}

fn wait_for(child: i32) {
    // SAFETY: our own child; the status is not wanted.
    while unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) } < 0 {
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}
