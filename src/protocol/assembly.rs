//! How far each block has come: which are held, which are being filled, where damaged chunks left gaps.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Violation;
use super::blocks::BlockSet;
use super::chunk::MAX_ZERO_BLOCKS;
use super::digest::{BlockHasher, BlockHashes};
use super::geometry::{BLOCK, Geometry};

/// The most blocks that are begun and not whole at one time.
const MAX_OPEN_BLOCKS: usize = 128;

/// The most of them that are hashed as they come; others are read back. A hasher takes two kilobytes, and its block begins
/// with a chunk of three bytes.
const MAX_HASHERS: usize = 4;

/// What a chunk did to its block.
#[derive(Debug)]
pub(super) struct Fill {
    /// The block was held, and was begun again.
    pub(super) reopened: Option<u64>,
    pub(super) completed: Filled,
}

/// Whether a chunk, or the file's end, made a block whole.
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
    /// Places that chunks which came damaged left open.
    gaps: u32,
    filled: u64,
}

#[derive(Debug)]
struct Open {
    /// Hashes in order; `None` from the first gap on, and where too many are begun.
    hasher: Option<BlockHasher>,
    /// Everything before this offset is there, but for `gaps`.
    next: u64,
    gaps: Vec<Range<u64>>,
    /// An earlier connection began it, and this one has not gone on with it yet.
    is_left: bool,
}

impl Assembly {
    /// Blocks that are held, others that are whole and to be hashed, and how far an earlier connection got.
    pub(super) fn new(geometry: Geometry, held: BlockSet, unhashed: BlockSet, received: u64) -> Self {
        let whole = held.runs().chain(unhashed.runs());
        let filled = whole.map(|run| geometry.bytes_of(run)).sum();
        let mut assembly = Self { geometry, held, open: BTreeMap::new(), unhashed, gaps: 0, filled };
        let (block, bytes) = (received / BLOCK, received % BLOCK / 3 * 3);
        if received < geometry.size() && bytes > 0 && !assembly.is_whole(block) {
            let next = geometry.block_start(block) + bytes;
            assembly.open.insert(block, Open { hasher: None, next, gaps: Vec::new(), is_left: true });
            assembly.filled += bytes;
        }
        assembly
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Whether all bytes of a block are there, hashed or not.
    pub(super) fn is_whole(&self, block: u64) -> bool {
        self.held.contains(block) || self.unhashed.contains(block)
    }

    /// The file ends here, which was not known. Whether a block is whole by that.
    pub(super) fn ends_with(&mut self, geometry: Geometry) -> Result<Filled, Violation> {
        let size = geometry.size();
        let whole = self.held.runs().chain(self.unhashed.runs()).map(|run| run.end * BLOCK);
        let reached = whole.chain(self.open.values().map(|open| open.next)).max().unwrap_or(0);
        if size < reached {
            return Err(Violation::field("size.size", format!("at least {reached}, which have come"), size));
        }
        self.geometry = geometry;
        let last = size / BLOCK;
        let Some(open) = self.open.get_mut(&last) else { return Ok(Filled::No) };
        if let Some(hasher) = &mut open.hasher {
            hasher.ends_with(geometry);
        }
        if open.next < size || !open.gaps.is_empty() {
            return Ok(Filled::No);
        }
        Ok(self.close(last))
    }

    /// A block is whole.
    fn close(&mut self, block: u64) -> Filled {
        match self.open.remove(&block).and_then(|open| open.hasher) {
            Some(hasher) => Filled::Hashed(block, hasher.finish()),
            None => {
                self.unhashed.insert(block);
                Filled::Unhashed(block)
            }
        }
    }

    /// Blocks that are begun: block, bytes from its first on without a gap.
    pub(super) fn begun(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.open.iter().map(|(&block, open)| {
            let end = open.gaps.iter().map(|gap| gap.start).min().unwrap_or(open.next);
            (block, end - self.geometry.block_start(block))
        })
    }

    /// The offset behind which nothing is worth keeping, if the last block that has bytes is not whole.
    pub(super) fn end(&self) -> Option<u64> {
        let (block, bytes) = self.begun().last()?;
        let whole = self.held.runs().chain(self.unhashed.runs()).map(|run| run.end).max().unwrap_or(0);
        (block >= whole).then(|| self.geometry.block_start(block) + bytes)
    }

    /// Bytes of the file that are there.
    pub(super) fn filled(&self) -> u64 {
        self.filled
    }

    /// Places that are open for chunks which came damaged.
    pub(super) fn gaps(&self) -> u32 {
        self.gaps
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

    /// A whole block could not be read back to be hashed. `false` if it was not waiting for that.
    pub(super) fn lose_unhashed(&mut self, block: u64) -> bool {
        let unhashed = self.unhashed.remove(block);
        if unhashed {
            self.filled -= self.geometry.block_len(block);
        }
        unhashed
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
        let mut whole = self.held.clone();
        self.unhashed.runs().for_each(|run| whole.insert_run(run));
        whole.missing_below(self.geometry.blocks())
    }

    /// A block of zeros comes instead of chunks. Whether it was whole before.
    pub(super) fn fill_with_zeros(&mut self, block: u64) -> bool {
        if let Some(open) = self.open.remove(&block) {
            self.gaps -= open.gaps.len() as u32;
            self.filled -= open.bytes(self.geometry.block_start(block));
        }
        let was_whole = self.forget_whole(block);
        self.unhashed.insert(block);
        self.filled += self.geometry.block_len(block);
        was_whole
    }

    /// Checks a run of zeros: whole blocks of the file.
    pub(super) fn check_zeros(&self, offset: u64, len: u64) -> Result<Range<u64>, Violation> {
        let size = self.geometry.size();
        let end = offset.checked_add(len).filter(|&end| end <= size && len > 0);
        match end {
            Some(end)
                if offset.is_multiple_of(BLOCK)
                    && (end.is_multiple_of(BLOCK) || end == size)
                    && len <= MAX_ZERO_BLOCKS * BLOCK =>
            {
                Ok(self.geometry.blocks_of(offset..end))
            }
            _ => {
                let expected = format!("1 to {MAX_ZERO_BLOCKS} whole blocks of a file of {size} bytes");
                Err(Violation::field("zeros", expected, format!("{len} at offset {offset}")))
            }
        }
    }

    /// Puts a verified chunk in its place. `gaps`: how many places may be open for chunks that came damaged.
    pub(super) fn fill(&mut self, offset: u64, bytes: &[u8], gaps: u32) -> Result<Fill, Violation> {
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
        let mut reopened = self.begin(block)?;
        let mut open = self.open.get_mut(&block).expect("it was begun a line ago");
        if std::mem::take(&mut open.is_left) && offset == self.geometry.block_start(block) {
            // The sender does not go on with it but begins anew.
            self.filled -= open.next - offset;
            self.open.remove(&block);
            reopened = self.begin(block)?;
            open = self.open.get_mut(&block).expect("it was begun a line ago");
        }
        if let Some(at) = open.gaps.iter().position(|gap| gap.start <= offset && offset + len <= gap.end) {
            let gap = open.gaps.remove(at);
            let rests = [gap.start..offset, offset + len..gap.end];
            self.gaps -= 1;
            for rest in rests.into_iter().filter(|rest| !rest.is_empty()) {
                open.gaps.push(rest);
                self.gaps += 1;
            }
            if self.gaps > gaps {
                let expected = format!("the first byte of a gap; {gaps} are open");
                return Err(Violation::field("chunk.offset", expected, offset));
            }
        } else if offset == open.next {
            if let Some(hasher) = &mut open.hasher {
                hasher.update(bytes);
            }
            open.next += len;
        } else if offset > open.next && self.gaps < gaps {
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
        Ok(Fill { reopened, completed: self.close(block) })
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
        let was_whole = self.forget_whole(block);
        let hashers = self.open.values().filter(|open| open.hasher.is_some()).count();
        let open = Open {
            hasher: (hashers < MAX_HASHERS).then(|| BlockHasher::new(self.geometry, block)),
            next: self.geometry.block_start(block),
            gaps: Vec::new(),
            is_left: false,
        };
        self.open.insert(block, open);
        Ok(was_whole.then_some(block))
    }

    /// A block is not whole any more; whether it was.
    fn forget_whole(&mut self, block: u64) -> bool {
        self.lose(block) || self.lose_unhashed(block)
    }
}

impl Open {
    fn bytes(&self, start: u64) -> u64 {
        self.next - start - self.gaps.iter().map(|gap| gap.end - gap.start).sum::<u64>()
    }
}
