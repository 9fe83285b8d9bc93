//! Other processes, stopped for a moment, and made to do system calls of ours.
//!
//! Nothing is left behind in them whatever happens: what runs inside puts the thread back where it
//! was by itself when we are gone (`remote.rs`).

#[cfg(any(target_arch = "aarch64", test))]
#[cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]
mod aarch64;
pub mod call;
mod code;
pub mod freeze;
mod parcel;
pub mod remote;
mod restartable;
pub mod thread;
mod way_back;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as machine;
#[cfg(target_arch = "x86_64")]
use x86_64 as machine;

pub use parcel::{send, GIFTS};
pub use thread::Thread;
