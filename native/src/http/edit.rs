//! What replace and patch make of a message.

use std::sync::Arc;

use bytes::Bytes;

use super::bodies::Purse;
use super::merge;
use super::request::Target;
use super::rules::{add_one, Armed};

/// The encoding of what is to be read.
pub const PLAIN: &str = "identity";

/// The head of a message that is to be changed, of HTTP/1 or 2.
pub trait Editable {
    fn header(&self, name: &str) -> Option<String>;
    /// Takes the place of all headers of this name.
    fn set_header(&mut self, name: &str, value: &str);
    fn add_header(&mut self, name: &str, value: &str);
    fn remove_header(&mut self, name: &str);
    /// Path and query.
    fn path(&self) -> String;
    fn set_path(&mut self, path: &str);
    fn set_method(&mut self, method: &str);
    fn set_code(&mut self, code: u16);
}

/// What becomes of the body that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// It passes as it comes.
    Kept,
    /// It is not looked at.
    Dropped,
    /// It must be there as a whole.
    Needed,
}

pub fn body_for(rules: &[Arc<Armed>]) -> Body {
    let first =
        rules.iter().find_map(
            |armed| match (armed.body.is_some(), armed.rule.patches_body()) {
                (true, _) => Some(Body::Dropped),
                (false, true) => Some(Body::Needed),
                (false, false) => None,
            },
        );
    let empties = |armed: &Arc<Armed>| code_of(armed).is_some_and(|code| matches!(code, 204 | 304));
    match first {
        None if rules.iter().any(empties) => Body::Dropped,
        found => found.unwrap_or(Body::Kept),
    }
}

/// The method that is put in place of the client's.
pub fn method_of(rules: &[Arc<Armed>]) -> Option<&str> {
    let replaces = rules
        .iter()
        .rev()
        .filter_map(|armed| armed.rule.replace.as_ref());
    replaces
        .filter_map(|replace| replace.method.as_deref())
        .next()
}

/// The code that is put in place of the server's.
pub fn code_of(armed: &Armed) -> Option<u16> {
    let replace = armed.rule.replace.as_ref();
    replace
        .filter(|_| armed.rule.target == Target::Response)?
        .code
}

/// Changes a head as one rule says, but for what follows from its body.
pub fn head(armed: &Armed, head: &mut impl Editable) {
    let is_request = armed.rule.target == Target::Request;
    if let Some(replace) = &armed.rule.replace {
        add_one(&armed.tally.replaced);
        if is_request {
            let old = head.path();
            if let Some(path) = &replace.path {
                // Its query stays, unless the new path brings one.
                match old.find('?').filter(|_| !path.contains('?')) {
                    Some(at) => head.set_path(&format!("{path}{}", &old[at..])),
                    None => head.set_path(path),
                }
            }
            if let Some(method) = &replace.method {
                head.set_method(method);
            }
            if !replace.queries.is_empty() {
                let path = head.path();
                let queries = replace.queries.iter();
                head.set_path(&queries.fold(path, |path, (name, value)| {
                    with_query(&path, name, value, true)
                }));
            }
        } else if let Some(code) = replace.code {
            head.set_code(code);
        }
        for (name, value) in &replace.headers {
            head.set_header(name, value);
        }
    }
    if let Some(patch) = &armed.rule.patch {
        add_one(&armed.tally.patched);
        if is_request && !patch.queries.is_empty() {
            let path = head.path();
            let queries = patch.queries.iter();
            head.set_path(&queries.fold(path, |path, (name, value)| {
                with_query(&path, name, value, false)
            }));
        }
        for (name, value) in &patch.headers {
            head.add_header(name, value);
        }
    }
}

/// What the rules make of a body; `None` came where it was not needed.
pub fn body(rules: &[Arc<Armed>], came: Option<Vec<u8>>, purse: &Purse) -> Bytes {
    let mut body = came.map_or_else(Bytes::new, |came| purse.held(came));
    for armed in rules {
        if let Some(new) = &armed.body {
            body = new.clone();
        }
        if let Some(patch) = armed
            .rule
            .patch
            .as_ref()
            .and_then(|patch| patch.body.as_ref())
        {
            match merge::merge(&body, patch) {
                Ok(merged) => body = purse.held(merged),
                Err(_) => add_one(&armed.tally.unpatchable),
            }
        }
    }
    body
}

/// A path with one more query, in place of those of its name or behind them all.
fn with_query(path: &str, name: &str, value: &str, in_place: bool) -> String {
    let (start, query) = path.split_once('?').unwrap_or((path, ""));
    let new = format!("{}={}", encoded(name), encoded(value));
    let mut pairs: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty()).collect();
    let named =
        |pair: &&str| decoded(pair.split('=').next().unwrap_or_default()) == name.as_bytes();
    match pairs.iter().position(named).filter(|_| in_place) {
        Some(at) => {
            pairs[at] = &new;
            let mut place = 0;
            pairs.retain(|pair| {
                place += 1;
                place - 1 == at || !named(pair)
            });
        }
        None => pairs.push(&new),
    }
    format!("{start}?{}", pairs.join("&"))
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let bytes = text.bytes();
    bytes
        .map(|byte| match plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

fn decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut found = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        match (
            bytes[at],
            hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()),
        ) {
            (b'%', Some(byte)) => {
                found.push(byte);
                at += 2;
            }
            (b'+', _) => found.push(b' '),
            (byte, _) => found.push(byte),
        }
        at += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_replaced_by_name_or_appended() {
        assert_eq!(with_query("/a", "x", "1 2", true), "/a?x=1%202");
        assert_eq!(with_query("/a?x=0&y=3&x=4", "x", "1", true), "/a?x=1&y=3");
        assert_eq!(with_query("/a?%78=0", "x", "1", true), "/a?x=1");
        assert_eq!(with_query("/a?x=0", "x", "1", false), "/a?x=0&x=1");
    }
}
