//! Takes a mount of ours away, when nobody uses it any more.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::attach;
use super::passage::{in_all_namespaces, open_namespace};
use super::place::{mount_of, mounts, open_below, Mount};
use super::repoint::{repoint, Job, Manner, Report};
use super::scan::Where;
use crate::rpc::Refusal;

/// How long to try to take a mount away before it is only hidden until nobody uses it any more.
const UNUSED_WITHIN: Duration = Duration::from_secs(3);

/// Takes `mount` away, of the namespace of a process. Who uses it again is moved once more, as `job`
/// says; what others have mounted there goes to the same place of the real directory.
pub fn take_away(
    pid: i32,
    mount: &Mount,
    real: &OwnedFd,
    job: &Job<'_>,
    report: &mut Report,
) -> Result<(), Refusal> {
    let Ok(entry) = open_namespace(pid) else {
        return Ok(()); // the namespace is gone with its last process, or will be found again
    };
    let started = Instant::now();
    loop {
        let lost = !rescue_children(pid, &entry, mount, real);
        let lazily = lost || started.elapsed() > UNUSED_WITHIN;
        match attach::take_away(&entry, &mount.point, mount.id, lazily) {
            Ok(()) => {
                if lazily {
                    follow(mount, job, report);
                }
                return Ok(());
            }
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && !lazily => {
                // Somebody has opened something since, and may do so again and again.
                let mut take = || attach::take_away(&entry, &mount.point, mount.id, false).is_ok();
                let manner = Manner {
                    finish: Some(&mut take),
                    ..Manner::default()
                };
                let _ = repoint(&[*job], manner);
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(_) if gone(pid, mount) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                // Another user namespace has it locked to all that is mounted there.
                return cover(&entry, mount, real).map_err(|error| {
                    let doing = format!("cover the mount at {}", mount.point.display());
                    Refusal::of_kernel(doing, &error)
                });
            }
            Err(error) => {
                let doing = format!("take the mount at {} away", mount.point.display());
                return Err(Refusal::of_kernel(doing, &error));
            }
        }
    }
}

/// Moves what is open on a mount that stands nowhere any more: from now on it can only become less.
fn follow(mount: &Mount, job: &Job<'_>, report: &mut Report) {
    let namespaces = job.from.namespaces.clone();
    let from = Where::nowhere(namespaces, BTreeSet::from([mount.id]));
    let job = Job {
        from: &from,
        source: job.source,
    };
    let manner = Manner {
        at_once: true,
        ..Manner::default()
    };
    match repoint(&[job], manner) {
        Ok(more) => report.merge(more),
        Err(refusal) => {
            crate::system::log(&refusal.to_string());
            let hidden = "still in use: unmounted lazily".to_owned();
            *report.left.entry(hidden).or_default() += 1;
        }
    }
}

/// Puts the real directory over a mount that cannot be taken away.
fn cover(entry: &File, mount: &Mount, real: &OwnedFd) -> io::Result<()> {
    let id = mount_of(real)?;
    let home = in_all_namespaces(|one| one.id == id).into_values().next();
    let (pid, _) = home.ok_or(io::ErrorKind::NotFound)?;
    let double = attach::double(&open_namespace(pid)?, real)?;
    attach::put_over(entry, &double, &mount.point, mount.id)
}

/// Is it gone, or covered by what stands below it?
fn gone(pid: i32, mount: &Mount) -> bool {
    let is = |one: &Mount| one.id == mount.id;
    let covers = |one: &Mount| one.parent == mount.id && one.point == mount.point;
    mounts(pid).map_or(true, |all| !all.iter().any(is) || all.iter().any(covers))
}

/// Mounts that others have put below ours go to the same place of the real directory; false where
/// some cannot, for nobody serves ours any more, and so nobody gets past it.
fn rescue_children(pid: i32, entry: &File, mount: &Mount, real: &OwnedFd) -> bool {
    let mut reached = true;
    let all = mounts(pid).unwrap_or_default();
    for child in all
        .iter()
        .filter(|one| one.parent == mount.id && !one.is_ours())
    {
        let Ok(path) = child.point.strip_prefix(&mount.point) else {
            continue;
        };
        let moved = open_below(real, path, libc::O_PATH, libc::RESOLVE_BENEATH)
            .and_then(|to| attach::move_to(entry, &child.point, child.id, &to));
        if let Err(error) = moved {
            crate::system::log(&format!("mount at {}: {error}", child.point.display()));
            reached &= error.raw_os_error() != Some(libc::ENOTCONN);
        }
    }
    reached
}
