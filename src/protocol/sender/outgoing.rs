//! What of a file is still to be sent and compared, in which order, and its hashes on the way.

use std::collections::BTreeMap;

use crate::protocol::blocks::BlockSet;
use crate::protocol::check::Check;
use crate::protocol::chunk::MAX_ZERO_BLOCKS;
use crate::protocol::digest::{BlockDigest, BlockHasher, BlockHashes, DigestTree, FileDigest};
use crate::protocol::geometry::Geometry;

/// The blocks of one file on one connection, from the sender's side.
#[derive(Debug)]
pub(super) struct Outgoing {
    geometry: Geometry,
    /// Blocks still to be sent.
    pending: BlockSet,
    /// Blocks of zeros, which need not cross.
    zeros: BlockSet,
    /// Bytes of a block that the receiver has, from its first on: it is gone on with behind them.
    begun: BTreeMap<u64, u64>,
    cursor: Option<Cursor>,
    /// Blocks that were hashed and never sent, since another file seemed to be theirs.
    unsent: BlockSet,
    tree: DigestTree,
    hashed: BlockSet,
    pub(super) check: Check,
    /// Held blocks are compared, each by its digest.
    compares: bool,
    /// Blocks that were gone on with: to be compared once they are whole there.
    compared_later: BlockSet,
    /// The offset below which sending a byte means sending it again.
    sent_before: u64,
    sent_up_to: u64,
}

/// Where in a block the next chunk begins.
#[derive(Debug)]
struct Cursor {
    block: u64,
    offset: u64,
    /// `None` if the block is hashed elsewhere.
    hasher: Option<BlockHasher>,
    /// It is sent for the first time on this connection, and was not held.
    is_new: bool,
}

/// What became of bytes that were put into a frame.
pub(super) struct Advanced {
    /// They were sent before.
    pub(super) resent: u64,
    /// Their acknowledgement moves the progress.
    pub(super) counts: bool,
}

impl Outgoing {
    pub(super) fn new(geometry: Geometry, zeros: BlockSet, sent_up_to: u64) -> Self {
        Self {
            geometry,
            pending: BlockSet::new(),
            zeros,
            begun: BTreeMap::new(),
            cursor: None,
            unsent: BlockSet::new(),
            tree: DigestTree::new(geometry),
            hashed: BlockSet::new(),
            check: Check::default(),
            compares: true,
            compared_later: BlockSet::new(),
            sent_before: sent_up_to,
            sent_up_to,
        }
    }

    /// What the receiver has: whole blocks, the beginnings of others, and how far bytes ever got. Unless it `compares`, the
    /// whole digests are compared instead of the blocks'.
    pub(super) fn begin(
        &mut self,
        held: &BlockSet,
        begun: BTreeMap<u64, u64>,
        received: u64,
        compares: bool,
    ) {
        self.compares = compares;
        self.pending = held.missing_below(self.geometry.blocks());
        self.begun = begun;
        self.sent_before = self.sent_before.max(received.min(self.geometry.size()));
        for run in held.runs() {
            self.take_up(run);
        }
    }

    /// Held blocks are to be compared, or their hashes alone are needed.
    fn take_up(&mut self, run: std::ops::Range<u64>) {
        if self.compares {
            self.check.add(run);
        } else {
            self.check.hash(run);
        }
    }

    /// The receiver knows no runs of zeros: they cross as bytes.
    pub(super) fn send_zeros(&mut self) {
        self.zeros = BlockSet::new();
    }

    /// The offset behind the last byte that was ever sent.
    pub(super) fn sent_up_to(&self) -> u64 {
        self.sent_up_to
    }

    /// Whether nothing is left to send.
    pub(super) fn is_sent(&self) -> bool {
        self.pending.is_empty() && self.cursor.is_none()
    }

    /// Everything was acknowledged, so that blocks that were gone on with are whole there: whether nothing is left to
    /// compare either.
    pub(super) fn is_compared(&mut self) -> bool {
        for run in std::mem::take(&mut self.compared_later).runs() {
            self.take_up(run);
        }
        self.check.is_over()
    }

    /// Whether the next thing to send is a run of zeros: its first byte and length.
    pub(super) fn next_zeros(&self) -> Option<(u64, u64)> {
        let block = self.pending.first().filter(|_| self.cursor.is_none())?;
        let (zeros, pending) = (self.zeros.run_of(block)?, self.pending.run_of(block)?);
        let run = block..zeros.end.min(pending.end).min(block + MAX_ZERO_BLOCKS);
        Some((self.geometry.block_start(block), self.geometry.bytes_of(run)))
    }

    /// The run of zeros that [`next_zeros`](Self::next_zeros) named goes out. Whether its acknowledgement counts.
    pub(super) fn advance_zeros(&mut self, offset: u64, len: u64) -> bool {
        let blocks = self.geometry.blocks_of(offset..offset + len);
        let mut counts = true;
        for block in blocks {
            self.pending.remove(block);
            self.begun.remove(&block);
            if self.hashed.contains(block) || self.check.has(block) {
                counts = false;
            } else {
                self.check.hash(block..block + 1);
            }
        }
        counts
    }

    /// Where the next chunk begins, and the bytes to its block's end.
    pub(super) fn next_bytes(&mut self) -> Option<(u64, u64)> {
        if self.cursor.is_none() {
            let block = self.pending.first().filter(|&block| !self.zeros.contains(block))?;
            self.pending.remove(block);
            self.cursor = Some(self.start_block(block));
        }
        let cursor = self.cursor.as_ref()?;
        Some((cursor.offset, self.geometry.block_end(cursor.block) - cursor.offset))
    }

    /// The bytes at the place that [`next_bytes`](Self::next_bytes) named go out.
    pub(super) fn advance(&mut self, offset: u64, bytes: &[u8]) -> Advanced {
        let cursor = self.cursor.as_mut().expect("the next chunk came from the cursor");
        let len = bytes.len() as u64;
        let counts = cursor.is_new;
        if let Some(hasher) = &mut cursor.hasher {
            hasher.update(bytes);
        }
        cursor.offset += len;
        if cursor.offset == self.geometry.block_end(cursor.block) {
            let done = self.cursor.take().expect("it was there a line ago");
            if let Some(hasher) = done.hasher {
                self.insert(done.block, &hasher.finish());
            }
        }
        self.sent_up_to = self.sent_up_to.max(offset + len);
        // A block that was sent or held before is sent again.
        let resent = if counts { self.sent_before.saturating_sub(offset).min(len) } else { len };
        Advanced { resent, counts }
    }

    /// The hashes of a block that the comparison named: whether it is to be sent again.
    pub(super) fn checked(&mut self, block: u64, hashes: &BlockHashes, digest: BlockDigest) -> bool {
        self.insert(block, hashes);
        let differs = !self.check.compare(block, digest);
        if differs {
            self.pending.insert(block);
        }
        differs
    }

    /// The receiver asks for these blocks, from their first byte.
    pub(super) fn repair(&mut self, run: std::ops::Range<u64>) {
        for block in run.clone() {
            self.begun.remove(&block);
            // Sent twice, it is hashed behind the transfer.
            if self.compared_later.remove(block) {
                self.check.hash(block..block + 1);
            }
        }
        self.check.repair(run.clone());
        self.pending.insert_run(run);
    }

    /// A file that was taken to be there is another: these blocks are to be sent, all others compared after all.
    pub(super) fn replace(&mut self, asked: BlockSet) {
        for run in asked.missing_below(self.geometry.blocks()).runs() {
            self.check.add(run);
        }
        self.unsent = asked;
    }

    /// The file's digest, once each block is hashed.
    pub(super) fn digest(&self) -> Option<FileDigest> {
        self.tree.digest()
    }

    fn start_block(&mut self, block: u64) -> Cursor {
        let start = self.geometry.block_start(block);
        let is_unhashed = !self.hashed.contains(block) && !self.check.has(block);
        let is_new = is_unhashed || self.unsent.remove(block);
        if let Some(bytes) = self.begun.remove(&block).filter(|_| is_new) {
            self.compared_later.insert(block);
            return Cursor { block, offset: start + bytes, hasher: None, is_new };
        }
        let hasher = is_unhashed.then(|| BlockHasher::new(self.geometry, block));
        Cursor { block, offset: start, hasher, is_new }
    }

    /// Keeps a block's hashes; those of a block that was hashed before are the same.
    fn insert(&mut self, block: u64, hashes: &BlockHashes) {
        if !self.hashed.contains(block) {
            self.tree.insert(block, hashes);
            self.hashed.insert(block);
        }
    }
}
