//! Binds that a container has made of a mount of ours, or of what is in it, and has elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::attach;
use super::away::take_away;
use super::instead::Source;
use super::passage::{in_all_namespaces, open_namespace, Standing};
use super::place::{mount_of, open_below, Mount};
use super::repoint::{Job, Report};
use super::scan::Where;
use super::service::Service;
use crate::rpc::Refusal;

/// One of them.
pub struct Bind {
    pid: i32,
    mount: Mount,
    /// The true directory, or file, that it shows.
    real: OwnedFd,
    /// A mount of that, which is to stand in its place.
    instead: OwnedFd,
    pub from: Where,
}

/// Takes those out of `found` that are more than copies of the mount in other namespaces.
pub fn of(one: &Standing, found: &mut BTreeMap<PathBuf, (i32, Vec<Mount>)>) -> Vec<Bind> {
    let mut binds = Vec::new();
    for (namespace, (pid, mounts)) in found.iter_mut() {
        mounts.retain(|mount| {
            let whole = mount.root == Path::new("/") && mount.point == one.place.path;
            if whole || mount.id == one.id {
                return true;
            }
            match Bind::new(namespace, *pid, mount, &one.place.directory) {
                Ok(bind) => binds.push(bind),
                Err(error) => {
                    let point = mount.point.display();
                    crate::system::log(&format!("what is bound to {point}: {error}"));
                    return true;
                }
            }
            false
        });
    }
    binds
}

impl Bind {
    fn new(namespace: &Path, pid: i32, mount: &Mount, real: &OwnedFd) -> io::Result<Self> {
        let below = mount.root.strip_prefix("/").unwrap_or(&mount.root);
        let strict = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS;
        let real = open_below(real, below, libc::O_PATH, strict)?;
        let id = mount_of(&real)?;
        let home = in_all_namespaces(|one| one.id == id).into_values().next();
        let (owner, _) = home.ok_or(io::ErrorKind::NotFound)?;
        let instead = attach::double(&open_namespace(owner)?, &real)?;
        let from = Where {
            namespaces: BTreeSet::from([namespace.to_owned()]),
            path: mount.point.clone(),
            mounts: BTreeSet::from([mount.id]),
        };
        let mount = mount.clone();
        Ok(Self {
            pid,
            mount,
            real,
            instead,
            from,
        })
    }

    /// What is open there goes to the new mount.
    pub fn source<'a>(&'a self, service: Service<'a>) -> Source<'a> {
        Source::out(&self.instead, service)
    }

    /// Puts the new mount into the place of ours.
    pub fn replace(&self, job: &Job<'_>, report: &mut Report) -> Result<(), Refusal> {
        take_away(self.pid, &self.mount, &self.real, job, report)?;
        let Ok(entry) = open_namespace(self.pid) else {
            return Ok(()); // it has ended
        };
        let point = &self.mount.point;
        attach::stand_in(&entry, &self.instead, point).map_err(|error| {
            let doing = format!("bind the true directory to {}", point.display());
            Refusal::of_kernel(doing, &error)
        })
    }
}
