//! A file as it is offered over the fake link, and the hashes of its blocks.

use wsferry::protocol::message::transfer_id;
use wsferry::protocol::{
    BlockDigest, BlockHasher, BlockHashes, BlockSet, ChunkSize, FileDigest, Geometry, Offer, OfferKind,
    Sending,
};

/// A file as it is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub name: String,
    pub bytes: Vec<u8>,
    pub mtime: i64,
    pub mode: Option<u32>,
    /// Blocks that lie in holes.
    pub zeros: BlockSet,
    /// The digest that the offer tells, of a file of a block at most.
    pub known: Option<FileDigest>,
    /// It comes bit by bit, cannot be read twice, and is offered without its size.
    pub is_input: bool,
}

impl File {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self::named("file.bin", bytes)
    }

    pub fn named(name: &str, bytes: Vec<u8>) -> Self {
        let (mtime, mode) = (1_700_000_000, Some(0o640));
        Self {
            name: name.to_owned(),
            bytes,
            mtime,
            mode,
            zeros: BlockSet::new(),
            known: None,
            is_input: false,
        }
    }

    /// The same, as it comes on standard input.
    pub fn input(mut self) -> Self {
        self.is_input = true;
        self
    }

    /// The same file, offered with its digest.
    pub fn known(mut self) -> Self {
        self.known = Some(self.digest());
        self
    }

    pub fn digest(&self) -> FileDigest {
        blake3::hash(&self.bytes).into()
    }

    pub fn geometry(&self) -> Geometry {
        Geometry::new(self.bytes.len() as u64).unwrap()
    }

    pub fn hashes(&self, block: u64) -> BlockHashes {
        hash(self.geometry(), block, &self.bytes)
    }

    pub fn offer(&self) -> Offer {
        let size = self.bytes.len() as u64;
        Offer {
            transfer: 0,
            id: transfer_id(&self.name, size, self.mtime, 5, self.mode),
            path: self.name.clone(),
            kind: OfferKind::File,
            target: None,
            size: Some(size),
            mtime: self.mtime,
            mtime_ns: 5,
            mode: self.mode,
            digest: self.known,
            repair: false,
            discard: false,
            quick: false,
            zeros: 0,
            left: 0,
        }
    }

    pub fn sending(&self, chunk: u64) -> Sending {
        let (chunk, zeros) = (ChunkSize::at_most(chunk).unwrap(), self.zeros.clone());
        Sending { chunk, zeros, already_sent: 0, input: None }
    }
}

pub(super) fn range_of(geometry: Geometry, block: u64) -> std::ops::Range<usize> {
    geometry.block_start(block) as usize..geometry.block_end(block) as usize
}

pub(super) fn hash(geometry: Geometry, block: u64, bytes: &[u8]) -> BlockHashes {
    let mut hasher = BlockHasher::new(geometry, block);
    hasher.update(&bytes[range_of(geometry, block)]);
    hasher.finish()
}

/// What a receiver that knows no subtree hashes tells of a block.
pub fn plain_digest(geometry: Geometry, block: u64, bytes: &[u8]) -> BlockDigest {
    BlockDigest(*blake3::hash(&bytes[range_of(geometry, block)]).as_bytes())
}
