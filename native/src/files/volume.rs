//! One volume of the target, with its filter in place.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{json, Value};

use super::entry::attach;
use super::entry::place::Place;
use super::entry::repoint::Report;
use super::filter::{Filter, Rules};
use super::guardian::Guardian;
use super::request::{Counters, Percent, Rule, Volume};
use crate::rpc::Refusal;

/// A filter that stands in the container.
pub struct Held {
    rules: Arc<Rules>,
    filter: Filter,
    /// Where it stands, without symbolic links.
    at: PathBuf,
    asked: Volume,
    report: Report,
}

impl Held {
    /// Puts one there whose rules do nothing yet. On an error nothing has changed.
    pub fn enter(pid: i32, volume: &Volume, guardian: &Guardian) -> Result<Self, Refusal> {
        let place = Place::find(pid, &volume.path)?;
        let kernel = |doing: &str| {
            let doing = doing.to_owned();
            move |error: std::io::Error| Refusal::of_kernel(doing, &error)
        };
        let rules = Arc::new(Rules::new(&quiet(volume))?);
        let device = attach::device().map_err(kernel("open /dev/fuse (kernel module fuse)"))?;
        let copy = |fd: &OwnedFd| fd.try_clone().map_err(kernel("descriptor"));
        let mount = attach::make(&device, &place.directory)
            .map_err(kernel("make a fuse mount (kernel module fuse)"))?;
        let filter = Filter::new(copy(&device)?, copy(&place.directory)?, Arc::clone(&rules))
            .map_err(kernel("filter"))?;
        filter.keep_with(guardian.keeper().map_err(kernel("descriptor"))?);
        filter.run().map_err(kernel("threads of the filter"))?;
        let report = guardian.enter(&device, mount, &place, &filter)?;
        Ok(Self {
            rules,
            filter,
            at: place.path,
            asked: quiet(volume),
            report,
        })
    }

    /// Makes its rules act, or others in their place.
    pub fn follow(&mut self, volume: &Volume, guardian: &Guardian) -> Result<(), Refusal> {
        if self.asked == *volume {
            return Ok(());
        }
        let was_quiet = self.asked == quiet(&self.asked);
        self.rules.replace(&quiet(volume))?;
        if self.filter.bypassing() > 0 && !was_quiet {
            self.filter.release();
            match guardian.renew(self.at.clone(), &self.filter) {
                Ok(report) => self.report.merge(report),
                Err(refusal) => {
                    self.rules.replace(&self.asked)?;
                    return Err(refusal);
                }
            }
        }
        self.rules.replace(volume)?;
        self.asked = volume.clone();
        Ok(())
    }

    /// Nothing acts any more, and nobody waits.
    pub fn rest(&self) {
        let nothing = Volume {
            path: self.asked.path.clone(),
            rules: Vec::new(),
        };
        if let Err(refusal) = self.rules.replace(&nothing) {
            crate::system::log(&refusal.to_string());
        }
        self.filter.release();
    }

    /// Gives all that is open its real file again, and takes the mount away.
    pub fn leave(&mut self, guardian: &Guardian) -> Result<(), Refusal> {
        self.rest();
        self.asked.rules.clear();
        let report = guardian.leave(self.at.clone(), &self.filter)?;
        if !report.left.is_empty() {
            crate::system::log(&json!(report).to_string());
        }
        Ok(())
    }

    /// Takes away what was written and not synced, where a rule says so.
    pub fn lose(&self) -> Result<(), Refusal> {
        self.filter.lose().map(drop).map_err(Refusal::try_again)
    }

    pub fn counters(&self) -> BTreeMap<String, Counters> {
        self.rules.counters()
    }

    pub fn bypassing(&self) -> usize {
        self.filter.bypassing()
    }

    /// What there is to tell of its entry.
    pub fn told(&self) -> Value {
        let mut told = json!(self.report);
        told["at"] = json!(self.at);
        told
    }
}

/// The same rules, but none of them hits: a filter knows by them which files it has to serve itself.
fn quiet(volume: &Volume) -> Volume {
    let silent = |rule: &Rule| Rule {
        // What is kept account of must not begin anew.
        percent: if rule.space.is_some() || rule.power_loss {
            rule.percent
        } else {
            Percent(0.0)
        },
        ..rule.clone()
    };
    Volume {
        path: volume.path.clone(),
        rules: volume.rules.iter().map(silent).collect(),
    }
}

/// Is one of two directories in the other?
pub fn conflict(one: &str, other: &str) -> bool {
    let inside = |outer: &str, inner: &str| {
        let rest = inner.strip_prefix(outer.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.starts_with('/'))
    };
    one != other && (inside(one, other) || inside(other, one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_in_one_another_conflict() {
        assert!(conflict("/data", "/data/sub") && conflict("/data/sub", "/data"));
        assert!(conflict("/", "/data"));
        assert!(!conflict("/data", "/database") && !conflict("/data", "/data"));
    }
}
