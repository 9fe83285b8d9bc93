//! What the agent asks for, as types; `squall.linux.files` is the other end.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::filter::glob::Glob;
use super::filter::methods::Methods;
use crate::rpc::Refusal;

/// Make exactly this be in force.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Set {
    pub volumes: Vec<Volume>,
    /// Seconds to hold on after the connection is gone.
    pub lease: f64,
    /// Seconds of boot time at which all ends.
    pub deadline: Option<f64>,
}

impl Set {
    /// Refuses what the types allow but nobody can mean.
    pub fn check(&self) -> Result<(), Refusal> {
        let mut seen = BTreeSet::new();
        for volume in &self.volumes {
            let path = &volume.path;
            if !path.starts_with('/') || (path.len() > 1 && path.ends_with('/')) {
                let form = "a volume is an absolute path without `/` at its end";
                return Err(Refusal::invalid(format!("{form}: {path}")));
            }
            if !seen.insert(path) {
                return Err(Refusal::invalid(format!("two volumes at {path}")));
            }
            if volume.rules.is_empty() {
                return Err(Refusal::invalid(format!("a volume without rules: {path}")));
            }
            for rule in &volume.rules {
                rule.check()?;
            }
        }
        Ok(())
    }
}

/// One directory of the target, and what happens to requests for what is in it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Absolute, as the target sees it.
    pub path: String,
    /// Oldest first.
    pub rules: Vec<Rule>,
}

/// `squall.injection.world.files.FileRule`: zero and `None` mean "does not".
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    pub source: String,
    /// Directory that bounds it, absolute; empty: the volume.
    pub below: String,
    /// Glob over absolute paths; empty: everything.
    pub path: String,
    /// Names of requests; none: all.
    pub methods: Vec<String>,
    /// How many of the requests that match are hit.
    pub percent: Percent,
    pub latency_us: u64,
    pub errno: i32,
    pub attributes: Option<Attributes>,
    pub mistake: Option<Mistake>,
    /// Bytes by which files may still grow.
    pub space: Option<u64>,
    pub power_loss: bool,
}

impl Rule {
    fn check(&self) -> Result<(), Refusal> {
        let refused =
            |what: String| Err(Refusal::invalid(format!("rule of {}: {what}", self.source)));
        if self.source.is_empty() {
            return Err(Refusal::invalid("a rule without a source"));
        }
        if !(0.0..=100.0).contains(&self.percent.0) {
            return refused(format!("percent {} is not from 0 to 100", self.percent.0));
        }
        if !(0..=4095).contains(&self.errno) {
            return refused(format!("{} is no error number", self.errno));
        }
        if let Err(error) = Glob::new(&self.path) {
            return refused(format!("path {}: {error}", self.path));
        }
        if let Err(error) = Methods::named(&self.methods) {
            return refused(error);
        }
        if self
            .mistake
            .as_ref()
            .is_some_and(|mistake| mistake.max_length < 1 || mistake.max_occurrences < 1)
        {
            return refused("a mistake of nothing".to_owned());
        }
        Ok(())
    }
}

/// 100 where nothing is said.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(transparent)]
pub struct Percent(pub f64);

impl Default for Percent {
    fn default() -> Self {
        Self(100.0)
    }
}

/// What stat(2) is told in place of the truth; `None`: the truth.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Attributes {
    pub ino: Option<u64>,
    pub size: Option<u64>,
    pub blocks: Option<u64>,
    pub atime: Option<Moment>,
    pub mtime: Option<Moment>,
    pub ctime: Option<Moment>,
    pub kind: Option<Kind>,
    /// The low twelve bits of the mode.
    pub perm: Option<u16>,
    pub nlink: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub rdev: Option<u32>,
}

/// A time of a file, counted from 1970.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    pub sec: i64,
    pub nsec: u32,
}

/// What stat(2) says a file is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    NamedPipe,
    CharDevice,
    BlockDevice,
    Directory,
    RegularFile,
    Symlink,
    Socket,
}

/// Wrong bytes in what is read, and in what is written.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Mistake {
    pub filling: Filling,
    /// Places in one request at most.
    pub max_occurrences: u64,
    /// Bytes in one place at most.
    pub max_length: u64,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Filling {
    Zero,
    Random,
}

/// What one source did to requests so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Requests that the rule fits: file and method.
    pub matched: u64,
    pub delayed: u64,
    /// Time that they were held, summed.
    pub delay_us_sum: u64,
    /// Requests that got an error of the rule, ENOSPC included.
    pub failed: u64,
    /// Answers whose attributes were replaced.
    pub overridden: u64,
    /// Reads and writes that got wrong bytes.
    pub mistaken: u64,
    /// Written, not synced, and gone.
    pub lost_bytes: u64,
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.matched += other.matched;
        self.delayed += other.delayed;
        self.delay_us_sum += other.delay_us_sum;
        self.failed += other.failed;
        self.overridden += other.overridden;
        self.mistaken += other.mistaken;
        self.lost_bytes += other.lost_bytes;
    }
}
