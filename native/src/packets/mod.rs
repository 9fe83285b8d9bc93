//! The packet faults of one network namespace, held by one process.
//!
//! All that it holds ends with it, by the kernel's own hand: the nft table belongs to its netlink
//! socket, the classifier to its bpf_link, the TAP device to its descriptor. So it fails open.

mod bpf;
mod classifier;
mod frame;
mod held;
mod lane;
mod netem;
mod networks;
mod nft;
mod pump;
mod random;
mod request;
mod scheduler;
mod sender;
mod tap;
mod token_bucket;

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use serde_json::{json, Value};

use crate::detach::detached;
use crate::failure::Failure;
use crate::rpc::{Connection, Listener, Refusal, Request};
use crate::system::{self, BoottimeTimer};
use held::Held;

/// Runs the subcommand; returns the exit status.
pub fn run(arguments: &[String]) -> i32 {
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(message) => {
            system::log(&message);
            return system::EXIT_USAGE;
        }
    };
    detached(|| Process::prepare(&options), Process::live)
}

struct Options {
    netns: String,
    socket: PathBuf,
    lease_seconds: f64,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let usage = "usage: squall-node packets --netns PATH --socket PATH --lease SECONDS";
        let (mut netns, mut socket, mut lease) = (None, None, None);
        for pair in arguments.chunks(2) {
            match pair {
                [name, value] if name == "--netns" => netns = Some(value.clone()),
                [name, value] if name == "--socket" => socket = std::path::absolute(value).ok(),
                [name, value] if name == "--lease" => lease = value.parse().ok(),
                _ => return Err(usage.to_owned()),
            }
        }
        match (netns, socket, lease) {
            (Some(netns), Some(socket), Some(lease_seconds)) => Ok(Self {
                netns,
                socket,
                lease_seconds,
            }),
            _ => Err(usage.to_owned()),
        }
    }
}

/// The process once it listens: it waits for requests, signals, its lease and its deadline.
struct Process {
    /// First, so that it is let go of before a client sees the connection end.
    held: Held,
    signals: OwnedFd,
    timer: BoottimeTimer,
    listener: Listener,
    connection: Option<Connection>,
    /// Moment of boot time, in ns, at which the connection was lost.
    alone_since: u64,
    quits: bool,
}

impl Process {
    fn prepare(options: &Options) -> Result<Self, Failure> {
        let failure = |doing: String| {
            move |error: std::io::Error| Failure {
                status: match error.raw_os_error() {
                    Some(libc::EPERM | libc::EACCES) => system::EXIT_UNSUPPORTED,
                    _ => system::EXIT_TRY_AGAIN,
                },
                message: format!("{doing}: {error}"),
            }
        };
        system::enter_network_at(&options.netns)
            .map_err(failure(format!("enter {}", options.netns)))?;
        let path = &options.socket;
        Ok(Self {
            signals: system::signals_to_end().map_err(failure("signalfd".to_owned()))?,
            timer: BoottimeTimer::new().map_err(failure("timerfd".to_owned()))?,
            listener: Listener::bind(path).map_err(failure(format!("bind {}", path.display())))?,
            connection: None,
            alone_since: system::clock(libc::CLOCK_BOOTTIME),
            held: Held::nothing(options.lease_seconds),
            quits: false,
        })
    }

    /// Waits and answers until there is a reason to end; dropping `self` takes all back.
    fn live(mut self) -> i32 {
        loop {
            let end = self.end();
            if self.quits || end.is_some_and(|end| end <= system::clock(libc::CLOCK_BOOTTIME)) {
                return 0;
            }
            let client = self.connection.as_ref().map_or(-1, AsRawFd::as_raw_fd);
            let ready = self.timer.arm(end).and_then(|()| {
                let fds = [
                    self.signals.as_raw_fd(),
                    self.listener.as_raw_fd(),
                    client,
                    self.timer.as_raw_fd(), // needs no reading: `arm` clears it
                ];
                system::poll(fds, None)
            });
            match ready {
                Ok([true, ..]) => return 0,
                Ok([_, arrived, asked, _]) => {
                    if asked {
                        self.serve();
                    }
                    if arrived {
                        self.welcome();
                    }
                }
                Err(error) => {
                    system::log(&format!("poll: {error}"));
                    return 1;
                }
            }
        }
    }

    /// When all ends: at the deadline, or once the lease has run out with nobody connected.
    fn end(&self) -> Option<u64> {
        let lease = self.connection.is_none().then(|| {
            self.alone_since
                .saturating_add(nanoseconds(self.held.lease_seconds))
        });
        let deadline = self.held.deadline.map(nanoseconds);
        lease.into_iter().chain(deadline).min()
    }

    fn welcome(&mut self) {
        match self.listener.accept() {
            Ok(connection) => self.connection = Some(connection),
            Err(error) => system::log(&format!("accept: {error}")),
        }
    }

    fn serve(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        let served = connection.receive().and_then(|lines| {
            for line in lines {
                connection.answer(&line, |request| self.act(request))?;
            }
            Ok(())
        });
        match served {
            Ok(()) => self.connection = Some(connection),
            Err(_) => self.alone_since = system::clock(libc::CLOCK_BOOTTIME),
        }
    }

    fn act(&mut self, request: Request) -> Result<Value, Refusal> {
        match request.verb.as_str() {
            "set" => self.held.set(request.arguments).map(|()| json!({})),
            "state" => self.held.state(),
            "list" => self.held.list().map(|listed| json!({ "json": listed })),
            "quit" => {
                self.quits = true;
                self.held.let_go();
                Ok(json!({}))
            }
            verb => Err(Refusal::invalid(format!("no such verb: {verb}"))),
        }
    }
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64 // saturates; a negative one is 0
}

#[cfg(test)]
mod tests {
    use super::nanoseconds;

    #[test]
    fn seconds_beyond_all_time_saturate() {
        assert_eq!(nanoseconds(1.5), 1_500_000_000);
        assert_eq!(nanoseconds(-1.0), 0);
        assert_eq!(nanoseconds(1e300), u64::MAX);
    }
}
