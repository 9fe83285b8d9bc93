//! Changes to files of which a rule keeps account: how much they grow, and what is not synced yet.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, MutexGuard, PoisonError};

use super::device::Errno;
use super::nodes::Node;
use super::open_files::OpenFile;
use super::rules::{count, Compiled};
use super::space::{Budget, Taken};
use super::sys;
use super::undo::Undo;
use super::Shared;

type Writes<'a> = MutexGuard<'a, Option<Box<Undo>>>;

fn writes(node: &Node) -> Writes<'_> {
    node.writes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Compiled {
    fn budgets(&self, mask: u64) -> Vec<&Budget> {
        self.those(mask)
            .filter_map(|one| one.budget.as_deref())
            .collect()
    }

    /// Says that a request has failed for lack of space.
    fn refused(&self, mask: u64) -> Errno {
        let with_budget = self.those(mask).filter(|one| one.budget.is_some());
        with_budget.for_each(|one| count(&one.counted.failed, 1));
        libc::ENOSPC
    }
}

impl Shared {
    /// Writes at `offset`, or at the end; less than asked where space ends.
    pub fn write_accounted(
        &self,
        file: &OpenFile,
        rules: &Compiled,
        from: &[u8],
        offset: Option<u64>,
        synced: bool,
    ) -> Result<usize, Errno> {
        let mask = self.verdict(&file.node, rules);
        let _powered = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let mut undo = writes(&file.node);
        let size = sys::stat(file.raw())?.st_size as u64;
        let offset = offset.unwrap_or(size);
        let growth = |length: usize| (offset + length as u64).saturating_sub(size.max(offset));
        let wanted = growth(from.len());
        let mut taken = Taken::from(rules.budgets(mask), wanted);
        let fits = from.len() - (wanted - taken.1) as usize;
        if fits == 0 && !from.is_empty() {
            return Err(rules.refused(mask));
        }
        let put = self
            .undo(&mut undo, &file.node, file.raw(), rules)
            .and_then(|undo| {
                if let Some(undo) = undo {
                    undo.before(
                        offset.min(size),
                        fits as u64 + offset.saturating_sub(size),
                        self.spill()?,
                    )?;
                }
                sys::pwrite(file.raw(), &from[..fits], offset)
            });
        taken.used(put.map_or(0, growth));
        let put = put?;
        if let Some(undo) = undo.as_mut().filter(|_| synced) {
            undo.synced_range(offset, put as u64, self.spill()?);
        }
        Ok(put)
    }

    /// Changes the size, of an open file or of one by its descriptor.
    pub fn resize(&self, node: &Node, fd: RawFd, size: u64) -> Result<(), Errno> {
        let rules = self.rules.now();
        let mask = self.verdict(node, &rules);
        if !rules.keep_account(mask) {
            return sys::truncate(fd, size);
        }
        let _powered = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let mut undo = writes(node);
        let before = sys::stat(fd)?.st_size as u64;
        if let Some(undo) = self.undo(&mut undo, node, fd, &rules)? {
            undo.before_resize(size, self.spill()?)?;
        }
        sys::truncate(fd, size)?;
        let freed = before.saturating_sub(size);
        rules
            .budgets(mask)
            .iter()
            .for_each(|budget| budget.give_back(freed));
        Ok(())
    }

    pub fn allocate_accounted(
        &self,
        file: &OpenFile,
        mode: i32,
        offset: u64,
        length: u64,
    ) -> Result<(), Errno> {
        let allocate = || {
            // SAFETY: plain call.
            sys::check(unsafe { libc::fallocate64(file.raw(), mode, offset as i64, length as i64) })
                .map(drop)
        };
        let rules = self.rules.now();
        let mask = self.verdict(&file.node, &rules);
        if !rules.keep_account(mask) {
            return allocate();
        }
        let _powered = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let mut undo = writes(&file.node);
        let size = sys::stat(file.raw())?.st_size as u64;
        let end = offset.saturating_add(length);
        let shifts = mode & (libc::FALLOC_FL_COLLAPSE_RANGE | libc::FALLOC_FL_INSERT_RANGE) != 0;
        let grows = match mode {
            0 | libc::FALLOC_FL_ZERO_RANGE => end.saturating_sub(size),
            libc::FALLOC_FL_INSERT_RANGE => length,
            _ => 0,
        };
        let mut taken = Taken::from(rules.budgets(mask), grows);
        if taken.1 < grows {
            taken.used(0);
            return Err(rules.refused(mask));
        }
        let done = self
            .undo(&mut undo, &file.node, file.raw(), &rules)
            .and_then(|undo| {
                if let Some(undo) = undo {
                    let last = if shifts {
                        size.saturating_add(length)
                    } else {
                        end
                    };
                    undo.before(
                        offset.min(size),
                        last.saturating_sub(offset.min(size)),
                        self.spill()?,
                    )?;
                }
                allocate()
            });
        if done.is_err() {
            taken.used(0);
        }
        done
    }

    /// Syncs, and holds writes back meanwhile: what comes later is not on the disk.
    pub fn sync_accounted(&self, file: &OpenFile, data_only: bool) -> Result<(), Errno> {
        let _powered = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let mut undo = writes(&file.node);
        match undo.as_mut() {
            None => {
                drop(undo);
                sys::sync(file.raw(), data_only)
            }
            Some(undo) => {
                sys::sync(file.raw(), data_only)?;
                undo.synced(self.spill()?)
            }
        }
    }

    /// A name is about to go: what the last one leaves behind is free again, and nobody's loss.
    pub fn give_back_all(&self, node: &Node) -> Result<(), Errno> {
        let rules = self.rules.now();
        let mask = self.verdict(node, &rules);
        if !rules.keep_account(mask) {
            return Ok(());
        }
        let stat = sys::stat(self.nodes.fd(node)?.as_raw_fd())?;
        if stat.st_nlink <= 1 {
            rules
                .budgets(mask)
                .iter()
                .for_each(|budget| budget.give_back(stat.st_size as u64));
            if let Some(undo) = writes(node).take() {
                undo.forget(self.spill()?);
            }
        }
        Ok(())
    }

    /// Bytes that may still be added to what is in here, where a rule says so.
    pub fn space_left(&self, node: &Node) -> Option<u64> {
        let rules = self.rules.now();
        let mask = self.verdict(node, &rules);
        rules.budgets(mask).iter().map(|budget| budget.left()).min()
    }

    /// What is remembered of a file, if a rule in force wants that; what was for others is forgotten.
    fn undo<'a>(
        &self,
        writes: &'a mut Writes,
        node: &Node,
        fd: RawFd,
        rules: &Compiled,
    ) -> Result<Option<&'a mut Undo>, Errno> {
        let mask = self.verdict(node, rules);
        let Some(one) = rules.those(mask).find(|one| one.rule.power_loss) else {
            if let Some(undo) = writes.take() {
                undo.forget(self.spill()?);
            }
            return Ok(None);
        };
        if writes
            .as_ref()
            .is_some_and(|undo| !Arc::ptr_eq(&undo.owner, &one.counted))
        {
            if let Some(undo) = writes.take() {
                undo.forget(self.spill()?);
            }
        }
        if writes.is_none() {
            let own = sys::reopen(fd, libc::O_RDWR)?;
            **writes = Some(Box::new(Undo::new(own, Arc::clone(&one.counted))?));
        }
        Ok(writes.as_deref_mut())
    }

    /// Takes power away: what was written and not synced is gone. Bytes by source.
    pub fn lose(&self) -> Result<BTreeMap<String, u64>, Errno> {
        let nodes = self.nodes.all();
        let rules = self.rules.now();
        let counted = |node: &Node| {
            rules
                .those(self.verdict(node, &rules))
                .any(|one| one.rule.power_loss)
        };
        let hit: Vec<_> = nodes
            .into_iter()
            .filter(|node| !node.is_dir && counted(node))
            .collect();
        // What is mapped and changed counts as written; it comes in through us.
        hit.iter()
            .for_each(|node| self.device.forget_pages(node.id));
        let dark = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut lost: BTreeMap<String, u64> = BTreeMap::new();
        let mut failed = None;
        for node in &hit {
            let mut writes = writes(node);
            let Some(undo) = writes.as_mut() else {
                continue;
            };
            let owner = Arc::clone(&undo.owner);
            let Some(one) = rules
                .rules
                .iter()
                .find(|one| Arc::ptr_eq(&one.counted, &owner))
            else {
                continue; // it was for a rule that has gone
            };
            match undo.lose(self.spill()?) {
                Ok(bytes) => {
                    count(&owner.lost_bytes, bytes);
                    *lost.entry(one.rule.source.clone()).or_default() += bytes;
                }
                Err(errno) => failed = Some(errno), // the others lose theirs all the same
            }
        }
        drop(dark);
        hit.iter()
            .for_each(|node| self.device.forget_pages(node.id));
        failed.map_or(Ok(lost), Err)
    }
}
