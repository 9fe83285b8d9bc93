//! The faults in names of one network namespace, held by one process.
//!
//! Every query that leaves a process of the target passes here, to whatever server. All hangs on
//! open files: whatever ends the process, the kernel takes table and queue back, and names resolve.

mod datagram;
mod end;
mod forger;
mod held;
mod message;
mod netlink;
mod passage;
mod pattern;
mod queue;
mod relay;
mod request;
mod rules;
mod sockets;
mod streams;
mod table;
mod waiting;

use crate::holder;
use crate::system;
use held::Held;

/// On packets of our own, so that they are not led back to us.
const MARK: u32 = 0x5c00_0035;

/// Runs the subcommand; returns the exit status.
pub fn run(arguments: &[String]) -> i32 {
    system::raise_descriptors(0); // a connection takes two
    holder::run_in_network(arguments, "dns", |lease| Ok(Held::nothing(lease)))
}
