//! What the agent asks for, as types; `squall.linux.name_faults` is the other end.

use std::net::IpAddr;

use serde::Deserialize;

use crate::rpc::Refusal;

/// Make exactly this be in force.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Set {
    /// Oldest first.
    pub rules: Vec<Rule>,
    /// Seconds to hold on after the connection is gone.
    pub lease: f64,
    /// Seconds of boot time at which all ends.
    pub deadline: Option<f64>,
}

/// What happens to the queries that fit.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub source: String,
    /// Whom it was asked for; told again, and nothing more.
    #[serde(rename = "for")]
    pub target: String,
    /// Names with wildcards; empty: every name.
    pub patterns: Vec<String>,
    /// Numbers of record types; empty: every type.
    pub types: Vec<u16>,
    /// Of the queries that fit, how many are hit.
    pub percent: f64,
    /// Start of all draws: with the same one, the same look-ups are hit, counted from the first.
    pub seed: Option<u64>,
    pub answer: Answer,
    pub delay_us: u64,
    pub jitter_us: u64,
}

/// What is answered to a query that is hit.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// What the server says.
    Relayed,
    /// Nothing, ever.
    Nothing,
    /// A response code without a record.
    Code { code: u8 },
    /// Ask again by TCP; over TCP, what the server says.
    Truncated,
    /// These addresses; none: a random one each time. To other types, what the server says.
    Addresses { addresses: Vec<IpAddr> },
}

impl Set {
    /// Refuses what the types allow but nobody can mean.
    pub fn check(&self) -> Result<(), Refusal> {
        for rule in &self.rules {
            let source = &rule.source;
            if !(0.0..=100.0).contains(&rule.percent) {
                let percent = rule.percent;
                return Err(Refusal::invalid(format!("{source}: {percent} percent")));
            }
            if let Answer::Code { code } = rule.answer {
                if code > 15 {
                    return Err(Refusal::invalid(format!("{source}: code {code}")));
                }
            }
        }
        Ok(())
    }
}
