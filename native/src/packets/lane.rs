//! One device whose frames are impaired: classifier, TAP device, scheduler thread, packet socket.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::classifier::{self, Facts};
use super::networks::Network;
use super::pump::{Heartbeat, Order, Pump, Report};
use super::random::Random;
use super::request;
use super::scheduler::{Rule, Scheduler};
use super::sender::Sender;
use super::tap::{Device, Tap};
use crate::bpf;
use crate::rpc::Refusal;
use crate::system::{self, check, own};

/// A dying process closes its descriptors, and the highest goes first (tried, not documented). The
/// link must go before the TAP device, for a redirect to a device that is gone drops frames.
const ABOVE_ALL: libc::c_int = 512;

/// The thread answers between two frames, so this is long.
const PATIENCE: Duration = Duration::from_secs(1);

pub struct Lane {
    asked: request::Lane,
    facts: DeviceFacts,
    orders: mpsc::Sender<Order>,
    bell: OwnedFd,
    heartbeat: OwnedFd,
    program: OwnedFd,
    link: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy)]
struct DeviceFacts {
    index: u32,
    address: [u8; 6],
    tap_index: u32,
}

/// New rules for a lane, with all that may be refused already done.
pub struct Change {
    asked: request::Lane,
    rules: Vec<Rule>,
    program: OwnedFd,
}

impl Change {
    pub fn device(&self) -> &str {
        &self.asked.device
    }
}

impl Lane {
    /// Opens all that is needed; no frame comes its way before `attach`.
    pub fn open(asked: &request::Lane) -> Result<Self, Refusal> {
        let rules = parse(asked)?;
        let name = &asked.device;
        let device = Device::named(name).map_err(|error| missing(name, &error))?;
        let index = device.index().map_err(|error| missing(name, &error))?;
        let (kind, address) = device.address().map_err(|error| missing(name, &error))?;
        if kind != libc::ARPHRD_ETHER {
            return Err(Refusal::unsupported(format!(
                "{name} is no Ethernet device (link type {kind}), and only those can be impaired"
            )));
        }
        let mtu = device.mtu().map_err(|error| missing(name, &error))?;
        // First of all descriptors; see ABOVE_ALL.
        let tap = Tap::open(mtu).map_err(of_kernel("make a TAP device"))?;
        tap.take_trains(spares_trains(asked))
            .map_err(of_kernel("set offloads of a TAP device"))?;
        let sender = Sender::open(index).map_err(of_kernel("open a packet socket"))?;
        let heartbeat =
            bpf::mapped_array(Heartbeat::BYTES).map_err(of_kernel("make a BPF array"))?;
        let facts = DeviceFacts {
            index,
            address,
            tap_index: tap.index,
        };
        let program = load(&rules, facts, &heartbeat)?;
        let pulse = Heartbeat::map(&heartbeat).map_err(of_kernel("map a BPF array"))?;
        pulse.beat(system::clock(libc::CLOCK_MONOTONIC));
        let random = Random::from_os().map_err(of_kernel("getrandom"))?;
        // SAFETY: plain call.
        let bell = own(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })
            .map_err(of_kernel("make an eventfd"))?;
        let (orders, received) = mpsc::channel();
        let pump = Pump {
            tap,
            sender,
            scheduler: Scheduler::new(rules, random),
            device_address: address,
            orders: received,
            bell: bell
                .try_clone()
                .map_err(of_kernel("duplicate an eventfd"))?,
            heartbeat: pulse,
        };
        Ok(Self {
            asked: asked.clone(),
            facts,
            orders,
            bell,
            heartbeat,
            program,
            link: None,
            thread: Some(start(pump).map_err(of_kernel("start a thread"))?),
        })
    }

    /// Lets frames come: from now on the rules are felt.
    pub fn attach(&mut self) -> Result<(), Refusal> {
        let device = &self.asked.device;
        let link = bpf::link_egress(&self.program, self.facts.index)
            .map_err(of_kernel(&format!("attach to {device} by tcx (Linux 6.6)")))?;
        // SAFETY: plain call.
        let above = unsafe { libc::fcntl(link.as_raw_fd(), libc::F_DUPFD_CLOEXEC, ABOVE_ALL) };
        self.link = Some(own(above).map_err(of_kernel("duplicate a link"))?);
        Ok(())
    }

    pub fn device(&self) -> &str {
        &self.asked.device
    }

    /// Is the device it was attached to still the one of that name? A new one knows no rules.
    pub fn is_attached(&self) -> bool {
        let index = Device::named(self.device()).and_then(|device| device.index());
        index.is_ok_and(|index| index == self.facts.index)
    }

    pub fn rules(&self) -> &[request::Rule] {
        &self.asked.rules
    }

    /// Does all of a change that may be refused.
    pub fn prepare(&self, asked: &request::Lane) -> Result<Change, Refusal> {
        let rules = parse(asked)?;
        let program = load(&rules, self.facts, &self.heartbeat)?;
        Ok(Change {
            asked: asked.clone(),
            rules,
            program,
        })
    }

    /// Puts other rules in force.
    pub fn change(&mut self, change: Change) -> Result<(), Refusal> {
        if let Some(link) = &self.link {
            bpf::update_link(link, &change.program).map_err(of_kernel("swap the classifier"))?;
        }
        let trains = spares_trains(&change.asked);
        self.order(Order::Rules(change.rules, trains))?;
        self.asked = change.asked;
        self.program = change.program;
        Ok(())
    }

    /// Asks the thread what it did so far.
    pub fn report(&self) -> Result<Report, Refusal> {
        let (to, from) = mpsc::channel();
        self.order(Order::Report(to))?;
        from.recv_timeout(PATIENCE)
            .map_err(|error| Refusal::try_again(format!("lane of {}: {error}", self.device())))
    }

    fn order(&self, order: Order) -> Result<(), Refusal> {
        let gone = |error: &dyn std::fmt::Display| {
            Refusal::try_again(format!("lane of {} is gone: {error}", self.asked.device))
        };
        self.orders.send(order).map_err(|error| gone(&error))?;
        let one = 1u64;
        // SAFETY: eight bytes, as an eventfd wants.
        let rung = unsafe { libc::write(self.bell.as_raw_fd(), (&raw const one).cast(), 8) };
        check(rung as i64).map(drop).map_err(|error| gone(&error))
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.link = None; // first: frames go their way again
        let stopped = self.order(Order::Stop);
        if let (Ok(()), Some(thread)) = (stopped, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

fn parse(asked: &request::Lane) -> Result<Vec<Rule>, Refusal> {
    asked.rules.iter().cloned().map(Rule::parse).collect()
}

fn spares_trains(asked: &request::Lane) -> bool {
    asked
        .rules
        .iter()
        .all(|rule| rule.impairment.spares_trains())
}

fn load(rules: &[Rule], facts: DeviceFacts, heartbeat: &OwnedFd) -> Result<OwnedFd, Refusal> {
    let networks: Option<Vec<&Network>> = rules
        .iter()
        .map(|rule| rule.networks().map(|networks| networks.iter()))
        .collect::<Option<Vec<_>>>()
        .map(|all| all.into_iter().flatten().collect());
    let networks: Option<Vec<Network>> = networks.map(|all| all.into_iter().copied().collect());
    classifier::load(&Facts {
        networks: networks.as_deref(),
        device_address: facts.address,
        tap_index: facts.tap_index,
        heartbeat,
    })
    .map_err(of_kernel("load the classifier"))
}

/// Runs a pump in a thread of its own. Without it nothing would come out of the TAP device any
/// more, so when it fails the process ends, and with it the fault.
fn start(pump: Pump) -> io::Result<JoinHandle<()>> {
    const STACK: usize = 256 << 10;
    let run = move || {
        if let Err(error) = pump.run() {
            system::log(&format!("a lane has failed, so the process ends: {error}"));
            std::process::exit(1);
        }
    };
    std::thread::Builder::new().stack_size(STACK).spawn(run)
}

fn missing(device: &str, error: &io::Error) -> Refusal {
    Refusal::try_again(format!("device {device}: {error}"))
}

fn of_kernel(doing: &str) -> impl Fn(io::Error) -> Refusal + '_ {
    move |error| Refusal::of_kernel(doing, &error)
}
