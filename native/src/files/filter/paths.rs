//! By which names, and so by which paths, files are known.

use std::ffi::CStr;
use std::sync::atomic::Ordering;

use super::abi::ROOT_ID;
use super::nodes::{lock, Node, Nodes, State};

/// Names kept of one file.
const NAMES: usize = 16;

impl Nodes {
    /// Notes a name; true if the node had others that it has lost.
    pub fn named(&self, state: &mut State, parent: u64, name: &[u8], alone: bool) -> bool {
        let is = |(dir, known): &(u64, Box<[u8]>)| *dir == parent && **known == *name;
        if state.names.iter().any(is) && (!alone || state.names.len() == 1) {
            state.nameless = false;
            return false;
        }
        let others = !state.names.is_empty();
        if alone || state.nameless {
            state.names.clear();
        } else if state.names.len() == NAMES {
            state.names.remove(0);
        }
        state.nameless = false;
        state.names.push((parent, name.into()));
        state.verdict = None;
        others
    }

    /// Notes that a name has gone, and whether another one has come.
    pub fn renamed(&self, node: &Node, parent: u64, name: &CStr, to: Option<(u64, &CStr)>) {
        let mut state = lock(&node.state);
        let is = |(dir, known): &(u64, Box<[u8]>)| *dir == parent && **known == *name.to_bytes();
        if let Some(at) = state.names.iter().position(is) {
            if state.names.len() > 1 || to.is_some() {
                state.names.remove(at);
            } else {
                state.nameless = true;
            }
        }
        if let Some((parent, name)) = to {
            self.named(&mut state, parent, name.to_bytes(), false);
        }
        state.verdict = None;
        if node.is_dir {
            self.tree.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Paths below the root by which the node is known; of the root, the empty one.
    pub fn paths(&self, node: &Node) -> Vec<Vec<u8>> {
        let names = lock(&node.state).names.clone();
        if node.id == ROOT_ID {
            return vec![Vec::new()];
        }
        names
            .iter()
            .filter_map(|(parent, name)| self.path_in(*parent, name))
            .collect()
    }

    /// Path of a name in a directory.
    pub fn path_in(&self, parent: u64, name: &[u8]) -> Option<Vec<u8>> {
        let mut parts = vec![name.to_vec()];
        let mut at = parent;
        while at != ROOT_ID {
            if parts.len() > 1000 {
                return None; // two renames by others may have left a circle
            }
            let node = self.get(at).ok()?;
            let state = lock(&node.state);
            let (parent, name) = state.names.last()?;
            parts.push(name.to_vec());
            at = *parent;
        }
        parts.reverse();
        Some(parts.join(&b'/'))
    }
}
