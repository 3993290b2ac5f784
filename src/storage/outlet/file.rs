//! The file that goes through an outlet: what came of it and is kept, what left, and its hashes.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Failure, MOST_KEPT};
use crate::protocol::{
    BLOCK, BlockDigest, BlockHashes, BlockSet, CheckedOffer, DigestTree, FileDigest, Geometry, Opened,
};
use crate::storage::hash_block;

/// The file that was taken.
pub(super) struct TheFile {
    pub(super) name: String,
    pub(super) id: String,
    /// The run of its sender, if that tells.
    pub(super) sender: Option<String>,
    pub(super) geometry: Geometry,
    /// What came of blocks that have not left, or were not hashed yet.
    blocks: BTreeMap<u64, Vec<u8>>,
    /// Those of them that are zeros. None of these is among `blocks`.
    zeros: BlockSet,
    /// Bytes in `blocks`.
    kept: u64,
    /// The bytes that came, by their offsets.
    filled: BlockSet,
    /// How far it was handed to the thread that writes, and how far it was written.
    pub(super) handed: u64,
    pub(super) written: u64,
    hashed: BlockSet,
    /// Those that this connection was told to hash, whether they were or not: they are kept until then.
    to_hash_again: BlockSet,
    /// Of those that were hashed.
    digests: BTreeMap<u64, BlockDigest>,
    tree: DigestTree,
    pub(super) is_sealed: bool,
}

impl TheFile {
    pub(super) fn new(name: String, offer: &CheckedOffer, sender: Option<&str>) -> Self {
        Self {
            name,
            id: offer.id.clone(),
            sender: sender.map(str::to_owned),
            geometry: offer.geometry,
            blocks: BTreeMap::new(),
            zeros: BlockSet::new(),
            kept: 0,
            filled: BlockSet::new(),
            handed: 0,
            written: 0,
            hashed: BlockSet::new(),
            to_hash_again: BlockSet::new(),
            digests: BTreeMap::new(),
            tree: DigestTree::new(offer.geometry),
            is_sealed: false,
        }
    }

    /// Whether this is offered as the very version that was begun. An end that was not known may be by now, and not the other
    /// way round.
    pub(super) fn is_version(&self, offer: &CheckedOffer) -> bool {
        let is_sized = self.geometry.is_open() || self.geometry == offer.geometry;
        self.id == offer.id && is_sized
    }

    /// What is there of it: what left and was hashed is held, what waits is hashed again, and what came behind a gap is
    /// given up.
    pub(super) fn opened(&mut self) -> Opened {
        let front = self.front();
        let whole = if front == self.geometry.size() { self.geometry.blocks() } else { front / BLOCK };
        let hashed = self.hashed.runs().map(|run| run.start * BLOCK..self.geometry.block_end(run.end - 1));
        self.filled = std::iter::once(0..front).chain(hashed).collect();
        let hashed = &self.hashed;
        self.blocks.retain(|&block, bytes| {
            let came = front.saturating_sub(block * BLOCK);
            if !hashed.contains(block) {
                bytes.truncate(usize::try_from(came).unwrap_or(usize::MAX));
            }
            came > 0 || hashed.contains(block)
        });
        self.kept = self.blocks.values().map(|bytes| bytes.len() as u64).sum();
        let begun = front.div_ceil(BLOCK);
        let kept = self.zeros.within(0..begun);
        let behind = self.zeros.within(begun..u64::MAX).flat_map(|run| hashed.within(run));
        self.zeros = kept.chain(behind).collect();
        let left = self.written_blocks();
        let held = self.hashed.run_of(0).map_or(0, |run| run.end.min(left));
        self.to_hash_again = std::iter::once(held..whole).collect();
        Opened {
            held: std::iter::once(0..held).collect(),
            unhashed: std::iter::once(held..whole).collect(),
            received: front,
            complete: self.is_sealed,
        }
    }

    /// Blocks that left, all of them.
    fn written_blocks(&self) -> u64 {
        let is_all = self.written == self.geometry.size();
        if is_all { self.geometry.blocks() } else { self.written / BLOCK }
    }

    pub(super) fn ends_with(&mut self, geometry: Geometry) {
        self.geometry = geometry;
        self.tree.end(geometry);
    }

    /// Everything before this came.
    pub(super) fn front(&self) -> u64 {
        self.filled.run_of(0).map_or(0, |run| run.end)
    }

    fn is_whole(&self, block: u64) -> bool {
        let (start, end) = (self.geometry.block_start(block), self.geometry.block_end(block));
        self.filled.run_of(start).is_some_and(|run| run.end >= end)
    }

    pub(super) fn fill(&mut self, bytes: &[u8], offset: u64) -> Result<(), Failure> {
        let block = offset / BLOCK;
        // One that was hashed is compared by its hash, once it is whole again.
        if self.hashed.contains(block) {
            return Ok(());
        }
        let at = (offset - self.geometry.block_start(block)) as usize;
        let end = at + bytes.len();
        let gone = self.handed.saturating_sub(offset).min(bytes.len() as u64) as usize;
        if self.zeros.remove(block) {
            // It may have begun to leave: from here on it has bytes.
            let len = self.geometry.block_len(block);
            self.blocks.insert(block, vec![0; len as usize]);
            self.kept += len;
        }
        let kept = self.blocks.entry(block).or_insert_with(|| Vec::with_capacity(BLOCK as usize));
        if kept.len() < end {
            self.kept += (end - kept.len()) as u64;
            kept.resize(end, 0);
        }
        if kept[at..at + gone] != bytes[..gone] {
            return Err(Failure::Left(format!("other bytes came for offset {offset}")));
        }
        kept[at..end].copy_from_slice(bytes);
        self.filled.insert_run(offset..offset + bytes.len() as u64);
        if self.kept > MOST_KEPT { Err(Failure::TooFar) } else { Ok(()) }
    }

    pub(super) fn fill_with_zeros(&mut self, bytes: Range<u64>) -> Result<(), Failure> {
        let blocks = self.geometry.blocks_of(bytes.clone());
        // Those that were hashed are compared by their hashes.
        let mut to_fill = std::iter::once(blocks.clone()).collect::<BlockSet>();
        self.hashed.within(blocks.clone()).flatten().for_each(|block| {
            to_fill.remove(block);
        });
        let came: Vec<u64> = self.blocks.range(blocks).map(|(&block, _)| block).collect();
        for block in came.into_iter().filter(|&block| to_fill.contains(block)) {
            let start = self.geometry.block_start(block);
            let kept = self.blocks.remove(&block).expect("it was there a line ago");
            self.kept -= kept.len() as u64;
            let gone = self.handed.saturating_sub(start).min(kept.len() as u64) as usize;
            if kept[..gone].iter().any(|&byte| byte != 0) {
                return Err(Failure::Left(format!("zeros came for offset {start}")));
            }
        }
        to_fill.runs().for_each(|run| self.zeros.insert_run(run));
        self.filled.insert_run(bytes);
        Ok(())
    }

    pub(super) fn hash_block(&self, block: u64) -> Option<BlockHashes> {
        let bytes = self.blocks.get(&block);
        if !self.is_whole(block) || (bytes.is_none() && !self.zeros.contains(block)) {
            return None;
        }
        let start = self.geometry.block_start(block);
        let read = |into: &mut [u8], offset: u64| {
            let at = (offset - start) as usize;
            match bytes {
                Some(bytes) => into.copy_from_slice(&bytes[at..at + into.len()]),
                None => into.fill(0),
            }
            Ok(into.len())
        };
        hash_block(self.geometry, block, read).ok()
    }

    pub(super) fn digests(&self, first: u64, count: u64) -> Vec<BlockDigest> {
        match self.hashed.run_of(first) {
            Some(run) => {
                let blocks = first..(first + count).min(run.end);
                self.digests.range(blocks).map(|(_, &digest)| digest).collect()
            }
            None => vec![BlockDigest::NONE],
        }
    }

    pub(super) fn seal(&mut self, digest: FileDigest) -> Result<(), Failure> {
        let left = self.tree.digest();
        if left == Some(digest) {
            self.is_sealed = true;
            return Ok(());
        }
        let left = left.map_or("none".to_owned(), |left| left.to_string());
        Err(Failure::Left(format!("their digest is {left}, and the sender's file has {digest}")))
    }

    pub(super) fn note(&mut self, block: u64, hashes: &BlockHashes) -> Result<(), Failure> {
        let digest = hashes.digest();
        self.to_hash_again.remove(block);
        if self.hashed.contains(block) {
            let same = self.digests[&block] == digest;
            return if same { Ok(()) } else { Err(Failure::Left(format!("block {block} came as another"))) };
        }
        self.digests.insert(block, digest);
        self.tree.insert(block, hashes);
        self.hashed.insert(block);
        Ok(())
    }

    /// Copies what is to be written next; how many bytes.
    pub(super) fn hand_out(&mut self, piece: &mut [u8]) -> usize {
        let block = self.handed / BLOCK;
        // All of it left, and the last block was a whole one.
        if block >= self.geometry.blocks() {
            return 0;
        }
        let end = self.front().min(self.geometry.block_end(block));
        let len = (end.saturating_sub(self.handed)).min(piece.len() as u64) as usize;
        let at = (self.handed % BLOCK) as usize;
        match self.blocks.get(&block) {
            Some(bytes) => piece[..len].copy_from_slice(&bytes[at..at + len]),
            None if self.zeros.contains(block) => piece[..len].fill(0),
            None => return 0,
        }
        self.handed += len as u64;
        len
    }

    /// What left and was hashed is not needed any more.
    pub(super) fn let_go(&mut self) {
        let left = self.written_blocks();
        let is_needed =
            |block| block >= left || !self.hashed.contains(block) || self.to_hash_again.contains(block);
        while let Some((&block, bytes)) = self.blocks.first_key_value()
            && !is_needed(block)
        {
            self.kept -= bytes.len() as u64;
            self.blocks.remove(&block);
        }
        while let Some(block) = self.zeros.first()
            && !is_needed(block)
        {
            self.zeros.remove(block);
        }
    }
}
