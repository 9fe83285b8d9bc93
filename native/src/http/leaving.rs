//! Leaving without breaking what is under way: streams go on through us, and with the last of them
//! there is nothing to stay for.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Duration;

use super::visit::World;

/// Between looks at what is left.
const PAUSE: Duration = Duration::from_millis(50);

/// A wait for the end of all that is under way; dropped, it waits no longer.
pub struct Leaving {
    over: UnixStream,
    given_up: Arc<AtomicBool>,
}

impl Leaving {
    pub fn begin(world: Arc<World>) -> io::Result<Self> {
        let (over, end) = UnixStream::pair()?;
        let given_up = Arc::new(AtomicBool::new(false));
        let stays = given_up.clone();
        std::thread::spawn(move || {
            while !stays.load(SeqCst) {
                world.end_resting();
                if world.busy() == 0 {
                    break;
                }
                std::thread::sleep(PAUSE);
            }
            drop(end);
        });
        Ok(Self { over, given_up })
    }
}

/// Readable once nothing is under way any more.
impl AsRawFd for Leaving {
    fn as_raw_fd(&self) -> RawFd {
        self.over.as_raw_fd()
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.given_up.store(true, SeqCst);
    }
}
