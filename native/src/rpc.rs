//! JSON lines over a Unix socket: one request a line, one answer each, one client at a time.

use std::fmt::Display;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{json, Value};

/// Longest request taken, in bytes. A partition of ten thousand peers is about one megabyte.
const LONGEST_REQUEST: usize = 64 << 20;

/// How long an answer may wait for a client that does not read, before the client is dropped.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the one who asked should do next; the families of `squall.errors`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// Change the request.
    InvalidFault,
    /// Ask again later.
    TryAgain,
    /// Change the host.
    Unsupported,
}

/// Why something was not done. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    kind: Family,
    message: String,
}

impl Refusal {
    pub fn invalid(message: impl Display) -> Self {
        Self {
            kind: Family::InvalidFault,
            message: message.to_string(),
        }
    }

    pub fn try_again(message: impl Display) -> Self {
        Self {
            kind: Family::TryAgain,
            message: message.to_string(),
        }
    }

    pub fn unsupported(message: impl Display) -> Self {
        Self {
            kind: Family::Unsupported,
            message: message.to_string(),
        }
    }

    /// Sorts an error of the kernel: what it does not have will not come by waiting.
    pub fn of_kernel(doing: impl Display, error: &io::Error) -> Self {
        let lacking = [
            libc::EINVAL,
            libc::ENOSYS,
            libc::EOPNOTSUPP,
            libc::EPERM,
            libc::EACCES,
            libc::ENOENT,
            libc::ENODEV,
        ];
        let message = format!("{doing}: {error}");
        match error.raw_os_error() {
            Some(number) if lacking.contains(&number) => Self::unsupported(message),
            _ => Self::try_again(message),
        }
    }
}

impl Display for Refusal {
    fn fmt(&self, into: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        into.write_str(&self.message)
    }
}

/// One request: its number, what to do, and the rest of the line.
#[derive(Deserialize)]
pub struct Request {
    id: Value,
    #[serde(rename = "do")]
    pub verb: String,
    #[serde(flatten)]
    pub arguments: Value,
}

/// The socket that clients connect to; its path goes away with it.
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Listener {
    /// Listens at `path`, for our user only; what stands there is replaced.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // SAFETY: plain calls; there is one thread, so nobody else creates files meanwhile.
        let before = unsafe { libc::umask(0o177) };
        let bound = UnixListener::bind(path);
        unsafe { libc::umask(before) };
        Ok(Self {
            listener: bound?,
            path: path.to_owned(),
            inode: fs::metadata(path)?.ino(),
        })
    }

    /// Takes the client that is waiting.
    pub fn accept(&self) -> io::Result<Connection> {
        let (stream, _) = self.listener.accept()?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Connection {
            stream,
            received: Vec::new(),
        })
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A later process may have put its own socket there.
        if fs::metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The client of the moment.
pub struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Connection {
    /// Reads once (call it when readable) and gives the whole lines that have come.
    ///
    /// An error means that the client is gone.
    pub fn receive(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut chunk = [0; 64 << 10];
        let length = self.stream.read(&mut chunk)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.received.extend_from_slice(&chunk[..length]);
        let Some(end) = self.received.iter().rposition(|&byte| byte == b'\n') else {
            return if self.received.len() > LONGEST_REQUEST {
                Err(io::ErrorKind::InvalidData.into())
            } else {
                Ok(Vec::new())
            };
        };
        let rest = self.received.split_off(end + 1);
        let whole = std::mem::replace(&mut self.received, rest);
        Ok(whole[..end]
            .split(|&byte| byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect())
    }

    /// Answers one line by what `act` makes of it. An error means that the client is gone.
    pub fn answer(
        &mut self,
        line: &[u8],
        act: impl FnOnce(Request) -> Result<Value, Refusal>,
    ) -> io::Result<()> {
        let (id, outcome) = match serde_json::from_slice::<Request>(line) {
            Ok(request) => (request.id.clone(), act(request)),
            Err(error) => (Value::Null, Err(Refusal::invalid(error))),
        };
        let mut answer = match outcome {
            Ok(ok) => json!({ "id": id, "ok": ok }),
            Err(refusal) => json!({ "id": id, "error": refusal }),
        }
        .to_string();
        answer.push('\n');
        self.stream.write_all(answer.as_bytes())
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}
