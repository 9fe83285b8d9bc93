//! By what a file is known again on both sides of a filter, whatever its names are by then.
//!
//! The kernel remembers a number with each file of a filter (its generation), and tells it without
//! asking anybody. Ours says which true file it is: attributes may be falsified by a rule.

use std::os::fd::AsRawFd;

/// Kinds of the handles that the kernel gives for files of FUSE: node, generation, and a parent's.
const KINDS: [i32; 2] = [0x81, 0x82];

#[repr(C)]
#[derive(Default)]
struct Handle {
    length: u32,
    kind: i32,
    words: [u32; 16],
}

/// What is remembered of a true file: its file system and its number there, in 32 bits.
pub fn of(device: u64, inode: u64) -> u32 {
    let mixed = (device.rotate_left(32) ^ inode).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 32) as u32 | 1 // 0 is that of the root
}

/// The same, by what statx(2) has said.
pub fn of_found(found: &libc::statx) -> u32 {
    let device = libc::makedev(found.stx_dev_major, found.stx_dev_minor);
    of(device, found.stx_ino)
}

/// Of which true file a file of a filter is; None where that is not known, as of its root.
pub fn remembered(file: &impl AsRawFd) -> Option<u32> {
    let mut handle = Handle {
        length: 64,
        ..Handle::default()
    };
    let mut mount = 0_i32;
    // SAFETY: the name is empty, and the handle says how long it is.
    let done = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            file.as_raw_fd(),
            c"".as_ptr(),
            &raw mut handle,
            &raw mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    (done == 0 && KINDS.contains(&handle.kind))
        .then_some(handle.words[2])
        .filter(|known| *known != 0)
}
