//! The file faults of one target, held by one process.

pub mod entry;
pub mod filter;
pub mod request;
