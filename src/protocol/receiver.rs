//! The receiving half of one transfer: verifies where bytes belong, says when to sync, and seals.
//!
//! What belongs to the connection (sequence numbers, acknowledgements, signs of life) is [`Link`](super::Link)'s.

mod arriving;
mod storing;
mod vocabulary;

use std::ops::Range;
use std::time::{Duration, Instant};

use super::assembly::Assembly;
use super::blocks::BlockSet;
use super::digest::{BlockHashes, FileDigest};
use super::link::{Action, Out};
use super::message::{CheckedOffer, Message};
use super::syncing::Syncing;
pub use vocabulary::{Opened, Received, ReceiverEvent, Receiving, Write};

/// Bytes a second of the slowest disk that a sender is waited for, while it reads a file to compare it.
const SLOWEST_SOURCE: u64 = 20_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The caller opens the partial file.
    Opening,
    /// Chunks flow.
    Streaming,
    /// The digest is known and nothing is to come; what is left is checked, synced and sealed.
    Finishing,
}

impl State {
    fn describe(self) -> &'static str {
        match self {
            Self::Opening => "the receiver was opening the file",
            Self::Streaming => "the receiver was receiving chunks",
            Self::Finishing => "the receiver was sealing the file",
        }
    }
}

/// As many bytes of a file without a known end are made durable at a time: the sender keeps what is not.
const SYNC_INPUT: u64 = 16 << 20;

/// A block that is being read back.
#[derive(Debug)]
struct Reading {
    block: u64,
    /// It was begun again meanwhile: what was read counts for nothing.
    stale: bool,
}

impl Reading {
    fn new(block: u64) -> Self {
        Self { block, stale: false }
    }
}

/// Digests that were asked for, and whose answer is not on its way yet.
#[derive(Debug)]
struct Owed {
    blocks: Range<u64>,
    tree: bool,
    /// They are being read, or were and wait to go out.
    is_read: bool,
}

/// The receiving half of one transfer.
#[derive(Debug)]
pub(super) struct Receiver {
    number: u32,
    /// The offered path, made safe to print.
    path: String,
    discard: bool,
    /// The digest, where it was offered: nothing else is waited for.
    known: Option<FileDigest>,
    state: State,
    complete: bool,
    is_accepted: bool,
    assembly: Assembly,
    syncing: Syncing,
    /// Held blocks to be read back, behind the transfer.
    unchecked: BlockSet,
    checking: Option<Reading>,
    /// Whole blocks to be read back, because they were not filled in order.
    to_hash: BlockSet,
    hashing: Option<Reading>,
    owed: Option<Owed>,
    finish: Option<FileDigest>,
    /// Blocks that a `repair` asked for and that have not been begun since.
    asked: BlockSet,
    /// Bytes of it came on this connection.
    is_under_way: bool,
    /// Bytes that came on this connection, and what was there when they began to.
    came: u64,
    began_with: u64,
    /// The last offset that the sender was told is durable.
    told_durable: u64,
    /// No byte of it is journaled before the end: it is a block at most.
    is_small: bool,
}

impl Receiver {
    /// What was offered, path and all, and is being opened.
    pub(super) fn new(number: u32, path: String, offer: &CheckedOffer) -> Self {
        let geometry = offer.geometry;
        let is_small = geometry.blocks() <= 1;
        Self {
            number,
            path,
            discard: offer.discard,
            known: offer.digest,
            state: State::Opening,
            complete: false,
            is_accepted: false,
            assembly: Assembly::new(geometry, BlockSet::new(), BlockSet::new(), 0),
            syncing: Syncing::new(BlockSet::new(), is_small),
            unchecked: BlockSet::new(),
            checking: None,
            to_hash: BlockSet::new(),
            hashing: None,
            owed: None,
            finish: None,
            asked: BlockSet::new(),
            is_under_way: false,
            came: 0,
            began_with: 0,
            told_durable: 0,
            is_small,
        }
    }

    /// The offered path, made safe to print.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// How far it is.
    pub(super) fn so_far(&self) -> Received {
        let bytes = self.assembly.filled();
        let new = bytes.saturating_sub(self.began_with);
        Received { bytes, durable: self.durable(), again: self.came.saturating_sub(new) }
    }

    /// The offset below which everything survives a loss of power.
    pub(super) fn durable(&self) -> u64 {
        self.syncing.durable_run(0).map_or(0, |run| self.assembly.geometry().block_end(run.end - 1))
    }

    /// What of it is durable, if the sender has not been told.
    pub(super) fn take_durable(&mut self) -> Option<(u32, u64)> {
        let durable = self.durable();
        let moved = std::mem::replace(&mut self.told_durable, durable) != durable;
        moved.then_some((self.number, durable))
    }

    /// The next thing to do.
    pub(super) fn poll_action(&mut self, limits: (u64, Duration), now: Instant) -> Option<Action> {
        let transfer = self.number;
        // Nothing more is to come, as far as is known here; the sender's `finish` may still be on its way.
        let is_last = self.is_filled() && self.unchecked.is_empty();
        let at_once = is_last || self.state == State::Finishing || self.owed.is_some();
        let geometry = self.assembly.geometry();
        let (bytes, interval) = limits;
        let bytes = if geometry.is_open() { bytes.min(SYNC_INPUT) } else { bytes };
        let due = self.syncing.take_due(geometry, (bytes, interval), at_once, now);
        if let Some(blocks) = due {
            return Some(Action::Sync { transfer, blocks });
        }
        // Behind the transfer: the first new chunk does not wait for a disk that is busy with old ones.
        let reads = match self.state {
            State::Streaming => self.is_under_way || self.is_filled() || self.owed.is_some(),
            State::Finishing => true,
            State::Opening => false,
        };
        if self.hashing.is_none()
            && reads
            && let Some(block) = self.to_hash.pop_first()
        {
            self.hashing = Some(Reading::new(block));
            return Some(Action::HashBlock { transfer, block });
        }
        if self.checking.is_none()
            && reads
            && let Some(block) = self.unchecked.pop_first()
        {
            self.checking = Some(Reading::new(block));
            return Some(Action::CheckBlock { transfer, block });
        }
        None
    }

    /// When a sync is due, if one is to come.
    pub(super) fn sync_due_at(&self, interval: Duration) -> Option<Instant> {
        self.syncing.due_at(interval)
    }

    /// Whole blocks whose hashes are not in the journal yet: what is worth a last sync when the connection ends.
    pub(super) fn take_unsynced(&mut self) -> Vec<(u64, BlockHashes)> {
        self.syncing.take_waiting()
    }

    /// The offset behind which nothing is worth keeping when the connection ends, if the partial file's last block is not
    /// whole: what came of it without a gap is gone on with.
    pub(super) fn end(&self) -> Option<u64> {
        self.assembly.end()
    }

    /// Places that damaged chunks left open.
    pub(super) fn gaps(&self) -> u32 {
        self.assembly.gaps()
    }

    /// Whether the sender waits for something that takes its time here.
    pub(super) fn is_at_work(&self) -> bool {
        // An answer that waits to go out waits for the sender to read.
        let reads = self.owed.as_ref().is_some_and(|owed| !owed.is_read);
        matches!(self.state, State::Opening | State::Finishing) || reads
    }

    /// Whether nothing can come of it yet.
    pub(super) fn is_opening(&self) -> bool {
        self.state == State::Opening
    }

    /// How much longer than others its sender may give nothing but signs of life. One that compares a file that is there,
    /// or makes sure that the source is what it was, has to read all of it first.
    pub(super) fn patience(&self) -> Duration {
        let reads_all = self.complete || self.is_filled();
        let bytes = if reads_all { self.assembly.geometry().size() } else { 0 };
        Duration::from_secs(bytes / SLOWEST_SOURCE)
    }

    /// Whether the file has no end yet: its sender may wait for more of it.
    pub(super) fn is_endless(&self) -> bool {
        self.assembly.geometry().is_open()
    }

    /// Whether every byte is there.
    pub(super) fn is_filled(&self) -> bool {
        self.assembly.filled() == self.assembly.geometry().size()
    }

    fn send(&self, message: Message, out: &mut Out) {
        out.send(message);
    }
}
