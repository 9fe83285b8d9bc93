//! The rules in force, by port; whom they take, and what they did.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::base64;
use super::request::{Counters, Rule, Target};

/// A port, and whether it is one that the target dials.
pub type Door = (u16, bool);

/// All rules. What did not change from one set of them to the next goes on counting and drawing.
#[derive(Default)]
pub struct Rules {
    scopes: HashMap<Door, Arc<Scope>>,
    armed: Vec<Arc<Armed>>,
}

/// The rules of one port and direction.
#[derive(Default)]
pub struct Scope {
    pub requests: Vec<Arc<Armed>>,
    pub responses: Vec<Arc<Armed>>,
    tallies: Vec<Arc<Tally>>,
}

/// A rule, and what it takes to apply it.
pub struct Armed {
    pub rule: Rule,
    /// What `replace.body` stands for.
    pub body: Option<Bytes>,
    pub tally: Arc<Tally>,
    draws: AtomicU64,
}

/// `Counters` of one source, as they grow.
#[derive(Default)]
pub struct Tally {
    pub source: String,
    pub exchanges: AtomicU64,
    pub matched: AtomicU64,
    pub aborted: AtomicU64,
    pub delayed: AtomicU64,
    pub delay_us_sum: AtomicU64,
    pub replaced: AtomicU64,
    pub patched: AtomicU64,
    pub unpatchable: AtomicU64,
    pub crowded: AtomicU64,
    pub ended: AtomicU64,
    pub foreign: AtomicU64,
    pub sealed: AtomicU64,
    pub reset: AtomicU64,
}

pub fn add_one(count: &AtomicU64) {
    count.fetch_add(1, Relaxed);
}

impl Rules {
    /// Arms `rules`; the error says which body is none.
    pub fn new(rules: Vec<Rule>, before: &Self) -> Result<Self, String> {
        let mut tallies: BTreeMap<String, Arc<Tally>> = BTreeMap::new();
        for armed in &before.armed {
            tallies.insert(armed.rule.source.clone(), armed.tally.clone());
        }
        let mut armed = Vec::new();
        for rule in rules {
            if let Some(same) = before.armed.iter().find(|held| held.rule == rule) {
                armed.push(same.clone());
                continue;
            }
            let source = rule.source.clone();
            let tally = tallies.entry(source.clone()).or_insert_with(|| {
                Arc::new(Tally {
                    source,
                    ..Tally::default()
                })
            });
            armed.push(Arc::new(Armed::new(rule, tally.clone())?));
        }
        let mut scopes: HashMap<Door, Scope> = HashMap::new();
        for one in &armed {
            let scope = scopes
                .entry((one.rule.port, one.rule.outgoing))
                .or_default();
            match one.rule.target {
                Target::Request => scope.requests.push(one.clone()),
                Target::Response => scope.responses.push(one.clone()),
            }
            if !scope
                .tallies
                .iter()
                .any(|tally| Arc::ptr_eq(tally, &one.tally))
            {
                scope.tallies.push(one.tally.clone());
            }
        }
        let scopes = scopes
            .into_iter()
            .map(|(door, scope)| (door, Arc::new(scope)))
            .collect();
        Ok(Self { scopes, armed })
    }

    pub fn scope(&self, door: Door) -> Option<&Arc<Scope>> {
        self.scopes.get(&door)
    }

    /// Ports of one direction, in order.
    pub fn ports(&self, outgoing: bool) -> Vec<u16> {
        let doors = self.scopes.keys().filter(|door| door.1 == outgoing);
        let mut ports: Vec<u16> = doors.map(|door| door.0).collect();
        ports.sort_unstable();
        ports
    }

    pub fn asked(&self) -> Vec<&Rule> {
        self.armed.iter().map(|armed| &armed.rule).collect()
    }

    pub fn counters(&self) -> BTreeMap<&str, Counters> {
        let counted = |armed: &'_ Arc<Armed>| armed.tally.read();
        let armed = self.armed.iter();
        armed
            .map(|armed| (armed.rule.source.as_str(), counted(armed)))
            .collect()
    }
}

impl Scope {
    /// Counts something for every source of this port.
    pub fn count(&self, which: impl Fn(&Tally) -> &AtomicU64) {
        self.tallies.iter().for_each(|tally| add_one(which(tally)));
    }

    pub fn has_source(&self, source: &str) -> bool {
        self.tallies.iter().any(|tally| tally.source == source)
    }
}

/// What selectors look at in a request or response.
pub trait Message {
    /// With its query; empty for a response.
    fn path(&self) -> &str;
    /// Empty for a response.
    fn method(&self) -> &str;
    /// Is there a header of this name (in any case) with exactly this value?
    fn has_header(&self, name: &str, value: &str) -> bool;
}

impl Armed {
    fn new(rule: Rule, tally: Arc<Tally>) -> Result<Self, String> {
        let text = rule
            .replace
            .as_ref()
            .and_then(|replace| replace.body.as_deref());
        let body = text.map(base64::decode).transpose();
        let body = body.map_err(|reason| format!("replace.body of {}: {reason}", rule.source))?;
        Ok(Self {
            rule,
            body: body.map(Bytes::from),
            tally,
            draws: AtomicU64::new(0),
        })
    }

    /// Does it take this request, or may it take its response? Chance is not asked yet.
    pub fn fits_request(&self, request: &impl Message) -> bool {
        let rule = &self.rule;
        let path = request.path().split('?').next().unwrap_or_default();
        rule.method
            .as_deref()
            .is_none_or(|method| method.eq_ignore_ascii_case(request.method()))
            && rule
                .path
                .as_deref()
                .is_none_or(|pattern| matches(pattern, path))
            && has_all(request, &rule.request_headers)
    }

    pub fn fits_response(&self, code: u16, response: &impl Message) -> bool {
        let rule = &self.rule;
        rule.code.is_none_or(|wanted| wanted == code) && has_all(response, &rule.response_headers)
    }

    /// Draws whether it takes an exchange that fits, and counts it if so.
    pub fn takes(&self) -> bool {
        let nth = self.draws.fetch_add(1, Relaxed);
        let taken = draw(self.rule.seed, nth) < self.rule.percent / 100.0;
        if taken {
            add_one(&self.tally.matched);
        }
        taken
    }

    pub fn delay(&self) -> Option<Duration> {
        let delay = self.rule.delay_us;
        if delay == 0 {
            return None;
        }
        add_one(&self.tally.delayed);
        self.tally.delay_us_sum.fetch_add(delay, Relaxed);
        Some(Duration::from_micros(delay))
    }
}

impl Tally {
    fn read(&self) -> Counters {
        Counters {
            exchanges: self.exchanges.load(Relaxed),
            matched: self.matched.load(Relaxed),
            aborted: self.aborted.load(Relaxed),
            delayed: self.delayed.load(Relaxed),
            delay_us_sum: self.delay_us_sum.load(Relaxed),
            replaced: self.replaced.load(Relaxed),
            patched: self.patched.load(Relaxed),
            unpatchable: self.unpatchable.load(Relaxed),
            crowded: self.crowded.load(Relaxed),
            ended: self.ended.load(Relaxed),
            foreign: self.foreign.load(Relaxed),
            sealed: self.sealed.load(Relaxed),
            reset: self.reset.load(Relaxed),
        }
    }
}

fn has_all(message: &impl Message, headers: &BTreeMap<String, String>) -> bool {
    headers
        .iter()
        .all(|(name, value)| message.has_header(name, value))
}

/// Even in 0..1; the nth of a seed is always the same (SplitMix64, by its counter).
fn draw(seed: u64, nth: u64) -> f64 {
    let mut mixed = seed.wrapping_add(nth.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// Wildcards: `*` is any run of characters, `?` any one.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    // Let the last star take one more.
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::{draw, matches};

    #[test]
    fn wildcards_match_as_in_a_shell() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("/a", "/a", true),
            ("/a", "/ab", false),
            ("/a*", "/ab/c", true),
            ("/*/c", "/ab/c", true),
            ("/*/c", "/ab/c/d", false),
            ("/a?c", "/abc", true),
            ("/a?c", "/ac", false),
            ("*b*b", "abbb", true),
            ("", "/", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn draws_are_even_and_the_same_for_a_seed() {
        let hits = |seed| (0..10_000).filter(|&nth| draw(seed, nth) < 0.5).count();
        assert!((4_800..5_200).contains(&hits(7)), "{}", hits(7));
        assert_ne!(draw(7, 0), draw(8, 0));
        assert_eq!(draw(7, 3), draw(7, 3));
        assert!((0..10_000).all(|nth| draw(1, nth) < 1.0));
    }
}
