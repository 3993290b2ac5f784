//! How many files are received at a time: each takes descriptors, of which a process has only so many.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Places for files. Clones mean the same.
#[derive(Debug, Clone)]
pub(super) struct Berths(Arc<AtomicU64>);

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Berth(Berths);

impl Berths {
    /// So many places.
    pub(super) fn new(most: u64) -> Self {
        Self(Arc::new(AtomicU64::new(most)))
    }

    /// Takes a place, if one is free.
    pub(super) fn take(&self) -> Option<Berth> {
        let taken = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(1));
        taken.ok().map(|_| Berth(self.clone()))
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_once_it_is_left() {
        let berths = Berths::new(2);
        let (first, second) = (berths.take(), berths.clone().take());
        assert!(first.is_some() && second.is_some() && berths.take().is_none());
        drop(first);
        assert!(berths.take().is_some());
    }
}
