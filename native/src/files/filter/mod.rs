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
//! filter.ended();            // RawFd: readable when the kernel has closed the connection
//! filter.lose()?;            // power loss now: BTreeMap<String, u64>, bytes lost by source
//! drop(filter);              // ends the threads; the mount answers ENOTCONN from then on
//! ```
//!
//! The mount needs `default_permissions` and `allow_other`; all rights of root in the first user
//! namespace, and `RLIMIT_NOFILE` as high as it goes.

pub mod glob;
pub mod methods;
