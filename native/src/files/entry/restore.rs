//! Takes away what dead processes of ours have left, known by its mark.
//!
//! We may be killed here, too, or be told to come back later. So the mark stays until all is given
//! back: it stands for whatever is open on that file system, also on mounts that stand nowhere.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::attach;
use super::detached;
use super::instead::{Source, Way};
use super::passage::{in_all_namespaces, open_namespace, take_away};
use super::place::{mounts, Mount};
use super::repoint::{repoint, Job, Manner, Report};
use super::scan::{namespace, processes, Where};
use crate::rpc::Refusal;

/// How long to wait for those who cannot be stopped now, as while another one of us is at work.
const PATIENCE: Duration = Duration::from_secs(4);

/// A mount of ours, and where it stands.
struct Left {
    namespace: PathBuf,
    /// A process that is there.
    pid: i32,
    mount: Mount,
}

/// Takes away every mount of ours that nobody serves any more, or only those of which one stands in
/// the namespace of `pid`.
pub fn restore(pid: Option<i32>) -> Result<Report, Refusal> {
    let mut report = Report::default();
    match pid {
        Some(pid) => report.merge(restore_of(pid)?),
        None => {
            for (pid, _) in in_all_namespaces(Mount::is_ours).into_values() {
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
            match give_back(&one) {
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

/// Those of which one stands in the namespace of `pid`, that one last: others are found by it.
fn all(pid: i32) -> Vec<Left> {
    let own = namespace(pid);
    let found = in_all_namespaces(Mount::is_ours);
    let mut left: Vec<Left> = Vec::new();
    for (namespace, (pid, mounts)) in found {
        let all = super::place::mounts(pid).unwrap_or_default();
        let covers =
            |one: &Mount, mount: &Mount| one.parent == mount.id && one.point == mount.point;
        let open = |mount: &Mount| !all.iter().any(|one| covers(one, mount));
        for mount in mounts.into_iter().rev().filter(open) {
            let namespace = namespace.clone();
            left.push(Left {
                namespace,
                pid,
                mount,
            });
        }
    }
    let theirs = |one: &&Left| Some(&one.namespace) == own.as_ref();
    let devices = left.iter().filter(theirs).map(|one| &one.mount.device);
    let devices: BTreeSet<String> = devices.cloned().collect();
    left.retain(|one| devices.contains(&one.mount.device));
    left.sort_by_key(|one| Some(&one.namespace) == own.as_ref());
    left
}

fn give_back(left: &Left) -> Result<Report, Refusal> {
    let (pid, mount) = (left.pid, &left.mount);
    let doing = format!("look below the mount at {}", mount.point.display());
    let refused = |error: std::io::Error| Refusal::of_kernel(&doing, &error);
    let entry = open_namespace(pid).map_err(refused)?;
    let before = mounts(pid).map_err(refused)?;
    let below = before.iter().find(|one| one.id == mount.parent);
    let shared = below.filter(|one| one.is_shared());
    let shared = shared.map(|one| one.point.as_path());
    let directory = attach::uncovered(&entry, &mount.point, mount.id, shared).map_err(refused)?;
    let now = mounts(pid).map_err(refused)?;
    let ours = |one: &&Mount| one.point == mount.point && one.device == mount.device;
    let Some(copy) = now.iter().rev().find(ours) else {
        return Err(Refusal::try_again(format!(
            "somebody took the mount at {} away",
            mount.point.display()
        )));
    };
    let namespaces = BTreeSet::from([left.namespace.clone()]);
    let detached = Where {
        mounts: detached::mounts_of(&mount.device, &processes(&namespaces)),
        namespaces: namespaces.clone(),
        path: PathBuf::from("/"), // what is on such a mount is shown from its root
    };
    let standing = Where {
        namespaces,
        path: mount.point.clone(),
        mounts: BTreeSet::from([copy.id]),
    };
    let source = Source {
        to: &directory,
        real: &directory,
        way: Way::Out,
        filter: None,
        kept: &[],
    };
    let jobs = [&detached, &standing].map(|from| Job {
        from,
        source: &source,
    });
    let manner = Manner {
        nudge: None,
        at_once: true,
    };
    let mut report = repoint(&jobs, manner)?;
    take_away(pid, copy, &directory, &jobs[1], &mut report)?;
    Ok(report)
}
