//! What one process is made to do so that it uses another file in place of one that it has.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::locks::{self, Retaken};
use super::mappings::{Mapping, Traits};
use crate::ptrace::call::{outcome, Call};
use crate::ptrace::remote::Inside;
use crate::ptrace::GIFTS;

/// A descriptor to replace.
pub struct Swap<'a> {
    pub number: i32,
    pub close_on_exec: bool,
    pub with: &'a OwnedFd,
}

/// Replaces descriptors, a few at once; gives for how many that failed.
pub fn swap(inside: &mut Inside<'_>, swaps: &[Swap<'_>]) -> io::Result<usize> {
    let mut failed = 0;
    for some in swaps.chunks(GIFTS) {
        let gifts: Vec<BorrowedFd<'_>> = some.iter().map(|swap| swap.with.as_fd()).collect();
        let results = inside.run_with(&gifts, |numbers| {
            let mut calls = Vec::new();
            for (index, swap) in some.iter().enumerate() {
                let at = numbers + 4 * index as u64;
                let flags = if swap.close_on_exec {
                    libc::O_CLOEXEC
                } else {
                    0
                };
                let [into, flags] = [swap.number as u64, flags as u64];
                calls.push(Call::new(libc::SYS_dup3, &[at, into, flags]).with_descriptor_at());
                calls.push(Call::new(libc::SYS_close, &[at]).with_descriptor_at());
            }
            calls
        })?;
        failed += results.chunks(2).filter(|pair| pair[0] < 0).count();
    }
    Ok(failed)
}

/// Has it take locks; gives those that it has not got.
pub fn lock(inside: &mut Inside<'_>, locks: &[Retaken]) -> io::Result<Vec<(Retaken, io::Error)>> {
    let mut missed = Vec::new();
    for some in locks.chunks(100) {
        let mut bytes = Vec::new();
        let mut calls = Vec::new();
        for one in some {
            let at = inside.room() + bytes.len() as u64;
            calls.push(locks::call(&one.lock, one.number, at));
            bytes.extend_from_slice(&locks::bytes(&one.lock));
        }
        inside.write(inside.room(), &bytes)?;
        let results = inside.run(&calls)?.into_iter().zip(some);
        missed.extend(results.filter_map(|(done, one)| Some((*one, outcome(done).err()?))));
    }
    Ok(missed)
}

/// Makes `directory` the working directory.
pub fn go_to(inside: &mut Inside<'_>, directory: &OwnedFd) -> io::Result<()> {
    let results = inside.run_with(&[directory.as_fd()], |number| {
        let change = Call::new(libc::SYS_fchdir, &[number]).with_descriptor_at();
        let close = Call::new(libc::SYS_close, &[number]).with_descriptor_at();
        vec![change, close]
    })?;
    outcome(results[0]).map(drop)
}

/// A mapping to replace.
pub struct Remap<'a> {
    pub mapping: &'a Mapping,
    pub traits: &'a Traits,
    pub with: &'a OwnedFd,
    /// Nobody serves what is mapped now.
    pub dead: bool,
}

/// Maps other files where these are mapped; pages that the process has changed keep what is in them.
pub fn remap(inside: &mut Inside<'_>, remaps: &[Remap<'_>]) -> io::Result<usize> {
    let mut failed = 0;
    for one in remaps {
        let (mapping, traits) = (one.mapping, one.traits);
        let gifts = [one.with.as_fd()];
        let close = |number| Call::new(libc::SYS_close, &[number]).with_descriptor_at();
        let changed = mapping.changed()?;
        let written = mapping.shared && mapping.protection & libc::PROT_WRITE != 0;
        if one.dead {
            mapping.save(one.with);
        }
        let placed = if changed.is_empty() {
            let results = inside.run_with(&gifts, |number| {
                let mut calls = Vec::new();
                if written {
                    calls.push(mapping.write_back());
                }
                calls.push(mapping.map(traits, number, true));
                calls.push(close(number));
                calls
            })?;
            outcome(results[results.len() - 2])
        } else {
            // Made ready elsewhere, and put here when it is whole: nothing is lost if we end now.
            let results = inside.run_with(&gifts, |number| {
                vec![mapping.map(traits, number, false), close(number)]
            })?;
            outcome(results[0]).and_then(|aside| {
                for (at, length) in changed {
                    let mut bytes = vec![0; length];
                    inside.read(at, &mut bytes)?;
                    inside.write(aside + (at - mapping.start), &bytes)?;
                }
                outcome(inside.run(&[mapping.move_here(aside)])?[0])
            })
        };
        if placed.is_err() {
            failed += 1;
            continue;
        }
        let _ = inside.run(&mapping.asked_for(traits))?; // advice that fails is no loss
    }
    Ok(failed)
}
