//! How long a sender has been moving nothing, although it was its turn.

use std::time::Instant;

/// Since when a sender is idle.
///
/// An offer costs its sender nothing, and what this side does for it comes of itself: if each counted as a move, whoever
/// offers and cancels now and then would hold the names of all else for ever. So it counts once, until something moves.
#[derive(Debug)]
pub(super) struct Idle {
    since: Instant,
    /// An offer was counted, and nothing has moved behind it.
    is_excused: bool,
}

impl Idle {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, is_excused: false }
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// A transfer has moved, or there was none to be moved.
    pub(super) fn moved(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// It may be the sender's turn from here on, and that was not its own doing.
    pub(super) fn excuse(&mut self, now: Instant) {
        if !self.is_excused {
            *self = Self { since: now, is_excused: true };
        }
    }
}
