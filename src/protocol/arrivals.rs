//! Chunk frames that arrived, by sequence number, and when they are to be acknowledged.

use std::time::{Duration, Instant};

use super::{MAX_NAKS, Violation};

/// Bytes acknowledged at a time, as a part of the window.
const ACKS_PER_WINDOW: u64 = 8;
/// The same as a part of all that came so far: a sender learns the path's rate at once, and where connections are short
/// little waits when one ends.
const ACKS_SO_FAR: u64 = 32;
/// Bytes acknowledged at a time when nothing more is there to be read.
const ACK_WHEN_DRAINED: u64 = 96 * 1024;
/// The longest that a verified chunk waits for its acknowledgement.
const ACK_DELAY: Duration = Duration::from_millis(2);

/// The chunk frames that arrived on one connection: the other end of a sender's flight.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    sequence: u64,
    naks: u32,
    /// How many of them since a frame last came whole.
    naks_in_a_row: u32,
    /// Bytes since the last acknowledgement, and in all.
    bytes: u64,
    total: u64,
    acknowledge_at: Option<Instant>,
}

impl Arrivals {
    /// The next frame's sequence number.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// How many frames came damaged.
    pub(super) fn naks(&self) -> u32 {
        self.naks
    }

    /// A frame came, with `len` verified bytes. They are acknowledged when they are a good part of the window, or
    /// after a moment, or now if they are the `last`.
    pub(super) fn push(&mut self, len: u64, window: u64, last: bool, now: Instant) {
        self.sequence += 1;
        self.naks_in_a_row = 0;
        self.bytes += len;
        self.total += len;
        let enough = last || self.bytes >= (window / ACKS_PER_WINDOW).min(self.total / ACKS_SO_FAR);
        self.acknowledge_by(if enough { now } else { now + ACK_DELAY });
    }

    /// Nothing more is there to be read: the sender may have stopped for an acknowledgement.
    pub(super) fn drained(&mut self, now: Instant) {
        if self.bytes >= ACK_WHEN_DRAINED {
            self.acknowledge_by(now);
        }
    }

    /// The next frame came damaged: gives its sequence number.
    pub(super) fn refuse(&mut self, now: Instant) -> Result<u64, Violation> {
        self.naks += 1;
        self.naks_in_a_row += 1;
        if self.naks_in_a_row > MAX_NAKS {
            return Err(Violation::Damaged(self.naks_in_a_row));
        }
        let damaged = self.sequence;
        self.sequence += 1;
        self.acknowledge_by(now + ACK_DELAY);
        Ok(damaged)
    }

    /// An acknowledgement goes out at that time, or earlier.
    pub(super) fn acknowledge_by(&mut self, at: Instant) {
        self.acknowledge_at = Some(self.acknowledge_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// When an acknowledgement is due, if one is.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.acknowledge_at
    }

    /// Whether an acknowledgement is due; the next one is counted from here.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        let due = self.acknowledge_at.take_if(|at| *at <= now).is_some();
        if due {
            self.bytes = 0;
        }
        due
    }
}
