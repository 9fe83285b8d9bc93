//! A small process beside the filter's: it moves what the target has open, and takes all back when
//! the filter dies.
//!
//! It keeps /dev/fuse open, so that requests wait, and do not fail, until the target stands still and
//! can be given the real files. What may have to wait for the filter itself, it does in children.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{json, Value};

use super::entry::place::Place;
use super::entry::repoint::Report;
use super::entry::service::LockHolder;
use super::filter::Filter;
use super::guarding::Watch;
use super::lock::Had;
use super::messages;
use crate::process;
use crate::rpc::Refusal;
use crate::system::{self, check, set_option};

/// How long the guardian may take for one thing.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long the filter may take to hand locks over.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// So many fit into a message.
const LOCKS_AT_ONCE: usize = 200;
/// How long a filter may have to wait until a file is kept.
const KEPT_WITHIN_SECONDS: i64 = 1;

/// What the filter's process asks for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// With three descriptors: /dev/fuse, the mount, the directory below it.
    Enter {
        path: PathBuf,
    },
    /// Open all once more.
    Renew {
        path: PathBuf,
    },
    Leave {
        path: PathBuf,
    },
    Quit,
}

/// What the guardian says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Told {
    Done(Result<Report, Refusal>),
    /// A question, as `LockHolder` has it, answered by lists of locks, the last of which is empty.
    List(BTreeSet<u64>),
    Loosen(BTreeSet<u64>),
    LetGo(BTreeSet<u64>),
}

/// A filter that lives in another process: it is asked by this socket.
pub struct Asked<'a>(pub &'a OwnedFd);

impl LockHolder for Asked<'_> {
    fn list(&self, inodes: &BTreeSet<u64>) -> Vec<Had> {
        self.ask(&Told::List(inodes.clone()))
    }

    fn loosen(&self, ids: &BTreeSet<u64>) {
        self.ask(&Told::Loosen(ids.clone()));
    }

    fn let_go(&self, ids: &BTreeSet<u64>) {
        self.ask(&Told::LetGo(ids.clone()));
    }
}

impl Asked<'_> {
    fn ask(&self, question: &Told) -> Vec<Had> {
        let mut all = Vec::new();
        let mut next = messages::send(self.0, &json!(question), &[]);
        loop {
            let told = next.and_then(|()| receive_in_time(self.0, ANSWERS_WITHIN));
            match told.map(serde_json::from_value::<Vec<Had>>) {
                Ok(Ok(some)) if some.is_empty() => return all,
                Ok(Ok(some)) => all.extend(some),
                other => {
                    system::log(&format!("the filter does not tell its locks: {other:?}"));
                    return all;
                }
            }
            next = Ok(());
        }
    }
}

fn receive_in_time(socket: &OwnedFd, patience: Duration) -> io::Result<Value> {
    let [ready] = system::poll([socket.as_raw_fd()], Some(patience))?;
    if !ready {
        return Err(io::ErrorKind::TimedOut.into());
    }
    messages::receive(socket).map(|(told, _)| told)
}

/// The guardian, as the filter's process sees it.
pub struct Guardian {
    socket: OwnedFd,
    keeper: OwnedFd,
}

impl Guardian {
    /// Starts it, for the container of `target`. Must be called before any thread is started.
    pub fn start(target: i32) -> io::Result<Self> {
        let (ours, theirs) = messages::pair()?;
        let (keeper, kept) = messages::pair()?;
        let filter = std::process::id() as i32;
        let handle = process::pidfd(filter)?;
        // SAFETY: there is one thread, so the child may go on as it likes.
        if check(unsafe { libc::fork() })? == 0 {
            drop((ours, keeper));
            // SAFETY: plain call; a fresh child is never a group leader.
            unsafe { libc::setsid() };
            let mut watch = Watch::new(theirs, kept, handle, filter, target);
            let status = watch.live();
            crate::aside::leave();
            std::process::exit(status);
        }
        patient(&keeper)?;
        let socket = ours;
        Ok(Self { socket, keeper })
    }

    /// Where files go that have lost a name while they are open: `Filter::keep_with`.
    pub fn keeper(&self) -> io::Result<OwnedFd> {
        self.keeper.try_clone()
    }

    /// Readable when it has died.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub fn enter(
        &self,
        device: &OwnedFd,
        mount: OwnedFd,
        place: &Place,
        filter: &Filter,
    ) -> Result<Report, Refusal> {
        let path = place.path.clone();
        let fds = [device, &mount, &place.directory].map(AsFd::as_fd);
        self.tell(&Order::Enter { path }, &fds)?;
        drop(mount); // or it would be in use
        self.answer(filter)
    }

    pub fn renew(&self, path: PathBuf, filter: &Filter) -> Result<Report, Refusal> {
        self.tell(&Order::Renew { path }, &[])?;
        self.answer(filter)
    }

    pub fn leave(&self, path: PathBuf, filter: &Filter) -> Result<Report, Refusal> {
        self.tell(&Order::Leave { path }, &[])?;
        self.answer(filter)
    }

    /// Tells it that there is nothing to watch any more.
    pub fn quit(&self) {
        let _ = messages::send(&self.socket, &json!(Order::Quit), &[]);
    }

    fn tell(&self, order: &Order, fds: &[BorrowedFd<'_>]) -> Result<(), Refusal> {
        messages::send(&self.socket, &json!(order), fds).map_err(gone)
    }

    fn answer(&self, filter: &Filter) -> Result<Report, Refusal> {
        loop {
            let told = receive_in_time(&self.socket, PATIENCE).map_err(gone)?;
            let told = serde_json::from_value(told)
                .map_err(|error| Refusal::try_again(format!("the guardian: {error}")))?;
            match told {
                Told::Done(done) => return done,
                Told::List(inodes) => self.list(&filter.list(&inodes))?,
                Told::Loosen(ids) => {
                    filter.loosen(&ids);
                    self.list(&[])?;
                }
                Told::LetGo(ids) => {
                    filter.let_go(&ids);
                    self.list(&[])?;
                }
            }
        }
    }

    fn list(&self, locks: &[Had]) -> Result<(), Refusal> {
        let mut lists = locks.chunks(LOCKS_AT_ONCE).chain([&[][..]]);
        lists.try_for_each(|some| messages::send(&self.socket, &json!(some), &[]).map_err(gone))
    }
}

fn gone(error: io::Error) -> Refusal {
    Refusal::try_again(format!("the guardian of the filter is gone: {error}"))
}

/// Who sends by it waits, but not for ever.
fn patient(socket: &OwnedFd) -> io::Result<()> {
    let most = libc::timeval {
        tv_sec: KEPT_WITHIN_SECONDS,
        tv_usec: 0,
    };
    set_option(
        socket.as_raw_fd(),
        libc::SOL_SOCKET,
        libc::SO_SNDTIMEO,
        most,
    )
}
