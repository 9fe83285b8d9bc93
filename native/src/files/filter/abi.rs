//! The words of the FUSE protocol that are used here.
//!
//! Source: linux/fuse.h, protocol 7.45 (Linux 6.18). Sizes are checked below.

/// A struct of plain numbers without padding: any bytes are one, and it is only bytes.
///
/// # Safety
/// `repr(C)`, integers only, no gaps.
pub unsafe trait Plain: Copy {
    /// Reads one from the front of `bytes`.
    fn take(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < size_of::<Self>() {
            return None;
        }
        // SAFETY: there are enough bytes, and any are a value of this type.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }

    /// Its bytes.
    fn bytes(&self) -> &[u8] {
        // SAFETY: it has no padding, so all its bytes are initialized.
        unsafe { std::slice::from_raw_parts((self as *const Self).cast(), size_of::<Self>()) }
    }
}

macro_rules! plain {
    ($($(#[$doc:meta])* $name:ident $size:literal { $($field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $name { $(pub $field: $type),* }
        // SAFETY: integers only; the size says that there are no gaps.
        unsafe impl Plain for $name {}
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}

plain! {
    InHeader 40 { len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32, extlen: u16, padding: u16 }
    OutHeader 16 { len: u32, error: i32, unique: u64 }
    InitIn 64 { major: u32, minor: u32, max_readahead: u32, flags: u32, flags2: u32, unused: [u32; 11] }
    InitOut 64 { major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16, congestion_threshold: u16,
        max_write: u32, time_gran: u32, max_pages: u16, map_alignment: u16, flags2: u32, max_stack_depth: u32, unused: [u32; 6] }
    Attr 88 { ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64, atimensec: u32, mtimensec: u32,
        ctimensec: u32, mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32, blksize: u32, flags: u32 }
    EntryOut 128 { nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32,
        attr_valid_nsec: u32, attr: Attr }
    AttrOut 104 { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr }
    ForgetIn 8 { nlookup: u64 }
    ForgetOne 16 { nodeid: u64, nlookup: u64 }
    BatchForgetIn 8 { count: u32, dummy: u32 }
    GetAttrIn 16 { flags: u32, dummy: u32, fh: u64 }
    SetAttrIn 88 { valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32 }
    MkNodIn 16 { mode: u32, rdev: u32, umask: u32, padding: u32 }
    MkDirIn 8 { mode: u32, umask: u32 }
    RenameIn 8 { newdir: u64 }
    Rename2In 16 { newdir: u64, flags: u32, padding: u32 }
    LinkIn 8 { oldnodeid: u64 }
    OpenIn 8 { flags: u32, open_flags: u32 }
    CreateIn 16 { flags: u32, mode: u32, umask: u32, open_flags: u32 }
    OpenOut 16 { fh: u64, open_flags: u32, backing_id: i32 }
    CreateOut 144 { entry: EntryOut, open: OpenOut }
    ReadIn 40 { fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    WriteIn 40 { fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    WriteOut 8 { size: u32, padding: u32 }
    FlushIn 24 { fh: u64, unused: u32, padding: u32, lock_owner: u64 }
    LockIn 48 { fh: u64, owner: u64, start: u64, end: u64, kind: u32, pid: u32, lock_flags: u32, padding: u32 }
    LockOut 24 { start: u64, end: u64, kind: u32, pid: u32 }
    ReleaseIn 24 { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 }
    FsyncIn 16 { fh: u64, fsync_flags: u32, padding: u32 }
    SetXattrIn 16 { size: u32, flags: u32, setxattr_flags: u32, padding: u32 }
    GetXattrIn 8 { size: u32, padding: u32 }
    GetXattrOut 8 { size: u32, padding: u32 }
    StatFsOut 80 { blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32, frsize: u32,
        padding: u32, spare: [u32; 6] }
    InterruptIn 8 { unique: u64 }
    FallocateIn 32 { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 }
    LseekIn 24 { fh: u64, offset: u64, whence: u32, padding: u32 }
    LseekOut 8 { offset: u64 }
    CopyIn 56 { fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64 }
    IoctlIn 32 { fh: u64, flags: u32, cmd: u32, arg: u64, in_size: u32, out_size: u32 }
    IoctlOut 16 { result: i32, flags: u32, in_iovs: u32, out_iovs: u32 }
    StatxIn 24 { getattr_flags: u32, reserved: u32, fh: u64, sx_flags: u32, sx_mask: u32 }
    StatxHead 32 { attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare: [u64; 2] }
    DirentHead 24 { ino: u64, off: u64, namelen: u32, kind: u32 }
    BackingMap 16 { fd: i32, flags: u32, padding: u64 }
    Prune 16 { count: u32, padding: u32, spare: u64 }
    InvalInode 24 { ino: u64, off: i64, len: i64 }
}

/// Size of what FUSE_STATX answers after its head; laid out as struct statx.
pub const STATX_SIZE: usize = 256;

pub mod op {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const GETLK: u32 = 31;
    pub const SETLK: u32 = 32;
    pub const SETLKW: u32 = 33;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SYNCFS: u32 = 50;
    pub const TMPFILE: u32 = 51;
    pub const STATX: u32 = 52;
}

/// What INIT offers and what is taken of it.
pub mod init {
    pub const ASYNC_READ: u64 = 1;
    pub const POSIX_LOCKS: u64 = 1 << 1;
    pub const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub const BIG_WRITES: u64 = 1 << 5;
    /// The umask comes with the request: default ACLs replace it.
    pub const DONT_MASK: u64 = 1 << 6;
    pub const FLOCK_LOCKS: u64 = 1 << 10;
    pub const ASYNC_DIO: u64 = 1 << 15;
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    pub const POSIX_ACL: u64 = 1 << 20;
    pub const MAX_PAGES: u64 = 1 << 22;
    /// Removing set-user-id bits is up to us; with it the kernel remembers which files have no
    /// `security.capability` (`SB_NOSEC`), and does not ask at each write.
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub const SETXATTR_EXT: u64 = 1 << 29;
    pub const INIT_EXT: u64 = 1 << 30;
    pub const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
    pub const PASSTHROUGH: u64 = 1 << 37;
}

/// How an open file is served.
pub mod fopen {
    pub const DIRECT_IO: u32 = 1;
    pub const PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
    pub const PASSTHROUGH: u32 = 1 << 7;
}

/// What SETATTR is to change.
pub mod fattr {
    pub const MODE: u32 = 1;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    /// Whoever cuts it may not keep set-user-id bits.
    pub const KILL_BITS: u32 = 1 << 11;
}

pub const ROOT_ID: u64 = 1;
/// The same of O_TRUNC.
pub const OPEN_KILL_BITS: u32 = 1;
pub const WRITE_CACHE: u32 = 1;
/// The writer may not keep set-user-id bits.
pub const WRITE_KILL_BITS: u32 = 1 << 2;
pub const FSYNC_DATA: u32 = 1;
/// It is one of flock(2).
pub const LOCK_WHOLE: u32 = 1;
pub const ACL_KILL_SGID: u32 = 1;

pub const NOTIFY_INVAL_INODE: i32 = 2;
pub const NOTIFY_PRUNE: i32 = 9;

pub const IOC_BACKING_OPEN: u64 = 0x4010_e501;
pub const IOC_BACKING_CLOSE: u64 = 0x4004_e502;
