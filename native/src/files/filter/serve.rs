//! One request, from the kernel's words to the answer.

use std::ffi::CStr;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Instant;

use super::abi::{self, init, op, InHeader, Plain};
use super::delays::Delays;
use super::device::{Answer, Buffer, Errno, LARGEST_DATA};
use super::metadata::LONGEST_LIST;
use super::methods::Method;
use super::rules::{Compiled, Decision};
use super::workers::Hands;
use super::Shared;

/// What a request is served with.
pub struct Call<'a> {
    pub header: InHeader,
    pub decision: &'a Decision,
    pub hands: &'a mut Hands,
}

pub type Outcome = Result<Answer, Errno>;

/// Reads a struct off the front.
pub fn take<T: Plain>(body: &[u8]) -> Result<(T, &[u8]), Errno> {
    let value = T::take(body).ok_or(libc::EINVAL)?;
    Ok((value, &body[size_of::<T>()..]))
}

/// Reads a string and its NUL off the front.
pub fn text(body: &[u8]) -> Result<(&CStr, &[u8]), Errno> {
    let text = CStr::from_bytes_until_nul(body).map_err(|_| libc::EINVAL)?;
    Ok((text, &body[text.count_bytes() + 1..]))
}

/// Reads a name in a directory, which leads nowhere else.
pub fn name(body: &[u8]) -> Result<(&CStr, &[u8]), Errno> {
    let (name, rest) = text(body)?;
    match name.to_bytes() {
        b"" | b"." | b".." => Err(libc::EINVAL),
        bytes if bytes.contains(&b'/') => Err(libc::EINVAL),
        _ => Ok((name, rest)),
    }
}

impl Shared {
    /// Serves the request in the buffer, now or when its time has come.
    pub fn serve(self: &Arc<Self>, buffer: &mut Buffer, hands: &mut Hands) {
        let header = buffer.header();
        match header.opcode {
            op::FORGET | op::BATCH_FORGET => return self.forget(&header, buffer.body()),
            op::INTERRUPT => {
                if let Some(one) = abi::InterruptIn::take(buffer.body()) {
                    self.waits.interrupt(one.unique);
                    Delays::interrupt(self, one.unique);
                }
                return; // has no answer
            }
            op::INIT => {
                let outcome = self.init(buffer.body());
                return self.device.answer(header.unique, outcome, buffer);
            }
            _ => {}
        }
        let decision = self.decide(&header, buffer.body(), hands);
        if !decision.delay.is_zero() {
            let due = Instant::now() + decision.delay;
            if let Ok(parked) = buffer.parked(room(&header, buffer.body())) {
                return Delays::park(self, due, parked, decision);
            }
        }
        self.finish(buffer, &decision, hands);
    }

    /// Does what was asked, or fails it, and answers.
    pub fn finish(self: &Arc<Self>, buffer: &mut Buffer, decision: &Decision, hands: &mut Hands) {
        let header = buffer.header();
        // What is closed is closed, and what is unlocked is so, whatever is answered.
        let ends = match header.opcode {
            op::RELEASE | op::RELEASEDIR | op::DESTROY => true,
            op::SETLK => abi::LockIn::take(buffer.body())
                .is_some_and(|asked| asked.kind as libc::c_int == libc::F_UNLCK),
            _ => false,
        };
        if header.opcode == op::FLUSH {
            let _ = self.flush(header.nodeid, buffer.body());
        }
        if header.opcode == op::SETLKW && decision.errno.is_none() {
            return self.lock_in_time(&header, buffer.body());
        }
        let outcome = match decision.errno {
            Some(errno) if !ends => Err(errno),
            _ => self.perform(
                Call {
                    header,
                    decision,
                    hands,
                },
                buffer,
            ),
        };
        self.device.answer(header.unique, outcome, buffer);
    }

    fn perform(&self, mut call: Call, buffer: &mut Buffer) -> Outcome {
        let body = buffer.body();
        match call.header.opcode {
            op::LOOKUP => self.lookup(&call, body),
            op::GETATTR => self.getattr(&call, body),
            op::SETATTR => self.setattr(&call, body),
            op::STATX => self.statx(&call, body),
            op::READLINK => self.readlink(&call, buffer),
            op::SYMLINK => self.symlink(&call, body),
            op::MKNOD => self.mknod(&call, body),
            op::MKDIR => self.mkdir(&call, body),
            op::UNLINK => self.unlink(&call, body, 0),
            op::RMDIR => self.unlink(&call, body, libc::AT_REMOVEDIR),
            op::RENAME | op::RENAME2 => self.rename(&call, body),
            op::LINK => self.link(&call, body),
            op::OPEN => self.open(&call, body),
            op::CREATE => self.create(&call, body),
            op::TMPFILE => self.tmpfile(&call, body),
            op::READ => self.read(&mut call, buffer),
            op::WRITE => self.write(&mut call, buffer),
            op::FLUSH => Ok(Answer::Done),
            op::RELEASE | op::RELEASEDIR => self.release(body),
            op::GETLK => self.getlk(body),
            op::SETLK => self.setlk(&call.header, body).map(|()| Answer::Done),
            op::FSYNC | op::FSYNCDIR => self.fsync(body),
            op::FALLOCATE => self.fallocate(body),
            op::LSEEK => self.lseek(body),
            op::COPY_FILE_RANGE => self.copy_range(&call, body),
            op::OPENDIR => self.opendir(&call),
            op::READDIR => self.readdir(buffer),
            op::STATFS => self.statfs(&call),
            op::SETXATTR => self.setxattr(&call, body),
            op::GETXATTR => self.getxattr(&call, buffer),
            op::LISTXATTR => self.listxattr(&call, buffer),
            op::REMOVEXATTR => self.removexattr(&call, body),
            op::IOCTL => self.ioctl(body),
            op::SYNCFS => self.syncfs(&call),
            op::DESTROY => Ok(Answer::Done),
            _ => Err(libc::ENOSYS), // the kernel then does it in a way of its own
        }
    }

    fn init(&self, body: &[u8]) -> Outcome {
        let mut whole = [0; size_of::<abi::InitIn>()]; // kernels before 5.17 say less
        let said = body.len().min(whole.len());
        whole[..said].copy_from_slice(&body[..said]);
        let (asked, _): (abi::InitIn, _) = take(&whole)?;
        let offered = u64::from(asked.flags) | u64::from(asked.flags2) << 32;
        let wanted = init::ASYNC_READ
            | init::POSIX_LOCKS
            | init::ATOMIC_O_TRUNC
            | init::BIG_WRITES
            | init::DONT_MASK
            | init::FLOCK_LOCKS
            | init::ASYNC_DIO
            | init::PARALLEL_DIROPS
            | init::POSIX_ACL
            | init::MAX_PAGES
            | init::HANDLE_KILLPRIV_V2
            | init::SETXATTR_EXT
            | init::INIT_EXT
            | init::DIRECT_IO_ALLOW_MMAP
            | init::PASSTHROUGH;
        let taken = wanted & offered & !self.refused;
        self.features.store(taken, Ordering::Relaxed);
        self.passes
            .store(taken & init::PASSTHROUGH != 0, Ordering::Relaxed);
        Ok(Answer::of(&abi::InitOut {
            major: 7,
            minor: 41.min(asked.minor),
            max_readahead: asked.max_readahead,
            flags: taken as u32,
            flags2: (taken >> 32) as u32,
            max_background: 256, // so many may wait at once without anybody waiting for them
            congestion_threshold: 192,
            max_write: LARGEST_DATA as u32,
            time_gran: 1,
            max_pages: (LARGEST_DATA / 4096) as u16,
            // Files of an overlay, which is itself one above another, may be served by the kernel.
            max_stack_depth: if taken & init::PASSTHROUGH != 0 { 2 } else { 0 },
            ..Default::default()
        }))
    }

    fn forget(&self, header: &InHeader, body: &[u8]) {
        if header.opcode == op::FORGET {
            if let Some(one) = abi::ForgetIn::take(body) {
                self.nodes.forget(header.nodeid, one.nlookup);
            }
            return;
        }
        let Ok((batch, mut rest)) = take::<abi::BatchForgetIn>(body) else {
            return;
        };
        for _ in 0..batch.count {
            let Ok((one, after)) = take::<abi::ForgetOne>(rest) else {
                return;
            };
            self.nodes.forget(one.nodeid, one.nlookup);
            rest = after;
        }
    }

    /// Finds out which rules hit this request.
    fn decide(&self, header: &InHeader, body: &[u8], hands: &mut Hands) -> Decision {
        let Some(method) = method(header.opcode) else {
            return Decision::default();
        };
        let rules = self.rules.now();
        if !rules.concerns(method) {
            return Decision::default();
        }
        match self.fitting(header, body, &rules).unwrap_or(0) {
            0 => Decision::default(),
            mask => rules.decide(method, mask, &mut hands.random),
        }
    }

    /// The rules that fit the files a request is about.
    fn fitting(&self, header: &InHeader, body: &[u8], rules: &Compiled) -> Result<u64, Errno> {
        let in_directory = |parent: u64, from: usize| -> Result<(u64, &[u8]), Errno> {
            let (name, rest) = name(body.get(from..).ok_or(libc::EINVAL)?)?;
            let path = self.nodes.path_in(parent, name.to_bytes());
            Ok((rules.fitting(&path.ok_or(libc::ESTALE)?), rest))
        };
        let of_node =
            |id: u64| -> Result<u64, Errno> { Ok(self.verdict(&*self.nodes.get(id)?, rules)) };
        let first = match header.opcode {
            op::LOOKUP | op::UNLINK | op::RMDIR | op::SYMLINK => 0,
            op::MKDIR => size_of::<abi::MkDirIn>(),
            op::MKNOD | op::CREATE => size_of::<abi::MkNodIn>(),
            op::RENAME | op::RENAME2 => {
                let to = abi::RenameIn::take(body).ok_or(libc::EINVAL)?.newdir;
                let head = if header.opcode == op::RENAME { 8 } else { 16 };
                let (old, rest) = in_directory(header.nodeid, head)?;
                let new = in_directory(to, body.len() - rest.len())?.0;
                return Ok(old | new);
            }
            op::LINK => {
                let old = abi::LinkIn::take(body).ok_or(libc::EINVAL)?.oldnodeid;
                return Ok(of_node(old)? | in_directory(header.nodeid, 8)?.0);
            }
            _ => return of_node(header.nodeid),
        };
        Ok(in_directory(header.nodeid, first)?.0)
    }
}

/// Bytes that an answer may have, where it is more than a few.
fn room(header: &InHeader, body: &[u8]) -> usize {
    match header.opcode {
        op::READ | op::READDIR => {
            abi::ReadIn::take(body).map_or(0, |asked| asked.size as usize * 2)
        }
        op::GETXATTR => abi::GetXattrIn::take(body).map_or(0, |asked| asked.size as usize),
        op::LISTXATTR => LONGEST_LIST,
        _ => 0,
    }
}

/// By which name rules know a request.
fn method(opcode: u32) -> Option<Method> {
    Some(match opcode {
        op::LOOKUP => Method::Lookup,
        op::GETATTR | op::STATX => Method::GetAttr,
        op::SETATTR => Method::SetAttr,
        op::READLINK => Method::ReadLink,
        op::SYMLINK => Method::Symlink,
        op::MKNOD => Method::MkNod,
        op::MKDIR => Method::MkDir,
        op::UNLINK => Method::Unlink,
        op::RMDIR => Method::RmDir,
        op::RENAME | op::RENAME2 => Method::Rename,
        op::LINK => Method::Link,
        op::OPEN => Method::Open,
        op::READ => Method::Read,
        op::WRITE => Method::Write,
        op::STATFS => Method::StatFs,
        op::RELEASE => Method::Release,
        op::FSYNC => Method::Fsync,
        op::SETXATTR => Method::SetXattr,
        op::GETXATTR => Method::GetXattr,
        op::LISTXATTR => Method::ListXattr,
        op::REMOVEXATTR => Method::RemoveXattr,
        op::FLUSH => Method::Flush,
        op::OPENDIR => Method::OpenDir,
        op::READDIR => Method::ReadDir,
        op::RELEASEDIR => Method::ReleaseDir,
        op::FSYNCDIR => Method::FsyncDir,
        op::CREATE | op::TMPFILE => Method::Create,
        op::FALLOCATE => Method::Fallocate,
        op::LSEEK => Method::Lseek,
        op::GETLK => Method::GetLk,
        op::SETLK | op::SETLKW => Method::SetLk,
        op::COPY_FILE_RANGE => Method::CopyFileRange,
        _ => return None,
    })
}
