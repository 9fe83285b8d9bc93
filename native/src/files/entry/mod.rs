//! The way of a filter into a running container, and out of it.

pub mod attach;
mod away;
mod below;
mod binds;
mod carry_out;
mod descriptions;
mod detached;
mod group;
pub mod instead;
mod locks;
mod mappings;
mod moves;
pub mod passage;
pub mod place;
mod places;
mod plan;
pub mod repoint;
pub mod restore;
pub mod scan;
pub mod service;
#[cfg(test)]
mod target;
#[cfg(test)]
mod tests;
