//! What the agent asks for, as types; `squall.linux.http` is the other end.
//!
//! Names follow the fields of HTTPChaos where it has them; times are microseconds.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::rpc::Refusal;

/// Make exactly this be in force.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Set {
    pub rules: Vec<Rule>,
    /// For ports whose server speaks TLS: we answer in its name.
    #[serde(default)]
    pub certificates: Vec<Certificate>,
    /// For outgoing TLS: we answer in the name of whomever the target calls.
    #[serde(default)]
    pub authorities: Vec<Authority>,
    /// Seconds to hold on after the connection is gone.
    pub lease: f64,
    /// Seconds of boot time at which all ends.
    pub deadline: Option<f64>,
}

/// Let nothing be in force, and end with what is under way.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leave {
    /// Seconds after which what is still under way is broken off.
    pub within: f64,
}

/// What happens to some exchanges of one port; an exchange that several match passes each, in order.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which live fault asked for it; names its counters.
    pub source: String,
    pub target: Target,
    /// Destination port, as the client dials it; not 0.
    pub port: u16,
    /// False: connections to a server in the target. True: connections that the target opens.
    #[serde(default)]
    pub outgoing: bool,

    /// Wildcards `*` and `?`, matched with the path before any `?`.
    #[serde(default)]
    pub path: Option<String>,
    #[serde(default)]
    pub method: Option<String>,
    /// Of the response; with `target: Request` it is not looked at.
    #[serde(default)]
    pub code: Option<u16>,
    /// All must be there, with exactly this value; names in any case.
    #[serde(default)]
    pub request_headers: BTreeMap<String, String>,
    #[serde(default)]
    pub response_headers: BTreeMap<String, String>,
    /// Share of the exchanges that match all else, drawn for each; 0 to 100.
    #[serde(default = "all")]
    pub percent: f64,
    /// Start of the draws: the same seed hits the same exchanges, counted from the first.
    #[serde(default)]
    pub seed: u64,

    /// Reset the connection without an answer; in HTTP/2, the stream.
    #[serde(default)]
    pub abort: bool,
    #[serde(default)]
    pub delay_us: u64,
    #[serde(default)]
    pub replace: Option<Replace>,
    #[serde(default)]
    pub patch: Option<Patch>,
    #[serde(default)]
    pub grpc: Option<Grpc>,
}

fn all() -> f64 {
    100.0
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum Target {
    Request,
    Response,
}

/// Put in place of what is there; `path`, `method` and `queries` only in requests, `code` only in
/// responses.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Replace {
    pub path: Option<String>,
    pub method: Option<String>,
    pub headers: BTreeMap<String, String>,
    pub queries: BTreeMap<String, String>,
    /// Base64.
    pub body: Option<String>,
    pub code: Option<u16>,
}

/// Put beside what is there.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Patch {
    pub headers: Vec<(String, String)>,
    pub queries: Vec<(String, String)>,
    /// A JSON merge patch (RFC 7396): the value itself, not its text.
    pub body: Option<Value>,
}

/// Ends of gRPC calls; exchanges that are none are left alone.
///
/// With `target: Request` the call is answered at once and the server never sees it. With
/// `target: Response` the first `after_messages` messages pass, then the call ends so.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grpc {
    /// None: the server's own end of the call, but for `trailers`.
    pub status: Option<u8>,
    pub message: String,
    /// Further trailers, set over those of the server.
    pub trailers: BTreeMap<String, String>,
    pub after_messages: u64,
}

/// The server's own certificate, for incoming connections to one port.
#[derive(Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    pub port: u16,
    /// PEM, the leaf first.
    pub certificate: String,
    /// PEM; never told again.
    pub key: String,
}

/// A certificate authority that the target was made to trust, for outgoing connections.
#[derive(Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// Whose outgoing rules it serves; of several for one port the first is taken.
    pub source: String,
    /// PEM.
    pub certificate: String,
    /// PEM; never told again.
    pub key: String,
    /// PEM of whom the target trusted before. Servers whom these do not vouch for are passed
    /// through without interception, so that the target judges them itself.
    pub roots: String,
}

/// What one source did so far. Exchanges are requests with their response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Exchanges on a port of its rules, in their direction.
    pub exchanges: u64,
    /// Of these, those that a rule of it took.
    pub matched: u64,
    pub aborted: u64,
    pub delayed: u64,
    pub delay_us_sum: u64,
    pub replaced: u64,
    pub patched: u64,
    /// Bodies to be patched that were no JSON, encoded, or longer than we hold.
    pub unpatchable: u64,
    /// Bodies to be patched that passed as they were, as others took all the room there is for them.
    pub crowded: u64,
    /// gRPC calls that were given another end.
    pub ended: u64,
    /// Connections on its ports that spoke something else, and were passed through byte by byte.
    pub foreign: u64,
    /// TLS connections on its ports that could not be opened: the client does not trust us (it pins
    /// certificates), the server wants a certificate of the client, or no key was given. Rules that
    /// take every exchange of the port delay and abort these connections as a whole.
    pub sealed: u64,
    /// Connections older than its rules, reset so that their clients come again.
    pub reset: u64,
}

impl Set {
    /// Refuses what the types allow but nobody can mean.
    pub fn check(&self) -> Result<(), Refusal> {
        for rule in &self.rules {
            rule.check()
                .map_err(|reason| Refusal::invalid(format!("rule of {}: {reason}", rule.source)))?;
        }
        let mut ports = BTreeSet::new();
        for certificate in &self.certificates {
            if !ports.insert(certificate.port) {
                let port = certificate.port;
                return Err(Refusal::invalid(format!(
                    "two certificates for port {port}"
                )));
            }
        }
        Ok(())
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        if self.port == 0 {
            return Err("port 0".to_owned());
        }
        if !(0.0..=100.0).contains(&self.percent) {
            return Err(format!("percent {} is not in 0..100", self.percent));
        }
        let replace = self.replace.as_ref();
        if let Some(code) = replace.and_then(|replace| replace.code) {
            if !(200..=599).contains(&code) {
                return Err(format!("no response ends with code {code}"));
            }
        }
        if self.grpc.as_ref().and_then(|grpc| grpc.status) > Some(16) {
            return Err("gRPC statuses are 0 to 16".to_owned());
        }
        self.words().try_for_each(check_word)?;
        self.names().try_for_each(check_name)?;
        self.values().try_for_each(check_value)
    }

    pub fn patches_body(&self) -> bool {
        let patch = self.patch.as_ref();
        patch.is_some_and(|patch| patch.body.is_some())
    }

    /// Does nothing but chance keep an exchange on its port from it?
    pub fn takes_all(&self) -> bool {
        let all = |path: &String| path == "*" || path == "/*";
        let ends = self.code.is_none() && self.response_headers.is_empty();
        self.path.as_ref().is_none_or(all)
            && self.method.is_none()
            && self.request_headers.is_empty()
            && (self.target == Target::Request || ends)
    }

    /// What must be one token of HTTP.
    fn words(&self) -> impl Iterator<Item = &String> {
        let replace = self.replace.iter();
        let methods = replace.flat_map(|replace| replace.method.iter());
        methods.chain(self.names())
    }

    /// Headers that it sets.
    fn names(&self) -> impl Iterator<Item = &String> {
        let replaced = self
            .replace
            .iter()
            .flat_map(|replace| replace.headers.keys());
        let patch = self.patch.iter();
        let patched = patch.flat_map(|patch| patch.headers.iter().map(|(name, _)| name));
        let ended = self.grpc.iter().flat_map(|grpc| grpc.trailers.keys());
        replaced.chain(patched).chain(ended)
    }

    /// What must stay on one line.
    fn values(&self) -> impl Iterator<Item = &String> {
        let replace = self.replace.iter();
        let patch = self.patch.iter();
        let grpc = self.grpc.iter();
        let replaced =
            replace.flat_map(|replace| replace.path.iter().chain(replace.headers.values()));
        let patched = patch.flat_map(|patch| patch.headers.iter().map(|(_, value)| value));
        let ended = grpc.flat_map(|grpc| grpc.trailers.values());
        replaced.chain(patched).chain(ended)
    }
}

fn check_word(word: &String) -> Result<(), String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match !word.is_empty() && word.bytes().all(token) {
        true => Ok(()),
        false => Err(format!("{word:?} is no name of a header or method")),
    }
}

/// Headers that say where a message ends, or are about one connection: set to what is not so, they
/// would let its receiver wait for ever, or take a part of it for the next one.
const OF_THE_WIRE: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn check_name(name: &String) -> Result<(), String> {
    match OF_THE_WIRE.contains(&name.to_ascii_lowercase().as_str()) {
        true => Err(format!("{name} follows from how a message travels")),
        false => Ok(()),
    }
}

fn check_value(value: &String) -> Result<(), String> {
    match value
        .bytes()
        .any(|byte| byte < b' ' && byte != b'\t' || byte == 127)
    {
        true => Err(format!("{value:?} has control characters")),
        false => Ok(()),
    }
}
