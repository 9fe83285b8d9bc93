//! One end of a connection that queries pass through: bytes that came, bytes that go.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use super::sockets::Epoll;

/// Bytes that may wait for one end to take them; what comes then waits in the kernel.
const MOST_WAITING: usize = 256 << 10;

const IN: i32 = libc::EPOLLIN;
pub const OUT: i32 = libc::EPOLLOUT;

pub struct End {
    pub stream: TcpStream,
    pub token: u64,
    pub input: Vec<u8>,
    pub output: Vec<u8>,
    /// Nothing more comes from there.
    pub ended: bool,
    /// Nothing more goes there.
    pub shut: bool,
    watched: i32,
}

impl End {
    pub fn new(stream: TcpStream, token: u64) -> Self {
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

    pub fn read(&mut self, events: i32) -> io::Result<()> {
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

    pub fn write(&mut self) -> io::Result<()> {
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

    /// Notes that nothing comes from there any more, and nothing goes there.
    pub fn give_up(&mut self) {
        self.ended = true;
        self.output.clear();
    }

    /// What to wait for, given how much the other end has not taken yet.
    pub fn wants(&self, waiting: usize) -> i32 {
        let read = if self.ended || waiting >= MOST_WAITING {
            0
        } else {
            IN
        };
        read | if self.output.is_empty() { 0 } else { OUT }
    }

    pub fn watch(&mut self, epoll: &Epoll, events: i32) -> io::Result<()> {
        epoll.watch(self.stream.as_raw_fd(), self.token, self.watched, events)?;
        self.watched = events;
        Ok(())
    }
}

/// Appends a message as it goes over a stream.
pub fn put(output: &mut Vec<u8>, message: &[u8]) {
    output.extend_from_slice(&(message.len() as u16).to_be_bytes());
    output.extend_from_slice(message);
}

pub fn length_of(bytes: &[u8]) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes([
        *bytes.first()?,
        *bytes.get(1)?,
    ])))
}

/// How many messages are complete, and their bytes.
pub fn whole_messages(bytes: &[u8]) -> (u64, usize) {
    let (mut count, mut at) = (0, 0);
    while let Some(length) = length_of(&bytes[at..]) {
        if bytes.len() < at + 2 + length {
            break;
        }
        at += 2 + length;
        count += 1;
    }
    (count, at)
}
