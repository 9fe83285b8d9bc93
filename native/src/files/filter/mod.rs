//! A file system that passes everything on to a directory, but for what rules say.
//!
//! Whoever mounts it opens /dev/fuse and the directory (`O_PATH`), makes the mount with that
//! descriptor, and then has the requests served:
//!
//! ```text
//! let rules = Arc::new(Rules::new(volume: &request::Volume)?);      // -> Result<_, Refusal>
//! let filter = Filter::new(fuse_fd, underlying, Arc::clone(&rules))?; // -> io::Result<Filter>
//! filter.run()?;             // starts threads of its own and returns; INIT is answered there
//! rules.replace(&volume)?;   // live; the same again changes nothing; on a refusal, neither
//! rules.counters();          // BTreeMap<String, Counters>
//! filter.bypassing();        // open descriptors that rules now name, and must be opened anew
//! filter.lose()?;            // power loss now: BTreeMap<String, u64>, bytes lost by source
//! drop(filter);              // ends the threads; the mount answers ENOTCONN from then on
//! ```
//!
//! The mount needs `default_permissions` and `allow_other`; all rights of root in the first user
//! namespace, and `RLIMIT_NOFILE` as high as it goes.

mod abi;
mod account;
pub mod alone;
mod anchors;
mod attributes;
mod caller;
mod data;
mod delays;
mod device;
mod directories;
mod file_handle;
pub mod glob;
mod keeping;
mod locks;
mod metadata;
pub mod methods;
mod mistakes;
mod names;
mod nodes;
mod open_files;
mod paths;
mod pruning;
mod rules;
mod serve;
mod space;
mod sys;
mod undo;
mod waits;
mod workers;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, RwLock};

use crate::system;
use delays::Delays;
use device::Device;
use locks::Locks;
use nodes::Nodes;
use open_files::{OpenFiles, Served};
pub use rules::Rules;
use undo::Spill;
use waits::Waits;
use workers::Workers;

/// As many as a process may have where nobody has changed that (fs.nr_open).
const DESCRIPTORS: u64 = 1 << 20;

/// One mount, and the threads that serve it.
pub struct Filter(Arc<Shared>);

/// What those threads share.
struct Shared {
    device: Device,
    nodes: Nodes,
    open_files: OpenFiles,
    rules: Arc<Rules>,
    delays: Delays,
    locks: Locks,
    waits: Waits,
    workers: Workers,
    spill: OnceLock<Spill>,
    /// Held by whoever changes files that a rule keeps account of; alone by who takes power away.
    gate: RwLock<()>,
    /// Whether the kernel is being asked to forget files, or cannot be asked.
    pruning: AtomicBool,
    /// What this kernel and we have agreed on (`abi::init`).
    features: AtomicU64,
    /// What of it is not to be agreed on.
    refused: u64,
    /// Whether the kernel may serve files by itself.
    passes: AtomicBool,
    /// Who has open files that have lost a name open as well (`keeping.rs`).
    keeper: OnceLock<OwnedFd>,
}

impl Filter {
    /// Makes ready to serve requests from `fuse` for what is in `underlying`.
    pub fn new(fuse: OwnedFd, underlying: OwnedFd, rules: Arc<Rules>) -> io::Result<Self> {
        // What the target has open we have open as well: it must not come to an end of ours.
        system::raise_descriptors(DESCRIPTORS);
        // Threads come and go: one arena for all of them, not 64 MiB of addresses each.
        #[cfg(target_env = "gnu")]
        // SAFETY: plain call.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
        Ok(Self(Arc::new(Shared {
            device: Device::new(fuse),
            nodes: Nodes::new(underlying)?,
            open_files: OpenFiles::default(),
            rules,
            delays: Delays::default(),
            locks: Locks::default(),
            waits: Waits::default(),
            workers: Workers::default(),
            spill: OnceLock::new(),
            gate: RwLock::new(()),
            pruning: AtomicBool::new(false),
            features: AtomicU64::new(0),
            refused: 0,
            passes: AtomicBool::new(false),
            keeper: OnceLock::new(),
        })))
    }

    /// Has it do without what Linux 6.1 lacks; before it runs.
    pub fn limited_to_linux_6_1(mut self) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.0) {
            shared.refused = abi::init::PASSTHROUGH | abi::init::DIRECT_IO_ALLOW_MMAP;
        }
        self
    }

    /// Starts to serve, and returns.
    pub fn run(&self) -> io::Result<()> {
        workers::start(&self.0)
    }

    /// How many open descriptors the kernel serves although a rule wants to see what they do.
    pub fn bypassing(&self) -> usize {
        let rules = self.0.rules.now();
        self.0.open_files.bypassing(|file| {
            let verdict = || self.0.verdict(&file.node, &rules);
            file.served == Served::Kernel && rules.need_data(verdict())
        })
    }

    /// Has requests that wait be served now: nobody who waits can be stopped to be re-pointed.
    pub fn release(&self) {
        self.0.delays.release();
    }

    /// Takes away what was written and not synced, where a rule says so; bytes lost by source.
    pub fn lose(&self) -> io::Result<BTreeMap<String, u64>> {
        self.0.lose().map_err(io::Error::from_raw_os_error)
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        self.0.workers.stop();
        self.0.waits.stop();
        self.0.delays.stop();
    }
}

impl Shared {
    /// Has this been agreed on?
    fn has(&self, feature: u64) -> bool {
        self.features.load(Ordering::Relaxed) & feature != 0
    }

    /// The rules that fit a node by any of its names.
    fn verdict(&self, node: &nodes::Node, rules: &rules::Compiled) -> u64 {
        let moment = (rules.generation, self.nodes.tree.load(Ordering::Relaxed));
        if let Some((known, verdict)) = nodes::state(node).verdict {
            if known == moment {
                return verdict;
            }
        }
        let paths = self.nodes.paths(node);
        let verdict = paths
            .iter()
            .fold(0, |mask, path| mask | rules.fitting(path));
        nodes::state(node).verdict = Some((moment, verdict));
        verdict
    }

    fn spill(&self) -> Result<&Spill, device::Errno> {
        if let Some(spill) = self.spill.get() {
            return Ok(spill);
        }
        let made = Spill::new().map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?;
        Ok(self.spill.get_or_init(|| made))
    }
}
