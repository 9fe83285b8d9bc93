//! Which requests are hit, by what, and how often that was.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::device::Errno;
use super::glob::Glob;
use super::methods::{Method, Methods};
use super::space::Budget;
use crate::files::request::{Counters, Rule, Volume};
use crate::packets::random::Random;
use crate::rpc::Refusal;

/// Rules of one volume at most: as many as fit a mask.
const MOST: usize = 64;

/// The rules of one volume; they may be replaced while requests are served.
pub struct Rules(RwLock<Arc<Compiled>>);

/// Rules of one moment.
pub struct Compiled {
    /// Tells them from those before.
    pub generation: u64,
    /// Path of the volume, without a slash at its end.
    prefix: String,
    pub rules: Vec<CompiledRule>,
    methods: Methods,
}

/// One rule, ready to be asked.
pub struct CompiledRule {
    pub rule: Rule,
    pub counted: Arc<Counted>,
    pub budget: Option<Arc<Budget>>,
    glob: Glob,
    methods: Methods,
    /// Draws of a u32 below this one hit.
    threshold: u64,
}

/// Counters, as requests change them.
#[derive(Default)]
pub struct Counted {
    pub matched: AtomicU64,
    pub delayed: AtomicU64,
    pub delay_us_sum: AtomicU64,
    pub failed: AtomicU64,
    pub overridden: AtomicU64,
    pub mistaken: AtomicU64,
    pub lost_bytes: AtomicU64,
}

pub fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

impl Counted {
    fn read(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            matched: read(&self.matched),
            delayed: read(&self.delayed),
            delay_us_sum: read(&self.delay_us_sum),
            failed: read(&self.failed),
            overridden: read(&self.overridden),
            mistaken: read(&self.mistaken),
            lost_bytes: read(&self.lost_bytes),
        }
    }
}

impl Rules {
    pub fn new(volume: &Volume) -> Result<Self, Refusal> {
        let compiled = Compiled::new(volume, 1, None)?;
        Ok(Self(RwLock::new(Arc::new(compiled))))
    }

    /// Puts others in their place; rules that stay keep their counters and what they have used.
    pub fn replace(&self, volume: &Volume) -> Result<(), Refusal> {
        let now = self.now();
        if now.is(volume) {
            return Ok(());
        }
        let next = Arc::new(Compiled::new(volume, now.generation + 1, Some(&now))?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// Those in force.
    pub fn now(&self) -> Arc<Compiled> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What each source did so far.
    pub fn counters(&self) -> BTreeMap<String, Counters> {
        let now = self.now();
        let of = |one: &CompiledRule| (one.rule.source.clone(), one.counted.read());
        now.rules.iter().map(of).collect() // rules of one source share their counters
    }
}

impl Compiled {
    fn new(volume: &Volume, generation: u64, before: Option<&Self>) -> Result<Self, Refusal> {
        if volume.rules.len() > MOST {
            return Err(Refusal::invalid(format!(
                "{}: more than {MOST} rules",
                volume.path
            )));
        }
        let mut methods = Methods::NONE;
        let mut rules: Vec<CompiledRule> = Vec::new();
        for rule in &volume.rules {
            let invalid =
                |error: &str| Refusal::invalid(format!("rule of {}: {error}", rule.source));
            let old = || before.iter().flat_map(|before| &before.rules).chain(&rules);
            let same_source = old().find(|old| old.rule.source == rule.source);
            let same_rule = old().find(|old| old.rule == *rule);
            let own = Methods::named(&rule.methods).map_err(|error| invalid(&error))?;
            let ready = CompiledRule {
                rule: rule.clone(),
                counted: same_source
                    .map(|old| Arc::clone(&old.counted))
                    .unwrap_or_default(),
                budget: match same_rule {
                    Some(old) => old.budget.clone(),
                    None => rule.space.map(|bytes| Arc::new(Budget::new(bytes))),
                },
                glob: Glob::new(&rule.path).map_err(invalid)?,
                methods: own,
                threshold: (rule.percent.0 / 100.0 * 4_294_967_296.0) as u64,
            };
            methods = methods.or(ready.needs());
            rules.push(ready);
        }
        let prefix = volume.path.trim_end_matches('/').to_owned();
        Ok(Self {
            generation,
            prefix,
            rules,
            methods,
        })
    }

    fn is(&self, volume: &Volume) -> bool {
        self.prefix == volume.path.trim_end_matches('/')
            && self.rules.iter().map(|one| &one.rule).eq(&volume.rules)
    }

    /// May a request of this kind be hit at all?
    pub fn concerns(&self, method: Method) -> bool {
        self.methods.has(method)
    }

    /// The rules that fit a path below the volume's, one bit each.
    pub fn fitting(&self, path: &[u8]) -> u64 {
        let mut whole = self.prefix.clone().into_bytes();
        if !path.is_empty() {
            whole.push(b'/');
            whole.extend_from_slice(path);
        }
        let fits = |one: &CompiledRule| {
            let below = one.rule.below.trim_end_matches('/').as_bytes();
            let inside = whole.strip_prefix(below);
            inside.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
                && one.glob.matches(&whole)
        };
        let bits = self.rules.iter().enumerate();
        bits.fold(0, |mask, (at, one)| mask | u64::from(fits(one)) << at)
    }

    /// Those of `mask` of which something is true.
    pub fn those(&self, mask: u64) -> impl Iterator<Item = &CompiledRule> {
        let in_mask = move |at: &usize| mask & 1 << at != 0;
        let rules = self.rules.iter().enumerate();
        rules.filter(move |(at, _)| in_mask(at)).map(|(_, one)| one)
    }

    /// Does one of them want to see every read and write? Else the kernel may serve the file.
    pub fn need_data(&self, mask: u64) -> bool {
        self.those(mask).any(CompiledRule::needs_data)
    }

    /// Does one of them keep account of what is written?
    pub fn keep_account(&self, mask: u64) -> bool {
        self.those(mask)
            .any(|one| one.budget.is_some() || one.rule.power_loss)
    }

    /// The same of any file; cheaper than to ask for one.
    pub fn keep_any_account(&self) -> bool {
        self.keep_account(u64::MAX)
    }

    /// Throws the dice for a request, and counts it.
    pub fn decide(self: &Arc<Self>, method: Method, mask: u64, random: &mut Random) -> Decision {
        let mut decision = Decision::default();
        for (at, one) in self.rules.iter().enumerate() {
            if mask & 1 << at == 0 || !one.methods.has(method) {
                continue;
            }
            if decision.errno.is_some() && one.rule.latency_us == 0 {
                continue; // the request will not get so far
            }
            if one.threshold == 0 {
                continue; // it rests while open files are moved
            }
            count(&one.counted.matched, 1);
            if u64::from(random.draw()) >= one.threshold {
                continue;
            }
            decision.hit |= 1 << at;
            if one.rule.latency_us > 0 {
                decision.delay += Duration::from_micros(one.rule.latency_us);
                count(&one.counted.delayed, 1);
                count(&one.counted.delay_us_sum, one.rule.latency_us);
            }
            if one.rule.errno > 0 && decision.errno.is_none() {
                count(&one.counted.failed, 1);
                decision.errno = Some(one.rule.errno);
            }
        }
        if decision.hit != 0 {
            decision.rules = Some(Arc::clone(self));
        }
        decision
    }
}

impl CompiledRule {
    fn needs_data(&self) -> bool {
        let acts = self.rule.latency_us > 0 || self.rule.errno > 0 || self.rule.mistake.is_some();
        let moves = self.methods.has(Method::Read) || self.methods.has(Method::Write);
        acts && moves || self.budget.is_some() || self.rule.power_loss
    }

    /// Requests at which it has to be asked.
    fn needs(&self) -> Methods {
        self.methods
    }
}

/// What happens to one request.
#[derive(Default)]
pub struct Decision {
    pub delay: Duration,
    pub errno: Option<Errno>,
    rules: Option<Arc<Compiled>>,
    hit: u64,
}

impl Decision {
    /// Of the rules that decided; 0: none hit.
    pub fn generation(&self) -> u64 {
        self.rules.as_ref().map_or(0, |rules| rules.generation)
    }

    /// Counts that it was held for longer than asked.
    pub fn waited_longer(&self, by: Duration) {
        if let Some(one) = self.hits().find(|one| one.rule.latency_us > 0) {
            count(&one.counted.delay_us_sum, by.as_micros() as u64);
        }
    }

    /// Takes out what rules do that are not in force any more; returns how much less it waits.
    pub fn spare(&mut self, now: &Compiled) -> Duration {
        let Some(rules) = self.rules.clone() else {
            return Duration::ZERO;
        };
        let mut spared = Duration::ZERO;
        for (at, one) in rules.rules.iter().enumerate() {
            let stays = || now.rules.iter().any(|other| other.rule == one.rule);
            if self.hit & 1 << at != 0 && !stays() {
                self.hit &= !(1 << at);
                spared += Duration::from_micros(one.rule.latency_us);
                if one.rule.errno > 0 {
                    self.errno = None;
                }
            }
        }
        self.delay = self.delay.saturating_sub(spared);
        spared
    }

    /// The rules that hit it.
    pub fn hits(&self) -> impl Iterator<Item = &CompiledRule> {
        let rules = self.rules.as_deref();
        rules.into_iter().flat_map(|rules| rules.those(self.hit))
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
