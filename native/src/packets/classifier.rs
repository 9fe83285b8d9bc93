//! The program that picks, of all that leaves a device, what the rules are about.
//!
//! It runs in the kernel, for each frame: what no rule is about goes its way untouched, the rest is
//! redirected to our TAP device with the moment written into it. When user space has not shown a
//! sign of life for a second (stopped, stuck), everything goes its way: it fails open.

use std::io;
use std::os::fd::OwnedFd;

use super::networks::{Network, Version};
use crate::bpf::{self, Assembler, Compute, Function, If, Label, Purpose, Width};

/// IP protocols with the destination port in bytes 2 and 3: TCP, UDP, DCCP, SCTP, UDP-Lite.
pub const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// How long user space may be silent, in ns.
const SILENCE: i32 = 1_000_000_000;

/// What the program must know.
pub struct Facts<'a> {
    /// None: everything but ARP and IPv6 neighbour discovery.
    pub networks: Option<&'a [Network]>,
    /// Sender's address of frames that may be stamped.
    pub device_address: [u8; 6],
    pub tap_index: u32,
    /// Array with the moment of the last sign of life, in ns of CLOCK_MONOTONIC.
    pub heartbeat: &'a OwnedFd,
}

// The stack of the program, from the frame pointer downwards.
const FP: u8 = 10;
/// Sender's address, ethertype and network header: frame bytes 6 to 53.
const HEAD: i16 = -48;
const NETWORK_HEADER: i16 = HEAD + 8;
/// Key of the trie: bits, port, version of IP, zero, address.
const KEY: i16 = -72;
const KEY_VERSION: i16 = KEY + 6;
const KEY_BYTES: u32 = 24;
const STAMP: i16 = -80;
const ICMP_TYPE: i16 = -88;

// Registers that survive a call.
const FRAME: u8 = 6;
const ETHERTYPE: u8 = 7;
const PROTOCOL: u8 = 8;
const TRANSPORT: u8 = 9;

/// Puts the networks into a trie and loads the program; the program keeps the trie.
pub fn load(facts: &Facts) -> io::Result<OwnedFd> {
    let trie = facts.networks.map(trie).transpose()?;
    let ports = facts
        .networks
        .is_some_and(|networks| networks.iter().any(|network| network.port != 0));
    assemble(facts, trie.as_ref(), ports).load_for(Purpose::EGRESS, c"squall_packets")
}

fn trie(networks: &[Network]) -> io::Result<OwnedFd> {
    let trie = bpf::prefixes(KEY_BYTES, networks.len().max(1) as u32)?;
    for network in networks {
        let mut key = [0; KEY_BYTES as usize];
        key[..4].copy_from_slice(&(32 + u32::from(network.prefix)).to_ne_bytes());
        key[4..6].copy_from_slice(&network.port.to_be_bytes());
        key[6] = network.version as u8;
        key[8..].copy_from_slice(&network.address.to_be_bytes());
        bpf::insert(&trie, &key, &[1])?;
    }
    Ok(trie)
}

fn assemble(facts: &Facts, trie: Option<&OwnedFd>, ports: bool) -> Assembler {
    let mut a = Assembler::default();
    let (pass, found) = (a.label(), a.label());
    a.copy(FRAME, 1);
    read_headers(&mut a, pass);
    if let Some(trie) = trie {
        look_up(&mut a, trie, ports, found, pass);
    }
    a.place(found);
    redirect(&mut a, facts, pass);
    a.place(pass);
    a.set(0, -1); // TCX_NEXT
    a.exit();
    a
}

/// Leaves the address in the key, the protocol (0: none with ports) and the start of its header.
fn read_headers(a: &mut Assembler, pass: Label) {
    const SKB_PROTOCOL: i16 = 16;
    const SKB_VLAN_PRESENT: i16 = 20;
    let (ipv4, done) = (a.label(), a.label());
    a.load(Width::Word, 0, FRAME, SKB_VLAN_PRESENT);
    a.jump_if(0, If::NotEqual, 0, pass); // of a device on top of this one
    a.store_number(Width::Word, FP, KEY, 32 + 128);
    a.store_number(Width::Word, FP, KEY + 4, 0);
    a.load(Width::Word, ETHERTYPE, FRAME, SKB_PROTOCOL);
    a.jump_if(ETHERTYPE, If::Equal, i32::from(0x0800_u16.to_be()), ipv4);
    a.jump_if(ETHERTYPE, If::NotEqual, i32::from(0x86dd_u16.to_be()), pass);

    a.store_number(Width::Byte, FP, KEY_VERSION, Version::Six as i32);
    load_bytes(a, Start::At(6), HEAD, 8 + 40, pass);
    a.load(Width::Byte, PROTOCOL, FP, NETWORK_HEADER + 6);
    a.set(TRANSPORT, 14 + 40);
    for half in [0, 8] {
        a.load(Width::Double, 1, FP, NETWORK_HEADER + 24 + half);
        a.store(Width::Double, FP, KEY + 8 + half, 1);
    }
    a.jump_if(PROTOCOL, If::NotEqual, 58, done);
    load_bytes(a, Start::At(14 + 40), ICMP_TYPE, 1, pass);
    a.load(Width::Byte, 1, FP, ICMP_TYPE);
    let kept = a.label();
    a.jump_if(1, If::Above, 137, kept); // 133 to 137: routers and neighbours
    a.jump_if(1, If::AtLeast, 133, pass);
    a.place(kept);
    a.jump(done);

    a.place(ipv4);
    a.store_number(Width::Byte, FP, KEY_VERSION, Version::Four as i32);
    load_bytes(a, Start::At(6), HEAD, 8 + 20, pass);
    a.load(Width::Byte, PROTOCOL, FP, NETWORK_HEADER + 9);
    a.load(Width::Byte, TRANSPORT, FP, NETWORK_HEADER);
    a.compute(Compute::And, TRANSPORT, 15);
    a.compute(Compute::ShiftLeft, TRANSPORT, 2);
    a.compute(Compute::Add, TRANSPORT, 14);
    a.store_number(Width::Double, FP, KEY + 8, 0);
    a.store_number(Width::Word, FP, KEY + 16, 0x0000_ffff_u32.to_be() as i32);
    a.load(Width::Word, 1, FP, NETWORK_HEADER + 16);
    a.store(Width::Word, FP, KEY + 20, 1);
    a.load(Width::Half, 1, FP, NETWORK_HEADER + 6);
    a.compute(Compute::And, 1, i32::from(0x1fff_u16.to_be()));
    a.jump_if(1, If::Equal, 0, done);
    a.set(PROTOCOL, 0); // a later fragment has no ports
    a.place(done);
}

/// Goes to `found` when a network has the address, for any port or for this one.
fn look_up(a: &mut Assembler, trie: &OwnedFd, ports: bool, found: Label, pass: Label) {
    let look = |a: &mut Assembler| {
        a.map(1, trie);
        a.copy(2, FP);
        a.compute(Compute::Add, 2, i32::from(KEY));
        a.call(Function::MapLookup);
    };
    look(a);
    a.jump_if(0, If::NotEqual, 0, found);
    if ports {
        let has_ports = a.label();
        for protocol in WITH_PORTS {
            a.jump_if(PROTOCOL, If::Equal, i32::from(protocol), has_ports);
        }
        a.jump(pass);
        a.place(has_ports);
        a.compute(Compute::Add, TRANSPORT, 2);
        load_bytes(a, Start::In(TRANSPORT), KEY + 4, 2, pass);
        look(a);
        a.jump_if(0, If::NotEqual, 0, found);
    }
    a.jump(pass);
}

/// Stamps the frame and sends it to the TAP device, if somebody is alive there.
fn redirect(a: &mut Assembler, facts: &Facts, pass: Label) {
    const NOW: u8 = 7;
    let unstamped = a.label();
    a.call(Function::MonotonicNanoseconds);
    a.copy(NOW, 0);
    a.map_value(1, facts.heartbeat);
    a.load(Width::Double, 1, 1, 0);
    a.subtract(0, 1);
    a.jump_if(0, If::SignedAbove, SILENCE, pass);

    let [b0, b1, b2, b3, b4, b5] = facts.device_address;
    a.load(Width::Word, 1, FP, HEAD);
    let first = i32::from_ne_bytes([b0, b1, b2, b3]);
    a.jump_if(1, If::WordNotEqual, first, unstamped);
    a.load(Width::Half, 1, FP, HEAD + 4);
    let last = i32::from(u16::from_ne_bytes([b4, b5]));
    a.jump_if(1, If::NotEqual, last, unstamped);
    a.compute(Compute::ShiftLeft, NOW, 1);
    a.compute(Compute::Or, NOW, 1); // the group bit tells a stamp from an address
    a.little_endian(NOW);
    a.store(Width::Double, FP, STAMP, NOW);
    a.copy(1, FRAME);
    a.set(2, 6);
    a.copy(3, FP);
    a.compute(Compute::Add, 3, i32::from(STAMP));
    a.set(4, 6);
    a.set(5, 0);
    a.call(Function::StoreBytes);
    a.place(unstamped);

    a.set(1, facts.tap_index as i32);
    a.set(2, 0);
    a.call(Function::Redirect);
    a.exit();
}

enum Start {
    At(i32),
    In(u8),
}

/// Copies bytes of the frame onto the stack; a frame that is too short passes.
fn load_bytes(a: &mut Assembler, from: Start, to: i16, bytes: i32, pass: Label) {
    a.copy(1, FRAME);
    match from {
        Start::At(offset) => a.set(2, offset),
        Start::In(register) => a.copy(2, register),
    }
    a.copy(3, FP);
    a.compute(Compute::Add, 3, i32::from(to));
    a.set(4, bytes);
    a.call(Function::LoadBytes);
    a.jump_if(0, If::NotEqual, 0, pass);
}
