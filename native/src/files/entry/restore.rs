//! Takes away what dead processes of ours have left, known by its mark.
//!
//! We may be killed here, too, or be told to come back later. So the mark stays until all is given
//! back: it stands for whatever is open on that file system, also on mounts that stand nowhere.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::below;
use super::detached;
use super::instead::Source;
use super::passage::{in_all_namespaces, leave, open_namespace, Standing};
use super::place::{mounts, Mount, Place};
use super::repoint::{repoint, Job, Manner, Report};
use super::scan::{namespace, processes, Where};
use super::service::Service;
use crate::process;
use crate::rpc::Refusal;

/// How long to wait for those who cannot be stopped now, as while another one of us is at work.
const PATIENCE: Duration = Duration::from_secs(4);

/// Takes away every mount of ours that nobody serves any more, or only those of which one stands in
/// the namespace of `pid`.
pub fn restore(pid: Option<i32>) -> Result<Report, Refusal> {
    let mut report = Report::default();
    match pid {
        Some(pid) => report.merge(restore_of(pid)?),
        None => {
            // A namespace that others were made from is older than they are.
            let all = in_all_namespaces(Mount::is_ours).into_values();
            let mut all: Vec<i32> = all.map(|(pid, _)| pid).collect();
            all.sort_by_key(|pid| process::started(*pid));
            for pid in all {
                report.merge(restore_of(pid)?);
            }
        }
    }
    Ok(report)
}

fn restore_of(pid: i32) -> Result<Report, Refusal> {
    let started = Instant::now();
    let mut report = Report::default();
    let Ok(entry) = open_namespace(pid) else {
        return Ok(report); // it has ended
    };
    while !locked(&entry) {
        if started.elapsed() > PATIENCE {
            return Err(Refusal::try_again("its files are being given back already"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    loop {
        let mut refused = None;
        for one in all(pid) {
            match give_back(pid, &one) {
                Ok(more) => report.merge(more),
                Err(refusal) => refused = Some(refusal),
            }
        }
        match refused {
            None => return Ok(report),
            Some(refusal) if started.elapsed() > PATIENCE => return Err(refusal),
            Some(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Is it us alone who restore there? Our children count as we do, also those that outlive us.
fn locked(entry: &File) -> bool {
    // SAFETY: plain numbers.
    unsafe { libc::flock(entry.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) == 0 }
}

/// Those in the namespace of `pid`, one for each file system: by it, its copies and binds are found.
fn all(pid: i32) -> Vec<Mount> {
    let all = mounts(pid).unwrap_or_default();
    let covers = |one: &Mount, mount: &Mount| one.parent == mount.id && one.point == mount.point;
    let open = |mount: &&Mount| !all.iter().any(|one| covers(one, mount));
    let mut left: Vec<Mount> = Vec::new();
    for mount in all.iter().filter(|one| one.is_ours()).filter(open) {
        let known = left.iter_mut().find(|one| one.device == mount.device);
        match known {
            Some(one) if one.root == Path::new("/") => {}
            Some(one) => *one = mount.clone(), // that was a bind of something in it
            None => left.push(mount.clone()),
        }
    }
    left.reverse();
    left
}

fn give_back(pid: i32, mount: &Mount) -> Result<Report, Refusal> {
    let doing = format!("look below the mount at {}", mount.point.display());
    let refused = |error: std::io::Error| Refusal::of_kernel(&doing, &error);
    let entry = open_namespace(pid).map_err(refused)?;
    below::come_home(&entry, &mounts(pid).map_err(refused)?).map_err(refused)?;
    let before = mounts(pid).map_err(refused)?;
    let away = || Refusal::try_again("somebody took a mount of ours away");
    let same = |one: &&Mount| one.id == mount.id;
    let mount = before.iter().find(same).ok_or_else(away)?;
    let directory = below::uncovered(&entry, mount, &before).map_err(refused)?;
    let now = mounts(pid).map_err(refused)?;
    let ours = |one: &&Mount| one.point == mount.point && one.device == mount.device;
    let copy = now.iter().rev().find(ours).ok_or_else(away)?;
    let namespaces: BTreeSet<PathBuf> = namespace(pid).into_iter().collect();
    let lost = detached::mounts_of(&mount.device, &processes(&namespaces));
    let detached = Where::nowhere(namespaces, lost);
    let source = Source::out(&directory, Service::LOST);
    let job = Job {
        from: &detached,
        source: &source,
    };
    let manner = Manner {
        at_once: true,
        ..Manner::default()
    };
    let mut report = repoint(&[job], manner)?;
    let path = mount.point.clone();
    let place = Place { path, directory };
    let standing = Standing { place, id: copy.id };
    report.merge(leave(&[&standing], Service::LOST, Some(&mut || {}), false)?);
    Ok(report)
}
