//! The search for the largest frame that passes: sizes to try come out, what became of them goes in.

use super::Refusal;
use crate::protocol::{MAX_FRAME, MIN_FRAME_LIMIT};

/// How close the search comes, as a part of the size: limits are round numbers.
const PRECISION: usize = 256;
/// A frame of this size or smaller is not told apart from another.
const STEP: usize = 16;
/// How often a frame has to be refused before it is believed: the first time the connection may have ended by itself.
const REFUSALS: u32 = 2;

/// What is known so far.
#[derive(Debug, Default)]
pub(super) struct FrameSearch {
    /// The largest that passed; 0 if none has.
    passed: usize,
    /// The smallest that did not, and what became of it.
    refused: Option<(usize, Refusal)>,
    /// How often the one that is tried was refused.
    refusals: u32,
}

impl FrameSearch {
    /// How many characters the next frame has; `None` once enough is known.
    pub(super) fn next(&self) -> Option<usize> {
        let Some((refused, _)) = self.refused else {
            let next = (self.passed * 2).clamp(MIN_FRAME_LIMIT, MAX_FRAME);
            return (self.passed < MAX_FRAME).then_some(next);
        };
        let between = refused - self.passed;
        let enough = self.passed == 0 || between <= (self.passed / PRECISION).max(STEP);
        (!enough).then_some(self.passed + between / 2)
    }

    /// The frame that was tried passed.
    pub(super) fn passed(&mut self, frame: usize) {
        (self.passed, self.refusals) = (self.passed.max(frame), 0);
    }

    /// It did not.
    pub(super) fn refused(&mut self, frame: usize, why: Refusal) {
        self.refusals += 1;
        if self.refusals >= REFUSALS {
            (self.refused, self.refusals) = (Some((frame, why)), 0);
        }
    }

    /// The largest frame that passed, and the smallest that did not.
    pub(super) fn found(&self) -> (usize, Option<(usize, Refusal)>) {
        (self.passed, self.refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches on a path with this limit, on which every so-many-th connection ends by itself. Gives how many frames it
    /// took.
    fn search(limit: usize, flaky: usize) -> (FrameSearch, usize) {
        let (mut search, mut tries) = (FrameSearch::default(), 0);
        while let Some(frame) = search.next() {
            tries += 1;
            assert!(tries < 100, "{search:?}");
            if frame > limit || (flaky > 0 && tries % flaky == 0) {
                search.refused(frame, Refusal::Lost);
            } else {
                search.passed(frame);
            }
        }
        (search, tries)
    }

    #[test]
    fn the_limit_of_any_path_is_found_within_a_part_of_it() {
        for limit in [2048, 2049, 8192, 32_768, 65_535, 65_536, 1 << 20, 2_500_000, MAX_FRAME - 1] {
            for flaky in [0, 3, 7] {
                let (search, tries) = search(limit, flaky);
                let (passed, refused) = search.found();
                let (refused, why) = refused.expect("something was refused");
                assert!(passed <= limit && limit < refused, "{limit}: {search:?}");
                assert!(refused - passed <= (limit / PRECISION).max(STEP), "{limit}: {search:?}");
                assert!(tries <= 40 && why == Refusal::Lost, "{limit}: {tries} tries");
            }
        }
    }

    #[test]
    fn a_path_without_limit_takes_the_largest_and_one_that_takes_nothing_is_left_at_once() {
        let (all, tries) = search(usize::MAX, 0);
        assert_eq!((all.found(), tries), ((MAX_FRAME, None), 13));
        let (none, tries) = search(2047, 0);
        assert_eq!((none.found(), tries), ((0, Some((MIN_FRAME_LIMIT, Refusal::Lost))), 2));
    }
}
