//! How far ahead of the bytes that come a file's room is set aside.
//!
//! A file that grows write by write finds its place on the disk piece by piece, and each piece waits for the one who
//! lays out what is being synced. Room that is there already costs neither, and ends in fewer fragments.
//!
//! Room is set aside only behind what is there without a gap from the file's beginning, and never more than came there:
//! a sender that announces much and sends little, here and there, takes little.

use std::ops::Range;

use crate::protocol::{BLOCK, BlockSet};

/// The most bytes set aside at a time.
const MOST: u64 = 256 << 20;

/// What has been set aside for a file since it was opened.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Blocks that were there before.
    held: BlockSet,
    /// Everything before this offset is there.
    contiguous: u64,
    /// Bytes that came there.
    earned: u64,
    until: u64,
}

impl Room {
    /// Of a file that holds these blocks.
    pub(super) fn new(held: BlockSet) -> Self {
        let mut room = Self { held, ..Self::default() };
        room.skip_held();
        room
    }

    /// Told before each write, with its place and the file's size: what to set aside now, if anything.
    pub(super) fn ahead_of(&mut self, write: Range<u64>, size: u64) -> Option<Range<u64>> {
        if write.start > self.contiguous || write.end <= self.contiguous {
            return None;
        }
        self.earned += write.end - self.contiguous;
        self.contiguous = write.end;
        self.skip_held();
        if write.end <= self.until {
            return None;
        }
        self.until = (write.end + self.earned.min(MOST)).min(size);
        Some(write.start..self.until)
    }

    /// Whether more was set aside than a file of this length has come to.
    pub(super) fn reaches_beyond(&self, len: u64) -> bool {
        self.until > len
    }

    fn skip_held(&mut self) {
        if self.contiguous.is_multiple_of(BLOCK)
            && let Some(run) = self.held.run_of(self.contiguous / BLOCK)
        {
            self.contiguous = run.end * BLOCK;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn room_is_asked_for_in_few_pieces_and_never_for_more_than_was_written_once_more() {
        let (mut room, size) = (Room::default(), 3000 * MIB);
        let (mut asked, mut until) = (0, 0);
        for at in (0..size).step_by(MIB as usize) {
            if let Some(range) = room.ahead_of(at..at + MIB, size) {
                assert_eq!(range.start, at.max(until), "nothing is asked for twice, nothing is left out");
                assert!(range.end <= size && range.end - at <= (at + 2 * MIB).min(MOST + MIB), "{range:?}");
                (asked, until) = (asked + 1, range.end);
            }
            assert!(until > at);
        }
        assert_eq!(until, size);
        assert!(asked < 22, "{asked} pieces");
    }

    #[test]
    fn writes_here_and_there_set_nothing_aside() {
        let mut room = Room::default();
        assert_eq!(room.ahead_of(0..16 * MIB, 1000 * MIB), Some(0..32 * MIB));
        for at in 1..62 {
            assert_eq!(
                room.ahead_of(at * 16 * MIB..at * 16 * MIB + 3, 1000 * MIB),
                None,
                "only behind no gap"
            );
        }
        assert_eq!(room.ahead_of(8 * MIB..9 * MIB, 1000 * MIB), None, "what comes again earns nothing");
        assert!(room.reaches_beyond(31 * MIB) && !room.reaches_beyond(32 * MIB));
    }

    #[test]
    fn blocks_that_are_held_leave_no_gap() {
        let mut room = Room::new([0..2, 3..5].into_iter().collect());
        assert_eq!(room.ahead_of(2 * BLOCK..2 * BLOCK + 3, 9 * BLOCK), Some(2 * BLOCK..2 * BLOCK + 6));
        assert_eq!(room.ahead_of(2 * BLOCK + 3..3 * BLOCK, 9 * BLOCK).unwrap().end, 4 * BLOCK);
        let behind = room.ahead_of(5 * BLOCK..5 * BLOCK + 3, 9 * BLOCK);
        assert_eq!(behind, Some(5 * BLOCK..6 * BLOCK + 6));
    }
}
