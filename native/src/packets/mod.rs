//! The packet faults of one network namespace, held by one process.
//!
//! All that it holds ends with it, by the kernel's own hand: the nft table belongs to its netlink
//! socket, the classifier to its bpf_link, the TAP device to its descriptor. So it fails open.

mod classifier;
mod frame;
mod held;
mod lane;
mod netem;
mod networks;
mod pump;
pub(crate) mod random;
mod request;
mod scheduler;
mod sender;
mod tap;
mod token_bucket;

use serde_json::{json, Value};

use crate::holder::{self, Holding, Term};
use crate::rpc::Refusal;
use held::Held;

/// Runs the subcommand; returns the exit status.
pub fn run(arguments: &[String]) -> i32 {
    holder::run_in_network(arguments, "packets", |lease| Ok(Held::nothing(lease)))
}

impl Holding for Held {
    fn term(&self) -> Term {
        Term {
            lease: self.lease_seconds,
            deadline: self.deadline,
        }
    }

    fn act(&mut self, verb: &str, arguments: Value) -> Result<Value, Refusal> {
        match verb {
            "set" => self.set(arguments).map(|()| json!({})),
            "state" => self.state(),
            "list" => self.list().map(|listed| json!({ "json": listed })),
            verb => Err(Refusal::invalid(format!("no such verb: {verb}"))),
        }
    }

    fn let_go(&mut self) {
        *self = Self::nothing(self.lease_seconds);
    }
}
