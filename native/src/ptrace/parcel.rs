//! Descriptors handed to the code inside another process, in one message.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use crate::system::check;

/// Most descriptors in one message: the kernel's SCM_MAX_FD is 253.
pub const GIFTS: usize = 250;

const MESSAGE: usize = 56; // struct msghdr
const VECTOR: usize = 16; // struct iovec
const WORD: usize = 8; // the byte that goes with it
const HEAD: usize = 16; // struct cmsghdr
/// Bytes that the receiver needs.
pub const BYTES: usize = MESSAGE + VECTOR + WORD + HEAD + (4 * GIFTS).next_multiple_of(8);

/// What must lie at `at` inside for recvmsg to be called with, and where the numbers will be.
pub fn laid_out(at: u64, gifts: usize) -> (Vec<u8>, u64) {
    let vector = at + MESSAGE as u64;
    let word = vector + VECTOR as u64;
    let control = word + WORD as u64;
    let length = HEAD + 4 * gifts;
    let words = [0, 0, vector, 1, control, length as u64, 0, word, 1, 0];
    let mut bytes: Vec<u8> = words
        .iter()
        .flat_map(|word: &u64| word.to_ne_bytes())
        .collect();
    bytes.resize(bytes.len() + HEAD, 0);
    bytes.resize(BYTES, 0xff); // no number: what is not received fails with EBADF
    (bytes, control + HEAD as u64)
}

/// Sends a few bytes, and descriptors of ours with them.
pub fn send(socket: &OwnedFd, bytes: &[u8], gifts: &[BorrowedFd<'_>]) -> io::Result<()> {
    let numbers: Vec<i32> = gifts.iter().map(AsRawFd::as_raw_fd).collect();
    let mut vector = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let size = size_of_val(numbers.as_slice()) as u32;
    // SAFETY: plain arithmetic.
    let (space, length) = unsafe { (libc::CMSG_SPACE(size), libc::CMSG_LEN(size)) };
    let mut control = vec![0_u64; (space as usize).div_ceil(8)];
    // SAFETY: all zero is a valid msghdr; what it points to outlives the call, and the control
    // buffer is aligned and has room for one message with all numbers.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        if !gifts.is_empty() {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = space as _;
            let head = libc::CMSG_FIRSTHDR(&raw const message);
            (*head).cmsg_level = libc::SOL_SOCKET;
            (*head).cmsg_type = libc::SCM_RIGHTS;
            (*head).cmsg_len = length as _;
            let into = libc::CMSG_DATA(head);
            std::ptr::copy_nonoverlapping(numbers.as_ptr().cast::<u8>(), into, size as usize);
        }
        let sent = libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL);
        check(sent as i64).map(drop)
    }
}
