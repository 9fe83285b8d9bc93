//! Who serves what is moved, and what is known of that.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use crate::files::lock::Had;

/// Who has locked files for processes that use a filter.
pub trait LockHolder {
    /// The locks of files, by their shown numbers.
    fn list(&self, inodes: &BTreeSet<u64>) -> Vec<Had>;
    /// Makes locks of these open files shared that are not, but for flock(2)'s.
    fn loosen(&self, ids: &BTreeSet<u64>);
    /// Gives up all locks of these open files.
    fn let_go(&self, ids: &BTreeSet<u64>);
}

/// A filter, alive or dead.
#[derive(Clone, Copy)]
pub struct Service<'a> {
    /// Its process, if that lives: what it has open, it has for somebody.
    pub filter: Option<i32>,
    /// Files without a name that are open here for the same reason.
    pub kept: &'a [OwnedFd],
    pub locks: &'a dyn LockHolder,
}

impl Service<'static> {
    /// Dead, and nobody has kept anything of it.
    pub const LOST: Self = Self {
        filter: None,
        kept: &[],
        locks: &Nobody,
    };
}

struct Nobody;

impl LockHolder for Nobody {
    fn list(&self, _: &BTreeSet<u64>) -> Vec<Had> {
        Vec::new()
    }

    fn loosen(&self, _: &BTreeSet<u64>) {}

    fn let_go(&self, _: &BTreeSet<u64>) {}
}
