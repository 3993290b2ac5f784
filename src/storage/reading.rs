//! What a target holds, read back: hashed, compared with its journal, taken over from the file that is repaired.

use std::io;
use std::sync::atomic::Ordering;

use super::error::StorageError;
use super::folder::FolderFile;
use super::journal::Journal;
use super::partial::Partial;
use super::target::{Stage, Target, lock, partial_of, write_all};
use super::{hash_block, plain_digest};
use crate::protocol::{BLOCK, BlockDigest, BlockHashes, BlockSet};

/// Blocks that are read for one answer.
const PLAIN_DIGESTS: u64 = 16;

impl Target {
    /// Reads a block back and hashes it. `None` if it cannot be read: then it is not held.
    pub fn hash_block(&self, block: u64) -> Result<Option<BlockHashes>, StorageError> {
        if lock(&self.to_take).contains(block) {
            return self.take_over(block);
        }
        let geometry = self.geometry();
        let hash = |file: &dyn FolderFile| {
            hash_block(geometry, block, |bytes, offset| file.read_at(bytes, offset)).ok()
        };
        Ok(match &*self.read() {
            Stage::Existing(_) => None,
            Stage::Found(remains) => remains.file().and_then(hash),
            Stage::Small(small) => small.opened().and_then(|file| hash(&**file)),
            Stage::Partial(partial) => hash(partial.file()),
        })
    }

    /// The BLAKE3 digests of blocks' bytes, from `first` on: at least one, and zeros for one that cannot be read.
    pub fn plain_digests(&self, first: u64, count: u64) -> Result<Vec<BlockDigest>, StorageError> {
        let geometry = self.geometry();
        let stage = self.read();
        let file = match &*stage {
            Stage::Existing(_) => None,
            Stage::Found(remains) => remains.file(),
            Stage::Small(small) => small.opened().map(|file| &**file),
            Stage::Partial(partial) => Some(partial.file()),
        };
        let digest = |block| {
            let file = file?;
            plain_digest(geometry, block, |bytes, offset| file.read_at(bytes, offset)).ok()
        };
        Ok((first..first + count.min(PLAIN_DIGESTS))
            .map(|block| digest(block).unwrap_or(BlockDigest::NONE))
            .collect())
    }

    /// Copies a block of the file that is repaired, unless the sender's comes first.
    fn take_over(&self, block: u64) -> Result<Option<BlockHashes>, StorageError> {
        let basis = self.basis();
        let Some(basis) = &*basis else { return Ok(None) };
        let stage = self.partial()?;
        let partial = partial_of(&stage);
        let mut failed = None;
        let hashes = hash_block(self.geometry(), block, |bytes, offset| {
            let read = basis.read_at(bytes, offset)?;
            // Held while it is written: what the sender sends of this block is not overwritten.
            let to_take = lock(&self.to_take);
            if !to_take.contains(block) {
                return Err(io::ErrorKind::Other.into());
            }
            let written = if bytes[..read].iter().all(|&byte| byte == 0) {
                partial.file().zero(offset..offset + read as u64)
            } else {
                write_all(partial.file(), &bytes[..read], offset)
            };
            if let Err(error) = written {
                failed = Some(error);
                return Err(io::ErrorKind::Other.into());
            }
            self.has_come(offset..offset + read as u64);
            Ok(read)
        });
        let taken = lock(&self.to_take).remove(block);
        match (failed, hashes) {
            (Some(error), _) => Err(self.error("write", error)),
            (None, Ok(hashes)) if taken => Ok(Some(hashes)),
            _ => Ok(None),
        }
    }

    /// Whether a block is still what its journal entry says. `false` if it differs or cannot be read.
    pub fn check_block(&self, block: u64) -> Result<bool, StorageError> {
        let entry = self.with_journal(|journal| journal.read(self.geometry(), block));
        Ok(match entry.flatten() {
            None => false,
            entry => entry == self.hash_block(block)?,
        })
    }

    /// The digests of a run of blocks, from the journal; it ends where one is not held, and a first one that is not
    /// held has no block's digest.
    pub fn digests(&self, first: u64, count: u64) -> Result<Vec<BlockDigest>, StorageError> {
        let digests = self.with_journal(|journal| journal.digests(self.geometry(), first, count));
        Ok(digests.filter(|digests| !digests.is_empty()).unwrap_or_else(|| vec![BlockDigest::NONE]))
    }

    fn with_journal<T>(&self, read: impl FnOnce(&Journal) -> T) -> Option<T> {
        match &*self.read() {
            Stage::Existing(_) | Stage::Small(_) => None,
            Stage::Found(remains) => remains.journal().map(read),
            Stage::Partial(partial) => Some(read(partial.journal())),
        }
    }

    /// Blocks whose place in the partial file was cut away or emptied behind our back, where it was found with this
    /// length. What is still data was written by us; what is a hole is zeros, or lost.
    pub(super) fn lost_blocks(&self, partial: &Partial, found: u64) -> Result<BlockSet, StorageError> {
        let (geometry, file) = (self.geometry(), partial.file());
        let mut holes = BlockSet::new();
        if found < self.reached.load(Ordering::Relaxed) {
            holes.insert_run(found / BLOCK..geometry.blocks());
        }
        let mut offset = 0;
        while offset < geometry.size() {
            let data = file.data_from(offset).map_err(|error| self.error("read", error))?;
            let data = data.unwrap_or(geometry.size()..geometry.size());
            let hole = offset..data.start.min(geometry.size());
            holes.insert_run(hole.start / BLOCK..if hole.is_empty() { 0 } else { hole.end.div_ceil(BLOCK) });
            offset = data.end;
        }
        let zeros = lock(&self.zeros).clone();
        let mut lost = BlockSet::new();
        for block in holes.runs().flatten().filter(|&block| !zeros.contains(block)) {
            if !self.check_block(block)? {
                lost.insert(block);
            }
        }
        Ok(lost)
    }
}
