//! Ends of gRPC calls: github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response};

use super::parts::field;
use super::request::Grpc;
use super::rules::{add_one, Armed};

/// Compressed or not, and a length of four bytes.
const PREFIX: usize = 5;

/// Rules about gRPC take calls of gRPC only.
pub fn fits(armed: &Armed, headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes());
    armed.rule.grpc.is_none() || kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

/// The answer to a call that the server never sees.
pub fn answer(armed: &Armed) -> Response<()> {
    let mut response = Response::new(());
    if let Ok(kind) = "application/grpc".parse() {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    if let Some(grpc) = &armed.rule.grpc {
        write(grpc, grpc.status.or(Some(0)), response.headers_mut());
    }
    response
}

/// The server has ended the call in its first words.
pub fn end_at_once(armed: &Armed, headers: &mut HeaderMap) {
    let Some(grpc) = &armed.rule.grpc else { return };
    if grpc.after_messages == 0 {
        add_one(&armed.tally.ended);
        write(grpc, grpc.status, headers);
    }
}

fn write(grpc: &Grpc, status: Option<u8>, headers: &mut HeaderMap) {
    let mut set = |name: &str, value: &str| {
        if let Some((name, value)) = field(name, value) {
            headers.insert(name, value);
        }
    };
    if let Some(status) = status {
        set("grpc-status", &status.to_string());
        set("grpc-message", &escaped(&grpc.message));
    }
    for (name, value) in &grpc.trailers {
        set(name, value);
    }
    if status.is_some() && grpc.message.is_empty() {
        headers.remove("grpc-message");
    }
}

/// As a status message travels: percent-encoded but for plain ASCII.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'%';
    let written = text.bytes().map(|byte| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    written.collect()
}

/// Where in a stream of messages a call is to be ended.
pub struct Cut {
    armed: Arc<Armed>,
    /// Messages to pass; None: to the server's own end.
    left: Option<u64>,
    /// Bytes of the message under way that have not passed yet.
    rest: u64,
    prefix: Vec<u8>,
}

impl Cut {
    pub fn new(armed: Arc<Armed>) -> Self {
        let grpc = armed.rule.grpc.as_ref();
        let ends = grpc.filter(|grpc| grpc.status.is_some());
        let left = ends.map(|grpc| grpc.after_messages);
        Self {
            armed,
            left,
            rest: 0,
            prefix: Vec::new(),
        }
    }

    /// Has everything passed that may?
    pub fn is_due(&self) -> bool {
        self.left == Some(0)
    }

    /// How many of these bytes may pass.
    pub fn pass(&mut self, bytes: &[u8]) -> usize {
        let Some(mut left) = self.left else {
            return bytes.len();
        };
        let mut at = 0;
        while at < bytes.len() && left > 0 {
            if self.rest > 0 {
                let count = self.rest.min((bytes.len() - at) as u64);
                self.rest -= count;
                at += count as usize;
            } else {
                self.prefix.push(bytes[at]);
                at += 1;
                if self.prefix.len() < PREFIX {
                    continue;
                }
                let length = self.prefix.drain(..).skip(1);
                self.rest = length.fold(0, |length, byte| length << 8 | u64::from(byte));
            }
            if self.rest == 0 && self.prefix.is_empty() {
                left -= 1;
            }
        }
        self.left = Some(left);
        at
    }

    /// How the call ends where it is cut.
    pub fn trailers(&self) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        if let Some(grpc) = &self.armed.rule.grpc {
            add_one(&self.armed.tally.ended);
            write(grpc, grpc.status, &mut trailers);
        }
        trailers
    }

    /// The server has ended the call itself: only where no other end was asked for is it changed.
    pub fn over(&self, trailers: &mut HeaderMap) {
        if let (None, Some(grpc)) = (self.left, &self.armed.rule.grpc) {
            add_one(&self.armed.tally.ended);
            write(grpc, None, trailers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::rules::Rules;
    use serde_json::json;

    fn cut(after: u64) -> Cut {
        let rule = json!({"source": "a", "target": "Response", "port": 1,
            "grpc": {"status": 14, "message": "50 % ä", "after_messages": after}});
        let rules = Rules::new(
            vec![serde_json::from_value(rule).unwrap()],
            &Rules::default(),
        )
        .unwrap();
        Cut::new(rules.scope((1, false)).unwrap().responses[0].clone())
    }

    #[test]
    fn messages_pass_until_the_last_however_they_are_cut() {
        let messages = [
            &[0, 0, 0, 0, 2, 7, 7][..],
            &[1, 0, 0, 0, 0],
            &[0, 0, 0, 0, 1, 9],
            &[0, 0, 0, 0, 1, 8],
        ];
        let bytes = messages.concat();
        for (after, passing) in [(0, 0), (1, 7), (2, 12), (3, 18), (4, 24)] {
            for size in 1..=bytes.len() {
                let mut cut = cut(after);
                let passed: usize = bytes.chunks(size).map(|part| cut.pass(part)).sum();
                assert_eq!(passed, passing, "{after} {size}");
                assert!(cut.is_due());
            }
        }
        assert!(!cut(5).is_due());
    }

    #[test]
    fn an_end_says_status_and_message_as_they_travel() {
        let trailers = cut(1).trailers();
        assert_eq!(trailers["grpc-status"], "14");
        assert_eq!(trailers["grpc-message"], "50 %25 %C3%A4");
    }
}
