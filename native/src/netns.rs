//! `squall-node netns PATH`, an interface as JSON on standard input: make a network namespace,
//! bound to a file so that it lives without a process, with one interface on a bridge.
//!
//! A process of its own does it, for a namespace is entered by the whole process; raw rtnetlink
//! makes the veth pair, its far end named and addressed, in about a millisecond.

use crate::failure::{Failure, Outcome, While};
use crate::system::enter_network;
use nix::libc::{self, c_int};
use nix::mount::{mount, MsFlags};
use nix::net::if_::if_nametoindex;
use nix::sched::{unshare, CloneFlags};
use nix::sys::socket::{
    bind, recv, send, socket, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol,
    SockType,
};
use serde::Deserialize;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

#[derive(Deserialize)]
struct Interface {
    /// Name of the end that stays outside.
    outside: String,
    /// Says outside whose it is.
    alias: String,
    /// Index of the bridge.
    bridge: u32,
    /// Name of the end inside.
    inside: String,
    addresses: Vec<(IpAddr, u8)>,
    gateways: Vec<IpAddr>,
}

pub fn run(arguments: &[String]) -> Outcome<i32> {
    let [path] = arguments else {
        return Err(Failure::new(
            "usage: squall-node netns PATH < INTERFACE.json",
        ));
    };
    let wanted: Interface = serde_json::from_reader(std::io::stdin()).on("interface")?;
    let outside = Netlink::open()?;
    let host = File::open("/proc/self/ns/net").on("ns/net")?;
    unshare(CloneFlags::CLONE_NEWNET).on("unshare net")?;
    let inside = Netlink::open()?;
    let namespace = File::open("/proc/self/ns/net").on("ns/net")?;
    enter_network(&host).on("setns")?;
    outside.add_veth(&wanted, &namespace)?;
    enter_network(&namespace).on("setns")?;
    inside.configure(&wanted)?;
    // Last: a namespace that is to be seen is complete, one that is not vanishes with us.
    File::create(path).on(path)?;
    mount(
        Some("/proc/self/ns/net"),
        path.as_str(),
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .on(path)?;
    Ok(0)
}

/// One rtnetlink request: rtnetlink(7).
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: c_int, header: &[u8]) -> Self {
        let mut octets = vec![0; 16];
        octets[4..6].copy_from_slice(&kind.to_ne_bytes());
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
        octets[6..8].copy_from_slice(&flags.to_ne_bytes());
        octets.extend_from_slice(header);
        Self(octets)
    }

    fn link(kind: u16, flags: c_int, index: u32, up: bool) -> Self {
        Self::new(kind, flags, &link_header(index, up))
    }

    fn put(mut self, kind: u16, value: &[u8]) -> Self {
        attribute(&mut self.0, kind, value);
        self
    }
}

/// struct ifinfomsg
fn link_header(index: u32, up: bool) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let up = if up { libc::IFF_UP as u32 } else { 0 };
    header[8..12].copy_from_slice(&up.to_ne_bytes());
    header[12..16].copy_from_slice(&(libc::IFF_UP as u32).to_ne_bytes());
    header
}

fn attribute(octets: &mut Vec<u8>, kind: u16, value: &[u8]) {
    octets.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
    octets.extend_from_slice(&kind.to_ne_bytes());
    octets.extend_from_slice(value);
    octets.resize(octets.len().next_multiple_of(4), 0);
}

fn octets(address: &IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(four) => (libc::AF_INET as u8, four.octets().to_vec()),
        IpAddr::V6(six) => (libc::AF_INET6 as u8, six.octets().to_vec()),
    }
}

/// A socket of the namespace that it was opened in.
struct Netlink(OwnedFd);

impl Netlink {
    fn open() -> Outcome<Self> {
        let raw = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )
        .on("netlink")?;
        bind(raw.as_raw_fd(), &NetlinkAddr::new(0, 0)).on("netlink")?;
        Ok(Self(raw))
    }

    /// Send one request and wait until the kernel has done it.
    fn ask(&self, doing: &str, message: Message) -> Outcome<()> {
        let mut octets = message.0;
        let length = octets.len() as u32;
        octets[..4].copy_from_slice(&length.to_ne_bytes());
        send(self.0.as_raw_fd(), &octets, MsgFlags::empty()).on(doing)?;
        let mut answer = [0; 4096];
        let size = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty()).on(doing)?;
        let code: [u8; 4] = answer[..size]
            .get(16..20)
            .and_then(|octets| octets.try_into().ok())
            .ok_or_else(|| Failure::new(format!("{doing}: netlink answered {size} octets")))?;
        match i32::from_ne_bytes(code) {
            0 => Ok(()),
            code => Err(nix::errno::Errno::from_raw(-code)).on(doing),
        }
    }

    fn add_veth(&self, wanted: &Interface, namespace: &File) -> Outcome<()> {
        let mut peer = link_header(0, false).to_vec();
        attribute(&mut peer, libc::IFLA_IFNAME, wanted.inside.as_bytes());
        attribute(
            &mut peer,
            libc::IFLA_NET_NS_FD,
            &namespace.as_raw_fd().to_ne_bytes(),
        );
        let mut pair = Vec::new();
        attribute(&mut pair, VETH_INFO_PEER, &peer);
        let mut kind = Vec::new();
        attribute(&mut kind, libc::IFLA_INFO_KIND, b"veth");
        attribute(&mut kind, libc::IFLA_INFO_DATA, &pair);
        let message = Message::link(
            libc::RTM_NEWLINK,
            libc::NLM_F_CREATE | libc::NLM_F_EXCL,
            0,
            true,
        )
        .put(libc::IFLA_IFNAME, wanted.outside.as_bytes())
        .put(libc::IFLA_MASTER, &wanted.bridge.to_ne_bytes())
        .put(libc::IFLA_LINKINFO, &kind);
        self.ask(&wanted.outside, message)?;
        // The kernel takes an alias for a link that is there, not for one that is being made.
        let index = if_nametoindex(wanted.outside.as_str()).on(&wanted.outside)?;
        let message = Message::link(libc::RTM_NEWLINK, 0, index, true)
            .put(libc::IFLA_IFALIAS, wanted.alias.as_bytes());
        self.ask(&wanted.outside, message)
    }

    /// Called in the namespace of this socket.
    fn configure(&self, wanted: &Interface) -> Outcome<()> {
        for name in ["lo", &wanted.inside] {
            let index = if_nametoindex(name).on(name)?;
            self.ask(name, Message::link(libc::RTM_NEWLINK, 0, index, true))?;
        }
        let index = if_nametoindex(wanted.inside.as_str()).on(&wanted.inside)?;
        for (address, prefix) in &wanted.addresses {
            let (family, octets) = octets(address);
            let mut header = vec![family, *prefix, 0, 0]; // struct ifaddrmsg
            header.extend_from_slice(&index.to_ne_bytes());
            // The address is ours alone: usable now, not after a second of looking for doubles.
            let message = Message::new(libc::RTM_NEWADDR, libc::NLM_F_CREATE, &header)
                .put(libc::IFA_LOCAL, &octets)
                .put(libc::IFA_ADDRESS, &octets)
                .put(libc::IFA_FLAGS, &libc::IFA_F_NODAD.to_ne_bytes());
            self.ask(&address.to_string(), message)?;
        }
        for gateway in &wanted.gateways {
            let (family, octets) = octets(gateway);
            let table = libc::RT_TABLE_MAIN;
            let (by, scope) = (libc::RTPROT_STATIC, libc::RT_SCOPE_UNIVERSE);
            // struct rtmsg
            let header = [
                family,
                0,
                0,
                0,
                table,
                by,
                scope,
                libc::RTN_UNICAST,
                0,
                0,
                0,
                0,
            ];
            let message = Message::new(libc::RTM_NEWROUTE, libc::NLM_F_CREATE, &header)
                .put(libc::RTA_GATEWAY, &octets)
                .put(libc::RTA_OIF, &index.to_ne_bytes());
            self.ask(&gateway.to_string(), message)?;
        }
        Ok(())
    }
}

/// linux/veth.h
const VETH_INFO_PEER: u16 = 1;
