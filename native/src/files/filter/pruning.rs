//! Asks the kernel to forget files that nobody uses, where too many are known.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use super::workers::STACK;
use super::Shared;

/// Files asked about at once.
const BATCH: usize = 512;

/// Begins that in a thread of its own, if there is reason to and it has not begun.
///
/// The kernel may have to write back what is in its cache, and waits for those who serve.
pub fn consider(shared: &Arc<Shared>) {
    if !shared.nodes.is_crowded() || shared.pruning.swap(true, Ordering::SeqCst) {
        return;
    }
    let own = Arc::clone(shared);
    let builder = std::thread::Builder::new()
        .name("pruning".to_owned())
        .stack_size(STACK);
    let started = builder.spawn(move || {
        if prune(&own) {
            own.pruning.store(false, Ordering::SeqCst);
        }
    });
    if started.is_err() {
        shared.pruning.store(false, Ordering::SeqCst);
    }
}

/// False if this kernel knows of no such thing (before Linux 6.18): then all stay known.
fn prune(shared: &Shared) -> bool {
    let oldest = shared.nodes.oldest(BATCH);
    oldest.is_empty() || shared.device.prune(&oldest).is_ok()
}
