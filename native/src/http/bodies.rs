//! Bodies that are held as a whole, to be changed: so much of all connections together, and no more.

use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;

use super::rules::{add_one, Armed};

/// Longest body that is changed; longer ones pass as they are.
const LONGEST: usize = 8 << 20;

/// So much is held at once; what finds no room passes as it is.
const MOST: usize = 8 * LONGEST;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// The room that something takes among all that is held; given back with it.
#[derive(Default)]
pub struct Share(usize);

/// Why a body is not held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unheld {
    TooLong,
    NoRoom,
}

impl Share {
    /// Takes so much in place of what it had; keeps what it had where it may not.
    pub fn grow(&mut self, to: usize) -> Result<(), Unheld> {
        if to > LONGEST {
            return Err(Unheld::TooLong);
        }
        if to > self.0 && HELD.get() - self.0 + to > MOST {
            return Err(Unheld::NoRoom);
        }
        self.set(to.max(self.0));
        Ok(())
    }

    /// Gives back what is beyond so much.
    pub fn shrink(&mut self, to: usize) {
        if to < self.0 {
            self.set(to);
        }
    }

    fn set(&mut self, to: usize) {
        HELD.set(HELD.get() - self.0 + to);
        self.0 = to;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// A body that has its room until it is sent.
struct Held {
    body: Vec<u8>,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// Lets a body that is there already count among those that are held.
pub fn held(body: Vec<u8>) -> Bytes {
    let mut share = Share::default();
    share.set(body.len());
    Bytes::from_owner(Held {
        body,
        _share: share,
    })
}

/// Notes that a body passes though some of these rules patch it.
pub fn unpatched(rules: &[Arc<Armed>], why: Unheld) {
    let patches = |armed: &&Arc<Armed>| {
        let patch = armed.rule.patch.as_ref();
        patch.is_some_and(|patch| patch.body.is_some())
    };
    for armed in rules.iter().filter(patches) {
        add_one(match why {
            Unheld::TooLong => &armed.tally.unpatchable,
            Unheld::NoRoom => &armed.tally.crowded,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_limited_over_all_and_given_back() {
        let mut shares: Vec<Share> = (0..8).map(|_| Share::default()).collect();
        assert_eq!(shares[0].grow(LONGEST + 1), Err(Unheld::TooLong));
        for share in &mut shares {
            assert_eq!(share.grow(LONGEST), Ok(()));
        }
        let mut late = Share::default();
        assert_eq!(late.grow(1), Err(Unheld::NoRoom));
        shares[0].shrink(LONGEST - 1);
        assert_eq!((late.grow(1), late.grow(2)), (Ok(()), Err(Unheld::NoRoom)));
        drop(shares.pop());
        let sent = held(vec![0; LONGEST]);
        assert_eq!(late.grow(2), Err(Unheld::NoRoom));
        drop(sent.clone());
        drop(sent);
        assert_eq!(late.grow(2), Ok(()));
    }
}
