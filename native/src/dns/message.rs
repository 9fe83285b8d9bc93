//! DNS messages (RFC 1035, RFC 6891): just enough to know a question and to answer it.

use std::net::IpAddr;

pub const A: u16 = 1;
pub const AAAA: u16 = 28;
const OPT: u16 = 41;
const INTERNET: u16 = 1;

const HEADER: usize = 12;
/// An answer's record whose name is a pointer, without its data.
const RECORD: usize = 12;
/// Cookies (RFC 7873): a client that has one takes no answer without it.
const COOKIE: u16 = 10;
const COOKIES: std::ops::RangeInclusive<usize> = 16..=40;

const ANSWER: u16 = 0x8000;
const TRUNCATED: u16 = 0x0200;
const RECURSION_DESIRED: u16 = 0x0100;
const RECURSION_AVAILABLE: u16 = 0x0080;
const CHECKING_DISABLED: u16 = 0x0010;
/// Bits of the operation, which is 0 for a query.
const OPERATION: u16 = 0x7800;
/// Bits of the code that answers have.
const CODE: u16 = 0x000f;
/// What no client asks at once; its first byte is no letter.
const MOST_QUESTIONS: u16 = 255;

/// Size of datagrams that we say we can take.
const OUR_SIZE: u16 = 1232;
/// Size of datagrams that everybody takes, and the longest message there is.
const LEAST_SIZE: usize = 512;
const MOST_SIZE: usize = 65535;

/// One question, as a client asks it.
#[derive(Debug, PartialEq, Eq)]
pub struct Query<'m> {
    pub id: u16,
    /// In lower case, labels joined by dots; empty for the root.
    pub name: Vec<u8>,
    pub kind: u16,
    flags: u16,
    /// Name, type and class as they were sent.
    question: &'m [u8],
    extension: Option<Extension<'m>>,
}

/// What of EDNS an answer must repeat.
#[derive(Debug, PartialEq, Eq)]
struct Extension<'m> {
    /// Of the datagrams that the client takes.
    size: u16,
    dnssec: bool,
    cookie: Option<&'m [u8]>,
}

/// What an answer says.
#[derive(Debug, PartialEq)]
pub enum Says<'a> {
    Code(u8),
    Truncated,
    Addresses(&'a [IpAddr]),
}

/// Does a message begin as a query for one name does?
fn begins_as_query(start: &[u8]) -> bool {
    matches!(number(start, 2), Some(flags) if flags & (ANSWER | OPERATION) == 0)
        && number(start, 4) == Some(1)
        && number(start, 6) == Some(0)
}

/// Does a message begin as one of a client does, be it a query or a notice, an update, a question
/// for a cookie alone? Enough to tell DNS from what else uses its port: letters are large numbers,
/// and a greeting of TLS has a code where only answers have one.
pub fn begins_as_request(start: &[u8]) -> bool {
    let plain = matches!(number(start, 2), Some(flags)
        if flags & (ANSWER | CODE) == 0 && (flags & OPERATION != 0 || number(start, 6) == Some(0)));
    begins_as_query(start) || plain && number(start, 4).is_some_and(|count| count <= MOST_QUESTIONS)
}

impl<'m> Query<'m> {
    /// Reads a query with one question for the Internet; `None` is anything else.
    pub fn parse(message: &'m [u8]) -> Option<Self> {
        if !begins_as_query(message) {
            return None;
        }
        let (name, end) = plain_name(message, HEADER)?;
        let (kind, class) = (number(message, end)?, number(message, end + 2)?);
        if class != INTERNET {
            return None;
        }
        let records = usize::from(number(message, 8)?) + usize::from(number(message, 10)?);
        Some(Self {
            id: number(message, 0)?,
            name,
            kind,
            flags: number(message, 2)?,
            question: &message[HEADER..end + 4],
            extension: extension(message, end + 4, records)?,
        })
    }

    /// How long an answer may be that the client takes in one datagram.
    pub fn datagram_size(&self) -> usize {
        let size = self.extension.as_ref().map_or(0, |asked| asked.size);
        usize::from(size).max(LEAST_SIZE)
    }

    /// Writes the answer, no longer than `most`: what does not fit makes it a truncated one.
    /// Addresses of the other family are left out, and none may be cached.
    pub fn answer(&self, says: &Says<'_>, most: usize) -> Vec<u8> {
        let (code, mut truncated, addresses) = match says {
            Says::Code(code) => (*code, 0, &[][..]),
            Says::Truncated => (0, TRUNCATED, &[][..]),
            Says::Addresses(addresses) => (0, 0, *addresses),
        };
        let fits = |address: &&IpAddr| self.kind == if address.is_ipv4() { A } else { AAAA };
        let mut addresses: Vec<&IpAddr> = addresses.iter().filter(fits).collect();
        let extension = self.extension.as_ref().map_or(0, Extension::length);
        let room = most.min(MOST_SIZE) - HEADER - self.question.len() - extension;
        let record = RECORD + if self.kind == A { 4 } else { 16 };
        if addresses.len() > room / record {
            addresses.truncate(room / record);
            truncated = TRUNCATED;
        }
        let flags = ANSWER
            | truncated
            | RECURSION_AVAILABLE
            | self.flags & (RECURSION_DESIRED | CHECKING_DISABLED)
            | u16::from(code);
        let extensions = u16::from(self.extension.is_some());
        let mut out = Vec::with_capacity(HEADER + self.question.len() + 64);
        for part in [self.id, flags, 1, addresses.len() as u16, 0, extensions] {
            put(&mut out, part);
        }
        out.extend_from_slice(self.question);
        for address in addresses {
            put(&mut out, 0xc000 | HEADER as u16); // the name of the question
            put(&mut out, self.kind);
            put(&mut out, INTERNET);
            out.extend_from_slice(&[0; 4]); // not to be kept for a second
            let octets = match address {
                IpAddr::V4(four) => four.octets().to_vec(),
                IpAddr::V6(six) => six.octets().to_vec(),
            };
            put(&mut out, octets.len() as u16);
            out.extend_from_slice(&octets);
        }
        if let Some(extension) = &self.extension {
            extension.put(&mut out);
        }
        out
    }
}

impl Extension<'_> {
    /// As `put` writes it.
    fn length(&self) -> usize {
        11 + self.cookie.map_or(0, |cookie| 4 + cookie.len())
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.push(0);
        put(out, OPT);
        put(out, OUR_SIZE);
        put(out, 0);
        put(out, if self.dnssec { 0x8000 } else { 0 });
        let cookie = self.cookie.unwrap_or_default();
        if cookie.is_empty() {
            put(out, 0);
        } else {
            put(out, cookie.len() as u16 + 4);
            put(out, COOKIE);
            put(out, cookie.len() as u16);
            out.extend_from_slice(cookie);
        }
    }
}

fn put(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    let two = message.get(at..at + 2)?;
    Some(u16::from_be_bytes([two[0], two[1]]))
}

/// A name without pointers, in lower case, and where it ends.
fn plain_name(message: &[u8], mut at: usize) -> Option<(Vec<u8>, usize)> {
    let mut name = Vec::with_capacity(64);
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        match length {
            0 => return Some((name, at)),
            1..=63 if name.len() + length < 255 => {}
            _ => return None,
        }
        if !name.is_empty() {
            name.push(b'.');
        }
        name.extend(
            message
                .get(at..at + length)?
                .iter()
                .map(u8::to_ascii_lowercase),
        );
        at += length;
    }
}

/// Where a name ends that may have a pointer in it.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + length,
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

/// Looks for EDNS in the records after the question; outer `None` is a message that is broken.
fn extension(message: &[u8], mut at: usize, records: usize) -> Option<Option<Extension<'_>>> {
    for _ in 0..records {
        let begins = skip_name(message, at)?;
        let kind = number(message, begins)?;
        let length = usize::from(number(message, begins + 8)?);
        let data = message.get(begins + 10..begins + 10 + length)?;
        if kind == OPT {
            return Some(Some(Extension {
                size: number(message, begins + 2)?,
                dnssec: number(message, begins + 6)? & 0x8000 != 0,
                cookie: cookie(data),
            }));
        }
        at = begins + 10 + length;
    }
    Some(None)
}

fn cookie(mut options: &[u8]) -> Option<&[u8]> {
    loop {
        let (code, length) = (number(options, 0)?, usize::from(number(options, 2)?));
        let value = options.get(4..4 + length)?;
        if code == COOKIE {
            return COOKIES.contains(&length).then_some(value);
        }
        options = &options[4 + length..];
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
pub mod tests;
