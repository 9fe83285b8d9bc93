//! Connections older than the rules: they are reset, between two exchanges where it can be seen, so
//! that their clients come again, and then to us.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::hooks::{self, Clients};
use super::sock_diag::{Diag, Socket};
use super::visit::World;
use crate::system;

/// So long a connection is reset only where its silence leaves no doubt.
const PATIENCE: Duration = Duration::from_millis(600);
/// So long it may go from one exchange to the next before it is reset within one.
const LONGEST: Duration = Duration::from_millis(850);
const PAUSE: Duration = Duration::from_millis(20);
/// Between looks at those that are left: at first, and once it is clear that they take their time.
const LONG_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(30);

/// Silent for so long, a server is done: it does not think in the middle of an answer.
const SETTLED_MS: u32 = 250;
/// An answer that has taken so long is a stream, and such pause for long: it is over once it has
/// been silent for as long as it went on, but no longer than for the longest pause.
const STREAM_MS: u32 = 2_000;
const LONGEST_SILENCE_MS: u32 = 30_000;
/// Silent for so long, it may be done. The kernel cannot tell an end from a pause.
const QUIET_MS: u32 = 20;

impl Socket {
    /// Milliseconds since the client and the server spoke last.
    fn silence(&self, outgoing: bool) -> [u32; 2] {
        match outgoing {
            true => [self.sent, self.received],
            false => [self.received, self.sent],
        }
    }

    /// Segments of the client and of the server.
    fn spoken(&self, outgoing: bool) -> [u32; 2] {
        let [out, into] = self.segments;
        if outgoing {
            [out, into]
        } else {
            [into, out]
        }
    }

    /// How long its server must be silent to be done with an answer.
    fn settled_ms(&self, outgoing: bool) -> u32 {
        let [request, answer] = self.silence(outgoing);
        match request.saturating_sub(answer) {
            ..STREAM_MS => SETTLED_MS,
            lasted => lasted.min(LONGEST_SILENCE_MS),
        }
    }

    /// Has the last request been answered? The server has spoken last then.
    fn rests(&self, outgoing: bool, silent_ms: u32) -> bool {
        let [request, answer] = self.silence(outgoing);
        let [asked, answered] = self.spoken(outgoing);
        let unanswered = answered == 0 && asked > 0;
        !self.waiting && !unanswered && answer <= request && answer >= silent_ms
    }
}

/// What a connection did since it was first looked at.
struct Seen {
    spoken: [u32; 2],
    /// The server has spoken since.
    answered: bool,
    /// And then the client: this is an exchange that the rules are for.
    anew: bool,
}

impl Seen {
    fn first(socket: &Socket, outgoing: bool) -> Self {
        let [request, answer] = socket.silence(outgoing);
        let spoken = socket.spoken(outgoing);
        Self {
            spoken,
            answered: spoken[1] > 0 && answer <= request,
            anew: false,
        }
    }

    fn look(&mut self, spoken: [u32; 2]) {
        self.anew |= self.answered && spoken[0] != self.spoken[0];
        self.answered |= spoken[1] != self.spoken[1];
        self.spoken = spoken;
    }
}

/// Connections that the target has opened to these ports, of now.
pub fn dialled(ports: &[u16]) -> io::Result<Vec<Socket>> {
    if ports.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = Diag::open()?.list()?;
    found.retain(|socket| ports.contains(&socket.peer().port()));
    Ok(found)
}

/// Resets what came to `ports` past us, and the `dialled`, in a thread: within a second, but for
/// those in an exchange that began before, which is let be to its end.
pub fn end(ports: Vec<u16>, dialled: Vec<Socket>, clients: Clients, world: Arc<World>) {
    if ports.is_empty() && dialled.is_empty() {
        return;
    }
    std::thread::spawn(move || {
        if let Err(error) = end_all(&ports, &dialled, &clients, &world) {
            system::log(&format!("older connections go on untouched: {error}"));
        }
    });
}

fn end_all(ports: &[u16], dialled: &[Socket], clients: &Clients, world: &World) -> io::Result<()> {
    let mut diag = Diag::open()?;
    let cookies: HashSet<&[u8]> = dialled.iter().map(Socket::cookie).collect();
    let start = Instant::now();
    let mut seen: HashMap<Vec<u8>, Seen> = HashMap::new();
    loop {
        let late = !seen.is_empty() && start.elapsed() > LONGEST; // a first look may take its time
        let listed = diag.list()?;
        let own = if late { HashSet::new() } else { own_inodes()? }; // after the list: none is missing
        let is_past_us = |socket: &Socket| {
            let (local, peer) = (socket.local(), socket.peer());
            ports.contains(&local.port())
                && socket.inode != 0 // nobody has accepted it yet: it may be for us
                && !own.contains(&socket.inode)
                && !hooks::is_ours(peer.ip())
                && !clients.contains(peer)
        };
        let mut left = 0;
        for socket in &listed {
            let outgoing = cookies.contains(socket.cookie());
            let known = seen.contains_key(socket.cookie());
            // Who comes late passes us on purpose: there was no room.
            if !known && (late || !outgoing && !is_past_us(socket)) {
                continue;
            }
            let end = if outgoing {
                socket.peer()
            } else {
                socket.local()
            };
            let rules = world.rules();
            let Some(scope) = rules.scope((end.port(), outgoing)) else {
                continue; // they have been taken back
            };
            let spoken = socket.spoken(outgoing);
            let first = || Seen::first(socket, outgoing);
            let one = seen.entry(socket.cookie().to_vec()).or_insert_with(first);
            one.look(spoken);
            let silent_ms = match one.anew && start.elapsed() > PATIENCE {
                true => QUIET_MS,
                false => socket.settled_ms(outgoing),
            };
            if late && one.anew || socket.rests(outgoing, silent_ms) {
                diag.destroy(socket)?;
                scope.count(|tally| &tally.reset);
            } else {
                left += 1;
            }
        }
        if left == 0 && start.elapsed() > PAUSE * 3 {
            return Ok(());
        }
        std::thread::sleep(match late {
            false => PAUSE,
            true if start.elapsed() < SOON => LONG_PAUSE,
            true => LONGEST_PAUSE,
        });
    }
}

/// Sockets of this process, as the kernel numbers them.
fn own_inodes() -> io::Result<HashSet<u32>> {
    let inode = |entry: io::Result<fs::DirEntry>| {
        let link = fs::read_link(entry.ok()?.path()).ok()?;
        let name = link.to_str()?.strip_prefix("socket:[")?;
        name.strip_suffix(']')?.parse().ok()
    };
    Ok(fs::read_dir("/proc/self/fd")?.filter_map(inode).collect())
}
