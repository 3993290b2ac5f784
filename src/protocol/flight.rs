//! Chunks in flight: sent and not yet acknowledged, by sequence number.

use std::collections::VecDeque;

use super::{MAX_NAKS, Violation};

/// The most chunk frames in flight, whatever the window: bounds the sender's memory.
const MAX_CHUNKS: usize = 1 << 16;

/// A chunk that was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) offset: u64,
    pub(super) len: u32,
    /// Whether its acknowledgement moves the progress: true once for each byte.
    pub(super) counts: bool,
}

/// The chunks in flight, and those that came damaged and wait to be sent again.
#[derive(Debug, Default)]
pub(super) struct Flight {
    chunks: VecDeque<Sent>,
    bytes: u64,
    /// Sequence number of the first chunk in flight.
    first: u64,
    damaged: VecDeque<Sent>,
    naks: u32,
}

impl Flight {
    /// Nothing is in flight or waits to be sent again.
    pub(super) fn is_over(&self) -> bool {
        self.chunks.is_empty() && self.damaged.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// How many chunks came damaged.
    pub(super) fn naks(&self) -> u32 {
        self.naks
    }

    /// Whether `len` more bytes fit the window. One chunk may always be in flight, however small it is.
    pub(super) fn has_room(&self, len: u64, window: u64) -> bool {
        self.chunks.is_empty() || (self.chunks.len() < MAX_CHUNKS && self.bytes + len <= window)
    }

    /// The next sequence number.
    pub(super) fn sequence(&self) -> u64 {
        self.first + self.chunks.len() as u64
    }

    pub(super) fn push(&mut self, sent: Sent) {
        self.bytes += u64::from(sent.len);
        self.chunks.push_back(sent);
    }

    /// The chunk to be sent again next.
    pub(super) fn damaged(&self) -> Option<Sent> {
        self.damaged.front().copied()
    }

    pub(super) fn take_damaged(&mut self) -> Option<Sent> {
        self.damaged.pop_front()
    }

    /// Everything below `sequence` was dealt with; gives the bytes that count.
    pub(super) fn acknowledge(&mut self, sequence: u64) -> Result<u64, Violation> {
        if sequence < self.first || sequence > self.sequence() {
            let expected = format!("from {} to {}", self.first, self.sequence());
            return Err(Violation::field("ack.sequence", expected, sequence));
        }
        let mut counted = 0;
        for sent in self.chunks.drain(..(sequence - self.first) as usize) {
            self.bytes -= u64::from(sent.len);
            counted += if sent.counts { u64::from(sent.len) } else { 0 };
        }
        self.first = sequence;
        Ok(counted)
    }

    /// This chunk came damaged.
    pub(super) fn refuse(&mut self, sequence: u64) -> Result<(), Violation> {
        let end = self.sequence();
        let at = sequence.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let Some(sent) = at.and_then(|at| self.chunks.get_mut(at)) else {
            let expected = format!("a chunk in flight, from {} to below {end}", self.first);
            return Err(Violation::field("nak.sequence", expected, sequence));
        };
        self.naks += 1;
        if self.naks > MAX_NAKS {
            return Err(Violation::Damaged(self.naks));
        }
        self.damaged.push_back(*sent);
        // The damaged frame will be acknowledged like any other; its bytes only with their second frame.
        sent.counts = false;
        Ok(())
    }
}
