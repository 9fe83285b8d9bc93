//! What is held of streams that nobody reads, over all connections of HTTP/2.
//!
//! Such streams must not take the room of those that are read, nor all of our memory.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// What all connections may hold, as long as they are few.
const ALL: u64 = 256 << 20;

/// Connections that may have all they want are so many; those that come later get less and less.
const SHARES: u64 = 16;

/// What every connection may hold, however many there are.
const LEAST: u64 = 1 << 20;

/// What a stream may hold at most, and at least: the least is what RFC 9113 begins with.
const STREAM: (u32, u32) = (64 << 10, 256 << 10);

/// So many streams may fill up and leave room for others, while there is any.
const STREAMS: u32 = 64;

/// Enough for the tiniest messages in a few streams that nobody reads.
const LEAST_OF_FRAMES: usize = 8 << 20;

/// How often memory is given back at most, while there are connections.
const TRIM_EVERY: Duration = Duration::from_secs(1);

thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
    static CONNECTIONS: Cell<u32> = const { Cell::new(0) };
    static TRIMMED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// What the senders at both ends of a connection may send ahead, in octets.
pub struct Ahead(u32);

impl Ahead {
    pub fn take() -> Self {
        let left = ALL.saturating_sub(TAKEN.get());
        let window = (left / SHARES).max(LEAST);
        TAKEN.set(TAKEN.get() + window);
        CONNECTIONS.set(CONNECTIONS.get() + 1);
        Self(window as u32)
    }

    pub fn of_connection(&self) -> u32 {
        self.0
    }

    pub fn of_stream(&self) -> u32 {
        (self.0 / STREAMS).clamp(STREAM.0, STREAM.1)
    }

    /// For what frames of data take beside it: a stream of tiny messages is mostly that.
    pub fn of_frames(&self) -> usize {
        (2 * self.0 as usize).max(LEAST_OF_FRAMES)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        TAKEN.set(TAKEN.get() - u64::from(self.0));
        CONNECTIONS.set(CONNECTIONS.get() - 1);
        let recent = TRIMMED.get().is_some_and(|at| at.elapsed() < TRIM_EVERY);
        if CONNECTIONS.get() == 0 || !recent {
            TRIMMED.set(Some(Instant::now()));
            // SAFETY: plain call. What streams have held lies about in small pieces, which the
            // allocator would keep.
            unsafe { libc::malloc_trim(0) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ahead, ALL, LEAST, STREAM, STREAMS};

    #[test]
    fn many_connections_hold_no_more_than_they_need() {
        let first = Ahead::take();
        assert_eq!(first.of_stream(), STREAM.1);
        assert_eq!(first.of_connection() / first.of_stream(), STREAMS);
        let others: Vec<_> = (0..1000).map(|_| Ahead::take()).collect();
        let all: u64 = others
            .iter()
            .map(|one| u64::from(one.of_connection()))
            .sum();
        assert!(all < ALL + 1000 * LEAST, "{all}");
        assert!(others.iter().all(|one| one.of_stream() >= STREAM.0));
        drop(others);
        drop(first);
        assert_eq!(Ahead::take().of_stream(), STREAM.1);
    }
}
