//! Bytes from one socket to another: buffers that exist only while something is in them.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{ready, Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::bodies::{Purse, Share, Unheld};
use super::framing::Framing;
use super::head;

/// One read takes no more; as HAProxy's.
const BUFFER: usize = 16 << 10;

/// Free buffers to keep: enough for those that are busy at one moment, little for all that rest.
const KEPT: usize = 64;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

fn take_buffer() -> Vec<u8> {
    FREE.with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| Vec::with_capacity(BUFFER))
}

fn give_back(mut buffer: Vec<u8>) {
    buffer.clear();
    FREE.with_borrow_mut(|free| {
        if buffer.capacity() == BUFFER && free.len() < KEPT {
            free.push(buffer);
        }
    });
}

/// What came in and was not passed on yet.
pub struct Reader<R> {
    io: R,
    data: Vec<u8>,
    start: usize,
    /// Its room, where it is a body that is held.
    share: Share,
    /// The other side has said that nothing more comes.
    pub ended: bool,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub fn new(io: R, purse: &Purse) -> Self {
        Self {
            io,
            data: Vec::new(),
            start: 0,
            share: purse.share(),
            ended: false,
        }
    }

    /// What is there, in order.
    pub fn held(&self) -> &[u8] {
        &self.data[self.start..]
    }

    /// Forgets the first `count` bytes held.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        if self.start == self.data.len() {
            self.start = 0;
            self.data.clear();
            if self.data.capacity() > BUFFER {
                self.data = Vec::new();
            }
        }
        self.share.shrink(self.data.len() - self.start);
    }

    /// Takes room for so many bytes, which stay here until they are passed on or changed.
    pub fn hold(&mut self, count: usize) -> Result<(), Unheld> {
        self.share.grow(count)
    }

    pub fn purse(&self) -> &Purse {
        self.share.purse()
    }

    /// May more be read of a head that is not there as a whole?
    pub fn may_grow(&mut self) -> bool {
        let held = self.held().len();
        held < head::LONGEST && (held < BUFFER || self.hold(held).is_ok())
    }

    /// Reads once, behind what is held; 0 means the end, which is noted.
    pub fn poll_fill(&mut self, context: &mut Context) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        if self.data.capacity() == 0 {
            self.data = take_buffer();
        } else if self.data.capacity() - self.data.len() < BUFFER / 4 {
            self.data.drain(..self.start);
            self.start = 0;
            self.data.reserve(BUFFER / 2);
        }
        let mut into = ReadBuf::uninit(self.data.spare_capacity_mut());
        let polled = Pin::new(&mut self.io).poll_read(context, &mut into);
        let count = into.filled().len();
        if polled.is_pending() && self.data.is_empty() {
            give_back(std::mem::take(&mut self.data));
        }
        match ready!(polled) {
            Ok(()) => {}
            // TLS whose other side has gone without a word.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
        // SAFETY: `poll_read` has written that many bytes behind the held ones.
        unsafe { self.data.set_len(self.data.len() + count) };
        self.ended = count == 0;
        Poll::Ready(Ok(count))
    }

    /// Puts `new` in place of the first `count` bytes held.
    pub fn splice(&mut self, count: usize, new: &[u8]) {
        self.data
            .splice(self.start..self.start + count, new.iter().copied());
    }

    pub async fn fill(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|context| self.poll_fill(context)).await
    }
}

impl<R> Drop for Reader<R> {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.data));
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Reader<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        into: &mut ReadBuf,
    ) -> Poll<io::Result<()>> {
        if self.held().is_empty() {
            return Pin::new(&mut self.io).poll_read(context, into);
        }
        let count = self.held().len().min(into.remaining());
        into.put_slice(&self.held()[..count]);
        self.consume(count);
        Poll::Ready(Ok(()))
    }
}

/// Bytes under way from a reader to a writer.
pub struct Pump {
    /// Of the bytes held, those that are to be sent before anything else is looked at.
    sending: usize,
    framing: Framing,
    /// What comes after all that.
    then: Bytes,
}

impl Pump {
    /// Sends `head` bytes, and what follows them as `framing` says.
    pub fn new(head: usize, framing: Framing) -> Self {
        Self {
            sending: head,
            framing,
            then: Bytes::new(),
        }
    }

    /// Sends `bytes` behind it.
    pub fn then(self, bytes: Bytes) -> Self {
        Self {
            then: bytes,
            ..self
        }
    }

    pub fn done(&self) -> bool {
        self.sending == 0 && self.framing.done() && self.then.is_empty()
    }

    /// Goes on until all is sent. May be dropped at any moment: what is not sent is still held.
    pub fn poll<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        reader: &mut Reader<R>,
        writer: &mut W,
        context: &mut Context,
    ) -> Poll<io::Result<()>> {
        loop {
            let more = self.framing.take(&reader.held()[self.sending..]);
            self.sending += more.map_err(not_understood)?;
            while self.sending > 0 {
                let bytes = &reader.held()[..self.sending];
                let sent = ready!(Pin::new(&mut *writer).poll_write(context, bytes))?;
                if sent == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                reader.consume(sent);
                self.sending -= sent;
            }
            if self.framing.done() {
                while !self.then.is_empty() {
                    let sent = ready!(Pin::new(&mut *writer).poll_write(context, &self.then))?;
                    if sent == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    self.then.advance(sent);
                }
                return Pin::new(&mut *writer).poll_flush(context);
            }
            // A layer below may hold back what it was given until it is told to flush.
            let flushed = Pin::new(&mut *writer).poll_flush(context)?;
            let filled = ready!(reader.poll_fill(context))?;
            if filled == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            let _ = flushed;
        }
    }
}

fn not_understood(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Has a pump stopped for what it was given, all of which is still held?
pub fn is_not_understood(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

/// One direction of a connection that nobody looks into.
#[derive(Default)]
pub struct Blind {
    done: bool,
}

impl Blind {
    /// Passes on everything, and the end of it.
    pub fn poll<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        reader: &mut Reader<R>,
        writer: &mut W,
        context: &mut Context,
    ) -> Poll<io::Result<()>> {
        while !self.done {
            while !reader.held().is_empty() {
                let sent = ready!(Pin::new(&mut *writer).poll_write(context, reader.held()))?;
                if sent == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                reader.consume(sent);
            }
            if reader.ended {
                // Gone already, if this fails.
                let _ = ready!(Pin::new(&mut *writer).poll_shutdown(context));
                self.done = true;
                break;
            }
            let _ = Pin::new(&mut *writer).poll_flush(context)?;
            ready!(reader.poll_fill(context))?;
        }
        Poll::Ready(Ok(()))
    }
}
