//! What outlives connections over the fake link: the receiver's disk, and what the sender knows of what comes bit by bit.

use std::collections::BTreeMap;

use wsferry::protocol::{
    BLOCK, BlockHashes, BlockSet, CheckedOffer, DigestTree, FileDigest, Geometry, Hashed, Opened, Unfinished,
};

use super::file::{File, hash, range_of};

/// What a sender knows of what comes bit by bit: outlives connections.
#[derive(Debug, Clone, Default)]
pub struct Come {
    pub(super) bytes: usize,
    pub(super) hashed: Hashed,
    pub(super) sent_up_to: u64,
    /// Nothing below is kept.
    pub(super) let_go: u64,
}

/// The receiver's disk, as far as one file goes: outlives connections.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    pub part: Vec<u8>,
    pub journal: BTreeMap<u64, BlockHashes>,
    pub sealed: Option<File>,
    /// Every chunk that was written: offset and length.
    pub written: Vec<(u64, usize)>,
    /// Blocks that were read again to be hashed.
    pub read_back: Vec<u64>,
    /// What the sender knows of the file.
    pub come: Come,
}

impl Disk {
    /// A disk that holds these blocks of a file, whole and in the journal.
    pub fn holding(file: &File, blocks: impl IntoIterator<Item = u64>) -> Self {
        let mut disk = Self::default();
        let geometry = file.geometry();
        for block in blocks {
            let range = range_of(geometry, block);
            disk.part.resize(disk.part.len().max(range.end), 0);
            disk.part[range.clone()].copy_from_slice(&file.bytes[range]);
            disk.journal.insert(block, file.hashes(block));
        }
        disk
    }

    pub(super) fn opened(&self, offer: &CheckedOffer) -> Opened {
        let (mut held, mut unhashed) = (BlockSet::new(), BlockSet::new());
        let geometry = offer.geometry;
        let complete = self.sealed.as_ref().is_some_and(|sealed| {
            (sealed.name.as_str(), sealed.bytes.len() as u64, sealed.mtime)
                == (offer.path.as_str(), geometry.size(), offer.mtime)
        });
        if complete {
            held.insert_run(0..geometry.blocks());
        } else {
            let most = if geometry.is_open() { self.part.len() as u64 / BLOCK } else { geometry.blocks() };
            for block in 0..most {
                // A hole has nothing that could be hashed.
                let bytes = self.part.get(range_of(geometry, block));
                if bytes.is_some_and(|bytes| bytes.iter().any(|&byte| byte != 0)) {
                    let is_known = self.journal.contains_key(&block);
                    if is_known { &mut held } else { &mut unhashed }.insert(block);
                }
            }
        }
        Opened { held, unhashed, received: self.part.len() as u64, complete }
    }

    pub(super) fn write(&mut self, range: std::ops::Range<usize>, bytes: &[u8]) {
        self.part.resize(self.part.len().max(range.end), 0);
        self.part[range.clone()].copy_from_slice(&bytes[..range.len()]);
        self.written.push((range.start as u64, range.len()));
    }

    /// The hashes that the journal has of a block, or those of its bytes.
    pub(super) fn hashes(&self, geometry: Geometry, block: u64) -> BlockHashes {
        let known = self.journal.get(&block).cloned();
        known.unwrap_or_else(|| hash(geometry, block, &self.part))
    }

    pub(super) fn digest(&self, geometry: Geometry) -> FileDigest {
        match &self.sealed {
            Some(sealed) => sealed.digest(),
            None => {
                let mut tree = DigestTree::new(geometry);
                (0..geometry.blocks()).for_each(|block| tree.insert(block, &self.hashes(geometry, block)));
                tree.digest().unwrap()
            }
        }
    }

    /// What the pump does with what is left when a transfer ends early.
    pub(super) fn put_away(&mut self, unfinished: Unfinished) {
        self.journal.extend(unfinished.unsynced);
        if let Some(end) = unfinished.end {
            self.part.truncate(end as usize);
        }
    }
}
