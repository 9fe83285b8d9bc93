//! Where the cgroups of a process are to be seen on this host.

use crate::failure::{Outcome, While};
use std::fs::{self, File};

/// One hierarchy, and where a process is in it.
pub struct Hierarchy {
    /// Where it is mounted.
    pub point: String,
    /// Of the cgroup, seen from there; `/` is what is mounted itself.
    pub path: String,
}

/// The `cgroup.procs` of every hierarchy that the process is in and that is mounted here, opened.
pub fn of(pid: i32) -> Outcome<Vec<File>> {
    let open = |found: Hierarchy| {
        let procs = format!("{}{}/cgroup.procs", found.point, found.path);
        File::options().write(true).open(&procs).on(&procs)
    };
    let found = hierarchies(&pid.to_string())?;
    found.into_iter().map(open).collect()
}

/// Every hierarchy that is mounted here; the process is one of /proc, `self` too.
pub fn hierarchies(process: &str) -> Outcome<Vec<Hierarchy>> {
    let lines = fs::read_to_string(format!("/proc/{process}/cgroup")).on("cgroup")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").on("mountinfo")?;
    let found = lines.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        mounted(&mounts, parts.next()?, parts.next()?)
    });
    Ok(found.collect())
}

/// Where a cgroup is to be seen: proc_pid_mountinfo(5), cgroups(7).
fn mounted(mounts: &str, controllers: &str, path: &str) -> Option<Hierarchy> {
    mounts.lines().find_map(|line| {
        let (place, source) = line.split_once(" - ")?;
        let mut words = place.split(' ').skip(3);
        let (root, point) = (words.next()?, words.next()?);
        let mut words = source.split(' ');
        let (kind, options) = (words.next()?, words.nth(1)?);
        let fits = match controllers {
            "" => kind == "cgroup2",
            _ => {
                kind == "cgroup"
                    && controllers
                        .split(',')
                        .all(|name| options.split(',').any(|o| o == name))
            }
        };
        let below = if root == "/" {
            path
        } else {
            path.strip_prefix(root)?
        };
        fits.then(|| Hierarchy {
            point: point.to_owned(),
            path: below.to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 27 0:21 / /proc rw - proc proc rw
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
33 30 0:28 /docker/ab /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
35 30 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
36 30 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
";

    fn whole(found: Option<Hierarchy>) -> Option<String> {
        found.map(|one| one.point + &one.path)
    }

    #[test]
    fn a_cgroup_is_found_in_the_hierarchy_that_has_its_controllers() {
        let found = |controllers, path| whole(mounted(MOUNTS, controllers, path));
        let both = Some("/sys/fs/cgroup/cpu,cpuacct/x".to_owned());
        assert_eq!(found("cpu,cpuacct", "/x"), both);
        assert_eq!(found("", "/x"), Some("/sys/fs/cgroup/unified/x".to_owned()));
        assert_eq!(
            found("name=systemd", "/"),
            Some("/sys/fs/cgroup/systemd/".to_owned())
        );
        assert_eq!(found("pids", "/x"), None);
    }

    #[test]
    fn a_mount_of_a_part_shows_only_what_is_below_it() {
        let found = |path| whole(mounted(MOUNTS, "memory", path));
        assert_eq!(
            found("/docker/ab/c"),
            Some("/sys/fs/cgroup/memory/c".to_owned())
        );
        assert_eq!(found("/elsewhere"), None);
    }
}
