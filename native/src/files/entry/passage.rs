//! Into a container and out of it: the mount, and all that is open below it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use super::attach;
use super::away::take_away;
use super::binds::{self, Bind};
use super::instead::{Source, Way};
use super::place::{mount_of, mounts, Mount, Place};
use super::repoint::{repoint, Job, Manner, Report};
use super::scan::{all_processes, go_on, namespace, Where};
use super::service::{LockHolder, Service};
use crate::process;
use crate::rpc::Refusal;

/// A mount of ours in a container.
pub struct Standing {
    pub place: Place,
    pub id: u64,
}

/// Puts `mount` over a place of the container of `pid`, and moves to it all that is open there.
///
/// On an error everything is as before.
pub fn enter(
    pid: i32,
    place: Place,
    mount: OwnedFd,
    locks: &dyn LockHolder,
) -> Result<(Standing, Report), Refusal> {
    let refused = |doing: &str, error: &io::Error| {
        Refusal::of_kernel(format!("{doing} {}", place.path.display()), error)
    };
    let own = namespace(pid).ok_or_else(|| Refusal::try_again("the target has ended"))?;
    for other in [std::process::id() as i32, 1] {
        if namespace(other).as_ref() == Some(&own) {
            return Err(Refusal::invalid(
                "the target has no mount namespace of its own: everybody on the host would suffer",
            ));
        }
    }
    go_on(&BTreeSet::from([own.clone()]))?;
    let before = place
        .mounts(pid)
        .map_err(|error| refused("look at mounts of", &error))?;
    let below = mount_of(&place.directory).map_err(|error| refused("look at", &error))?;
    let shared = mounts(pid)
        .map_err(|error| refused("look at mounts of", &error))?
        .into_iter()
        .find(|one| one.id == below && one.is_shared());
    let entry = open_namespace(pid).map_err(|error| refused("enter the container of", &error))?;
    let point = shared.as_ref().map(|one| one.point.as_path());
    attach::put(&entry, &mount, &place.directory, point)
        .map_err(|error| refused("mount over", &error))?;
    let id = mount_of(&mount).map_err(|error| refused("look at the mount over", &error))?;
    let from = Where {
        namespaces: BTreeSet::from([own]),
        path: place.path.clone(),
        mounts: before,
    };
    let service = Service {
        filter: Some(std::process::id() as i32),
        kept: &[],
        locks,
    };
    let source = Source {
        to: &mount,
        real: &place.directory,
        way: Way::In,
        service,
    };
    let manner = Manner::default();
    let moved = repoint(
        &[Job {
            from: &from,
            source: &source,
        }],
        manner,
    );
    let standing = Standing { place, id };
    drop(mount); // it would be in use
    match moved {
        Ok(report) => Ok((standing, report)),
        Err(refusal) => {
            // Frozen since: the filter must stay until it goes on, or what was moved were lost.
            while let Err(left) = leave(&[&standing], service, None, false) {
                if !process::is_frozen(pid) {
                    return Err(left);
                }
                std::thread::sleep(Duration::from_millis(200));
            }
            Err(refusal)
        }
    }
}

/// Moves back all that is open in mounts of ours, and takes them away.
///
/// Where the filter is dead, `abort` ends the wait of those who asked it. What cannot be moved now is
/// a refusal, and the mounts stay, unless `last` says that others have suffered from them for long
/// enough.
pub fn leave(
    standings: &[&Standing],
    service: Service<'_>,
    abort: Option<&mut dyn FnMut()>,
    last: bool,
) -> Result<Report, Refusal> {
    let mut found: Vec<BTreeMap<PathBuf, (i32, Vec<Mount>)>> =
        standings.iter().map(|one| everywhere(one)).collect();
    let binds = standings.iter().zip(&mut found);
    let binds: Vec<Bind> = binds
        .flat_map(|(one, found)| binds::of(one, found))
        .collect();
    let wheres: Vec<Where> = standings
        .iter()
        .zip(&found)
        .map(|(one, found)| Where {
            namespaces: found.keys().cloned().collect(),
            path: one.place.path.clone(),
            mounts: found
                .values()
                .flat_map(|(_, mounts)| mounts)
                .map(|one| one.id)
                .collect(),
        })
        .collect();
    let sources: Vec<Source<'_>> = standings
        .iter()
        .map(|one| Source::out(&one.place.directory, service))
        .collect();
    let theirs: Vec<Source<'_>> = binds.iter().map(|bind| bind.source(service)).collect();
    let froms = wheres.iter().chain(binds.iter().map(|bind| &bind.from));
    let jobs: Vec<Job<'_>> = froms
        .zip(sources.iter().chain(&theirs))
        .map(|(from, source)| Job { from, source })
        .collect();
    let manner = Manner {
        at_once: abort.is_some(),
        nudge: abort,
        finish: None,
    };
    let (mut report, refused) = match repoint(&jobs, manner) {
        Err(refusal) if last => (Report::default(), Err(refusal)),
        done => (done?, Ok(())),
    };
    let mut taken = Ok(());
    let (own, theirs) = jobs.split_at(standings.len());
    for (bind, job) in binds.iter().zip(theirs).rev() {
        taken = taken.and(bind.replace(job, &mut report));
    }
    for ((one, found), job) in standings.iter().zip(&found).zip(own).rev() {
        let mut all: Vec<(i32, &Mount)> = found
            .values()
            .flat_map(|(pid, mounts)| mounts.iter().rev().map(|mount| (*pid, mount)))
            .collect();
        all.sort_by_key(|(_, mount)| mount.id == one.id); // by that one, the others are found
        for (pid, mount) in all {
            let done = take_away(pid, mount, &one.place.directory, job, &mut report);
            taken = taken.and(done);
        }
    }
    taken.and(refused).map(|()| report)
}

/// Moves back what is open on mounts of ours that have been taken away in spite of it.
pub fn follow(pid: i32, standings: &[&Standing], service: Service<'_>) -> Result<Report, Refusal> {
    let Some(own) = namespace(pid) else {
        return Ok(Report::default()); // it has ended, and nobody cares any more
    };
    let mut report = Report::default();
    for one in standings {
        let from = Where {
            namespaces: BTreeSet::from([own.clone()]),
            path: PathBuf::from("/"), // what is on such a mount is shown from its root
            mounts: BTreeSet::from([one.id]),
        };
        let source = Source::out(&one.place.directory, service);
        let job = Job {
            from: &from,
            source: &source,
        };
        let manner = Manner {
            at_once: true,
            ..Manner::default()
        };
        report.merge(repoint(&[job], manner)?);
    }
    Ok(report)
}

/// The mount itself, and its copies in mount namespaces that have been made since.
fn everywhere(one: &Standing) -> BTreeMap<PathBuf, (i32, Vec<Mount>)> {
    let mut found = in_all_namespaces(|mount| mount.id == one.id || mount.is_ours());
    let all = || found.values().flat_map(|(_, mounts)| mounts);
    let itself = all().find(|mount| mount.id == one.id);
    let device = itself
        .filter(|mount| mount.is_ours())
        .map(|mount| mount.device.clone());
    for (_, mounts) in found.values_mut() {
        mounts.retain(|mount| mount.id == one.id || Some(&mount.device) == device.as_ref());
    }
    found.retain(|_, (_, mounts)| !mounts.is_empty());
    found
}

/// Has all that is open in a mount of ours be opened there once more: rules say otherwise by now.
pub fn renew(pid: i32, standing: &Standing, service: Service<'_>) -> Result<Report, Refusal> {
    let found = everywhere(standing);
    let shown = standing.place.path.to_string_lossy();
    let top = Place::find(pid, &shown)?;
    if mount_of(&top.directory).ok() != Some(standing.id) {
        let message = format!("another mount stands on {shown}");
        return Err(Refusal::try_again(message));
    }
    let from = Where {
        namespaces: found.into_keys().collect(),
        path: standing.place.path.clone(),
        mounts: BTreeSet::from([standing.id]),
    };
    let source = Source {
        to: &top.directory,
        real: &standing.place.directory,
        way: Way::Again,
        service,
    };
    let manner = Manner::default();
    repoint(
        &[Job {
            from: &from,
            source: &source,
        }],
        manner,
    )
}

/// Mounts that fit, by mount namespace, with a process that is in it.
pub fn in_all_namespaces(fits: impl Fn(&Mount) -> bool) -> BTreeMap<PathBuf, (i32, Vec<Mount>)> {
    let mut found = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for pid in all_processes() {
        let Some(own) = namespace(pid) else { continue };
        if seen.contains(&own) {
            continue;
        }
        let Ok(all) = mounts(pid) else { continue }; // it has ended: another may be there
        seen.insert(own.clone());
        let fitting: Vec<Mount> = all.into_iter().filter(|one| fits(one)).collect();
        if !fitting.is_empty() {
            found.insert(own, (pid, fitting));
        }
    }
    found
}

pub fn open_namespace(pid: i32) -> io::Result<File> {
    File::open(format!("/proc/{pid}/ns/mnt"))
}
