//! Faults on connections that nobody can look into: they hit the whole, in place of exchanges.

use super::rules::{add_one, Armed, Scope};
use super::timer;

/// Holds a sealed connection as rules ask that take every exchange of its port; says whether it is
/// to be reset.
pub async fn strikes(scope: &Scope) -> bool {
    let rules = scope.requests.iter().chain(&scope.responses);
    for armed in rules.filter(|armed| acts_unread(armed) && armed.takes()) {
        if armed.rule.abort {
            add_one(&armed.tally.aborted);
            return true;
        }
        if let Some(delay) = armed.delay() {
            timer::sleep(delay).await;
        }
    }
    false
}

/// Can it act on exchanges without knowing what is in them?
fn acts_unread(armed: &Armed) -> bool {
    (armed.rule.abort || armed.rule.delay_us > 0) && armed.rule.takes_all()
}
