//! DNS over TCP: connections that were led to us, each with one of ours to its server.
//!
//! Messages go through whole, in whatever order they come (RFC 7766); what is not DNS goes through
//! as it is.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use super::message::begins_as_query;
use super::sockets::{connecting, ends_by_reset, original_destination, Epoll};

/// Bytes that may wait for one end to take them; what comes then waits in the kernel.
const MOST_WAITING: usize = 256 << 10;
const MOST_PAIRS: usize = 4096;
const HEADER: usize = 12;

const IN: i32 = libc::EPOLLIN;
const OUT: i32 = libc::EPOLLOUT;

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
}

struct Pair {
    number: u64,
    address: SocketAddr,
    client: End,
    server: End,
    connected: bool,
    /// It speaks something else.
    foreign: bool,
    /// Messages for the server that wait elsewhere.
    delayed: usize,
    asked: u64,
}

struct End {
    stream: TcpStream,
    token: u64,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Nothing more comes from there.
    ended: bool,
    /// Nothing more goes there.
    shut: bool,
    watched: i32,
}

impl Streams {
    pub fn new(first: u64) -> Self {
        Self {
            first,
            pairs: Vec::new(),
            numbers: 0,
        }
    }

    /// Takes every connection that waits at `listener`.
    pub fn accept(&mut self, listener: &TcpListener, epoll: &Epoll) {
        while let Ok((client, address)) = listener.accept() {
            ends_by_reset(&client, true); // until it is known to end well
            if let Err(error) = self.admit(client, address, listener, epoll) {
                crate::system::log(&format!("connection of {address}: {error}"));
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
        let server = original_destination(&client)?;
        if server == listener.local_addr()? {
            return Err(ErrorKind::ConnectionRefused.into()); // meant for us: nobody's query
        }
        let free = self.pairs.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.pairs.len());
        if slot == MOST_PAIRS {
            return Err(ErrorKind::OutOfMemory.into());
        }
        client.set_nonblocking(true)?;
        let _ = client.set_nodelay(true);
        let server = connecting(address, server)?;
        let _ = server.set_nodelay(true);
        let token = self.first + 2 * slot as u64;
        self.numbers += 1;
        let mut pair = Pair {
            number: self.numbers,
            address,
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
            Err(_) => {
                self.pairs[slot] = None; // the other end learns it by a reset
                None
            }
        }
    }

    /// Sends a query on to its server.
    pub fn relay(&mut self, key: Key, query: &[u8]) {
        if let Some(pair) = self.pair(key) {
            pair.asked += 1;
            put(&mut pair.server.output, query);
        }
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

    /// Takes complete queries out of what the client has sent.
    fn queries(&mut self) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let input = &mut self.client.input;
        let mut at = 0;
        while !self.foreign {
            let rest = &input[at..];
            let Some(length) = length_of(rest) else { break };
            let start = &rest[2..rest.len().min(2 + HEADER)];
            if length < HEADER || (start.len() == HEADER && !begins_as_query(start)) {
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
        if self.server.ended && self.client.output.is_empty() {
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
        let client = self.client.wants(up);
        self.client.watch(epoll, client)?;
        self.server.watch(epoll, server)
    }
}

impl End {
    fn new(stream: TcpStream, token: u64) -> Self {
        Self {
            stream,
            token,
            input: Vec::new(),
            output: Vec::new(),
            ended: false,
            shut: false,
            watched: 0,
        }
    }

    fn read(&mut self, events: i32) -> io::Result<()> {
        if events & !OUT == 0 || self.ended {
            return Ok(());
        }
        let mut chunk = [0; 16 << 10];
        while self.input.len() < MOST_WAITING {
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(length) => self.input.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(length) => drop(self.output.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What to wait for, given how much the other end has not taken yet.
    fn wants(&self, waiting: usize) -> i32 {
        let read = if self.ended || waiting >= MOST_WAITING {
            0
        } else {
            IN
        };
        read | if self.output.is_empty() { 0 } else { OUT }
    }

    fn watch(&mut self, epoll: &Epoll, events: i32) -> io::Result<()> {
        epoll.watch(self.stream.as_raw_fd(), self.token, self.watched, events)?;
        self.watched = events;
        Ok(())
    }
}

fn put(output: &mut Vec<u8>, message: &[u8]) {
    output.extend_from_slice(&(message.len() as u16).to_be_bytes());
    output.extend_from_slice(message);
}

fn length_of(bytes: &[u8]) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes([
        *bytes.first()?,
        *bytes.get(1)?,
    ])))
}

/// Bytes of the messages that are complete.
fn whole_messages(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(length) = length_of(&bytes[at..]) {
        if bytes.len() < at + 2 + length {
            break;
        }
        at += 2 + length;
    }
    at
}
