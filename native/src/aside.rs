//! A cgroup of our own at the root of every hierarchy, for what must outlive the agent.
//!
//! Whoever ends a container, or a unit of systemd, kills what is in its cgroups. The variable
//! `SQUALL_CGROUP`, set by an agent that lives in one, names the place to stand instead. The last to
//! leave it removes it.

use crate::exec::cgroups::{hierarchies, Hierarchy};
use std::fs;

const NAME: &str = "SQUALL_CGROUP";

/// Move this process to the cgroup that the environment names, wherever it is in none of the host.
///
/// Where that cannot be done it says so and stays: then it ends with the agent, and fails open.
pub fn stand() {
    let Some(name) = name() else { return };
    for hierarchy in seen()
        .iter()
        .filter(|one| !matches!(one.path.as_str(), "" | "/"))
    {
        if hierarchy.path == format!("/{name}") {
            continue;
        }
        let place = format!("{}/{name}", hierarchy.point);
        let _ = fs::create_dir(&place); // there already, or the write below tells
        for file in ["cpuset.cpus", "cpuset.mems"] {
            inherit(&hierarchy.point, &place, file);
        }
        if let Err(error) = fs::write(format!("{place}/cgroup.procs"), "0") {
            eprintln!("squall-node: {place}: {error}; it will end with the container of its agent");
        }
    }
}

/// Leave that cgroup, and remove it where nobody else is left in it.
pub fn leave() {
    let Some(name) = name() else { return };
    for hierarchy in seen().iter().filter(|one| one.path == format!("/{name}")) {
        let _ = fs::write(format!("{}/cgroup.procs", hierarchy.point), "0");
        let _ = fs::remove_dir(format!("{}/{name}", hierarchy.point));
    }
}

fn name() -> Option<String> {
    std::env::var(NAME)
        .ok()
        .filter(|name| !name.is_empty() && !name.contains('/'))
}

fn seen() -> Vec<Hierarchy> {
    hierarchies("self").unwrap_or_default()
}

/// On cgroup v1 a new cgroup has no processor and no memory node, and lets nobody in.
fn inherit(from: &str, to: &str, file: &str) {
    let Ok(own) = fs::read_to_string(format!("{to}/{file}")) else {
        return;
    };
    if own.trim().is_empty() {
        let above = fs::read_to_string(format!("{from}/{file}")).unwrap_or_default();
        let _ = fs::write(format!("{to}/{file}"), above.trim());
    }
}
