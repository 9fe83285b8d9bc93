//! Our table in the target's namespace, kept by one netlink socket (`flags owner`).
//!
//! Queries over UDP are held for this process, and go on as they are unless it says otherwise: no
//! address is rewritten and no connection tracked, so sockets that are open already are reached.
//! Connections over TCP are led to a listener of ours.

use std::io;

use super::netlink::{Message, Socket, NFTABLES};
use super::MARK;

pub const TABLE: &str = "squall_dns";

const INET: i32 = 1;
const PORT: u16 = 53;

const NEW_TABLE: u16 = NFTABLES << 8;
const DELETE_TABLE: u16 = NEW_TABLE | 2;
const NEW_CHAIN: u16 = NEW_TABLE | 3;
const NEW_RULE: u16 = NEW_TABLE | 6;
const DELETE_RULES: u16 = NEW_TABLE | 8;

const ACK: i32 = libc::NLM_F_ACK;
const CREATE: i32 = libc::NLM_F_CREATE | ACK;

const OUTPUT_HOOK: u32 = 3;
/// Before connections are tracked: raw.
const BEFORE_TRACKING: i32 = -300;
/// Before anybody else translates addresses, as Docker does for its own name server.
const BEFORE_TRANSLATION: i32 = -102;
const TRANSLATION: i32 = -101;

/// The table; gone when this is dropped, or the process dead.
pub struct Table(Socket);

impl Table {
    /// Puts the table there, at once or not at all.
    ///
    /// `queue`: number of the queue that datagrams are held in; `port`: where TCP is led to.
    pub fn open(queue: u16, port: u16) -> io::Result<Self> {
        let socket = Socket::open()?;
        // Where the kernel has no `queue` of nftables, that of xtables does the same.
        let mut outcome = Ok(());
        for held in [Held::Native, Held::Compatible] {
            outcome = socket.ask(&whole(queue, port, held));
            match &outcome {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                _ => break,
            }
        }
        outcome.map(|()| Self(socket))
    }

    /// Holds and leads nothing any more; what was led to us stays so, that it can be ended, and what
    /// the queue holds stays there, that it can go on.
    pub fn retire(&self) -> io::Result<()> {
        self.0.ask(&Message::batch(|batch| {
            for chain in ["datagrams", "standing", "streams"] {
                let at = batch.begin(DELETE_RULES, ACK, INET, 0);
                batch.text(1, TABLE);
                batch.text(2, chain);
                batch.end(at);
            }
        }))
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // The kernel would do it as well, later.
        let message = Message::batch(|batch| {
            let at = batch.begin(DELETE_TABLE, ACK, INET, 0);
            batch.text(1, TABLE);
            batch.end(at);
        });
        let _ = self.0.ask(&message);
    }
}

/// By which means packets are held.
#[derive(Clone, Copy)]
enum Held {
    Native,
    Compatible,
}

fn whole(queue: u16, port: u16, held: Held) -> Message {
    Message::batch(|batch| {
        let at = batch.begin(NEW_TABLE, CREATE, INET, 0);
        batch.text(1, TABLE);
        batch.number(2, 2); // owner
        batch.end(at);
        chain(batch, "datagrams", Some(("filter", BEFORE_TRACKING)));
        chain(batch, "standing", Some(("filter", BEFORE_TRANSLATION)));
        chain(batch, "streams", Some(("nat", TRANSLATION)));
        // No packet ever comes here. As long as there is a rule that looks at connections they are
        // tracked; where that ends, the kernel drops whatever any queue of the namespace holds.
        chain(batch, "tracking", None);
        rule(batch, "tracking", |rule| rule.leads_elsewhere(port));
        rule(batch, "datagrams", |rule| {
            rule.queries_over(libc::IPPROTO_UDP);
            rule.not_ours();
            rule.hold(queue, held);
        });
        // Packets with an address of one link do not find the way to another.
        for streams in ["standing", "streams"] {
            rule(batch, streams, |rule| {
                rule.within_one_link();
                rule.expression("immediate", |data| {
                    data.number(1, 0);
                    data.nested(2, |value| value.nested(2, |verdict| verdict.number(1, 1)));
                });
            });
        }
        // A connection from before the fault is reset at its next query; resolvers open another.
        rule(batch, "standing", |rule| {
            rule.queries_over(libc::IPPROTO_TCP);
            rule.not_ours();
            rule.carries_data();
            rule.leads_elsewhere(port);
            rule.expression("reject", |data| {
                data.number(1, 1); // TCP RST
                data.bytes(2, &[0]);
            });
        });
        rule(batch, "streams", |rule| {
            rule.queries_over(libc::IPPROTO_TCP);
            rule.not_ours();
            rule.expression("immediate", |data| {
                data.number(1, 1);
                data.nested(2, |value| value.bytes(1, &port.to_be_bytes()));
            });
            rule.expression("redir", |data| data.number(1, 1));
        });
    })
}

/// Adds a chain, and where its kind and priority are given, hooks it to what goes out.
fn chain(batch: &mut Message, name: &str, hooked: Option<(&str, i32)>) {
    let at = batch.begin(NEW_CHAIN, CREATE, INET, 0);
    batch.text(1, TABLE);
    batch.text(3, name);
    if let Some((kind, priority)) = hooked {
        batch.nested(4, |hook| {
            hook.number(1, OUTPUT_HOOK);
            hook.number(2, priority as u32);
        });
        batch.number(5, 1); // accept
        batch.text(7, kind);
    }
    batch.end(at);
}

fn rule(batch: &mut Message, chain: &str, fill: impl FnOnce(&mut Expressions<'_>)) {
    let at = batch.begin(NEW_RULE, CREATE | libc::NLM_F_APPEND, INET, 0);
    batch.text(1, TABLE);
    batch.text(2, chain);
    batch.nested(4, |list| fill(&mut Expressions(list)));
    batch.end(at);
}

/// The expressions of one rule; register 1 holds what the next one looks at.
struct Expressions<'m>(&'m mut Message);

impl Expressions<'_> {
    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Message)) {
        self.0.nested(1, |element| {
            element.text(1, name);
            element.nested(2, fill);
        });
    }

    fn compare(&mut self, operation: u32, value: &[u8]) {
        self.expression("cmp", |data| {
            data.number(1, 1);
            data.number(2, operation);
            data.nested(3, |right| right.bytes(1, value));
        });
    }

    /// Packets of a protocol to port 53.
    fn queries_over(&mut self, protocol: i32) {
        self.expression("meta", |data| {
            data.number(1, 1);
            data.number(2, 16); // l4proto
        });
        self.compare(0, &[protocol as u8]);
        self.transport(2, 2);
        self.compare(0, &PORT.to_be_bytes());
    }

    /// Packets to an IPv6 address of one link, fe80::/10.
    fn within_one_link(&mut self) {
        self.expression("meta", |data| {
            data.number(1, 1);
            data.number(2, 15); // nfproto
        });
        self.compare(0, &[libc::AF_INET6 as u8]);
        self.payload(1, 24, 2);
        self.mask(&[0xff, 0xc0]);
        self.compare(0, &[0xfe, 0x80]);
    }

    /// Bytes of the transport header.
    fn transport(&mut self, offset: u32, length: u32) {
        self.payload(2, offset, length);
    }

    fn payload(&mut self, header: u32, offset: u32, length: u32) {
        self.expression("payload", |data| {
            data.number(1, 1);
            data.number(2, header);
            data.number(3, offset);
            data.number(4, length);
        });
    }

    /// Packets that this process has not sent itself.
    fn not_ours(&mut self) {
        self.expression("meta", |data| {
            data.number(1, 1);
            data.number(2, 3); // mark
        });
        self.compare(1, &MARK.to_ne_bytes());
    }

    /// Segments with the flag PSH, as every one that ends a query.
    fn carries_data(&mut self) {
        self.transport(13, 1);
        self.mask(&[8]);
        self.compare(1, &[0]);
    }

    fn mask(&mut self, bits: &[u8]) {
        self.expression("bitwise", |data| {
            data.number(1, 1);
            data.number(2, 1);
            data.number(3, bits.len() as u32);
            data.nested(4, |mask| mask.bytes(1, bits));
            data.nested(5, |xor| xor.bytes(1, &vec![0; bits.len()]));
        });
    }

    /// Connections that are answered by anything but our listener.
    fn leads_elsewhere(&mut self, port: u16) {
        self.expression("ct", |data| {
            data.number(1, 1);
            data.number(2, 11); // proto-src
            data.bytes(3, &[1]); // reply
        });
        self.compare(1, &port.to_be_bytes());
    }

    fn hold(&mut self, queue: u16, held: Held) {
        match held {
            Held::Native => self.expression("queue", |data| {
                data.bytes(1, &queue.to_be_bytes());
                data.bytes(2, &1u16.to_be_bytes());
                data.bytes(3, &1u16.to_be_bytes()); // bypass: nobody there, nothing held
            }),
            Held::Compatible => self.expression("target", |data| {
                data.text(1, "NFQUEUE");
                data.number(2, 3);
                // Queue, how many, bypass; padded to eight bytes.
                let fields = [queue, 1, 1, 0].map(u16::to_ne_bytes);
                data.bytes(3, fields.as_flattened());
            }),
        }
    }
}
