//! How connections that the target opens come to us: a table of nftables, which ends with us.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use tokio::net::TcpStream;

use super::proxy::MARK;
use crate::nft::Nft;
use crate::rpc::Refusal;
use crate::system::check;

/// The one table that is ours in a namespace.
pub const TABLE: &str = "squall_http";

/// A port that nobody dials.
const NOBODYS: u16 = 0;

/// The table, while there are ports to be led to us.
pub struct Redirect {
    nft: Option<Nft>,
    led: Vec<u16>,
    /// Of our listeners: IPv4, IPv6.
    ports: [Option<u16>; 2],
}

impl Redirect {
    pub fn new(ports: [Option<u16>; 2]) -> Self {
        Self {
            nft: None,
            led: Vec::new(),
            ports,
        }
    }

    /// Those of `ports` that are not led to us yet.
    pub fn new_among(&self, ports: &[u16]) -> Vec<u16> {
        let new = |port: &&u16| !self.led.contains(port);
        ports.iter().filter(new).copied().collect()
    }

    /// Leads exactly these ports to us from now on.
    ///
    /// Where none are left but `carries` is true, the table stays with rules for nobody: with the
    /// last of their kind the kernel stops to translate, and connections that are would be torn.
    pub fn lead(&mut self, ports: &[u16], carries: bool) -> Result<(), Refusal> {
        let carries = carries && self.nft.is_some();
        if ports == self.led && (!ports.is_empty() || self.nft.is_some() == carries) {
            return Ok(());
        }
        if ports.is_empty() && !carries {
            self.nft = None;
        } else {
            let before = self.nft.is_some();
            let mut nft = match self.nft.take() {
                Some(nft) => nft,
                None => Nft::open(TABLE)?,
            };
            let done = nft.run(&self.script(ports, before));
            if done.is_ok() || before {
                self.nft = Some(nft);
            }
            done?;
        }
        self.led = ports.to_vec();
        Ok(())
    }

    /// Only beginnings of connections: one that is already would be torn by a new address.
    fn script(&self, ports: &[u16], before: bool) -> String {
        let ports: Vec<String> = match ports {
            [] => vec![NOBODYS.to_string()],
            ports => ports.iter().map(u16::to_string).collect(),
        };
        let ports = ports.join(", ");
        let mut script = String::new();
        if before {
            script += &format!("delete table inet {TABLE}\n");
        }
        script += &format!(
            "table inet {TABLE} {{\n flags owner\n chain dialled {{\n\
             type nat hook output priority -101; policy accept;\n meta mark {MARK} return\n"
        );
        for (family, port) in ["ipv4", "ipv6"].iter().zip(self.ports) {
            if let Some(port) = port {
                script += &format!(
                    " meta nfproto {family} tcp dport {{ {ports} }} \
                     tcp flags & (syn | ack) == syn redirect to :{port}\n"
                );
            }
        }
        script + " }\n}\n"
    }
}

/// Whom the client has dialled, before it was led to us.
pub fn dialled(client: &TcpStream) -> io::Result<SocketAddr> {
    const ORIGINAL_DST: libc::c_int = 80; // of both families: linux/netfilter_ipv4.h, ip6_tables.h
    let fd = client.as_raw_fd();
    if client.local_addr()?.is_ipv4() {
        // SAFETY: all zeros is a valid address, and the length is told.
        let found: libc::sockaddr_in = unsafe { option(fd, libc::SOL_IP, ORIGINAL_DST)? };
        let address = Ipv4Addr::from(found.sin_addr.s_addr.to_ne_bytes());
        Ok(SocketAddr::new(
            address.into(),
            u16::from_be(found.sin_port),
        ))
    } else {
        // SAFETY: as above.
        let found: libc::sockaddr_in6 = unsafe { option(fd, libc::SOL_IPV6, ORIGINAL_DST)? };
        let address = Ipv6Addr::from(found.sin6_addr.s6_addr);
        Ok(SocketAddr::new(
            address.into(),
            u16::from_be(found.sin6_port),
        ))
    }
}

/// # Safety
/// `T` is what the option is, and may be all zeros.
unsafe fn option<T>(fd: libc::c_int, level: libc::c_int, name: libc::c_int) -> io::Result<T> {
    let mut value: T = std::mem::zeroed();
    let mut length = size_of::<T>() as libc::socklen_t;
    check(libc::getsockopt(
        fd,
        level,
        name,
        (&raw mut value).cast(),
        &mut length,
    ))?;
    Ok(value)
}
