//! What is below a mount of ours that nobody serves any more.
//!
//! We may be killed at each step, with all who are to go on for us. So at each step a mount of ours
//! stands somewhere in the namespace, and where it belongs can be read there.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::attach::{
    enter, found_inside, inside, known, move_mount, open_tree, unmount, OPEN_TREE_CLONE,
};
use super::group::Group;
use super::place::{mount_of, Mount, SOURCE};
use crate::system::check;

/// Every container has it, and next to nothing is there.
const ASIDE: &str = "/proc/driver";
const ITSELF: u32 = libc::AT_SYMLINK_NOFOLLOW as u32;

/// Gives the directory below a mount of ours; `all` are those of its namespace.
///
/// The mount steps aside for that moment, or is replaced by a copy of itself: afterwards one of ours
/// stands there again.
pub fn uncovered(namespace: &File, mount: &Mount, all: &[Mount]) -> io::Result<OwnedFd> {
    found_inside(namespace, || {
        drop(known(Path::new(enter(&mount.point)?), mount.id)?);
        let below = all.iter().find(|one| one.id == mount.parent);
        // What is shared and wholly covered cannot be reached, and nothing moves away from it.
        let stuck = below.is_some_and(|one| one.is_shared() && one.point == mount.point);
        let aside = if stuck {
            None
        } else {
            Aside::made(mount, all).ok()
        };
        match aside {
            Some(aside) => aside.shown(mount, below),
            None => replaced(mount, below),
        }
    })
}

/// Puts a mount of ours back that had stepped aside when we died, and clears up behind it.
pub fn come_home(namespace: &File, all: &[Mount]) -> io::Result<()> {
    for (aside, home) in all.iter().filter_map(|one| Some((one, one.home()?))) {
        let away = all
            .iter()
            .find(|one| one.parent == aside.id && one.is_ours());
        inside(namespace, || {
            if let Some(away) = away {
                let top = known(Path::new(enter(&away.point)?), away.id)?;
                let to = open_tree(Path::new(enter(home)?), ITSELF)?;
                let below = mount_of(&to)?;
                let _group = left(all.iter().find(|one| one.id == below), &to)?;
                move_mount(&top, &to, 0)?;
            }
            let name = enter(&aside.point)?;
            drop(known(Path::new(name), aside.id)?);
            unmount(name, 0)
        })?;
    }
    Ok(())
}

/// Where a mount of ours is while we look at what is below it; its source tells where that was.
struct Aside(OwnedFd);

impl Aside {
    fn made(mount: &Mount, all: &[Mount]) -> io::Result<Self> {
        let name = enter(Path::new(ASIDE))?;
        let before = open_tree(Path::new(name), ITSELF)?;
        let below = mount_of(&before)?;
        let _group = left(all.iter().find(|one| one.id == below), &before)?;
        let mut source = format!("{SOURCE}:").into_bytes();
        source.extend_from_slice(mount.point.as_os_str().as_bytes());
        let (source, name) = (CString::new(source)?, CString::new(name.as_bytes())?);
        let (kind, options) = (c"tmpfs".as_ptr(), c"mode=0".as_ptr().cast());
        // SAFETY: strings outlive the call.
        check(unsafe { libc::mount(source.as_ptr(), name.as_ptr(), kind, 0, options) })?;
        open_tree(Path::new(OsStr::from_bytes(name.as_bytes())), ITSELF).map(Self)
    }

    /// The directory below `mount`, whose parent is `below`.
    fn shown(self, mount: &Mount, below: Option<&Mount>) -> io::Result<OwnedFd> {
        let name = Path::new(enter(&mount.point)?);
        let top = known(name, mount.id)?;
        let directory = {
            let reached = below.map(|one| open_tree(&one.point, 0)).transpose()?;
            let _group = reached.map(|one| left(below, &one)).transpose()?;
            move_mount(&top, &self.0, 0)?;
            let directory = open_tree(name, ITSELF)?;
            move_mount(&top, &directory, 0)?;
            directory
        };
        drop(self.0);
        unmount(enter(Path::new(ASIDE))?, 0)?;
        Ok(directory)
    }
}

/// Takes a mount away and puts a copy in its place. Between the two, none of ours stands there.
fn replaced(mount: &Mount, below: Option<&Mount>) -> io::Result<OwnedFd> {
    let name = enter(&mount.point)?;
    let copy = open_tree(Path::new(name), OPEN_TREE_CLONE | ITSELF)?;
    unmount(name, libc::MNT_DETACH)?;
    let directory = open_tree(Path::new(name), ITSELF)?;
    let _group = left(below, &directory)?;
    move_mount(&copy, &directory, 0)?;
    Ok(directory)
}

/// Takes the mount that a directory is in out of its group, if it is shared.
fn left(mount: Option<&Mount>, directory: &OwnedFd) -> io::Result<Option<Group>> {
    let shared = mount.filter(|one| one.is_shared());
    shared
        .map(|one| Group::left(&one.point, directory))
        .transpose()
}
