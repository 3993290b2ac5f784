//! Chunks in flight: sent and not yet acknowledged, by sequence number.

use std::collections::VecDeque;

use super::path::Stamp;
use super::{MAX_NAKS, Violation};

/// The most chunk frames in flight, whatever the window: bounds the sender's memory.
const MAX_CHUNKS: usize = 1 << 16;

/// A chunk that was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) transfer: u32,
    pub(super) offset: u64,
    pub(super) len: u64,
    /// A run of zeros: its bytes did not cross.
    pub(super) zeros: bool,
    /// Whether its acknowledgement moves the progress: true once for each byte.
    pub(super) counts: bool,
    /// It came damaged: it will be acknowledged like any other, its bytes only with their second frame.
    pub(super) is_damaged: bool,
    pub(super) stamp: Stamp,
}

impl Sent {
    /// The bytes that crossed.
    pub(super) fn crossed(&self) -> u64 {
        if self.zeros { 0 } else { self.len }
    }
}

/// What an acknowledgement covers.
#[derive(Debug)]
pub(super) struct Acknowledged {
    /// Bytes that crossed, and the largest chunk of them.
    pub(super) crossed: u64,
    pub(super) largest: u64,
    pub(super) oldest: Stamp,
    pub(super) newest: Stamp,
}

/// The chunks in flight, and those that came damaged and wait to be sent again.
#[derive(Debug, Default)]
pub(super) struct Flight {
    chunks: VecDeque<Sent>,
    bytes: u64,
    /// Sequence number of the first chunk in flight.
    first: u64,
    damaged: VecDeque<Sent>,
    /// How many chunks came damaged since one last arrived whole.
    naks_in_a_row: u32,
}

impl Flight {
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Bytes in flight.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The largest chunk in flight.
    pub(super) fn largest(&self) -> Option<u64> {
        self.chunks.iter().map(Sent::crossed).max()
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
        self.bytes += sent.crossed();
        self.chunks.push_back(sent);
    }

    /// The chunk to be sent again next.
    pub(super) fn damaged(&self) -> Option<&Sent> {
        self.damaged.front()
    }

    /// Takes the first `len` bytes of the chunk to be sent again next.
    pub(super) fn take_damaged(&mut self, len: u64) -> Option<Sent> {
        let damaged = self.damaged.front_mut()?;
        let taken = Sent { len, ..*damaged };
        damaged.offset += len;
        damaged.len -= len;
        if damaged.len == 0 {
            self.damaged.pop_front();
        }
        Some(taken)
    }

    /// Everything below `sequence` was dealt with, and each of it is handed to `each`; `None` if that was known before.
    pub(super) fn acknowledge(
        &mut self,
        sequence: u64,
        mut each: impl FnMut(&Sent),
    ) -> Result<Option<Acknowledged>, Violation> {
        if sequence < self.first || sequence > self.sequence() {
            let expected = format!("from {} to {}", self.first, self.sequence());
            return Err(Violation::field("ack.sequence", expected, sequence));
        }
        let mut all: Option<Acknowledged> = None;
        for sent in self.chunks.drain(..(sequence - self.first) as usize) {
            let crossed = sent.crossed();
            self.bytes -= crossed;
            each(&sent);
            let all = all.get_or_insert(Acknowledged {
                crossed: 0,
                largest: 0,
                oldest: sent.stamp,
                newest: sent.stamp,
            });
            all.newest = sent.stamp;
            if !sent.is_damaged {
                self.naks_in_a_row = 0;
                all.crossed += crossed;
                all.largest = all.largest.max(crossed);
            }
        }
        self.first = sequence;
        Ok(all)
    }

    /// This chunk came damaged.
    pub(super) fn refuse(&mut self, sequence: u64) -> Result<Sent, Violation> {
        let end = self.sequence();
        let at = sequence.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let Some(sent) = at.and_then(|at| self.chunks.get_mut(at)).filter(|sent| !sent.is_damaged) else {
            let expected = format!("a chunk in flight, from {} to below {end}, once", self.first);
            return Err(Violation::field("nak.sequence", expected, sequence));
        };
        self.naks_in_a_row += 1;
        if self.naks_in_a_row > MAX_NAKS {
            return Err(Violation::Damaged(self.naks_in_a_row));
        }
        self.damaged.push_back(*sent);
        sent.is_damaged = true;
        Ok(*sent)
    }
}
