//! How far each block has come: which are held, which are being filled, where damaged chunks left gaps.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Violation;
use super::blocks::BlockSet;
use super::digest::{BlockHasher, BlockHashes};
use super::geometry::{BLOCK, Geometry};

/// The most blocks that are begun and not whole at one time.
const MAX_OPEN_BLOCKS: usize = 128;

/// What a chunk did to its block.
#[derive(Debug)]
pub(super) struct Fill {
    /// The block was held, and was begun again.
    pub(super) reopened: Option<u64>,
    pub(super) completed: Filled,
}

/// Whether a chunk made its block whole.
#[derive(Debug)]
pub(super) enum Filled {
    No,
    /// Whole, and hashed on the way.
    Hashed(u64, BlockHashes),
    /// Whole, but not in order: it has to be read back to be hashed.
    Unhashed(u64),
}

/// The blocks of one file.
#[derive(Debug)]
pub(super) struct Assembly {
    geometry: Geometry,
    held: BlockSet,
    open: BTreeMap<u64, Open>,
    /// Blocks that are whole and being hashed.
    unhashed: BlockSet,
    /// How many chunks may be missing: those that came damaged.
    gaps_allowed: u32,
    gaps: u32,
    filled: u64,
}

#[derive(Debug)]
struct Open {
    /// Hashes in order; `None` from the first gap on.
    hasher: Option<BlockHasher>,
    /// Everything before this offset is there, but for `gaps`.
    next: u64,
    gaps: Vec<Range<u64>>,
}

impl Assembly {
    pub(super) fn new(geometry: Geometry, held: BlockSet) -> Self {
        let filled = held.runs().map(|run| geometry.bytes_of(run)).sum();
        Self {
            geometry,
            held,
            open: BTreeMap::new(),
            unhashed: BlockSet::new(),
            gaps_allowed: 0,
            gaps: 0,
            filled,
        }
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Bytes of the file that are there.
    pub(super) fn filled(&self) -> u64 {
        self.filled
    }

    /// A chunk came damaged: its place will be missing until it comes again.
    pub(super) fn expect_gap(&mut self) {
        self.gaps_allowed += 1;
    }

    /// A whole block's hash is known. `false` if it was begun again in the meantime.
    pub(super) fn hold(&mut self, block: u64) -> bool {
        self.unhashed.remove(block);
        let whole = !self.open.contains_key(&block);
        if whole {
            self.held.insert(block);
        }
        whole
    }

    /// A held block turned out not to be what it was. `false` if it is not held any more.
    pub(super) fn lose(&mut self, block: u64) -> bool {
        let held = self.held.remove(block);
        if held {
            self.filled -= self.geometry.block_len(block);
        }
        held
    }

    /// Blocks that are not whole; what has come of them is given up.
    pub(super) fn missing(&mut self) -> BlockSet {
        for (block, open) in std::mem::take(&mut self.open) {
            self.filled -= open.bytes(self.geometry.block_start(block));
        }
        self.gaps = 0;
        self.held.missing_below(self.geometry.blocks())
    }

    /// Puts a verified chunk in its place.
    pub(super) fn fill(&mut self, offset: u64, bytes: &[u8]) -> Result<Fill, Violation> {
        let len = bytes.len() as u64;
        let size = self.geometry.size();
        if offset >= size {
            return Err(Violation::field("chunk.offset", format!("below the file's size, {size}"), offset));
        }
        let block = offset / BLOCK;
        let end = self.geometry.block_end(block);
        if len == 0 || len > end - offset {
            let expected = format!("1 to {} at offset {offset}", end - offset);
            return Err(Violation::field("chunk length", expected, len));
        }
        if !offset.is_multiple_of(3) || (!len.is_multiple_of(3) && offset + len != size) {
            return Err(Violation::field(
                "chunk offset and length",
                "multiples of 3",
                format!("{offset} and {len}"),
            ));
        }
        let reopened = self.begin(block)?;
        let open = self.open.get_mut(&block).expect("it was begun a line ago");
        if let Some(at) = open.gaps.iter().position(|gap| gap.start <= offset && offset + len <= gap.end) {
            let gap = open.gaps.remove(at);
            let rests = [gap.start..offset, offset + len..gap.end];
            self.gaps -= 1;
            for rest in rests.into_iter().filter(|rest| !rest.is_empty()) {
                open.gaps.push(rest);
                self.gaps += 1;
            }
            if self.gaps > self.gaps_allowed {
                let expected = format!("the first byte of a gap; {} are open", self.gaps_allowed);
                return Err(Violation::field("chunk.offset", expected, offset));
            }
        } else if offset == open.next {
            if let Some(hasher) = &mut open.hasher {
                hasher.update(bytes);
            }
            open.next += len;
        } else if offset > open.next && self.gaps < self.gaps_allowed {
            open.gaps.push(open.next..offset);
            open.hasher = None;
            open.next = offset + len;
            self.gaps += 1;
        } else {
            let expected = format!("{} in block {block}", open.next);
            return Err(Violation::field("chunk.offset", expected, offset));
        }
        self.filled += len;
        if open.next < end || !open.gaps.is_empty() {
            return Ok(Fill { reopened, completed: Filled::No });
        }
        let completed = match self.open.remove(&block).and_then(|open| open.hasher) {
            Some(hasher) => Filled::Hashed(block, hasher.finish()),
            None => {
                self.unhashed.insert(block);
                Filled::Unhashed(block)
            }
        };
        Ok(Fill { reopened, completed })
    }

    /// Makes sure the block is open; `Some` if it was held before.
    fn begin(&mut self, block: u64) -> Result<Option<u64>, Violation> {
        if self.open.contains_key(&block) {
            return Ok(None);
        }
        if self.open.len() >= MAX_OPEN_BLOCKS {
            let expected = format!("at most {MAX_OPEN_BLOCKS}");
            return Err(Violation::field("blocks begun and not whole", expected, self.open.len() + 1));
        }
        let was_there = self.lose(block) || {
            let unhashed = self.unhashed.remove(block);
            if unhashed {
                self.filled -= self.geometry.block_len(block);
            }
            unhashed
        };
        let open = Open {
            hasher: Some(BlockHasher::new(self.geometry, block)),
            next: self.geometry.block_start(block),
            gaps: Vec::new(),
        };
        self.open.insert(block, open);
        Ok(was_there.then_some(block))
    }
}

impl Open {
    fn bytes(&self, start: u64) -> u64 {
        self.next - start - self.gaps.iter().map(|gap| gap.end - gap.start).sum::<u64>()
    }
}
