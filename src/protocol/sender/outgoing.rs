//! What of a file is still to be sent and compared, in which order, and its hashes on the way.

use std::collections::BTreeMap;

use super::Hashed;
use crate::protocol::blocks::BlockSet;
use crate::protocol::check::Check;
use crate::protocol::chunk::MAX_ZERO_BLOCKS;
use crate::protocol::digest::{BlockDigest, BlockHasher, BlockHashes, DigestTree, FileDigest};
use crate::protocol::geometry::{BLOCK, Geometry};

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
    /// Those of them that earlier connections hashed, and the receiver turned out not to hold.
    carried: BlockSet,
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
            carried: BlockSet::new(),
            check: Check::default(),
            compares: true,
            compared_later: BlockSet::new(),
            sent_before: sent_up_to,
            sent_up_to,
        }
    }

    /// Takes over what earlier connections hashed.
    pub(super) fn carry(&mut self, hashed: Hashed) {
        let Some((tree, blocks)) = hashed.0 else { return };
        (self.tree, self.hashed) = (tree, blocks.clone());
        self.tree.end(self.geometry);
        self.carried = blocks;
    }

    /// What was hashed, for the next connection.
    pub(super) fn take_hashed(&mut self) -> Hashed {
        let tree = std::mem::replace(&mut self.tree, DigestTree::new(self.geometry));
        Hashed(Some((tree, std::mem::take(&mut self.hashed))))
    }

    /// The offset below which everything was sent, hashed and compared.
    pub(super) fn done_below(&self) -> u64 {
        let hashed = self.hashed.run_of(0).map_or(0, |run| run.end);
        let cursor = self.cursor.as_ref().map(|cursor| cursor.block);
        let open = [self.pending.first(), cursor, self.check.first(), self.compared_later.first()];
        open.into_iter().flatten().fold(hashed, u64::min) * BLOCK
    }

    /// What lies below this offset is whole there: blocks that were gone on with can be compared.
    pub(super) fn is_there_below(&mut self, offset: u64) {
        while let Some(block) = self.compared_later.first().filter(|block| (block + 1) * BLOCK <= offset) {
            self.compared_later.remove(block);
            self.take_up(block..block + 1);
        }
    }

    /// The file ends here, which was not known.
    pub(super) fn end(&mut self, geometry: Geometry) {
        self.geometry = geometry;
        self.tree.end(geometry);
        let blocks = geometry.blocks();
        self.pending = self.pending.within(0..blocks).collect();
        // What the receiver has of the last block may be all of it.
        if let Some((&block, &bytes)) = self.begun.last_key_value()
            && block < blocks
            && bytes >= geometry.block_len(block)
        {
            self.begun.remove(&block);
            self.pending.remove(block);
            self.compared_later.insert(block);
        }
        let Some(cursor) = &mut self.cursor else { return };
        let block = cursor.block;
        if block >= blocks {
            self.cursor = None;
        } else if geometry.block_len(block) < BLOCK {
            // It goes by a whole block.
            cursor.hasher = None;
            if cursor.offset == geometry.block_end(block) {
                self.cursor = None;
                self.hash_later(block);
            }
        }
    }

    /// A block was sent without being hashed.
    fn hash_later(&mut self, block: u64) {
        let is_hashed = self.hashed.contains(block) || self.check.has(block);
        if !is_hashed && !self.compared_later.contains(block) {
            self.check.hash(block..block + 1);
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
            if self.hashed.is_empty() {
                self.take_up(run);
                continue;
            }
            // What cannot be read again cannot be compared: the file's digest says whether all is well.
            for block in run {
                self.carried.remove(block);
                if !self.hashed.contains(block) {
                    self.take_up(block..block + 1);
                }
            }
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

    /// Where the next chunk begins, or the block that it lies in.
    pub(super) fn next_offset(&self) -> Option<u64> {
        let first = || self.pending.first().map(|block| block * BLOCK);
        self.cursor.as_ref().map(|cursor| cursor.offset).or_else(first)
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
            match done.hasher {
                Some(hasher) => self.insert(done.block, &hasher.finish()),
                None => self.hash_later(done.block),
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
        let is_new = is_unhashed || self.unsent.remove(block) || self.carried.remove(block);
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
