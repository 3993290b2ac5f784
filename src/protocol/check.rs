//! The comparison of what the receiver held, behind the transfer: blocks to hash, and digests to compare with.

use std::collections::VecDeque;
use std::ops::Range;

use super::Violation;
use super::blocks::BlockSet;
use super::digest::BlockDigest;
use super::message::{self, digests_from_text};

/// The most digests asked for at a time: while a sender hashes that many blocks it asks for nothing, and is not to be
/// taken for one that only gives signs of life.
const PAGE: u64 = 64;

/// Held blocks that are still to be compared, and others whose hashes alone are needed.
#[derive(Debug, Default)]
pub(super) struct Check {
    /// Not yet hashed, and not to be compared: they do not cross, or the whole digests are compared instead.
    alone: BlockSet,
    /// Not yet hashed, and to be compared.
    unchecked: BlockSet,
    /// Being hashed by the caller, and whether to be compared.
    current: Option<(u64, bool)>,
    /// Sent again in any case: their hashes are needed, and no comparison.
    repaired: BlockSet,
    /// The receiver's digests from `page_first` on, as far as they were asked for.
    page: VecDeque<BlockDigest>,
    page_first: u64,
    /// Digests that were asked for and have not come: the first block's number, and how many.
    asked: Option<(u64, u64)>,
}

/// What the comparison needs next.
pub(super) enum Need {
    /// Nothing, or something that is on its way.
    Nothing,
    /// The receiver's digests.
    Digests { first: u64, count: u64 },
    /// This block's hashes.
    Hashes(u64),
}

impl Check {
    /// Adds a block, or many, whose hashes are needed.
    pub(super) fn hash(&mut self, run: Range<u64>) {
        self.alone.insert_run(run);
    }

    /// Adds held blocks to be compared.
    pub(super) fn add(&mut self, run: Range<u64>) {
        self.unchecked.insert_run(run);
    }

    /// The first block that is still to be hashed.
    pub(super) fn first(&self) -> Option<u64> {
        let current = self.current.map(|(block, _)| block);
        [self.alone.first(), self.unchecked.first(), current].into_iter().flatten().min()
    }

    pub(super) fn is_over(&self) -> bool {
        self.unchecked.is_empty() && self.alone.is_empty() && self.current.is_none()
    }

    /// Whether digests were asked for and have not come.
    pub(super) fn waits(&self) -> bool {
        self.asked.is_some()
    }

    /// Whether this block's hashes will come, or are coming, from here.
    pub(super) fn has(&self, block: u64) -> bool {
        self.unchecked.contains(block)
            || self.alone.contains(block)
            || self.current.is_some_and(|(current, _)| current == block)
    }

    pub(super) fn next(&mut self, frame_limit: u64) -> Need {
        if self.current.is_some() {
            return Need::Nothing;
        }
        if let Some(block) = self.unchecked.first() {
            while !self.page.is_empty() && self.page_first < block {
                self.page.pop_front();
                self.page_first += 1;
            }
            if !self.page.is_empty() && self.page_first == block {
                self.unchecked.remove(block);
                self.current = Some((block, true));
                return Need::Hashes(block);
            }
            if self.asked.is_none() {
                return self.ask(block, frame_limit);
            }
        }
        let Some(block) = self.alone.pop_first() else { return Need::Nothing };
        self.current = Some((block, false));
        Need::Hashes(block)
    }

    /// The receiver asked for these blocks.
    pub(super) fn repair(&mut self, run: Range<u64>) {
        self.repaired.insert_run(run);
    }

    /// The digest of the block that [`next`](Self::next) named; whether the receiver holds it, or will.
    pub(super) fn compare(&mut self, block: u64, digest: BlockDigest) -> bool {
        let (current, compare) = self.current.take().expect("a block was named");
        assert_eq!(current, block, "the block that was named");
        !compare || self.repaired.contains(block) || self.page.front() == Some(&digest)
    }

    /// Takes the digests that were asked for.
    pub(super) fn handle_digests(&mut self, first: u64, digests: &str) -> Result<(), Violation> {
        let digests = digests_from_text(digests)?;
        // Others may be to be compared by now, and come before those.
        let is_asked = |(asked, count)| asked == first && digests.len() as u64 <= count;
        if !self.asked.is_some_and(is_asked) {
            let expected = |(first, count)| format!("at most {count} from block {first}");
            let expected = self.asked.map_or("none".to_owned(), expected);
            return Err(Violation::field(
                "digests",
                expected,
                format!("{} from block {first}", digests.len()),
            ));
        }
        self.asked = None;
        self.page_first = first;
        self.page = digests.into();
        Ok(())
    }

    fn ask(&mut self, first: u64, frame_limit: u64) -> Need {
        self.page.clear();
        let count = self.room(first).min(message::digests_per_page(frame_limit)).min(PAGE);
        self.asked = Some((first, count));
        Need::Digests { first, count }
    }

    /// How many blocks from `first` on are to be compared in one run.
    fn room(&self, first: u64) -> u64 {
        self.unchecked.run_of(first).map_or(0, |run| run.end - first)
    }
}
