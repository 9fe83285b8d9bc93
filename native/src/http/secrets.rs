//! Keys, in memory only.

/// What TLS connections are opened with.
#[derive(Default)]
pub struct Secrets {}
