//! JSON with descriptors, between two processes of ours.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use serde_json::Value;

use crate::ptrace;
use crate::system::check;

const LONGEST: usize = 64 << 10;
const MOST_DESCRIPTORS: usize = 8;

/// Two ends.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: room for two numbers; both are ours alone.
    unsafe {
        check(libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()))?;
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

pub fn send(socket: &OwnedFd, value: &Value, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    ptrace::send(socket, value.to_string().as_bytes(), fds)
}

/// The next message. An error at the end of the other side.
pub fn receive(socket: &OwnedFd) -> io::Result<(Value, Vec<OwnedFd>)> {
    let mut bytes = vec![0; LONGEST];
    let mut control = [0_u64; 2 + MOST_DESCRIPTORS];
    let mut vector = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let mut fds = Vec::new();
    // SAFETY: all zero is a valid msghdr; what it points to outlives the calls, and descriptors that
    // have come are owned by nobody else.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let got = libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC);
        let got = check(got as i64)? as usize;
        let head = libc::CMSG_FIRSTHDR(&raw const message);
        if !head.is_null() && (*head).cmsg_type == libc::SCM_RIGHTS {
            let length = (*head).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
            let numbers = libc::CMSG_DATA(head).cast::<i32>();
            for index in 0..length / size_of::<i32>() {
                fds.push(OwnedFd::from_raw_fd(numbers.add(index).read_unaligned()));
            }
        }
        bytes.truncate(got);
    }
    if bytes.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((serde_json::from_slice(&bytes)?, fds))
}
