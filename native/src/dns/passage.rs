//! Does the target let through what we do to its queries? Asked by two packets of our own.
//!
//! What is answered here goes over the loopback device, and every stream goes to its address. A
//! firewall inside the target that has no rule for that would cut off names that nobody means.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use super::datagram::Datagram;
use super::forger::Forger;

/// A server that nobody has (RFC 2544); no packet ever leaves for it.
pub const NO_SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 53, 53);

/// Waited in vain only where something is dropped; a busy host needs some of it.
const PATIENCE: Duration = Duration::from_secs(2);
const PORT: u16 = 53;
/// Index of the loopback device in every namespace.
const LOOPBACK: u32 = 1;

/// Does an answer that we make reach the one who asked?
pub fn answers() -> io::Result<()> {
    let asking = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    asking.set_read_timeout(Some(PATIENCE))?;
    let query = Datagram {
        client: asking.local_addr()?,
        server: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT),
        payload: &[],
    };
    Forger::open()?.answer(&query, LOOPBACK, b"?");
    asking.recv(&mut [0]).map(drop)
}

/// Does a stream to a name server reach our relay, which ends it at once? Where there is no way out
/// nobody can tell, and it need not matter.
pub fn streams() -> bool {
    let kept = [ErrorKind::TimedOut, ErrorKind::PermissionDenied];
    match TcpStream::connect_timeout(&SocketAddr::new(NO_SERVER.into(), PORT), PATIENCE) {
        Err(error) => !kept.contains(&error.kind()),
        Ok(_) => true,
    }
}
