//! The thread that queries pass through: decides on each, holds those that wait, lets all others go.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use super::datagram::Datagram;
use super::forger::Forger;
use super::message::Query;
use super::queue::Queue;
use super::rules::{Delay, Fate, Rules, Way};
use super::sockets::Epoll;
use super::streams::Streams;
use super::waiting::{Packet, Then, Waiting};
use crate::system::{self, own, BoottimeTimer};

const QUEUE: u64 = 0;
const ORDERS: u64 = 1;
const TIMER: u64 = 2;
const LISTENERS: u64 = 3;
const STREAMS: u64 = 16;

/// Packets that are decided on before their verdicts go out together.
const BATCH: usize = 64;

/// How long servers may take, at the end, over what they were asked over streams; in nanoseconds.
const PATIENCE: u64 = 1_000_000_000;

/// What the control loop tells the thread.
pub struct Orders {
    rules: Mutex<Arc<Rules>>,
    ends: AtomicBool,
    bell: OwnedFd,
}

impl Orders {
    pub fn new() -> io::Result<Self> {
        let flags = libc::EFD_CLOEXEC | libc::EFD_NONBLOCK;
        Ok(Self {
            rules: Mutex::default(),
            ends: AtomicBool::new(false),
            // SAFETY: plain call.
            bell: own(unsafe { libc::eventfd(0, flags) })?,
        })
    }

    pub fn rules(&self) -> Arc<Rules> {
        self.lock().clone()
    }

    /// Puts other rules in force; what waits for a fault that has gone goes on at once.
    pub fn replace(&self, rules: Rules) {
        *self.lock() = Arc::new(rules);
        self.ring();
    }

    /// Lets everything go that waits, resets connections that were led to us, and ends the thread.
    pub fn end(&self) {
        *self.lock() = Arc::default();
        self.ends.store(true, SeqCst);
        self.ring();
    }

    fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight bytes, as eventfd(2) takes them.
        unsafe { libc::write(self.bell.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Rules>> {
        self.rules
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn clear(&self) {
        let mut count = [0; 8];
        // SAFETY: eight bytes, as eventfd(2) gives them.
        unsafe { libc::read(self.bell.as_raw_fd(), count.as_mut_ptr().cast(), 8) };
    }
}

pub struct Relay {
    orders: Arc<Orders>,
    epoll: Epoll,
    timer: BoottimeTimer,
    queue: Queue,
    forger: Forger,
    listeners: Vec<TcpListener>,
    streams: Streams,
    waiting: Waiting,
}

impl Relay {
    pub fn new(orders: Arc<Orders>, queue: Queue, listeners: Vec<TcpListener>) -> io::Result<Self> {
        let (epoll, timer) = (Epoll::new()?, BoottimeTimer::new()?);
        let mut watched: Vec<(RawFd, u64)> = vec![
            (queue.as_raw_fd(), QUEUE),
            (orders.bell.as_raw_fd(), ORDERS),
            (timer.as_raw_fd(), TIMER),
        ];
        watched.extend(listeners.iter().map(AsRawFd::as_raw_fd).zip(LISTENERS..));
        for (fd, token) in watched {
            epoll.watch(fd, token, 0, libc::EPOLLIN)?;
        }
        Ok(Self {
            orders,
            epoll,
            timer,
            queue,
            forger: Forger::open()?,
            listeners,
            streams: Streams::new(STREAMS),
            waiting: Waiting::default(),
        })
    }

    /// Returns when it is told to; where it cannot go on, the process ends, and with it the fault.
    pub fn run(mut self) {
        let mut buffer = vec![0; 1 << 17];
        while !self.orders.ends.load(SeqCst) {
            if let Err(error) = self.turn(&mut buffer, None) {
                system::log(&format!("the relay of queries: {error}"));
                std::process::exit(1);
            }
        }
        // What came at the last moment is not lost.
        self.obey();
        while let Ok(true) = self.datagrams(&mut buffer) {}
        let _ = self.queue.flush();
        // Some resolvers do not ask again what a reset takes from them.
        let latest = now() + PATIENCE;
        while self.streams.unanswered() && now() < latest {
            if self.turn(&mut buffer, Some(latest)).is_err() {
                break;
            }
        }
        self.streams.end();
    }

    /// Waits for something to do, at most until the moment `latest`, and does it.
    fn turn(&mut self, buffer: &mut [u8], latest: Option<u64>) -> io::Result<()> {
        self.timer.arm(self.waiting.next().or(latest))?;
        for (token, events) in self.epoll.wait()? {
            match token {
                QUEUE => drop(self.datagrams(buffer)?),
                ORDERS => self.obey(),
                TIMER => {}
                STREAMS.. => self.stream(token, events),
                listener => {
                    let listener = &self.listeners[(listener - LISTENERS) as usize];
                    self.streams.accept(listener, &self.epoll);
                }
            }
        }
        self.release();
        self.queue.flush()
    }

    /// Decides on what the kernel holds; false once that is nothing.
    fn datagrams(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        for _ in 0..BATCH {
            let Some(held) = self.queue.next(buffer)? else {
                return Ok(false);
            };
            let (id, device) = (held.id, held.device);
            let packet = Datagram::parse(held.packet);
            let query = packet.as_ref().and_then(|one| Query::parse(one.payload));
            let (Some(datagram), Some(query)) = (&packet, &query) else {
                self.queue.pass(id);
                continue;
            };
            let (fate, delays) = self.decide(query, datagram.client, Way::Datagram);
            let waits = !delays.is_empty();
            let copied = || Packet {
                bytes: held.packet.to_vec(),
                device,
            };
            match fate {
                Fate::Swallowed => self.queue.drop(id),
                Fate::Relayed if !waits => self.queue.pass(id),
                Fate::Relayed if self.waiting.may_hold(datagram.client) => {
                    self.wait(delays, Then::Pass(id, datagram.client));
                }
                Fate::Relayed => {
                    self.queue.drop(id);
                    let packet = copied();
                    self.wait(delays, Then::Send(packet));
                }
                Fate::Answered(answer) if !waits => {
                    self.forger.answer(datagram, device, &answer);
                    self.queue.drop(id);
                }
                Fate::Answered(answer) => {
                    self.queue.drop(id);
                    let packet = copied();
                    self.wait(delays, Then::Answer(packet, answer));
                }
            }
        }
        Ok(true)
    }

    fn stream(&mut self, token: u64, events: i32) {
        let Some((key, client, queries)) = self.streams.ready(token, events) else {
            return;
        };
        for message in queries {
            let (fate, delays) = match Query::parse(&message) {
                Some(query) => self.decide(&query, client, Way::Stream),
                None => (Fate::Relayed, Vec::new()),
            };
            let then = match fate {
                Fate::Swallowed => continue,
                Fate::Relayed => Then::Relay(key, message),
                Fate::Answered(answer) => Then::Reply(key, message, answer),
            };
            if delays.is_empty() {
                self.carry_out(then);
            } else {
                self.streams.delay(key, true);
                self.wait(delays, then);
            }
        }
        self.streams.settle(key, &self.epoll);
    }

    fn decide(&self, query: &Query<'_>, client: SocketAddr, way: Way) -> (Fate, Vec<Delay>) {
        let second = now() / 1_000_000_000;
        // Asked for each: who was told that rules are in force may have sent it a moment later.
        let rules = self.orders.rules();
        let (fate, mut delays) = rules.decide(query, client, way, second);
        if self.waiting.full() {
            delays.clear();
        }
        (fate, delays)
    }

    fn wait(&mut self, delays: Vec<Delay>, then: Then) {
        self.waiting.add(now(), delays, then);
    }

    /// Lets those go whose time has come.
    fn release(&mut self) {
        let now = now();
        while let Some(then) = self.waiting.due(now) {
            self.let_go(then);
        }
    }

    fn let_go(&mut self, then: Then) {
        match then {
            Then::Relay(key, _) | Then::Reply(key, ..) => {
                self.streams.delay(key, false);
                self.carry_out(then);
                self.streams.settle(key, &self.epoll);
            }
            then => self.carry_out(then),
        }
    }

    fn carry_out(&mut self, then: Then) {
        match then {
            Then::Pass(id, _) => self.queue.pass(id),
            Then::Send(packet) => {
                if let Some(datagram) = Datagram::parse(&packet.bytes) {
                    self.forger.repeat(&datagram, packet.device, &packet.bytes);
                }
            }
            Then::Answer(packet, answer) => {
                if let Some(datagram) = Datagram::parse(&packet.bytes) {
                    self.forger.answer(&datagram, packet.device, &answer);
                }
            }
            Then::Relay(key, query) => self.streams.relay(key, &query),
            Then::Reply(key, _, answer) => self.streams.answer(key, &answer),
        }
    }

    /// What waited for a fault that is gone goes to its server.
    fn obey(&mut self) {
        self.orders.clear();
        for then in self.waiting.without_reason(&self.orders.rules()) {
            self.let_go(then);
        }
    }
}

/// In nanoseconds after boot.
fn now() -> u64 {
    system::clock(libc::CLOCK_BOOTTIME)
}
