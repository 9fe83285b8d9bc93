//! A process that holds faults in a target: asked over its socket, it ends with whoever asks.
//!
//! It lives while a client is connected, for one lease after that is gone, and never past its
//! deadline. What it holds is taken back when it is dropped.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use serde_json::{json, Value};

use crate::detach::detached;
use crate::failure::Failure;
use crate::rpc::{Connection, Listener, Refusal, Request};
use crate::system::{self, BoottimeTimer};

/// What one process holds; dropping it takes everything back.
pub trait Holding {
    /// How long to hold on.
    fn term(&self) -> Term;

    /// Does what is asked for. On a refusal nothing has changed. `quit` never comes here.
    fn act(&mut self, verb: &str, arguments: Value) -> Result<Value, Refusal>;

    /// Takes everything back.
    fn let_go(&mut self);

    /// A descriptor that becomes readable when there is nothing to hold any more, as when the
    /// target has died; the process then ends.
    fn gone(&self) -> Option<RawFd> {
        None
    }
}

/// How long something is held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Term {
    /// Seconds to hold on after the connection is gone.
    pub lease: f64,
    /// Seconds of boot time at which all ends.
    pub deadline: Option<f64>,
}

/// The arguments of a subcommand that holds something: pairs, each of them needed.
pub struct Options<const N: usize> {
    pub socket: PathBuf,
    pub lease_seconds: f64,
    /// Values of the other options, in the order in which they were named.
    pub others: [String; N],
}

impl<const N: usize> Options<N> {
    /// Reads `--socket PATH --lease SECONDS` and the `others`, in any order.
    pub fn parse(arguments: &[String], verb: &str, others: [&str; N]) -> Result<Self, String> {
        let value = |name: &str| {
            let mut pairs = arguments.chunks_exact(2);
            pairs.find(|pair| pair[0] == name).map(|pair| &pair[1])
        };
        let found = || {
            if arguments.len() != 2 * (N + 2) {
                return None;
            }
            let mut values = [const { String::new() }; N];
            for (into, name) in values.iter_mut().zip(others) {
                *into = value(name)?.clone();
            }
            Some(Self {
                socket: std::path::absolute(value("--socket")?).ok()?,
                lease_seconds: value("--lease")?.parse().ok()?,
                others: values,
            })
        };
        found().ok_or_else(|| {
            let others = others.map(|name| format!("{name} VALUE ")).concat();
            format!("usage: squall-node {verb} {others}--socket PATH --lease SECONDS")
        })
    }
}

/// Runs a subcommand that holds something, in a session of its own; returns the exit status of the
/// one who started it, once one can connect. Must be called before any thread is started.
pub fn run<H: Holding, const N: usize>(
    arguments: &[String],
    verb: &str,
    others: [&str; N],
    prepare: impl FnOnce(&Options<N>) -> Result<H, Failure>,
) -> i32 {
    let options = match Options::parse(arguments, verb, others) {
        Ok(options) => options,
        Err(message) => {
            system::log(&message);
            return system::EXIT_USAGE;
        }
    };
    detached(
        || Process::prepare(&options.socket, || prepare(&options)),
        Process::live,
    )
}

/// The same for what is held in a network namespace, named by `--netns`; `prepare` is called in it,
/// with the seconds of the lease.
pub fn run_in_network<H: Holding>(
    arguments: &[String],
    verb: &str,
    prepare: impl FnOnce(f64) -> Result<H, Failure>,
) -> i32 {
    run(arguments, verb, ["--netns"], |options| {
        let [netns] = &options.others;
        system::enter_network_at(netns).map_err(failure(format!("enter {netns}")))?;
        prepare(options.lease_seconds)
    })
}

/// Says what could not be prepared, and by the exit status what to do next.
pub fn failure(doing: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Failure {
    move |error| Failure {
        status: match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => system::EXIT_UNSUPPORTED,
            _ => system::EXIT_TRY_AGAIN,
        },
        message: format!("{doing}: {error}"),
    }
}

/// The process once it listens: it waits for requests, signals, its lease and its deadline.
struct Process<H> {
    /// First, so that it is let go of before a client sees the connection end.
    held: H,
    signals: OwnedFd,
    timer: BoottimeTimer,
    listener: Listener,
    connection: Option<Connection>,
    /// Moment of boot time, in ns, at which the connection was lost.
    alone_since: u64,
    quits: bool,
}

impl<H: Holding> Process<H> {
    fn prepare(
        socket: &Path,
        prepare: impl FnOnce() -> Result<H, Failure>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            // Before any thread of what is held: threads inherit what is blocked.
            signals: system::signals_to_end().map_err(failure("signalfd"))?,
            held: prepare()?,
            timer: BoottimeTimer::new().map_err(failure("timerfd"))?,
            listener: Listener::bind(socket)
                .map_err(failure(format!("bind {}", socket.display())))?,
            connection: None,
            alone_since: system::clock(libc::CLOCK_BOOTTIME),
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
                    self.held.gone().unwrap_or(-1),
                    self.listener.as_raw_fd(),
                    client,
                    self.timer.as_raw_fd(), // needs no reading: `arm` clears it
                ];
                system::poll(fds, None)
            });
            match ready {
                Ok([true, ..] | [_, true, ..]) => return 0,
                Ok([_, _, arrived, asked, _]) => {
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
        let term = self.held.term();
        let lease = (self.connection.is_none())
            .then(|| self.alone_since.saturating_add(nanoseconds(term.lease)));
        let deadline = term.deadline.map(nanoseconds);
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
        if request.verb == "quit" {
            self.quits = true;
            self.held.let_go();
            return Ok(json!({}));
        }
        self.held.act(&request.verb, request.arguments)
    }
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64 // saturates; a negative one is 0
}

#[cfg(test)]
mod tests {
    use super::{nanoseconds, Options};

    fn parsed(line: &str) -> Result<Options<1>, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Options::parse(&words, "packets", ["--netns"])
    }

    #[test]
    fn seconds_beyond_all_time_saturate() {
        assert_eq!(nanoseconds(1.5), 1_500_000_000);
        assert_eq!(nanoseconds(-1.0), 0);
        assert_eq!(nanoseconds(1e300), u64::MAX);
    }

    #[test]
    fn options_come_in_any_order() {
        let options = parsed("--lease 2.5 --netns /a --socket /s").ok().unwrap();
        assert_eq!(options.others, ["/a".to_owned()]);
        assert_eq!(options.lease_seconds, 2.5);
        assert_eq!(options.socket.to_str(), Some("/s"));
    }

    #[test]
    fn what_is_missing_foreign_or_no_number_is_told_the_usage() {
        for wrong in [
            "",
            "--netns /a --socket /s",
            "--netns /a --socket /s --lease",
            "--netns /a --socket /s --lease soon",
            "--netns /a --socket /s --lease 1 --more 2",
            "--pid 1 --socket /s --lease 1",
        ] {
            let usage = parsed(wrong).err().unwrap();
            assert_eq!(
                usage,
                "usage: squall-node packets --netns VALUE --socket PATH --lease SECONDS"
            );
        }
    }
}
