//! DNS over TCP: connections that were led to us, each with one of ours to its server.
//!
//! Messages go through whole, in whatever order they come (RFC 7766); what is not DNS goes through
//! as it is.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use super::end::{length_of, put, whole_messages, End, OUT};
use super::message::begins_as_request;
use super::passage::NO_SERVER;
use super::sockets::{connecting, ends_by_reset, original_destination, Epoll};
use crate::system;

const MOST_PAIRS: usize = 4096;
/// Descriptors that are kept for everything but connections.
const OTHERS: usize = 64;
const HEADER: usize = 12;

/// Tells a connection from every other, past and present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    slot: usize,
    number: u64,
}

/// All connections; tokens for epoll begin at `first`, two for each.
pub struct Streams {
    first: u64,
    pairs: Vec<Option<Pair>>,
    numbers: u64,
    most: usize,
}

struct Pair {
    number: u64,
    address: SocketAddr,
    /// Whom it is for.
    to: SocketAddr,
    client: End,
    server: End,
    connected: bool,
    /// It speaks something else.
    foreign: bool,
    /// Messages for the server that wait elsewhere.
    delayed: usize,
    asked: u64,
}

impl Streams {
    pub fn new(first: u64) -> Self {
        Self {
            first,
            pairs: Vec::new(),
            numbers: 0,
            most: MOST_PAIRS.min(system::most_descriptors().saturating_sub(OTHERS) / 2),
        }
    }

    /// Takes every connection that waits at `listener`.
    pub fn accept(&mut self, listener: &TcpListener, epoll: &Epoll) {
        while let Ok((client, address)) = listener.accept() {
            ends_by_reset(&client, true); // until it is known to end well
            if original_destination(&client).is_ok_and(|to| to.ip() == NO_SERVER) {
                continue; // it was to be seen whether it comes here at all
            }
            if let Err(error) = self.admit(client, address, listener, epoll) {
                system::log(&format!("connection of {address}: {error}"));
            }
        }
    }

    fn admit(
        &mut self,
        client: TcpStream,
        address: SocketAddr,
        listener: &TcpListener,
        epoll: &Epoll,
    ) -> io::Result<()> {
        let to = original_destination(&client)?;
        if to == listener.local_addr()? {
            return Err(ErrorKind::ConnectionRefused.into()); // meant for us: nobody's query
        }
        let free = self.pairs.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.pairs.len());
        if slot >= self.most {
            return Err(ErrorKind::OutOfMemory.into());
        }
        client.set_nonblocking(true)?;
        let _ = client.set_nodelay(true);
        let server = connecting(address, to)?;
        let token = self.first + 2 * slot as u64;
        self.numbers += 1;
        let mut pair = Pair {
            number: self.numbers,
            address,
            to,
            client: End::new(client, token),
            server: End::new(server, token + 1),
            connected: false,
            foreign: false,
            delayed: 0,
            asked: 0,
        };
        pair.watch(epoll)?;
        if slot == self.pairs.len() {
            self.pairs.push(None);
        }
        self.pairs[slot] = Some(pair);
        Ok(())
    }

    /// Reads what has come for a token, and gives the queries that are complete. `settle` must
    /// follow, once it is said what becomes of them.
    pub fn ready(&mut self, token: u64, events: i32) -> Option<(Key, SocketAddr, Vec<Vec<u8>>)> {
        let slot = ((token - self.first) / 2) as usize;
        let pair = self.pairs.get_mut(slot)?.as_mut()?;
        let key = Key {
            slot,
            number: pair.number,
        };
        match pair.read(token, events) {
            Ok(()) => Some((key, pair.address, pair.queries())),
            // Those that wait are for another connection to the server, or answered here.
            Err(_) if token == pair.server.token && pair.delayed > 0 => {
                pair.server.give_up();
                Some((key, pair.address, Vec::new()))
            }
            Err(_) => {
                self.pairs[slot] = None; // the other end learns it by a reset
                None
            }
        }
    }

    /// Sends a query on to its server, which may have ended the connection while it waited.
    pub fn relay(&mut self, key: Key, query: &[u8]) {
        let Some(pair) = self.pair(key) else { return };
        if pair.server.ended {
            let Ok(again) = connecting(pair.address, pair.to) else {
                self.pairs[key.slot] = None;
                return;
            };
            pair.server = End::new(again, pair.server.token);
            pair.connected = false;
        }
        pair.asked += 1;
        put(&mut pair.server.output, query);
    }

    /// Answers a query.
    pub fn answer(&mut self, key: Key, answer: &[u8]) {
        if let Some(pair) = self.pair(key) {
            put(&mut pair.client.output, answer);
        }
    }

    /// Notes that one more query of a connection waits elsewhere, or one less.
    pub fn delay(&mut self, key: Key, waits: bool) {
        if let Some(pair) = self.pair(key) {
            pair.delayed = if waits {
                pair.delayed + 1
            } else {
                pair.delayed.saturating_sub(1)
            };
        }
    }

    /// Writes what can be written, and ends what has ended.
    pub fn settle(&mut self, key: Key, epoll: &Epoll) {
        if let Some(pair) = self.pair(key) {
            match pair.settle(epoll) {
                Ok(true) => {}
                Ok(false) => {
                    ends_by_reset(&pair.client.stream, false);
                    self.pairs[key.slot] = None;
                }
                Err(_) => self.pairs[key.slot] = None,
            }
        }
    }

    fn pair(&mut self, key: Key) -> Option<&mut Pair> {
        let pair = self.pairs.get_mut(key.slot)?.as_mut()?;
        (pair.number == key.number).then_some(pair)
    }
}

impl Pair {
    fn read(&mut self, token: u64, events: i32) -> io::Result<()> {
        if token == self.client.token {
            return self.client.read(events);
        }
        if !self.connected {
            if let Some(error) = self.server.stream.take_error()? {
                return Err(error);
            }
            self.connected = true;
        }
        self.server.read(events)?;
        // Whole messages only, so that answers of ours fall between them.
        let whole = if self.foreign {
            self.server.input.len()
        } else {
            whole_messages(&self.server.input)
        };
        self.client.output.extend(self.server.input.drain(..whole));
        Ok(())
    }

    /// Takes complete messages out of what the client has sent.
    fn queries(&mut self) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let input = &mut self.client.input;
        let mut at = 0;
        while !self.foreign {
            let rest = &input[at..];
            let Some(length) = length_of(rest) else { break };
            let start = &rest[2..rest.len().min(2 + HEADER)];
            if length < HEADER || (start.len() == HEADER && !begins_as_request(start)) {
                self.foreign = true;
                break;
            }
            let Some(message) = rest.get(2..2 + length) else {
                break;
            };
            found.push(message.to_vec());
            at += 2 + length;
        }
        input.drain(..at);
        found
    }

    /// Returns false when the connection is at its end.
    fn settle(&mut self, epoll: &Epoll) -> io::Result<bool> {
        if self.foreign {
            self.server.output.append(&mut self.client.input);
            self.client.output.append(&mut self.server.input);
        }
        self.client.write()?;
        if self.connected {
            self.server.write()?;
        }
        if self.server.ended && self.client.output.is_empty() && self.delayed == 0 {
            return Ok(false);
        }
        let quiet = self.delayed == 0 && self.server.output.is_empty();
        if self.client.ended && quiet && !self.server.shut {
            if self.asked == 0 && !self.foreign && self.client.output.is_empty() {
                return Ok(false); // the server was never asked, so it has nothing to say
            }
            if self.connected {
                self.server.stream.shutdown(Shutdown::Write)?;
                self.server.shut = true;
            }
        }
        self.watch(epoll)?;
        Ok(true)
    }

    fn watch(&mut self, epoll: &Epoll) -> io::Result<()> {
        let (up, down) = (self.server.output.len(), self.client.output.len());
        let server = self.server.wants(down) | if self.connected { 0 } else { OUT };
        // Who takes no answers is not asked for more queries.
        let client = self
            .client
            .wants(if self.foreign { up } else { up.max(down) });
        self.client.watch(epoll, client)?;
        self.server.watch(epoll, server)
    }
}
