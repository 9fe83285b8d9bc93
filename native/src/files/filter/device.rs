//! The descriptor of /dev/fuse: requests in, answers out, and the buffer that holds either.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::abi::{self, InHeader, OutHeader, Plain};
use crate::system::check;

/// Most bytes of one read or write; 256 pages is what the kernel allows.
pub const LARGEST_DATA: usize = 1 << 20;

/// Headers of a WRITE: with these before a page's begin, its data are aligned as O_DIRECT wants.
const BEFORE_DATA: usize = size_of::<InHeader>() + size_of::<abi::WriteIn>();
const PAGE: usize = 4096;
/// What stays in memory, whoever asked for more.
const KEPT: usize = 4 * PAGE;
/// Requests in a row that need no more than that, after which what is beyond it is given back.
const SMALL_IN_A_ROW: usize = 16;

/// An errno.
pub type Errno = i32;

/// What is answered to a request. Lives on the stack of one thread, one at a time.
#[expect(clippy::large_enum_variant)]
pub enum Answer {
    Done,
    /// A few bytes.
    Small {
        bytes: [u8; 288],
        length: usize,
    },
    /// So many bytes of the buffer's data.
    Data(usize),
}

impl Answer {
    pub fn of<T: Plain>(value: &T) -> Self {
        Self::two(value.bytes(), &[])
    }

    pub fn two(first: &[u8], second: &[u8]) -> Self {
        let mut bytes = [0; 288];
        bytes[..first.len()].copy_from_slice(first);
        let length = first.len() + second.len();
        bytes[first.len()..length].copy_from_slice(second);
        Self::Small { bytes, length }
    }
}

/// Memory for one request and its answer, taken page by page as it is used.
pub struct Buffer {
    base: *mut u8,
    length: usize,
    received: usize,
    used: usize,
    /// Requests since one that needed much.
    small: usize,
}

// SAFETY: it is memory that nobody else points to.
unsafe impl Send for Buffer {}

impl Buffer {
    /// Makes room for `data` bytes behind the headers.
    pub fn new(data: usize) -> io::Result<Self> {
        let length = PAGE + data.max(PAGE).next_multiple_of(PAGE);
        let (rights, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a new mapping at a place of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                rights,
                flags | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            base: base.cast(),
            length,
            received: 0,
            used: 0,
            small: 0,
        })
    }

    /// A copy of the request, with room for `data` bytes.
    pub fn parked(&self, data: usize) -> io::Result<Self> {
        let mut copy = Self::new(data.max(self.received))?;
        copy.received = self.received;
        copy.request_mut().copy_from_slice(self.request());
        Ok(copy)
    }

    pub fn header(&self) -> InHeader {
        InHeader::take(self.request()).unwrap_or_default()
    }

    /// What follows the header.
    pub fn body(&self) -> &[u8] {
        &self.request()[size_of::<InHeader>().min(self.received)..]
    }

    /// Where the data of a WRITE are, and those of an answer go.
    pub fn data(&mut self, length: usize) -> Result<&mut [u8], Errno> {
        if length > self.length - PAGE {
            return Err(libc::EINVAL);
        }
        self.touched(length);
        // SAFETY: within the mapping; `self` is borrowed as long as the slice lives.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.base.add(PAGE), length) })
    }

    fn touched(&mut self, length: usize) {
        self.used = self.used.max(length);
        if length > KEPT {
            self.small = 0;
        }
    }

    /// Has it been used beyond its first pages since it was trimmed?
    pub fn is_large(&self) -> bool {
        self.used > KEPT
    }

    /// Does nobody need what it has grown to? Where small requests follow each other, nobody asks
    /// the device between them whether it is quiet: that would cost more than they do.
    pub fn is_outgrown(&self) -> bool {
        self.is_large() && self.small >= SMALL_IN_A_ROW
    }

    /// Gives memory back that a large request has left.
    pub fn trim(&mut self) {
        self.used = 0;
        // SAFETY: the second page on is ours, and holds nothing that is still wanted.
        unsafe {
            libc::madvise(
                self.base.add(2 * PAGE).cast(),
                self.length - 2 * PAGE,
                libc::MADV_DONTNEED,
            )
        };
    }

    fn request(&self) -> &[u8] {
        // SAFETY: so much has been received, within the mapping.
        unsafe { std::slice::from_raw_parts(self.base.add(PAGE - BEFORE_DATA), self.received) }
    }

    fn request_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(PAGE - BEFORE_DATA), self.received) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and nobody points to it any more.
        unsafe { libc::munmap(self.base.cast(), self.length) };
    }
}

/// /dev/fuse, once it is mounted.
pub struct Device(OwnedFd);

impl Device {
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Waits for a request.
    pub fn receive(&self, into: &mut Buffer) -> io::Result<()> {
        into.received = 0;
        let room = into.length - (PAGE - BEFORE_DATA);
        // SAFETY: the mapping has so much room from there on.
        let got = unsafe {
            let at = into.base.add(PAGE - BEFORE_DATA);
            libc::read(self.0.as_raw_fd(), at.cast(), room)
        };
        into.received = check(got as i64)? as usize;
        into.small += 1;
        into.touched(into.received.saturating_sub(BEFORE_DATA));
        Ok(())
    }

    /// Does no request come for so long?
    pub fn is_quiet(&self, wait: Duration) -> bool {
        crate::system::poll([self.0.as_raw_fd()], Some(wait)).is_ok_and(|[ready]| !ready)
    }

    /// Answers a request; that it is gone, or its mount, is fine.
    pub fn answer(&self, unique: u64, outcome: Result<Answer, Errno>, buffer: &mut Buffer) {
        let (error, bytes): (Errno, &[u8]) = match &outcome {
            Ok(Answer::Done) => (0, &[]),
            Ok(Answer::Small { bytes, length }) => (0, &bytes[..*length]),
            Ok(Answer::Data(length)) => match buffer.data(*length) {
                Ok(data) => (0, data),
                Err(errno) => (errno, &[]),
            },
            Err(errno) => (*errno, &[]),
        };
        let _ = self.send(unique, -error, bytes);
    }

    /// Answers a request that asks for nothing but whether it was done.
    pub fn done(&self, unique: u64, outcome: Result<(), Errno>) {
        let _ = self.send(unique, -outcome.err().unwrap_or_default(), &[]);
    }

    /// Drops what the kernel has cached of a file, after writing it back.
    pub fn forget_pages(&self, nodeid: u64) {
        let all = abi::InvalInode {
            ino: nodeid,
            off: 0,
            len: -1,
        };
        let _ = self.send(0, abi::NOTIFY_INVAL_INODE, all.bytes());
    }

    /// Has the kernel forget files, as far as nobody uses them.
    pub fn prune(&self, nodes: &[u64]) -> io::Result<()> {
        let head = abi::Prune {
            count: nodes.len() as u32,
            ..Default::default()
        };
        let ids: Vec<u8> = nodes.iter().flat_map(|id| id.to_ne_bytes()).collect();
        self.send(0, abi::NOTIFY_PRUNE, &[head.bytes(), &ids].concat())
    }

    fn send(&self, unique: u64, error: i32, bytes: &[u8]) -> io::Result<()> {
        let len = (size_of::<OutHeader>() + bytes.len()) as u32;
        let head = OutHeader { len, error, unique };
        let parts = [head.bytes(), bytes].map(|part| libc::iovec {
            iov_base: part.as_ptr().cast_mut().cast(),
            iov_len: part.len(),
        });
        // SAFETY: both parts outlive the call, which only reads them.
        let sent = unsafe { libc::writev(self.0.as_raw_fd(), parts.as_ptr(), parts.len() as i32) };
        check(sent as i64).map(drop)
    }

    /// Lets the kernel use this file by itself.
    pub fn back(&self, fd: RawFd) -> io::Result<i32> {
        let map = abi::BackingMap {
            fd,
            ..Default::default()
        };
        // SAFETY: `map` outlives the call.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), abi::IOC_BACKING_OPEN as _, &map) })
    }

    /// Ends that, once those who use it have closed it.
    pub fn unback(&self, id: i32) {
        // SAFETY: `id` outlives the call.
        unsafe { libc::ioctl(self.0.as_raw_fd(), abi::IOC_BACKING_CLOSE as _, &id) };
    }
}

#[cfg(test)]
mod tests {
    use super::{Buffer, Device, KEPT, PAGE, SMALL_IN_A_ROW};

    #[test]
    fn data_of_a_write_begin_with_a_page() {
        let mut buffer = Buffer::new(1).unwrap();
        assert_eq!(buffer.data(1).unwrap().as_ptr() as usize % PAGE, 0);
        assert!(buffer.data(PAGE).is_ok() && buffer.data(PAGE + 1).is_err());
    }

    #[test]
    fn what_a_large_request_has_left_is_given_back_after_some_small_ones() {
        let (reading, writing) = nix::unistd::pipe().unwrap();
        let (device, mut buffer) = (Device::new(reading), Buffer::new(1 << 20).unwrap());
        let mut request = |bytes: usize| {
            nix::unistd::write(&writing, &vec![1; bytes]).unwrap();
            device.receive(&mut buffer).unwrap();
            (buffer.is_large(), buffer.is_outgrown())
        };
        assert_eq!(request(100), (false, false));
        assert_eq!(request(KEPT + PAGE), (true, false));
        for _ in 1..SMALL_IN_A_ROW {
            assert_eq!(request(100), (true, false));
        }
        assert_eq!(request(100), (true, true));
        assert_eq!(request(KEPT + PAGE), (true, false));
        buffer.trim();
        assert!(!buffer.is_large() && !buffer.is_outgrown());
    }

    #[test]
    fn a_parked_request_has_the_same_words() {
        let mut buffer = Buffer::new(PAGE).unwrap();
        buffer.received = 100;
        buffer.request_mut().fill(7);
        let parked = buffer.parked(2 * PAGE).unwrap();
        assert_eq!(parked.header().unique, 0x0707_0707_0707_0707);
        assert_eq!(parked.body(), &[7; 60]);
    }
}
