use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsRawFd, OwnedFd};

use super::{sys, Spill, Undo};
use crate::packets::random::Random;

fn unnamed() -> OwnedFd {
    // SAFETY: the name outlives the call.
    sys::own(unsafe { libc::memfd_create(c"file".as_ptr(), 0) }).unwrap()
}

fn content(fd: &OwnedFd) -> Vec<u8> {
    let mut file = File::from(fd.try_clone().unwrap());
    let mut all = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut all).unwrap();
    all
}

/// Random writes, cuts, syncs and losses, beside a plain copy of what must be left of them.
#[test]
fn exactly_what_was_not_synced_is_lost() {
    for seed in 0..300 {
        let mut random = Random::seeded(seed);
        let (fd, spill) = (unnamed(), Spill::new().unwrap());
        let mut undo = Undo::new(fd.try_clone().unwrap(), Default::default()).unwrap();
        let mut durable: Vec<u8> = Vec::new();
        for step in 0..60 {
            let at = random.below(300) as u64;
            let bytes = vec![step as u8 + 1; random.below(100) + 1];
            match random.below(10) {
                0 => {
                    undo.synced(&spill).unwrap();
                    durable = content(&fd);
                }
                1 => {
                    undo.lose(&spill).unwrap();
                    assert_eq!(content(&fd), durable, "seed {seed}, step {step}");
                }
                2 => {
                    undo.before_resize(at, &spill).unwrap();
                    sys::truncate(fd.as_raw_fd(), at).unwrap();
                }
                3 => {
                    undo.before(at, bytes.len() as u64, &spill).unwrap();
                    sys::pwrite(fd.as_raw_fd(), &bytes, at).unwrap();
                    undo.synced_range(at, bytes.len() as u64, &spill);
                    let end = at as usize + bytes.len();
                    durable.resize(durable.len().max(end), 0);
                    durable[at as usize..end].copy_from_slice(&bytes);
                }
                _ => {
                    undo.before(at, bytes.len() as u64, &spill).unwrap();
                    sys::pwrite(fd.as_raw_fd(), &bytes, at).unwrap();
                }
            }
        }
        undo.lose(&spill).unwrap();
        assert_eq!(content(&fd), durable, "seed {seed}, at the end");
        assert_eq!(spill.room().live, 0, "seed {seed}");
    }
}

#[test]
fn written_bytes_are_counted_once() {
    let (fd, spill) = (unnamed(), Spill::new().unwrap());
    let mut undo = Undo::new(fd.try_clone().unwrap(), Default::default()).unwrap();
    for (at, length) in [(0, 100), (50, 100), (20, 10)] {
        undo.before(at, length, &spill).unwrap();
        sys::pwrite(fd.as_raw_fd(), &vec![1; length as usize], at).unwrap();
    }
    assert_eq!(undo.lose(&spill), Ok(150));
    assert_eq!(undo.lose(&spill), Ok(0));
    assert_eq!(content(&fd), b"");
}
