//! How far ahead of the bytes that come a file's room is set aside.
//!
//! A file that grows write by write finds its place on the disk piece by piece, and each piece waits for the one who
//! lays out what is being synced. Room that is there already costs neither, and ends in fewer fragments.

use std::ops::Range;
use std::sync::Mutex;

/// The most bytes set aside at a time.
const MOST: u64 = 256 << 20;

/// What has been set aside for a file since it was opened.
#[derive(Debug, Default)]
pub(super) struct Room(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    written: u64,
    until: u64,
}

impl Room {
    /// Told before each write, with its place and the file's size: what to set aside now, if anything.
    ///
    /// As much again as has been written, so that a peer that announces much and sends little takes little.
    pub(super) fn ahead_of(&self, write: Range<u64>, size: u64) -> Option<Range<u64>> {
        let mut state = self.0.lock().expect("nobody panics with it");
        state.written += write.end - write.start;
        if write.end <= state.until {
            return None;
        }
        state.until = (write.end + state.written.min(MOST)).min(size);
        Some(write.start..state.until)
    }

    /// Whether more was set aside than a file of this length has come to.
    pub(super) fn reaches_beyond(&self, len: u64) -> bool {
        self.0.lock().expect("nobody panics with it").until > len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn room_is_asked_for_in_few_pieces_and_never_for_more_than_was_written_once_more() {
        let (room, size) = (Room::default(), 3000 * MIB);
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
    fn a_write_far_behind_takes_no_more_than_one_at_the_start() {
        let room = Room::default();
        assert_eq!(room.ahead_of(900 * MIB..901 * MIB, 1000 * MIB), Some(900 * MIB..902 * MIB));
        assert_eq!(room.ahead_of(0..MIB, 1000 * MIB), None);
    }
}
