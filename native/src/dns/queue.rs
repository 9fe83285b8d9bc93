//! Packets that the kernel holds for us (libnetfilter_queue(3)); we say of each what becomes of it.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use super::netlink::{attributes, messages, Message, Socket, QUEUE};

/// The first number that is tried; others may use queues in the same namespace.
const FIRST: u16 = 5300;
const TRIED: u16 = 16;

/// Packets held at once; what comes then passes.
const LONGEST: u32 = 1 << 16;
const BUFFER: i32 = 16 << 20;

const CONFIG: u16 = QUEUE << 8 | 2;
const VERDICT: u16 = QUEUE << 8 | 1;

/// Bytes, of the 200 kB that a netlink socket takes.
const VERDICTS_AT_ONCE: usize = 1 << 16;

/// One packet that waits for its verdict.
pub struct Held<'b> {
    pub id: u32,
    /// Index of the device that it leaves by.
    pub device: u32,
    /// From the IP header on.
    pub packet: &'b [u8],
}

/// A queue of this namespace; when it is closed, what it holds is dropped.
pub struct Queue {
    socket: Socket,
    pub number: u16,
    verdicts: Message,
}

impl Queue {
    pub fn open() -> io::Result<Self> {
        let socket = Socket::open()?;
        let mut number = FIRST;
        while let Err(error) = bind(&socket, number) {
            // EPERM: it belongs to another process, or we lack CAP_NET_ADMIN.
            if error.raw_os_error() != Some(libc::EPERM) || number + 1 == FIRST + TRIED {
                return Err(error);
            }
            number += 1;
        }
        let mut config = Message::default();
        let at = config.begin(CONFIG, libc::NLM_F_ACK, libc::AF_UNSPEC, number);
        config.bytes(2, &[0, 0, 0xff, 0xff, 2]); // copy whole packets
        config.number(3, LONGEST);
        config.number(4, 1); // of the flags,
        config.number(5, 1); // fail open
        config.end(at);
        socket.ask(&config)?;
        let _ = socket.option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER);
        // A full buffer lets packets pass; there is nothing else to be told about it.
        let _ = socket.option(libc::SOL_NETLINK, libc::NETLINK_NO_ENOBUFS, 1);
        Ok(Self {
            socket,
            number,
            verdicts: Message::default(),
        })
    }

    /// Reads the next packet; `None` when there is none.
    pub fn next<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<Held<'b>>> {
        while let Some(received) = self.socket.receive(buffer)? {
            // The kernel sends one packet at a time. Its length is told apart from the borrow, so
            // that a message without a packet can be passed over.
            if let Some((id, device, packet)) = held(received) {
                let start = packet.as_ptr() as usize - received.as_ptr() as usize;
                let range = start..start + packet.len();
                return Ok(Some(Held {
                    id,
                    device,
                    packet: &buffer[range],
                }));
            }
        }
        Ok(None)
    }

    /// Lets a packet go on; takes effect with `flush`.
    pub fn pass(&mut self, id: u32) {
        self.decide(id, 1);
    }

    /// Drops a packet; takes effect with `flush`.
    pub fn drop(&mut self, id: u32) {
        self.decide(id, 0);
    }

    /// Gives the kernel all verdicts, of which a socket takes only so many at once.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut sent = Ok(());
        for some in self.verdicts.pieces(VERDICTS_AT_ONCE) {
            sent = sent.and(self.socket.send(some));
        }
        self.verdicts.clear();
        sent
    }

    fn decide(&mut self, id: u32, verdict: u32) {
        let at = self
            .verdicts
            .begin(VERDICT, 0, libc::AF_UNSPEC, self.number);
        let fields = [verdict, id].map(u32::to_be_bytes);
        self.verdicts.bytes(2, fields.as_flattened());
        self.verdicts.end(at);
    }
}

impl AsRawFd for Queue {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn bind(socket: &Socket, number: u16) -> io::Result<()> {
    let mut message = Message::default();
    let at = message.begin(CONFIG, libc::NLM_F_ACK, libc::AF_UNSPEC, number);
    message.bytes(1, &[1, 0, 0, 0]);
    message.end(at);
    socket.ask(&message)
}

/// Number, device and content of the packet in a message.
fn held(received: &[u8]) -> Option<(u32, u32, &[u8])> {
    let (kind, body) = messages(received).next()?;
    if kind != QUEUE << 8 {
        return None;
    }
    let (mut id, mut device, mut packet) = (None, 0, &[][..]);
    for (kind, value) in attributes(body.get(4..)?) {
        match kind {
            1 => id = Some(number(value)?),
            6 => device = number(value)?,
            10 => packet = value,
            _ => {}
        }
    }
    Some((id?, device, packet))
}

fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?))
}
