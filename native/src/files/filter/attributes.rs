//! What stat(2) is told: the truth, or what a rule puts in its place.

use super::abi::{Attr, StatFsOut, ROOT_ID};
use super::rules::{count, Decision};
use crate::files::request::{Attributes, Kind};

/// The truth.
pub fn of(stat: &libc::stat64, ino: u64) -> Attr {
    Attr {
        ino,
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        atime: stat.st_atime as u64,
        mtime: stat.st_mtime as u64,
        ctime: stat.st_ctime as u64,
        atimensec: stat.st_atime_nsec as u32,
        mtimensec: stat.st_mtime_nsec as u32,
        ctimensec: stat.st_ctime_nsec as u32,
        mode: stat.st_mode,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: device_number(libc::major(stat.st_rdev), libc::minor(stat.st_rdev)),
        blksize: stat.st_blksize as u32,
        flags: 0,
    }
}

/// A device as the protocol has it: the kernel's 32 bits.
fn device_number(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The same as mknod(2) wants it.
pub fn device(number: u32) -> libc::dev_t {
    libc::makedev(
        (number & 0xf_ff00) >> 8,
        (number & 0xff) | ((number >> 12) & 0xf_ff00),
    )
}

/// Puts in place of the truth what the rules that hit say.
pub fn falsify(attr: &mut Attr, nodeid: u64, decision: &Decision) {
    for one in decision.hits() {
        if let Some(wanted) = &one.rule.attributes {
            replace(attr, nodeid, wanted);
            count(&one.counted.overridden, 1);
        }
    }
}

fn replace(attr: &mut Attr, nodeid: u64, wanted: &Attributes) {
    fn put<T: Copy, U: From<T>>(into: &mut U, wanted: Option<T>) {
        if let Some(value) = wanted {
            *into = value.into();
        }
    }
    put(&mut attr.ino, wanted.ino);
    put(&mut attr.size, wanted.size);
    put(&mut attr.blocks, wanted.blocks);
    put(&mut attr.nlink, wanted.nlink);
    put(&mut attr.uid, wanted.uid);
    put(&mut attr.gid, wanted.gid);
    put(&mut attr.rdev, wanted.rdev);
    for (sec, nsec, wanted) in [
        (&mut attr.atime, &mut attr.atimensec, wanted.atime),
        (&mut attr.mtime, &mut attr.mtimensec, wanted.mtime),
        (&mut attr.ctime, &mut attr.ctimensec, wanted.ctime),
    ] {
        if let Some(moment) = wanted {
            (*sec, *nsec) = (moment.sec as u64, moment.nsec);
        }
    }
    if let Some(perm) = wanted.perm {
        attr.mode = attr.mode & libc::S_IFMT | u32::from(perm) & 0o7777;
    }
    // A root that is no directory would make the kernel give up the whole mount.
    if let Some(kind) = wanted.kind.filter(|_| nodeid != ROOT_ID) {
        attr.mode = attr.mode & 0o7777 | type_of(kind);
    }
}

fn type_of(kind: Kind) -> u32 {
    match kind {
        Kind::NamedPipe => libc::S_IFIFO,
        Kind::CharDevice => libc::S_IFCHR,
        Kind::BlockDevice => libc::S_IFBLK,
        Kind::Directory => libc::S_IFDIR,
        Kind::RegularFile => libc::S_IFREG,
        Kind::Symlink => libc::S_IFLNK,
        Kind::Socket => libc::S_IFSOCK,
    }
}

/// The space of a file system, of which `left` bytes may be used at most.
pub fn of_file_system(stat: &libc::statfs64, left: Option<u64>) -> StatFsOut {
    let block = (stat.f_frsize.max(1)) as u64;
    let most = left.map_or(u64::MAX, |left| left / block);
    StatFsOut {
        blocks: stat.f_blocks,
        bfree: stat.f_bfree.min(most),
        bavail: stat.f_bavail.min(most),
        files: stat.f_files,
        ffree: stat.f_ffree,
        bsize: stat.f_bsize as u32,
        namelen: stat.f_namelen as u32,
        frsize: stat.f_frsize as u32,
        padding: 0,
        spare: [0; 6],
    }
}

#[cfg(test)]
mod tests {
    use super::{device, device_number, replace, Attr, Attributes, Kind, ROOT_ID};
    use crate::files::request::Moment;

    #[test]
    fn devices_keep_their_numbers() {
        for (major, minor) in [(0, 0), (1, 3), (8, 300), (4095, 0xf_ffff)] {
            assert_eq!(
                device(device_number(major, minor)),
                libc::makedev(major, minor)
            );
        }
    }

    #[test]
    fn only_what_is_named_is_replaced() {
        let truth = Attr {
            mode: libc::S_IFREG | 0o644,
            size: 7,
            uid: 3,
            mtimensec: 9,
            ..Attr::default()
        };
        let mut attr = truth;
        let moment = Moment { sec: -1, nsec: 5 };
        let perm = Attributes {
            perm: Some(0o4600),
            atime: Some(moment),
            ..Attributes::default()
        };
        replace(&mut attr, 2, &perm);
        assert_eq!(attr.mode, libc::S_IFREG | 0o4600);
        assert_eq!((attr.atime as i64, attr.atimensec), (-1, 5));
        assert_eq!((attr.size, attr.uid, attr.mtimensec), (7, 3, 9));
    }

    #[test]
    fn a_root_stays_a_directory() {
        let wanted = Attributes {
            kind: Some(Kind::Socket),
            ..Attributes::default()
        };
        let mut attr = Attr {
            mode: libc::S_IFDIR | 0o755,
            ..Attr::default()
        };
        replace(&mut attr, ROOT_ID, &wanted);
        assert_eq!(attr.mode, libc::S_IFDIR | 0o755);
        replace(&mut attr, 2, &wanted);
        assert_eq!(attr.mode, libc::S_IFSOCK | 0o755);
    }
}
