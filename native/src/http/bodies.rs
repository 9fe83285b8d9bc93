//! Bodies that are held as a whole, to be changed: so much of all connections together, and no more.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

use bytes::Bytes;

use super::rules::{add_one, Armed};

/// Longest body that is changed; longer ones pass as they are.
const LONGEST: usize = 8 << 20;

/// So much is held at once; what finds no room passes as it is.
const MOST: usize = 8 * LONGEST;

/// So much of one connection, whose many streams would else leave no room for others.
const MOST_OF_ONE: usize = 2 * LONGEST;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// What the bodies of one connection take.
#[derive(Clone, Default)]
pub struct Purse(Arc<AtomicUsize>);

impl Purse {
    pub fn share(&self) -> Share {
        Share {
            taken: 0,
            purse: self.clone(),
        }
    }

    /// Lets a body that is there already count among those that are held.
    pub fn held(&self, body: Vec<u8>) -> Bytes {
        let mut share = self.share();
        share.set(body.len());
        Bytes::from_owner(Held {
            body,
            _share: share,
        })
    }
}

/// The room that something takes among all that is held; given back with it.
pub struct Share {
    taken: usize,
    purse: Purse,
}

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
        let of_one = self.purse.0.load(Relaxed);
        let fits = HELD.get() - self.taken + to <= MOST && of_one - self.taken + to <= MOST_OF_ONE;
        if to > self.taken && !fits {
            return Err(Unheld::NoRoom);
        }
        self.set(to.max(self.taken));
        Ok(())
    }

    pub fn purse(&self) -> &Purse {
        &self.purse
    }

    /// Gives back what is beyond so much.
    pub fn shrink(&mut self, to: usize) {
        if to < self.taken {
            self.set(to);
        }
    }

    fn set(&mut self, to: usize) {
        HELD.set(HELD.get() - self.taken + to);
        let of_one = self.purse.0.load(Relaxed);
        self.purse.0.store(of_one - self.taken + to, Relaxed);
        self.taken = to;
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

/// Notes that a body passes though some of these rules patch it.
pub fn unpatched(rules: &[Arc<Armed>], why: Unheld) {
    for armed in rules.iter().filter(|armed| armed.rule.patches_body()) {
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
        let mut shares: Vec<Share> = (0..8).map(|_| Purse::default().share()).collect();
        assert_eq!(shares[0].grow(LONGEST + 1), Err(Unheld::TooLong));
        for share in &mut shares {
            assert_eq!(share.grow(LONGEST), Ok(()));
        }
        let mut late = Purse::default().share();
        assert_eq!(late.grow(1), Err(Unheld::NoRoom));
        shares[0].shrink(LONGEST - 1);
        assert_eq!((late.grow(1), late.grow(2)), (Ok(()), Err(Unheld::NoRoom)));
        drop(shares.pop());
        let sent = Purse::default().held(vec![0; LONGEST]);
        assert_eq!(late.grow(2), Err(Unheld::NoRoom));
        drop(sent.clone());
        drop(sent);
        assert_eq!(late.grow(2), Ok(()));
    }

    #[test]
    fn one_connection_leaves_room_for_others() {
        let (one, other) = (Purse::default(), Purse::default());
        let (mut first, mut second, mut third) = (one.share(), one.share(), one.share());
        assert_eq!(
            (first.grow(LONGEST), second.grow(LONGEST)),
            (Ok(()), Ok(()))
        );
        assert_eq!(third.grow(1), Err(Unheld::NoRoom));
        assert_eq!(other.share().grow(LONGEST), Ok(()));
        drop(first);
        assert_eq!(third.grow(LONGEST), Ok(()));
    }
}
