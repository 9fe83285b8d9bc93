//! A packet socket that puts frames onto the real device, behind the classifier.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::frame::Frame;
use crate::system::{check, own, set_option};

/// Frames handed to the kernel at once.
pub const BATCH: usize = 64;

/// Bytes of a socket's memory that frames may take on their way into the device.
const SEND_BUFFER: libc::c_int = 64 << 20;

pub struct Sender(OwnedFd);

impl Sender {
    /// Opens one on a device, in the namespace of this thread.
    pub fn open(device_index: u32) -> io::Result<Self> {
        // Protocol 0: it receives nothing.
        // SAFETY: plain call.
        let socket =
            own(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
        let sender = Self(socket);
        sender.option(libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
        // Straight to the driver: past qdiscs, and past our own classifier.
        sender.option(libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
        sender.option(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, SEND_BUFFER)?;
        sender.bind(device_index)?;
        Ok(sender)
    }

    fn option(&self, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
        set_option(self.0.as_raw_fd(), level, name, value)
    }

    fn bind(&self, device_index: u32) -> io::Result<()> {
        // SAFETY: a zeroed address is valid, and outlives the call.
        unsafe {
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as libc::c_ushort;
            address.sll_ifindex = device_index as libc::c_int;
            check(libc::bind(
                self.0.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            ))
            .map(drop)
        }
    }

    /// Sends up to `BATCH` frames; returns how many of them the device did not take.
    pub fn send(&self, frames: &[Frame]) -> u64 {
        let mut parts = [libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        }; BATCH];
        // SAFETY: a zeroed message is valid. Parts and frames outlive the calls, which only read.
        unsafe {
            let mut messages: [libc::mmsghdr; BATCH] = std::mem::zeroed();
            for ((part, message), frame) in parts.iter_mut().zip(&mut messages).zip(frames) {
                part.iov_base = frame.bytes.as_ptr().cast_mut().cast();
                part.iov_len = frame.bytes.len();
                message.msg_hdr.msg_iov = part;
                message.msg_hdr.msg_iovlen = 1;
            }
            let count = frames.len().min(BATCH);
            let (mut done, mut refused) = (0, 0);
            while done < count {
                let first = messages.as_mut_ptr().add(done);
                let left = (count - done) as libc::c_uint;
                let sent = libc::sendmmsg(self.0.as_raw_fd(), first, left, libc::MSG_DONTWAIT);
                if sent > 0 {
                    done += sent as usize;
                } else {
                    // The error is of the first frame: too long, no room, device down. As on a
                    // wire, it is lost, and the next one tries its own luck.
                    done += 1;
                    refused += 1;
                }
            }
            refused
        }
    }
}
