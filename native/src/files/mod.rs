//! The file faults of one target, held by one process.

pub mod filter;
pub mod request;
