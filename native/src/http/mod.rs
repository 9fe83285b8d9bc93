//! The HTTP faults of one network namespace: a proxy that nobody sees, held by one process.
//!
//! What leads connections to it ends with it, by the kernel's own hand. So it fails open.

mod ahead;
mod base64;
mod bodies;
mod change;
mod content;
mod edit;
mod exchange;
mod existing;
mod fallback;
mod flow;
mod framing;
mod grpc;
mod head;
mod hooks;
mod http2;
mod leaving;
mod lines;
mod listening;
mod merge;
mod parts;
mod programs;
mod proxy;
mod redirect;
mod request;
mod room;
mod rules;
mod secrets;
mod sock_diag;
mod stream;
mod timer;
mod tls;
mod visit;

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{json, Value};

use crate::failure::Failure;
use crate::holder::{self, failure, Holding, Term};
use crate::rpc::Refusal;
use crate::system;
use hooks::Hooks;
use leaving::Leaving;
use proxy::Listeners;
use redirect::Redirect;
use rules::Rules;
use secrets::Secrets;
use visit::World;

/// How long exchanges under way may take to end before their connections do.
const GRACE: Duration = Duration::from_secs(1);
/// How long to wait for their end before we stay for them.
const MOMENT: Duration = Duration::from_millis(300);

/// Runs the subcommand; returns the exit status.
pub fn run(arguments: &[String]) -> i32 {
    holder::run_in_network(arguments, "http", Held::start)
}

/// Everything in force.
struct Held {
    term: Term,
    hooks: Option<Hooks>,
    redirect: Redirect,
    world: Arc<World>,
    certificates: Vec<request::Certificate>,
    authorities: Vec<request::Authority>,
    /// Nothing is in force any more, and something is still under way.
    leaving: Option<Leaving>,
}

impl Held {
    /// Starts to serve whom nobody is led to as yet.
    fn start(lease: f64) -> Result<Self, Failure> {
        system::raise_descriptors(0); // a connection takes two
        system::give_large_memory_back();
        let listeners = Listeners::open().map_err(failure("listen"))?;
        let incoming = listeners.incoming.each_ref();
        let incoming = incoming.map(|one| one.as_ref().map(AsRawFd::as_raw_fd));
        let (hooks, entrance) = Hooks::attach(incoming).map_err(|error| Failure {
            status: system::EXIT_UNSUPPORTED,
            message: format!("lead connections to us: {error}"),
        })?;
        let clients = hooks.clients().map_err(failure("a descriptor"))?;
        let port =
            |one: &Option<std::net::TcpListener>| Some(one.as_ref()?.local_addr().ok()?.port());
        let redirect = Redirect::new(listeners.outgoing.each_ref().map(port));
        let world = Arc::new(World::default());
        let following = hooks.clients().map_err(failure("a descriptor"))?;
        hooks.led.follow(following, world.clone());
        let shared = world.clone();
        std::thread::spawn(move || {
            let served = proxy::serve(listeners, clients, entrance, shared);
            system::log(&format!("connections are no longer served: {served:?}"));
            std::process::exit(1); // and so nobody is led to us any more
        });
        Ok(Self {
            term: Term {
                lease,
                deadline: None,
            },
            hooks: Some(hooks),
            redirect,
            world,
            certificates: Vec::new(),
            authorities: Vec::new(),
            leaving: None,
        })
    }

    fn set(&mut self, asked: Value) -> Result<(), Refusal> {
        let set: request::Set = serde_json::from_value(asked).map_err(Refusal::invalid)?;
        set.check()?;
        let rules = Rules::new(set.rules, &self.world.rules()).map_err(Refusal::invalid)?;
        let secrets =
            match set.certificates == self.certificates && set.authorities == self.authorities {
                true => self.world.secrets(),
                false => Arc::new(
                    Secrets::new(&set.certificates, &set.authorities).map_err(Refusal::invalid)?,
                ),
            };
        let (incoming, outgoing) = (rules.ports(false), rules.ports(true));
        // All that may be refused comes first.
        let dialled = existing::dialled(&self.redirect.new_among(&outgoing));
        let dialled = dialled.map_err(|error| Refusal::of_kernel("list connections", &error))?;
        self.redirect.lead(&outgoing, self.world.has_outgoing())?;
        let mut older = (Vec::new(), None);
        if let Some(hooks) = &mut self.hooks {
            let of_kernel = |error| Refusal::of_kernel("lead ports to us", &error);
            hooks.rise().map_err(of_kernel)?;
            let new = hooks.led.lead(&incoming).map_err(of_kernel)?;
            older = (new, Some(hooks.clients().map_err(of_kernel)?));
        }
        self.leaving = None;
        self.world.set_rules(rules);
        if !Arc::ptr_eq(&secrets, &self.world.secrets()) {
            self.world.set_secrets(secrets);
        }
        if let (ports, Some(clients)) = older {
            existing::end(ports, dialled, clients, self.world.clone());
        }
        self.certificates = set.certificates;
        self.authorities = set.authorities;
        self.term = Term {
            lease: set.lease,
            deadline: set.deadline,
        };
        Ok(())
    }

    /// Nothing is in force any more, and what is under way may go on for so long; says on how many
    /// connections something is.
    fn leave(&mut self, asked: Value) -> Result<usize, Refusal> {
        let leave: request::Leave = serde_json::from_value(asked).map_err(Refusal::invalid)?;
        if self.leaving.is_none() {
            self.rest();
            self.wait(MOMENT);
        }
        let _ = self.redirect.lead(&[], self.world.has_outgoing()); // or it stays for nobody
        let busy = self.world.busy();
        if busy > 0 && self.leaving.is_none() {
            let began = Leaving::begin(self.world.clone());
            self.leaving =
                Some(began.map_err(|error| Refusal::try_again(format!("wait: {error}")))?);
            let now = system::clock(libc::CLOCK_BOOTTIME) as f64 / 1e9;
            self.term.deadline = Some(now + leave.within);
        }
        Ok(busy)
    }

    /// Leads nobody to us any more.
    fn rest(&mut self) {
        self.world.set_rules(Rules::default());
        self.world.set_secrets(Arc::default());
        self.certificates.clear();
        self.authorities.clear();
        if let Some(hooks) = &mut self.hooks {
            hooks.rest();
        }
        if let Err(refusal) = self.redirect.lead(&[], self.world.has_outgoing()) {
            system::log(&refusal.to_string());
        }
    }

    /// Lets what is under way come to its end, if that is near.
    fn wait(&self, most: Duration) {
        let end = Instant::now() + most;
        while self.world.end_resting() > 0 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn state(&self) -> Value {
        let rules = self.world.rules();
        let certificates = self.certificates.iter();
        let certificates =
            certificates.map(|one| json!({"port": one.port, "certificate": one.certificate}));
        let authorities = self.authorities.iter().map(
            |one| json!({"source": one.source, "certificate": one.certificate, "roots": one.roots}),
        );
        json!({
            "rules": rules.asked(),
            "certificates": certificates.collect::<Vec<_>>(),
            "authorities": authorities.collect::<Vec<_>>(),
            "lease": self.term.lease,
            "deadline": self.term.deadline,
            "counters": rules.counters(),
            "sealed": self.world.sealed(),
            "address_kept": self.hooks.as_ref().is_some_and(|hooks| hooks.address_kept),
        })
    }
}

impl Holding for Held {
    fn term(&self) -> Term {
        self.term
    }

    fn act(&mut self, verb: &str, arguments: Value) -> Result<Value, Refusal> {
        match verb {
            "set" => self.set(arguments).map(|()| json!({})),
            "leave" => self.leave(arguments).map(|busy| json!({"busy": busy})),
            "state" => Ok(self.state()),
            verb => Err(Refusal::invalid(format!("no such verb: {verb}"))),
        }
    }

    /// Nobody is led to us any more, and whom we serve may finish what is under way.
    fn let_go(&mut self) {
        self.rest();
        self.world.end_soon();
        self.wait(GRACE);
        self.hooks = None;
        let _ = self.redirect.lead(&[], false); // it ends with us
    }

    /// When all has ended that we had to stay for.
    fn gone(&self) -> Option<RawFd> {
        self.leaving.as_ref().map(AsRawFd::as_raw_fd)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.let_go();
    }
}
