//! Blocks on their way to the journal: what waits for a sync, what is being synced, what is durable.

use std::time::{Duration, Instant};

use super::blocks::BlockSet;
use super::digest::BlockHashes;
use super::geometry::Geometry;

/// Blocks on their way to the journal.
#[derive(Debug, Default)]
pub(super) struct Syncing {
    waiting: Vec<(u64, BlockHashes)>,
    waiting_since: Option<Instant>,
    /// One sync is under way at a time, so that the journal's entries are written in order.
    busy: bool,
    /// What it makes durable, unless it is begun again meanwhile.
    under_way: Vec<u64>,
    /// In the journal.
    durable: BlockSet,
    /// What becomes whole is kept for the end: there is no journal before that.
    is_small: bool,
}

impl Syncing {
    /// Nothing waits; these blocks are in the journal already. A file `is_small` whose blocks are not journaled before it ends.
    pub(super) fn new(durable: BlockSet, is_small: bool) -> Self {
        Self { durable, is_small, ..Self::default() }
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_small || (self.waiting.is_empty() && !self.busy)
    }

    /// The hashes of a small file, if it was hashed as it came.
    pub(super) fn kept(&self) -> Option<BlockHashes> {
        self.waiting.first().filter(|_| self.is_small).map(|(_, hashes)| *hashes)
    }

    /// When a sync is due, if one is.
    pub(super) fn due_at(&self, interval: Duration) -> Option<Instant> {
        self.waiting_since.map(|since| since + interval)
    }

    /// The run of durable blocks from `block` on.
    pub(super) fn durable_run(&self, block: u64) -> Option<std::ops::Range<u64>> {
        self.durable.run_of(block)
    }

    /// A block is whole.
    pub(super) fn push(&mut self, block: u64, hashes: BlockHashes, now: Instant) {
        self.waiting.push((block, hashes));
        if !self.is_small {
            self.waiting_since.get_or_insert(now);
        }
    }

    /// A block was begun again, or turned out not to be what it was.
    pub(super) fn forget(&mut self, block: u64) {
        self.durable.remove(block);
        self.waiting.retain(|&(waiting, _)| waiting != block);
        self.under_way.retain(|&under_way| under_way != block);
    }

    /// The blocks to sync now, if the time or their bytes call for it, or `at_once`.
    pub(super) fn take_due(
        &mut self,
        geometry: Geometry,
        limits: (u64, Duration),
        at_once: bool,
        now: Instant,
    ) -> Option<Vec<(u64, BlockHashes)>> {
        let since = self.waiting_since?;
        if self.busy {
            return None;
        }
        let bytes: u64 = self.waiting.iter().map(|&(block, _)| geometry.block_len(block)).sum();
        let (enough, interval) = limits;
        if !at_once && bytes < enough && now.saturating_duration_since(since) < interval {
            return None;
        }
        let blocks = self.take_waiting();
        self.under_way = blocks.iter().map(|&(block, _)| block).collect();
        self.busy = !blocks.is_empty();
        self.busy.then_some(blocks)
    }

    /// What waits, without starting a sync.
    pub(super) fn take_waiting(&mut self) -> Vec<(u64, BlockHashes)> {
        self.waiting_since = None;
        std::mem::take(&mut self.waiting)
    }

    /// The sync that was under way is done.
    pub(super) fn synced(&mut self) {
        self.busy = false;
        for block in std::mem::take(&mut self.under_way) {
            self.durable.insert(block);
        }
    }
}
