//! Open files: who serves them, and what they hold.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;

use super::abi::{self, fopen, init, CreateOut, OpenOut};
use super::device::{Answer, Buffer, Errno};
use super::mistakes::spoil;
use super::nodes::{self, Node};
use super::open_files::{OpenFile, Served};
use super::serve::{name, take, Call, Outcome};
use super::sys;
use super::Shared;

/// What is ours to do, or was done already: opening below adds nothing to what there is.
const OURS: i32 = libc::O_CREAT | libc::O_EXCL | libc::O_NOCTTY | libc::O_NOFOLLOW | libc::O_APPEND;

impl Shared {
    pub fn open(&self, call: &Call, body: &[u8]) -> Outcome {
        let (asked, _): (abi::OpenIn, _) = take(body)?;
        let node = self.nodes.get(call.header.nodeid)?;
        let flags = asked.flags as i32 & !OURS;
        let cuts = flags & libc::O_TRUNC != 0;
        let anchor = self.nodes.fd(&node)?;
        let anchor = anchor.as_raw_fd();
        let appends = asked.flags as i32 & libc::O_APPEND;
        let fd = match sys::reopen(anchor, flags & !libc::O_TRUNC) {
            // The file may only be appended to.
            Err(libc::EPERM) if appends != 0 => sys::reopen(anchor, flags | appends)?,
            opened => opened?,
        };
        if cuts {
            let cut = || match flags & libc::O_ACCMODE {
                libc::O_RDONLY => {
                    let writer = sys::reopen(anchor, libc::O_WRONLY)?;
                    self.resize(&node, writer.as_raw_fd(), 0)
                }
                _ => self.resize(&node, fd.as_raw_fd(), 0),
            };
            match asked.open_flags & abi::OPEN_KILL_BITS != 0 {
                true => cut(),
                false => call.hands.rights.trusted(cut),
            }?;
        }
        self.opened(node.id, fd, flags)
            .map(|open| Answer::of(&open))
    }

    pub fn create(&self, call: &Call, body: &[u8]) -> Outcome {
        let (asked, rest): (abi::CreateIn, _) = take(body)?;
        let (name, _) = name(rest)?;
        let flags = asked.flags as i32 & !(OURS | libc::O_TRUNC) | libc::O_CREAT | libc::O_EXCL;
        let exclusive = asked.flags as i32 & libc::O_EXCL != 0;
        match self.created(call, &asked, Some(name), name, flags) {
            // Somebody else has made it since the kernel looked: it looks again, and asks then
            // whether the caller may open it. Nobody has asked that yet.
            Err(libc::EEXIST) if !exclusive => Err(libc::ESTALE),
            outcome => outcome,
        }
    }

    pub fn tmpfile(&self, call: &Call, body: &[u8]) -> Outcome {
        let (asked, _): (abi::CreateIn, _) = take(body)?;
        let exclusive = asked.flags as i32 & libc::O_EXCL; // it may not be given a name later
        let flags = asked.flags as i32 & !OURS | libc::O_TMPFILE | exclusive;
        self.created(call, &asked, None, c".", flags)
    }

    fn created(
        &self,
        call: &Call,
        asked: &abi::CreateIn,
        name: Option<&CStr>,
        path: &CStr,
        flags: i32,
    ) -> Outcome {
        let parent = self.nodes.fd_of(call.header.nodeid)?;
        let rights = &call.hands.rights;
        let made = rights.creating(&call.header, asked.umask, || {
            sys::open_at(parent.as_raw_fd(), path, flags, asked.mode)
        });
        let fd = made?;
        let anchor = sys::reopen(fd.as_raw_fd(), libc::O_PATH)?;
        let entry = self.entry_of(call, anchor, name)?;
        if name.is_none() {
            self.nodes.pin(&*self.nodes.get(entry.nodeid)?)?;
        }
        let opened = self.opened(entry.nodeid, fd, flags & !libc::O_CREAT);
        if name.is_none() && opened.is_ok() {
            self.keep(&*self.nodes.get(entry.nodeid)?);
        }
        match opened {
            Ok(open) => Ok(Answer::of(&CreateOut { entry, open })),
            Err(errno) => {
                self.nodes.forget(entry.nodeid, 1);
                Err(errno)
            }
        }
    }

    fn opened(&self, nodeid: u64, fd: OwnedFd, flags: i32) -> Result<OpenOut, Errno> {
        let node = self.nodes.get(nodeid)?;
        let rules = self.rules.now();
        let verdict = self.verdict(&node, &rules);
        let need_data = rules.need_data(verdict);
        // For the kernel all are one who may not keep set-user-id bits; not every writer is.
        let privileged = node.is_privileged() && flags & libc::O_ACCMODE != libc::O_RDONLY;
        let (served, backing) = self.serving(&node, need_data || privileged, fd.as_raw_fd());
        let open_flags = match served {
            Served::Kernel => fopen::PASSTHROUGH,
            Served::Both => fopen::PASSTHROUGH | fopen::DIRECT_IO,
            // Where that forbids shared mappings (before 6.6), the kernel keeps pages: what it has
            // read it does not ask for again until the file is opened anew.
            Served::Us if !self.has(init::DIRECT_IO_ALLOW_MMAP) => 0,
            Served::Us => fopen::DIRECT_IO | fopen::PARALLEL_DIRECT_WRITES,
        };
        if nodes::state(&node).nameless {
            self.keep(&node);
        }
        let fh = self.open_files.add(OpenFile::new(fd, node, served, flags));
        Ok(OpenOut {
            fh,
            open_flags,
            backing_id: backing.unwrap_or_default(),
        })
    }

    /// Who is to serve a file that is being opened.
    ///
    /// While the kernel serves a file that somebody has open, it has to know its backing at each
    /// further opening; while we serve its mappings, it may not serve it.
    fn serving(&self, node: &Node, need_data: bool, fd: RawFd) -> (Served, Option<i32>) {
        let mut state = nodes::state(node);
        let by_kernel = if need_data {
            state.passthrough > 0
        } else {
            state.direct == 0
        };
        if by_kernel && self.passes.load(Ordering::Relaxed) {
            let backing = match state.backing {
                Some(id) => Ok(id),
                None => self.device.back(fd),
            };
            match backing {
                Ok(id) => {
                    state.backing = Some(id);
                    state.passthrough += 1;
                    let served = if need_data {
                        Served::Both
                    } else {
                        Served::Kernel
                    };
                    return (served, Some(id));
                }
                Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOTTY)) => {
                    self.passes.store(false, Ordering::Relaxed);
                }
                Err(_) => {} // this file system is too deep a stack already, or there is no memory
            }
        }
        state.direct += 1;
        (Served::Us, None)
    }

    pub fn release(&self, body: &[u8]) -> Outcome {
        let (asked, _): (abi::ReleaseIn, _) = take(body)?;
        let file = self.open_files.remove(asked.fh)?;
        if file.node.is_dir {
            return Ok(Answer::Done);
        }
        self.unlock_all_of(&file.node, |hold| hold.fh == asked.fh);
        let mut state = nodes::state(&file.node);
        match file.served {
            Served::Us => state.direct -= 1,
            Served::Kernel | Served::Both => state.passthrough -= 1,
        }
        if state.passthrough == 0 {
            if let Some(id) = state.backing.take() {
                self.device.unback(id);
            }
        }
        let unused = state.passthrough + state.direct == 0;
        if unused && std::mem::take(&mut state.kept) {
            self.keep_no_more(&file.node);
        }
        Ok(Answer::Done)
    }

    pub fn read(&self, call: &mut Call, buffer: &mut Buffer) -> Outcome {
        let (asked, _): (abi::ReadIn, _) = take(buffer.body())?;
        let file = self.open_files.get(asked.fh)?;
        file.follow(asked.flags);
        let into = buffer.data(asked.size as usize)?;
        let got = sys::pread(file.raw(), into, asked.offset)?;
        spoil(&mut into[..got], call.decision, &mut call.hands.random);
        Ok(Answer::Data(got))
    }

    pub fn write(&self, call: &mut Call, buffer: &mut Buffer) -> Outcome {
        let (asked, _): (abi::WriteIn, _) = take(buffer.body())?;
        let file = self.open_files.get(asked.fh)?;
        let from = buffer.data(asked.size as usize)?;
        spoil(from, call.decision, &mut call.hands.random);
        // What the kernel writes back from its cache has its place, however the file was opened.
        let written_back = asked.write_flags & abi::WRITE_CACHE != 0;
        let appends = !written_back && asked.flags as i32 & libc::O_APPEND != 0;
        if !written_back {
            file.follow(asked.flags);
        }
        let rules = self.rules.now();
        let offset = (!appends).then_some(asked.offset);
        let synced = asked.flags as i32 & libc::O_DSYNC != 0; // O_SYNC has its bit as well
        let put = || {
            if rules.keep_any_account() && rules.keep_account(self.verdict(&file.node, &rules)) {
                return self.write_accounted(&file, &rules, from, offset, synced);
            }
            match offset {
                None => sys::append(file.raw(), from),
                Some(offset) => sys::pwrite(file.raw(), from, offset),
            }
        };
        let keeps_bits = asked.write_flags & abi::WRITE_KILL_BITS == 0 && file.node.is_privileged();
        let put = if keeps_bits {
            call.hands.rights.trusted(put)
        } else {
            put()
        }?;
        if synced && !file.synced {
            sys::sync(
                file.raw(),
                asked.flags as i32 & libc::O_SYNC != libc::O_SYNC,
            )?; // RWF_DSYNC
        }
        Ok(Answer::of(&abi::WriteOut {
            size: put as u32,
            padding: 0,
        }))
    }

    pub fn fsync(&self, body: &[u8]) -> Outcome {
        let (asked, _): (abi::FsyncIn, _) = take(body)?;
        let file = self.open_files.get(asked.fh)?;
        let data_only = asked.fsync_flags & abi::FSYNC_DATA != 0;
        self.sync_accounted(&file, data_only).map(|()| Answer::Done)
    }

    pub fn syncfs(&self, call: &Call) -> Outcome {
        let dir = self.nodes.fd_of(call.header.nodeid)?;
        let open = sys::reopen(dir.as_raw_fd(), libc::O_RDONLY)?;
        // SAFETY: plain call.
        sys::check(unsafe { libc::syncfs(open.as_raw_fd()) }).map(|_| Answer::Done)
    }

    pub fn fallocate(&self, body: &[u8]) -> Outcome {
        let (asked, _): (abi::FallocateIn, _) = take(body)?;
        let file = self.open_files.get(asked.fh)?;
        self.allocate_accounted(&file, asked.mode as i32, asked.offset, asked.length)?;
        Ok(Answer::Done)
    }

    pub fn lseek(&self, body: &[u8]) -> Outcome {
        let (asked, _): (abi::LseekIn, _) = take(body)?;
        let file = self.open_files.get(asked.fh)?;
        // SAFETY: plain call; nobody uses the position of our descriptor.
        let at = unsafe { libc::lseek64(file.raw(), asked.offset as i64, asked.whence as i32) };
        Ok(Answer::of(&abi::LseekOut {
            offset: sys::check(at)? as u64,
        }))
    }

    /// Copies below, or has the kernel read and write through us where rules want to see that.
    pub fn copy_range(&self, _call: &Call, body: &[u8]) -> Outcome {
        let (asked, _): (abi::CopyIn, _) = take(body)?;
        let (from, to) = (
            self.open_files.get(asked.fh_in)?,
            self.open_files.get(asked.fh_out)?,
        );
        let rules = self.rules.now();
        if [&from, &to]
            .iter()
            .any(|file| rules.need_data(self.verdict(&file.node, &rules)))
        {
            return Err(libc::EOPNOTSUPP);
        }
        let (mut off_in, mut off_out) = (asked.off_in as i64, asked.off_out as i64);
        // SAFETY: both offsets outlive the call.
        let copied = unsafe {
            let (from, to, length) = (from.raw(), to.raw(), asked.len as usize);
            libc::copy_file_range(
                from,
                &mut off_in,
                to,
                &mut off_out,
                length,
                asked.flags as u32,
            )
        };
        let size = sys::check(copied as i64)? as u32;
        Ok(Answer::of(&abi::WriteOut { size, padding: 0 }))
    }
}
