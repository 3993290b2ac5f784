//! Names that are being written by this process, and how much room their files may still need.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Names that are taken.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<HashMap<String, Arc<AtomicU64>>>);

/// A name that is ours until this is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    claims: Arc<Claims>,
    name: String,
    /// Bytes that are expected to come.
    expected: Arc<AtomicU64>,
}

impl Claims {
    /// Takes a name; `None` if it is taken. Nobody waits.
    pub(super) fn take(self: &Arc<Self>, name: &str) -> Option<Claim> {
        let mut names = self.names();
        if names.contains_key(name) {
            return None;
        }
        let expected = Arc::<AtomicU64>::default();
        names.insert(name.to_owned(), expected.clone());
        Some(Claim { claims: self.clone(), name: name.to_owned(), expected })
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, Arc<AtomicU64>>> {
        // Each change is a single call: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Bytes that the other names' files are expected to take.
    pub(super) fn expected_by_others(&self) -> u64 {
        let names = self.claims.names();
        let others = names.values().filter(|expected| !Arc::ptr_eq(expected, &self.expected));
        others.map(|expected| expected.load(Ordering::Relaxed)).sum()
    }

    /// Tells how much this file has come to and what it lacks: as much as has come is believed to follow, so that who
    /// announces much and sends little keeps nobody out.
    pub(super) fn expect(&self, come: u64, lacking: u64) {
        self.expected.store(come.min(lacking), Ordering::Relaxed);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.names().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_once_and_free_when_it_is_dropped() {
        let claims = Arc::<Claims>::default();
        let claim = claims.take("a").unwrap();
        assert!(claims.take("a").is_none());
        let other = claims.take("b").unwrap();
        claim.expect(10, 100);
        other.expect(70, 50);
        assert_eq!((claim.expected_by_others(), other.expected_by_others()), (50, 10));
        drop(claim);
        assert_eq!(other.expected_by_others(), 0);
        assert!(claims.take("a").is_some());
    }
}
