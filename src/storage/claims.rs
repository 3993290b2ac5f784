//! Names that are being written by this process, and how much room their files may still need.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Names that are taken.
#[derive(Debug, Default)]
pub(super) struct Claims {
    names: Mutex<HashSet<String>>,
    /// Bytes that are expected to come, of all of them together.
    expected: AtomicU64,
}

/// A name that is ours until this is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    claims: Arc<Claims>,
    name: String,
    /// Bytes that are expected to come.
    expected: AtomicU64,
}

impl Claims {
    /// Takes a name; `None` if it is taken. Nobody waits.
    pub(super) fn take(self: &Arc<Self>, name: &str) -> Option<Claim> {
        let name = name.to_owned();
        let is_free = self.names().insert(name.clone());
        is_free.then(|| Claim { claims: self.clone(), name, expected: AtomicU64::default() })
    }

    fn names(&self) -> MutexGuard<'_, HashSet<String>> {
        // Each change is a single call: a panic elsewhere leaves nothing half done.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Bytes that the other names' files are expected to take.
    pub(super) fn expected_by_others(&self) -> u64 {
        let own = self.expected.load(Ordering::Relaxed);
        self.claims.expected.load(Ordering::Relaxed).saturating_sub(own)
    }

    /// Tells how much this file has come to and what it lacks: as much as has come is believed to follow, so that who
    /// announces much and sends little keeps nobody out.
    pub(super) fn expect(&self, come: u64, lacking: u64) {
        let expected = come.min(lacking);
        let before = self.expected.swap(expected, Ordering::Relaxed);
        // Wraps around where it is less, as an atomic addition does.
        self.claims.expected.fetch_add(expected.wrapping_sub(before), Ordering::Relaxed);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.expect(0, 0);
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
