//! Names that are being written by this process, and how much room their files may still need.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Names that are taken.
#[derive(Debug, Default)]
pub(super) struct Claims {
    names: Mutex<HashSet<String>>,
    /// Those of them that have a partial file, or are about to.
    partials: Mutex<HashSet<String>>,
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

    fn partials(&self) -> MutexGuard<'_, HashSet<String>> {
        self.partials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self) -> MutexGuard<'_, HashSet<String>> {
        // Each change is a single call: a panic elsewhere leaves nothing half done.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// This name gets a partial file, unless there are `most` already: those that `there` names, and those that are about
    /// to be made. Whether it does, or has one.
    pub(super) fn begin_partial(&self, there: &HashSet<String>, most: u64) -> bool {
        let mut partials = self.claims.partials();
        let count = partials.union(there).count() as u64;
        let begins = count < most || there.contains(&self.name);
        if begins {
            partials.insert(self.name.clone());
        }
        begins
    }

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
        self.claims.partials().remove(&self.name);
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

    #[test]
    fn partial_files_are_counted_once_whether_they_are_there_or_about_to_be_made() {
        let claims = Arc::<Claims>::default();
        let [a, b, c] = ["a", "b", "c"].map(|name| claims.take(name).unwrap());
        let there = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<HashSet<_>>();
        assert!(a.begin_partial(&there(&["x"]), 2));
        assert!(!b.begin_partial(&there(&["x"]), 2));
        assert!(!b.begin_partial(&there(&["x", "a"]), 2), "made meanwhile, and counted once");
        assert!(b.begin_partial(&there(&["x", "b"]), 2), "one that is there goes on");
        drop(a);
        assert!(!c.begin_partial(&there(&["x"]), 2));
        drop(b);
        assert!(c.begin_partial(&there(&["x"]), 2));
    }
}
