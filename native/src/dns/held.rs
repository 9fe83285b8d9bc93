//! What one process holds in its namespace: the table, the queue, and the thread between them.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use serde_json::{json, Map, Value};

use super::passage;
use super::queue::Queue;
use super::relay::{Orders, Relay};
use super::request;
use super::rules::Rules;
use super::table::{Table, TABLE};
use crate::holder::{Holding, Term};
use crate::rpc::Refusal;
use crate::system;

/// How often a port is sought that is free for IPv4 and IPv6.
const PORTS_TRIED: usize = 20;

/// Everything in force.
pub struct Held {
    term: Term,
    /// As they were asked for, to be told again to the letter.
    asked: Value,
    acting: Option<Acting>,
}

/// The means, while there is any fault.
struct Acting {
    orders: Arc<Orders>,
    table: Table,
    thread: Option<JoinHandle<()>>,
}

impl Held {
    pub fn nothing(lease: f64) -> Self {
        Self {
            term: Term {
                lease,
                deadline: None,
            },
            asked: json!([]),
            acting: None,
        }
    }

    /// Makes exactly `asked` be in force; on a refusal nothing has changed.
    fn set(&mut self, asked: Value) -> Result<(), Refusal> {
        let rules = asked["rules"].clone();
        let set: request::Set = serde_json::from_value(asked).map_err(Refusal::invalid)?;
        set.check()?;
        if set.rules.is_empty() {
            self.acting = None;
        } else if rules != self.asked || self.acting.is_none() {
            let acting = match self.acting.take() {
                Some(acting) => acting,
                None => Acting::begin()?,
            };
            let before = acting.orders.rules();
            acting.orders.replace(Rules::new(&set.rules, &before));
            self.acting = Some(acting);
        }
        self.term = Term {
            lease: set.lease,
            deadline: set.deadline,
        };
        self.asked = rules;
        Ok(())
    }

    fn state(&self) -> Value {
        let rules = self.acting.as_ref().map(|acting| acting.orders.rules());
        let counters: Map<String, Value> = rules
            .iter()
            .flat_map(|rules| rules.counters())
            .map(|(source, counters)| (source.to_owned(), counters.state()))
            .collect();
        json!({
            "rules": self.asked,
            "counters": counters,
            "lease": self.term.lease,
            "deadline": self.term.deadline,
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
            "state" => Ok(self.state()),
            verb => Err(Refusal::invalid(format!("no such verb: {verb}"))),
        }
    }

    fn let_go(&mut self) {
        *self = Self::nothing(self.term.lease);
    }
}

impl Acting {
    /// Puts everything there, with no fault yet; what was done is taken back where that fails.
    fn begin() -> Result<Self, Refusal> {
        let refused = |doing: &'static str| move |error| Refusal::of_kernel(doing, &error);
        let queue = Queue::open().map_err(refused("a queue of packets (nfnetlink_queue)"))?;
        let number = queue.number;
        let listeners = listeners().map_err(refused("listening on the loopback device"))?;
        let port = match listeners.first().map(TcpListener::local_addr) {
            Some(Ok(address)) => address.port(),
            _ => return Err(Refusal::try_again("no address to listen at")),
        };
        let orders = Arc::new(Orders::new().map_err(refused("eventfd"))?);
        let relay =
            Relay::new(orders.clone(), queue, listeners).map_err(refused("raw sockets, epoll"))?;
        let thread = std::thread::Builder::new()
            .name("relay".to_owned())
            .spawn(move || relay.run())
            .map_err(refused("a thread"))?;
        match Table::open(number, port) {
            Ok(table) => {
                let acting = Self {
                    orders,
                    table,
                    thread: Some(thread),
                };
                passage::answers().map_err(|error| kept_from_passing(&error))?;
                if !passage::streams() {
                    system::log("rules inside the target keep streams from us: they are let alone");
                    acting.table.spare_streams().map_err(refused("nftables"))?;
                }
                Ok(acting)
            }
            Err(error) => {
                orders.end();
                let _ = thread.join();
                Err(table_refused(&error))
            }
        }
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        if let Err(error) = self.table.retire() {
            system::log(&format!("emptying our table: {error}"));
        }
        self.orders.end();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Who lacks the right is told so by the queue already: here it means that the table is another's.
fn table_refused(error: &io::Error) -> Refusal {
    match error.raw_os_error() {
        Some(libc::EPERM) => Refusal::try_again(format!(
            "table {TABLE} is held by another process; it goes with that one, or its lease"
        )),
        _ => Refusal::of_kernel(
            format!("nftables: table {TABLE} with queue and redir"),
            error,
        ),
    }
}

/// A firewall of the target, most likely.
fn kept_from_passing(error: &io::Error) -> Refusal {
    Refusal::unsupported(format!(
        "answers that come by the target's loopback device do not reach those who asked ({error}): \
         let its own rules accept what goes out and comes in by device lo, and set that up"
    ))
}

/// Listens at one port of both loopback addresses; the second is missing where there is no IPv6.
fn listeners() -> io::Result<Vec<TcpListener>> {
    let mut failed = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..PORTS_TRIED {
        let four = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = four.local_addr()?.port();
        let mut found = vec![four];
        match TcpListener::bind((Ipv6Addr::LOCALHOST, port)) {
            Ok(six) => found.push(six),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                failed = error;
                continue;
            }
            Err(_) => {}
        }
        for listener in &found {
            listener.set_nonblocking(true)?;
        }
        return Ok(found);
    }
    Err(failed)
}
