//! Messages to the packet filter: attributes, one socket, and the answers to them (netlink(7)).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::system::{check, own, set_option};

/// Subsystems of nfnetlink.
pub const NFTABLES: u16 = 10;
pub const QUEUE: u16 = 3;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NESTED: u16 = 0x8000;
const HEADER: usize = 16;

/// One message, or several in a row, as they go over the wire.
#[derive(Default)]
pub struct Message(Vec<u8>);

impl Message {
    /// Starts a message of `kind`, with the header that every nfnetlink message has.
    pub fn begin(&mut self, kind: u16, flags: i32, family: i32, resource: u16) -> usize {
        let at = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0
            .extend_from_slice(&((flags | libc::NLM_F_REQUEST) as u16).to_ne_bytes());
        self.0.extend_from_slice(&[0; 8]);
        self.0.extend_from_slice(&[family as u8, 0]);
        self.0.extend_from_slice(&resource.to_be_bytes());
        at
    }

    /// Ends the message that began at `at`.
    pub fn end(&mut self, at: usize) {
        let length = (self.0.len() - at) as u32;
        self.0[at..at + 4].copy_from_slice(&length.to_ne_bytes());
    }

    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = (value.len() + 4) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    pub fn text(&mut self, kind: u16, value: &str) {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat());
    }

    pub fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let at = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        let length = (self.0.len() - at) as u16;
        self.0[at..at + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Wraps what `fill` adds as one transaction of nftables.
    pub fn batch(fill: impl FnOnce(&mut Self)) -> Self {
        let mut message = Self::default();
        let at = message.begin(BATCH_BEGIN, 0, libc::AF_UNSPEC, NFTABLES);
        message.end(at);
        fill(&mut message);
        let at = message.begin(BATCH_END, 0, libc::AF_UNSPEC, NFTABLES);
        message.end(at);
        message
    }

    /// What was written, in pieces of at most so many bytes; a message longer than that is one.
    pub fn pieces(&self, most: usize) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let mut end = 0;
            while let Some(head) = rest.get(end..end + 4) {
                let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
                if end > 0 && end + length > most {
                    break;
                }
                end += length.max(HEADER);
            }
            let (piece, left) = rest.split_at(end.min(rest.len()));
            rest = left;
            (!piece.is_empty()).then_some(piece)
        })
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// A socket to the packet filter of this thread's network namespace; not blocking.
pub struct Socket(OwnedFd);

impl Socket {
    pub fn open() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: plain call.
        let socket = own(unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_NETFILTER) })?;
        Ok(Self(socket))
    }

    /// Sends messages that want no answer.
    pub fn send(&self, messages: &[u8]) -> io::Result<()> {
        let (start, length) = (messages.as_ptr().cast(), messages.len());
        // SAFETY: the buffer is as long as said; a netlink socket goes to the kernel by default.
        check(unsafe { libc::send(self.0.as_raw_fd(), start, length, 0) } as i64).map(drop)
    }

    /// Sends messages, of which those with `NLM_F_ACK` are answered at once, and gives the first
    /// error among the answers.
    pub fn ask(&self, message: &Message) -> io::Result<()> {
        self.send(&message.0)?;
        let mut outcome = Ok(());
        let mut buffer = vec![0; 1 << 16];
        // The kernel has answered before `send` returned.
        while let Some(received) = self.receive(&mut buffer)? {
            for (kind, body) in messages(received) {
                if kind == libc::NLMSG_ERROR as u16 && body.len() >= 4 {
                    let code = i32::from_ne_bytes([body[0], body[1], body[2], body[3]]);
                    if code != 0 && outcome.is_ok() {
                        outcome = Err(io::Error::from_raw_os_error(-code));
                    }
                }
            }
        }
        outcome
    }

    /// Reads what has come; `None` when there is nothing.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        // SAFETY: the buffer is as long as said.
        let length = check(unsafe {
            libc::recv(
                self.0.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
            )
        } as i64);
        match length {
            Ok(length) => Ok(Some(&buffer[..length as usize])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets an option of the socket.
    pub fn option(&self, level: i32, name: i32, value: i32) -> io::Result<()> {
        set_option(self.0.as_raw_fd(), level, name, value)
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Kind and body of each message in what was received.
pub fn messages(mut received: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let head = received.get(..HEADER)?;
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let body = received.get(HEADER..length)?;
        received = received
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        Some((u16::from_ne_bytes([head[4], head[5]]), body))
    })
}

/// Kind and value of each attribute.
pub fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let head = rest.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([head[2], head[3]]) & !NESTED, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut message = Message::default();
        let at = message.begin(7, 0, libc::AF_INET, 53);
        message.text(1, "ab");
        message.nested(2, |inner| inner.number(3, 9));
        message.end(at);
        let (kind, body) = messages(&message.0).next().unwrap();
        assert_eq!((kind, &body[2..4]), (7, &53u16.to_be_bytes()[..]));
        let found: Vec<_> = attributes(&body[4..]).collect();
        assert_eq!(found[0], (1, &b"ab\0"[..]));
        assert_eq!(attributes(found[1].1).next(), Some((3, &[0, 0, 0, 9][..])));
    }

    #[test]
    fn pieces_hold_whole_messages() {
        let mut several = Message::default();
        for number in 0..10 {
            let at = several.begin(number, 0, libc::AF_INET, 53);
            several.number(1, 7);
            several.end(at);
        }
        for (most, pieces) in [(1, 10), (28, 10), (60, 5), (84, 4), (1 << 16, 1)] {
            let found: Vec<_> = several.pieces(most).collect();
            assert_eq!(found.len(), pieces, "{most}");
            let kinds: Vec<_> = found.iter().flat_map(|piece| messages(piece)).collect();
            assert_eq!(kinds.len(), 10);
        }
        assert_eq!(Message::default().pieces(9).count(), 0);
    }

    #[test]
    fn a_message_that_is_cut_short_ends_the_reading() {
        assert_eq!(messages(&[40, 0, 0, 0, 1]).count(), 0);
        assert_eq!(messages(&[3; 32]).count(), 0);
        assert_eq!(attributes(&[2, 0, 0, 0, 9]).count(), 0);
    }
}
