//! BLAKE3 subtree hashes: kept per block, merged into the file's digest without reading a byte twice.
//!
//! BLAKE3 is a binary tree over 1 KiB leaves whose left subtrees are whole powers of two (section 2.1 of the
//! [BLAKE3 paper](https://github.com/BLAKE3-team/BLAKE3-specs/blob/master/blake3.pdf)), so every aligned
//! 1 MiB of a file is a subtree of its own, and a block's three are all that has to be kept of it.

use std::collections::BTreeMap;
use std::fmt;

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::geometry::{BLOCK, Geometry, SUBTREE};

/// The bytes of one hash.
pub const HASH_LEN: usize = 32;
/// How many subtrees a whole block has.
pub const SUBTREES_PER_BLOCK: usize = (BLOCK / SUBTREE) as usize;

type Hash = [u8; HASH_LEN];

/// A file's BLAKE3 digest, as `b3sum` prints it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileDigest(Hash);

/// What two sides compare to learn whether they hold the same block: BLAKE3 over the block's subtree hashes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BlockDigest(pub [u8; HASH_LEN]);

impl BlockDigest {
    /// What stands for a block that is not held; no block has it.
    pub const NONE: Self = Self([0; HASH_LEN]);
}

impl fmt::Display for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileDigest({self})")
    }
}

impl fmt::Debug for BlockDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockDigest({})", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl From<blake3::Hash> for FileDigest {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl Serialize for FileDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hex = std::borrow::Cow::<str>::deserialize(deserializer)?;
        blake3::Hash::from_hex(hex.as_bytes())
            .map(Self::from)
            .map_err(|_| serde::de::Error::custom("a digest is 64 hexadecimal digits"))
    }
}

/// The hashes of one block's subtrees: one to three.
///
/// Each is a BLAKE3 chaining value, except in a file of at most 1 MiB: its one subtree is the root, and the
/// hash is the file's digest itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHashes {
    hashes: [Hash; SUBTREES_PER_BLOCK],
    count: usize,
}

impl BlockHashes {
    /// Takes `len` bytes of block and its hashes as [`as_bytes`](Self::as_bytes) gave them, padded with anything.
    pub fn from_bytes(bytes: &[u8; HASH_LEN * SUBTREES_PER_BLOCK], len: u64) -> Self {
        let mut hashes = [[0; HASH_LEN]; SUBTREES_PER_BLOCK];
        for (hash, bytes) in hashes.iter_mut().zip(bytes.as_chunks().0) {
            *hash = *bytes;
        }
        Self { hashes, count: len.div_ceil(SUBTREE).min(SUBTREES_PER_BLOCK as u64) as usize }
    }

    /// The hashes one behind the other: 32 bytes a subtree.
    pub fn as_bytes(&self) -> &[u8] {
        self.hashes[..self.count].as_flattened()
    }

    /// The one hash to compare a block by.
    pub fn digest(&self) -> BlockDigest {
        BlockDigest(*blake3::hash(self.as_bytes()).as_bytes())
    }
}

/// Hashes the bytes of one block, given in order.
#[derive(Debug, Clone)]
pub struct BlockHasher {
    geometry: Geometry,
    block: u64,
    hasher: blake3::Hasher,
    hashed: u64,
    done: BlockHashes,
}

impl BlockHasher {
    /// A hasher for block number `block` of a file with this geometry.
    pub fn new(geometry: Geometry, block: u64) -> Self {
        let done = BlockHashes { hashes: [[0; HASH_LEN]; SUBTREES_PER_BLOCK], count: 0 };
        Self { geometry, block, hasher: blake3::Hasher::new(), hashed: 0, done }
    }

    /// How many bytes of the block were hashed so far.
    pub fn hashed(&self) -> u64 {
        self.hashed
    }

    /// Hashes the block's next bytes.
    ///
    /// # Panics
    /// If they reach past the block's end.
    pub fn update(&mut self, mut bytes: &[u8]) {
        let len = self.geometry.block_len(self.block);
        assert!(bytes.len() as u64 <= len - self.hashed, "bytes past the block's end");
        while !bytes.is_empty() {
            if self.hashed.is_multiple_of(SUBTREE) {
                // `reset` keeps the old input offset: a new hasher.
                self.hasher = blake3::Hasher::new();
                self.hasher.set_input_offset(self.geometry.block_start(self.block) + self.hashed);
            }
            let room = SUBTREE - self.hashed % SUBTREE;
            let (now, later) = bytes.split_at(bytes.len().min(room as usize));
            self.hasher.update(now);
            self.hashed += now.len() as u64;
            bytes = later;
            if self.hashed.is_multiple_of(SUBTREE) || self.hashed == len {
                self.close_subtree();
            }
        }
    }

    /// The file ends here, which was not known: behind the bytes that were hashed, or with them.
    pub(super) fn ends_with(&mut self, geometry: Geometry) {
        self.geometry = geometry;
        if self.hashed > 0 && self.hashed == geometry.block_len(self.block) {
            // The last subtree ends here; one that was closed as one of many may turn out to be the only one.
            self.done.count -= usize::from(self.hashed.is_multiple_of(SUBTREE));
            self.close_subtree();
        }
    }

    /// The block's hashes.
    ///
    /// # Panics
    /// If bytes of the block are still missing.
    pub fn finish(self) -> BlockHashes {
        assert_eq!(self.hashed, self.geometry.block_len(self.block), "the block is not whole");
        self.done
    }

    fn close_subtree(&mut self) {
        let only_one = self.geometry.size() <= SUBTREE;
        let hash =
            if only_one { *self.hasher.finalize().as_bytes() } else { self.hasher.finalize_non_root() };
        self.done.hashes[self.done.count] = hash;
        self.done.count += 1;
    }
}

/// The file's tree: takes the blocks' hashes in any order, once each, and merges what can be merged, so that
/// a run of blocks takes memory by the logarithm of its length.
#[derive(Debug, Clone)]
pub struct DigestTree {
    geometry: Geometry,
    /// First subtree of a node to its level (it covers `1 << level` subtrees) and its hash.
    nodes: BTreeMap<u64, (u32, Hash)>,
    inserted: u64,
}

impl DigestTree {
    /// The tree of a file with this geometry, without a block.
    pub fn new(geometry: Geometry) -> Self {
        Self { geometry, nodes: BTreeMap::new(), inserted: 0 }
    }

    /// The file ends here, which was not known. What was merged so far stands: only whole blocks were, a block is three
    /// subtrees, and no power of two is a multiple of three, so no merged node is the whole file's.
    pub fn end(&mut self, geometry: Geometry) {
        self.geometry = geometry;
    }

    /// Adds a block's hashes. Each block is added once: the caller keeps count.
    pub fn insert(&mut self, block: u64, hashes: &BlockHashes) {
        self.inserted += 1;
        let first = block * SUBTREES_PER_BLOCK as u64;
        for (subtree, hash) in (first..).zip(&hashes.hashes[..hashes.count]) {
            self.insert_node(subtree, 0, *hash);
        }
    }

    /// The file's digest, once every block is in.
    pub fn digest(&self) -> Option<FileDigest> {
        if self.inserted < self.geometry.blocks() {
            return None;
        }
        // What is left are the left-to-right subtrees along the tree's right edge; they join from the right.
        let mut nodes = self.nodes.values().rev().map(|(_, hash)| hash);
        let Some(mut right) = nodes.next().copied() else {
            return Some(blake3::hash(b"").into());
        };
        let mut lefts = nodes.peekable();
        while let Some(left) = lefts.next() {
            if lefts.peek().is_none() {
                return Some(merge_subtrees_root(left, &right, Mode::Hash).into());
            }
            right = merge_subtrees_non_root(left, &right, Mode::Hash);
        }
        // One subtree in all: its hash was the root's from the start.
        Some(FileDigest(right))
    }

    fn insert_node(&mut self, mut subtree: u64, mut level: u32, mut hash: Hash) {
        let total = self.geometry.subtrees();
        loop {
            let sibling = subtree ^ (1 << level);
            let parent = subtree & !(1 << level);
            // The node over the whole file is the root, and the root is merged by another rule, at the end.
            let parent_is_root = parent == 0 && 2 << level >= total;
            match self.nodes.get(&sibling) {
                Some(&(sibling_level, sibling_hash)) if sibling_level == level && !parent_is_root => {
                    let (left, right) =
                        if sibling < subtree { (sibling_hash, hash) } else { (hash, sibling_hash) };
                    self.nodes.remove(&sibling);
                    hash = merge_subtrees_non_root(&left, &right, Mode::Hash);
                    subtree = parent;
                    level += 1;
                }
                _ => break,
            }
        }
        self.nodes.insert(subtree, (level, hash));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_vectors_are_what_this_computes() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../fixtures/digests.json")).unwrap();
        let page = include_str!("PROTOCOL.md");
        for vector in vectors.as_array().unwrap() {
            let len = vector["bytes"].as_u64().unwrap();
            let data: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let geometry = Geometry::new(len).unwrap();
            let mut tree = DigestTree::new(geometry);
            let mut expected = vec![vector["file"].as_str().unwrap().to_owned()];
            let mut computed = vec![blake3::hash(&data).to_hex().to_string()];
            for block in 0..geometry.blocks() {
                let bytes = &data[geometry.block_start(block) as usize..geometry.block_end(block) as usize];
                let mut hasher = BlockHasher::new(geometry, block);
                hasher.update(bytes);
                let hashes = hasher.finish();
                tree.insert(block, &hashes);
                let blocks = &vector["blocks"][block as usize];
                expected.extend(["plain", "tree"].map(|kind| blocks[kind].as_str().unwrap().to_owned()));
                computed.push(blake3::hash(bytes).to_hex().to_string());
                computed.push(blake3::Hash::from(hashes.digest().0).to_hex().to_string());
            }
            assert_eq!(computed, expected, "{len} bytes");
            assert_eq!(tree.digest().unwrap().to_string(), expected[0]);
            assert!(expected.iter().all(|digest| page.contains(digest)), "{len} bytes");
        }
    }
    use proptest::prelude::*;

    #[test]
    fn a_block_that_was_hashed_before_its_files_end_was_known_has_the_same_hashes() {
        for len in [1, SUBTREE - 1, SUBTREE, SUBTREE + 1, 2 * SUBTREE, BLOCK - 1, BLOCK + 5, BLOCK + SUBTREE]
        {
            let (geometry, data) = (Geometry::new(len).unwrap(), data(len as usize, len));
            let last = geometry.blocks() - 1;
            let bytes = &data[geometry.block_start(last) as usize..];
            let mut known = BlockHasher::new(geometry, last);
            known.update(bytes);
            for told_at in [0, bytes.len() / 2, bytes.len()] {
                let mut hasher = BlockHasher::new(Geometry::open(), last);
                hasher.update(&bytes[..told_at]);
                hasher.ends_with(geometry);
                hasher.update(&bytes[told_at..]);
                assert_eq!(hasher.finish(), known.clone().finish(), "{len} bytes, told behind {told_at}");
            }
        }
    }

    fn data(len: usize, seed: u64) -> Vec<u8> {
        let mut data = vec![0; len];
        fastrand::Rng::with_seed(seed).fill(&mut data);
        data
    }

    fn hashes(data: &[u8], piece: usize) -> Vec<BlockHashes> {
        let geometry = Geometry::new(data.len() as u64).unwrap();
        (0..geometry.blocks())
            .map(|block| {
                let mut hasher = BlockHasher::new(geometry, block);
                let bytes = &data[geometry.block_start(block) as usize..geometry.block_end(block) as usize];
                bytes.chunks(piece).for_each(|piece| hasher.update(piece));
                hasher.finish()
            })
            .collect()
    }

    fn digest_in_order(data: &[u8], piece: usize, order: impl Iterator<Item = u64>) -> FileDigest {
        let mut tree = DigestTree::new(Geometry::new(data.len() as u64).unwrap());
        let hashes = hashes(data, piece);
        for block in order {
            assert_eq!(tree.digest(), None);
            tree.insert(block, &hashes[block as usize]);
        }
        tree.digest().unwrap()
    }

    #[test]
    fn the_merged_digest_is_plain_blake3_at_every_edge() {
        const MIB: usize = 1 << 20;
        for len in [0, 1, 2, 3, 1023, 1024, 1025, MIB - 1, MIB, MIB + 1, 2 * MIB, 2 * MIB + 1]
            .into_iter()
            .chain([3 * MIB - 1, 3 * MIB, 3 * MIB + 1, 4 * MIB, 6 * MIB, 7 * MIB + 5, 8 * MIB, 9 * MIB + 1])
        {
            let data = data(len, len as u64);
            let blocks = Geometry::new(len as u64).unwrap().blocks();
            let expected = FileDigest::from(blake3::hash(&data));
            assert_eq!(digest_in_order(&data, 24_546, 0..blocks), expected, "length {len}");
            assert_eq!(
                digest_in_order(&data, 196_608, (0..blocks).rev()),
                expected,
                "length {len}, reversed"
            );
        }
    }

    #[test]
    fn a_long_run_of_blocks_keeps_few_nodes() {
        let geometry = Geometry::new(BLOCK * 100_000).unwrap();
        let mut tree = DigestTree::new(geometry);
        let hashes = BlockHashes::from_bytes(&[7; 96], BLOCK);
        for block in 0..100_000 {
            tree.insert(block, &hashes);
            assert!(tree.nodes.len() <= 20);
        }
    }

    #[test]
    fn hashes_survive_being_written_and_read() {
        for len in [5, SUBTREE as usize + 5, BLOCK as usize] {
            let hashes = hashes(&data(len, 1), 3000)[0];
            let mut bytes = [0xAA; 96];
            bytes[..hashes.as_bytes().len()].copy_from_slice(hashes.as_bytes());
            assert_eq!(BlockHashes::from_bytes(&bytes, len as u64).digest(), hashes.digest());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn the_digest_does_not_depend_on_the_order(len in 1usize..40 << 20, seed: u64) {
            let data = data(len, seed);
            let mut order: Vec<u64> = (0..Geometry::new(len as u64).unwrap().blocks()).collect();
            fastrand::Rng::with_seed(seed).shuffle(&mut order);
            prop_assert_eq!(digest_in_order(&data, 100_000, order.into_iter()), blake3::hash(&data).into());
        }
    }
}
