//! Takes a mount of ours away, when nobody uses it any more.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::attach;
use super::instead::Source;
use super::passage::{in_all_namespaces, open_namespace};
use super::place::{mount_of, mounts, open_below, Mount};
use super::repoint::{repoint, Job, Manner, Report};
use super::scan::{namespace, processes, Where};
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
    let started = Instant::now();
    loop {
        let Some((pid, entry)) = reached(pid, mount) else {
            follow(mount, job, report);
            return Ok(());
        };
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
            Err(_) if reached(pid, mount).is_none() => {} // it is gone, which is seen above
            Err(_) if is_covered(pid, mount) => return Ok(()),
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

/// Takes away mounts that nobody serves any more, while all stand still who had something open there:
/// each name below would be an error to whoever goes on before they are gone. False where some are
/// left to `take_away`.
pub fn vanish(from: &Where, source: &Source<'_>) -> bool {
    let Ok(below) = mount_of(source.real) else {
        return false;
    };
    let mut seen = BTreeSet::new();
    let mut found: Vec<(i32, Mount)> = Vec::new();
    for pid in processes(&from.namespaces) {
        if namespace(pid).is_some_and(|own| seen.insert(own)) {
            let all = mounts(pid).unwrap_or_default().into_iter().rev();
            let ours = all.filter(|one| from.mounts.contains(&one.id));
            found.extend(ours.map(|mount| (pid, mount)));
        }
    }
    found.sort_by_key(|(_, mount)| mount.parent == below); // by that one, the others are found
    let is_bind = found.last().is_some_and(|(_, one)| one.parent != below);
    found.iter().all(|(pid, mount)| {
        let taken = open_namespace(*pid).and_then(|entry| {
            attach::take_away(&entry, &mount.point, mount.id, true)?;
            if is_bind {
                attach::stand_in(&entry, source.real, &mount.point)?;
            }
            Ok(())
        });
        taken.is_ok()
    })
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

/// The namespace in which a mount stands, and who is in it: that process, or another one where that
/// has ended. None if the mount is gone.
fn reached(mut pid: i32, mount: &Mount) -> Option<(i32, File)> {
    let is = |one: &Mount| one.id == mount.id;
    loop {
        let entry = open_namespace(pid).ok();
        let stands = mounts(pid).is_ok_and(|all| all.iter().any(is));
        if let Some(entry) = entry.filter(|_| stands) {
            return Some((pid, entry));
        }
        (pid, _) = in_all_namespaces(is).into_values().next()?;
    }
}

/// Does something stand on it, as wide as it is?
fn is_covered(pid: i32, mount: &Mount) -> bool {
    let covers = |one: &Mount| one.parent == mount.id && one.point == mount.point;
    mounts(pid).is_ok_and(|all| all.iter().any(covers))
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::place::Place;
    use super::super::service::Service;
    use super::super::target::Target;
    use super::*;

    #[test]
    fn a_mount_goes_though_the_process_by_which_it_was_found_has_ended() {
        let mut target = Target::start("resident");
        let shown = target.directory.display().to_string();
        let real = Place::find(target.pid(), &shown).unwrap().directory;
        target.ask(&format!("os.system('mount -t tmpfs none {shown}')"));
        let all = mounts(target.pid()).unwrap();
        let mount = all.iter().find(|one| one.point == target.directory);
        let mut ended = Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let from = Where::nowhere(BTreeSet::new(), BTreeSet::new());
        let source = Source::out(&real, Service::LOST);
        let job = Job {
            from: &from,
            source: &source,
        };
        let mut report = Report::default();
        take_away(ended.id() as i32, mount.unwrap(), &real, &job, &mut report).unwrap();
        let now = mounts(target.pid()).unwrap();
        assert!(now.iter().all(|one| one.point != target.directory));
    }
}
