//! Where the cgroups of a process are to be seen on this host.

use crate::failure::{Outcome, While};
use std::fs::{self, File};

/// The `cgroup.procs` of every hierarchy that the process is in and that is mounted here, opened.
pub fn of(pid: i32) -> Outcome<Vec<File>> {
    let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).on("cgroup")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").on("mountinfo")?;
    let mut found = Vec::new();
    for line in lines.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        if let Some(directory) = mounted(&mounts, controllers, path) {
            let procs = format!("{directory}/cgroup.procs");
            found.push(File::options().write(true).open(&procs).on(&procs)?);
        }
    }
    Ok(found)
}

/// Where a cgroup is to be seen: proc_pid_mountinfo(5), cgroups(7).
fn mounted(mounts: &str, controllers: &str, path: &str) -> Option<String> {
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
        fits.then(|| format!("{point}{below}"))
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

    #[test]
    fn a_cgroup_is_found_in_the_hierarchy_that_has_its_controllers() {
        let found = |controllers, path| mounted(MOUNTS, controllers, path);
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
        let found = |path| mounted(MOUNTS, "memory", path);
        assert_eq!(
            found("/docker/ab/c"),
            Some("/sys/fs/cgroup/memory/c".to_owned())
        );
        assert_eq!(found("/elsewhere"), None);
    }
}
