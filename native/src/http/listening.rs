//! Where servers of the target listen: there alone new connections are led to us. Who calls an
//! address where nobody listens is refused, as ever, and so goes on to the next one: names of
//! servers that speak IPv4 alone often have an IPv6 address, too.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::existing;
use super::hooks::Clients;
use super::sock_diag::{attribute, number, Diag};
use super::visit::World;
use crate::bpf;
use crate::system;

/// Between looks whether servers have come or gone; whoever passes us in between is reset.
const PAUSE: Duration = Duration::from_millis(100);

const IPV4: u32 = 0;
/// Above the port in what the program at the lookup of sockets looks up.
pub const IPV6: u32 = 1 << 16;

/// Which ports are led to us.
#[derive(Clone)]
pub struct Led(Arc<(Mutex<Places>, Condvar)>);

struct Places {
    table: OwnedFd,
    /// Inodes of our own listeners.
    own: HashSet<u32>,
    asked: Vec<u16>,
    led: HashSet<u32>,
}

impl Led {
    pub fn new(table: OwnedFd, listeners: [Option<RawFd>; 2]) -> io::Result<Self> {
        let own = listeners.into_iter().flatten().map(inode);
        let places = Places {
            table,
            own: own.collect::<io::Result<_>>()?,
            asked: Vec::new(),
            led: HashSet::new(),
        };
        Ok(Self(Arc::new((Mutex::new(places), Condvar::new()))))
    }

    /// Leads these ports to us from now on, wherever a server listens, and no others; gives those
    /// that were not asked for before.
    pub fn lead(&self, ports: &[u16]) -> io::Result<Vec<u16>> {
        let mut places = self.lock();
        let new = ports.iter().filter(|port| !places.asked.contains(port));
        let new: Vec<u16> = new.copied().collect();
        let before = std::mem::replace(&mut places.asked, ports.to_vec());
        if let Err(error) = places.look() {
            places.asked = before;
            return Err(error);
        }
        self.0 .1.notify_all();
        Ok(new)
    }

    /// Follows servers that come and go, in a thread, until the process ends.
    pub fn follow(&self, clients: Clients, world: Arc<World>) {
        let led = self.clone();
        let mut told = false;
        std::thread::spawn(move || loop {
            let mut places = led.lock();
            while places.asked.is_empty() {
                let woken = led.0 .1.wait(places);
                places = woken.unwrap_or_else(PoisonError::into_inner);
            }
            drop(places);
            std::thread::sleep(PAUSE);
            let come = led.lock().look();
            match come.and_then(|come| Ok((come, clients.try_clone()?))) {
                Ok((come, clients)) => existing::end(come, Vec::new(), clients, world.clone()),
                Err(_) if told => {}
                Err(error) => {
                    told = true;
                    system::log(&format!("servers are not followed: {error}"));
                }
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0 .0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    /// Leads what is asked for where servers listen now; gives ports with a place that is new.
    fn look(&mut self) -> io::Result<Vec<u16>> {
        let wanted = match self.asked.is_empty() {
            true => HashSet::new(),
            false => listened(&self.asked, &self.own)?,
        };
        let new: Vec<u32> = wanted.difference(&self.led).copied().collect();
        for place in &new {
            bpf::insert(&self.table, &place.to_ne_bytes(), &[1])?;
        }
        for place in self.led.difference(&wanted) {
            bpf::remove(&self.table, &place.to_ne_bytes())?;
        }
        self.led = wanted;
        Ok(new.into_iter().map(|place| place as u16).collect())
    }
}

/// Where somebody else listens on one of `ports`.
fn listened(ports: &[u16], own: &HashSet<u32>) -> io::Result<HashSet<u32>> {
    const LISTENING: u32 = 1 << 10;
    let mut found = HashSet::new();
    Diag::open()?.dump(LISTENING, |message| {
        if let Some(listener) = Listener::parse(message) {
            if ports.contains(&listener.port) && !own.contains(&listener.inode) {
                let families = listener.families.into_iter().flatten();
                found.extend(families.map(|family| family | u32::from(listener.port)));
            }
        }
    })?;
    Ok(found)
}

/// One socket that listens: struct inet_diag_msg, and what follows it.
#[derive(Debug, PartialEq, Eq)]
struct Listener {
    port: u16,
    inode: u32,
    families: [Option<u32>; 2],
}

impl Listener {
    fn parse(message: &[u8]) -> Option<Self> {
        const ONLY_V6: u16 = 11; // INET_DIAG_SKV6ONLY
        let v6 = libc::c_int::from(*message.first()?) == libc::AF_INET6;
        let address: [u8; 16] = message.get(8..24)?.try_into().ok()?;
        let address = std::net::Ipv6Addr::from(address);
        let only = attribute(message, ONLY_V6).is_some_and(|flag| flag.first() == Some(&1));
        let mapped = address.to_ipv4_mapped().is_some();
        let everywhere = address.is_unspecified() && !only;
        Some(Self {
            port: u16::from_be_bytes([message[4], message[5]]),
            inode: number(message, 68),
            families: [
                (!v6 || mapped || everywhere).then_some(IPV4),
                (v6 && !mapped).then_some(IPV6),
            ],
        })
    }
}

fn inode(socket: RawFd) -> io::Result<u32> {
    // SAFETY: the listener is open as long as its process serves.
    let socket = unsafe { BorrowedFd::borrow_raw(socket) };
    let file = File::from(socket.try_clone_to_owned()?);
    Ok(file.metadata()?.ino() as u32)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_server_listens_for_its_own_families_alone() {
        let four = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = four.local_addr().unwrap().port();
        let none = HashSet::new();
        let here = |port| listened(&[port], &none).unwrap();
        assert_eq!(here(port), HashSet::from([u32::from(port)]));
        if let Ok(all) = TcpListener::bind("[::]:0") {
            let port = all.local_addr().unwrap().port();
            let both = [IPV4, IPV6].map(|family| family | u32::from(port));
            assert_eq!(here(port), HashSet::from(both));
        }
        if let Ok(six) = TcpListener::bind("[::1]:0") {
            let port = six.local_addr().unwrap().port();
            assert_eq!(here(port), HashSet::from([IPV6 | u32::from(port)]));
        }
        drop(four);
        assert_eq!(here(port), none);
    }

    #[test]
    fn a_listener_of_our_own_is_no_server() {
        use std::os::fd::AsRawFd;
        let ours = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = ours.local_addr().unwrap().port();
        let own = HashSet::from([inode(ours.as_raw_fd()).unwrap()]);
        assert_eq!(listened(&[port], &own).unwrap(), HashSet::new());
    }
}
