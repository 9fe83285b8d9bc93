//! One sentence about what went wrong, for whoever started this process.

use std::fmt::{Debug, Display, Formatter};

/// Ends a subcommand; printed on standard error.
pub struct Failure {
    pub message: String,
    /// Exit status: 127 no such program, 126 not executable, 1 anything else.
    pub status: i32,
}

pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            status: 1,
        }
    }
}

impl Debug for Failure {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.message)
    }
}

/// Says what was being done when an error came up.
pub trait While<T> {
    fn on(self, doing: &str) -> Outcome<T>;
}

impl<T, E: Display> While<T> for Result<T, E> {
    fn on(self, doing: &str) -> Outcome<T> {
        self.map_err(|error| Failure::new(format!("{doing}: {error}")))
    }
}
