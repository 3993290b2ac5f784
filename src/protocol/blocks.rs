//! A set of block numbers, kept as runs: small for any file, since transfers fill in order.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of block numbers. Memory grows with the number of separate runs, not of blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockSet {
    /// Start to end (exclusive) of each run; runs neither touch nor overlap.
    runs: BTreeMap<u64, u64>,
}

impl BlockSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether no block is in the set.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many blocks are in the set.
    pub fn len(&self) -> u64 {
        self.runs().map(|run| run.end - run.start).sum()
    }

    /// The runs in ascending order.
    pub fn runs(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.runs.iter().map(|(&start, &end)| start..end)
    }

    /// The run that holds `block`.
    pub fn run_of(&self, block: u64) -> Option<Range<u64>> {
        let (&start, &end) = self.runs.range(..=block).next_back()?;
        (block < end).then_some(start..end)
    }

    /// Whether `block` is in the set.
    pub fn contains(&self, block: u64) -> bool {
        self.run_of(block).is_some()
    }

    /// The lowest block of the set.
    pub fn first(&self) -> Option<u64> {
        self.runs.first_key_value().map(|(&start, _)| start)
    }

    /// Takes the lowest block out of the set.
    pub fn pop_first(&mut self) -> Option<u64> {
        let (start, end) = self.runs.pop_first()?;
        if start + 1 < end {
            self.runs.insert(start + 1, end);
        }
        Some(start)
    }

    /// What of a run is in the set.
    pub fn within(&self, run: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first = self.run_of(run.start).map_or(run.start, |first| first.start);
        let overlapping = self.runs.range(first..run.end);
        overlapping.map(move |(&start, &end)| start.max(run.start)..end.min(run.end))
    }

    /// Adds a run of blocks.
    pub fn insert_run(&mut self, run: Range<u64>) {
        if run.is_empty() {
            return;
        }
        let Range { mut start, mut end } = run;
        // Swallow every run that overlaps or touches start..end.
        while let Some((&s, &e)) = self.runs.range(..=end).next_back() {
            if e < start {
                break;
            }
            self.runs.remove(&s);
            start = start.min(s);
            end = end.max(e);
        }
        self.runs.insert(start, end);
    }

    /// Adds one block.
    pub fn insert(&mut self, block: u64) {
        self.insert_run(block..block + 1);
    }

    /// Takes one block out; says whether it was in.
    pub fn remove(&mut self, block: u64) -> bool {
        let Some(run) = self.run_of(block) else {
            return false;
        };
        self.runs.remove(&run.start);
        if run.start < block {
            self.runs.insert(run.start, block);
        }
        if block + 1 < run.end {
            self.runs.insert(block + 1, run.end);
        }
        true
    }

    /// The blocks of `0..end` that are not in the set.
    pub fn missing_below(&self, end: u64) -> BlockSet {
        let mut missing = BlockSet::new();
        let mut next = 0;
        for run in self.runs() {
            missing.insert_run(next..run.start.min(end));
            next = run.end;
        }
        missing.insert_run(next..end);
        missing
    }
}

impl FromIterator<Range<u64>> for BlockSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(runs: I) -> Self {
        let mut set = Self::new();
        for run in runs {
            set.insert_run(run);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_agrees_with_an_ordinary_set(ops in prop::collection::vec((0u8..4, 0u64..40, 0u64..12), 0..80)) {
            let mut set = BlockSet::new();
            let mut oracle = BTreeSet::new();
            for (op, at, len) in ops {
                match op {
                    0 => { set.insert_run(at..at + len); oracle.extend(at..at + len); }
                    1 => { set.insert(at); oracle.insert(at); }
                    2 => prop_assert_eq!(set.remove(at), oracle.remove(&at)),
                    _ => prop_assert_eq!(set.pop_first(), oracle.pop_first()),
                }
                prop_assert_eq!(set.runs().flatten().collect::<Vec<_>>(), oracle.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(set.len(), oracle.len() as u64);
                prop_assert_eq!(set.first(), oracle.first().copied());
                // Canonical: runs are separate.
                let runs: Vec<_> = set.runs().collect();
                prop_assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start));
                let missing: Vec<_> = set.missing_below(45).runs().flatten().collect();
                prop_assert_eq!(missing, (0..45).filter(|b| !oracle.contains(b)).collect::<Vec<_>>());
                prop_assert_eq!(set.contains(at), oracle.contains(&at));
                let within: Vec<_> = set.within(at..at + len).flatten().collect();
                prop_assert_eq!(within, oracle.range(at..at + len).copied().collect::<Vec<_>>());
            }
        }
    }
}
