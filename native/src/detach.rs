//! Become a process of one's own, and tell whoever waits whether that worked.

use std::fs::File;
use std::io::{self, Read, Write};

use crate::failure::Failure;
use crate::system::{self, check};

/// Forks. The child leads a session of its own and runs `prepare`; the parent waits for that, and
/// returns its outcome as exit status. What `prepare` gave is then passed to `live`, in the child.
///
/// Whoever started us so gets neither a child to reap nor a socket that is not there yet.
/// Must be called before any thread is started.
pub fn detached<T>(
    prepare: impl FnOnce() -> Result<T, Failure>,
    live: impl FnOnce(T) -> i32,
) -> i32 {
    let (reader, writer) = match io::pipe() {
        Ok((reader, writer)) => (reader, writer),
        Err(error) => {
            system::log(&format!("pipe: {error}"));
            return system::EXIT_TRY_AGAIN;
        }
    };
    // SAFETY: there is one thread, so the child may go on as it likes.
    match check(unsafe { libc::fork() }) {
        Err(error) => {
            system::log(&format!("fork: {error}"));
            system::EXIT_TRY_AGAIN
        }
        Ok(0) => {
            drop(reader);
            // SAFETY: plain call; a fresh child is never a group leader, so it succeeds.
            unsafe { libc::setsid() };
            let _ = std::env::set_current_dir("/"); // keep no mount of the agent busy
            let mut writer = File::from(std::os::fd::OwnedFd::from(writer));
            match prepare() {
                Ok(prepared) => {
                    let _ = writer.write_all(&[0]);
                    drop(writer);
                    live(prepared)
                }
                Err(failure) => {
                    system::log(&failure.message);
                    let _ = writer.write_all(&[failure.status as u8]);
                    failure.status
                }
            }
        }
        Ok(_) => {
            drop(writer);
            let mut status = [1]; // stays when the child dies before it can tell
            let mut reader = File::from(std::os::fd::OwnedFd::from(reader));
            let _ = reader.read(&mut status);
            i32::from(status[0])
        }
    }
}
