//! How a file is cut: blocks of 3 MiB, subtrees of 1 MiB, chunks of a multiple of 3 bytes.

use super::chunk::HEADER_LEN;

/// The bytes of one BLAKE3 subtree whose hash is kept: 1 MiB.
pub const SUBTREE: u64 = 1 << 20;

/// The bytes of one block: 3 MiB. A multiple of 3, so Base64 never pads inside a file, and three
/// whole BLAKE3 subtrees.
pub const BLOCK: u64 = 3 * SUBTREE;

/// The largest file: 2^53 - 1 bytes, the largest integer that every JSON reader keeps exact.
pub const MAX_FILE: u64 = (1 << 53) - 1;

/// The largest chunk frame in characters: one whole block in Base64 behind its header.
pub const MAX_FRAME: usize = HEADER_LEN + (BLOCK as usize / 3) * 4;

/// The smallest frame limit that can be asked for, in characters. Control messages have to fit too,
/// and the longest that cannot be split is an offer with a long name.
pub const MIN_FRAME_LIMIT: usize = 2048;

/// A file's size and the blocks that follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    size: u64,
    is_open: bool,
}

impl Geometry {
    /// The geometry of a file of `size` bytes, or `None` past [`MAX_FILE`].
    pub fn new(size: u64) -> Option<Self> {
        (size <= MAX_FILE).then_some(Self { size, is_open: false })
    }

    /// The geometry of a file whose end is not known yet: as if it were of [`MAX_FILE`] bytes.
    pub fn open() -> Self {
        Self { size: MAX_FILE, is_open: true }
    }

    /// Whether the file's end is not known yet.
    pub fn is_open(self) -> bool {
        self.is_open
    }

    /// The file's size in bytes, if its end is known.
    pub fn known_size(self) -> Option<u64> {
        (!self.is_open).then_some(self.size)
    }

    /// The file's size in bytes; [`MAX_FILE`] where its end is not known yet.
    pub fn size(self) -> u64 {
        self.size
    }

    /// How many blocks the file has; 0 for an empty file.
    pub fn blocks(self) -> u64 {
        self.size.div_ceil(BLOCK)
    }

    /// How many 1 MiB subtrees the file has.
    pub fn subtrees(self) -> u64 {
        self.size.div_ceil(SUBTREE)
    }

    /// The offset of a block's first byte.
    ///
    /// `block` must be below [`blocks`](Self::blocks).
    pub fn block_start(self, block: u64) -> u64 {
        debug_assert!(block < self.blocks());
        block * BLOCK
    }

    /// A block's length in bytes: [`BLOCK`], or less for the last one.
    pub fn block_len(self, block: u64) -> u64 {
        BLOCK.min(self.size - self.block_start(block))
    }

    /// The offset behind a block's last byte.
    pub fn block_end(self, block: u64) -> u64 {
        self.block_start(block) + self.block_len(block)
    }

    /// The blocks that bytes of the file lie in.
    pub fn blocks_of(self, bytes: std::ops::Range<u64>) -> std::ops::Range<u64> {
        bytes.start / BLOCK..bytes.end.div_ceil(BLOCK)
    }

    /// How many bytes a run of blocks holds.
    pub fn bytes_of(self, blocks: std::ops::Range<u64>) -> u64 {
        if blocks.is_empty() { 0 } else { self.block_end(blocks.end - 1) - self.block_start(blocks.start) }
    }
}

/// The raw bytes of one chunk: a multiple of 3, from 3 to [`BLOCK`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChunkSize(u32);

impl ChunkSize {
    /// 576 KiB raw, a frame of 768 KiB and a header: it passes where 1 MiB does, and larger ones leave the caches.
    pub const LARGEST_AUTO: Self = Self(576 * 1024);
    /// 48 KiB raw, a frame of 64 KiB and a header.
    const SMALLEST_AUTO: Self = Self(48 * 1024);

    /// What to use for a file of `size` bytes where nobody chose: what `wsferry bench` measured best, and less for
    /// a small file, so that its first chunks are written while its last ones are read, and a thousand of them
    /// together stay small.
    pub fn auto(size: u64) -> Self {
        let part = Self::at_most(size / 16).unwrap_or(Self::SMALLEST_AUTO);
        part.clamp(Self::SMALLEST_AUTO, Self::LARGEST_AUTO)
    }

    /// The largest chunk size that is at most `raw` bytes and at most a block; `None` below 3.
    pub fn at_most(raw: u64) -> Option<Self> {
        let size = raw.min(BLOCK) / 3 * 3;
        (size > 0).then_some(Self(size as u32))
    }

    /// The largest chunk whose frame, header included, fits `limit` characters:
    /// `floor((limit - header) / 4) * 3`. `None` if not even three bytes fit.
    pub fn for_frame_limit(limit: usize) -> Option<Self> {
        let quads = limit.checked_sub(HEADER_LEN)? / 4;
        Self::at_most(quads as u64 * 3)
    }

    /// The size in raw bytes.
    pub fn raw(self) -> u64 {
        u64::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_whole_in_base64_and_in_subtrees() {
        assert_eq!(BLOCK % 3, 0);
        assert_eq!(BLOCK % SUBTREE, 0);
    }

    #[test]
    fn blocks_at_the_edges() {
        for (size, blocks, last) in
            [(1, 1, 1), (BLOCK - 1, 1, BLOCK - 1), (BLOCK, 1, BLOCK), (BLOCK + 1, 2, 1)]
        {
            let geometry = Geometry::new(size).unwrap();
            assert_eq!(geometry.blocks(), blocks, "size {size}");
            assert_eq!(geometry.block_len(blocks - 1), last, "size {size}");
            assert_eq!(geometry.bytes_of(0..blocks), size);
        }
        assert_eq!(Geometry::new(0).unwrap().blocks(), 0);
        assert_eq!(Geometry::new(MAX_FILE + 1), None);
    }

    #[test]
    fn a_chunk_fits_its_frame_limit_and_the_next_larger_one_does_not() {
        for limit in [HEADER_LEN + 4, 8192, 10_000, 32_768, 65_535, 131_072] {
            let raw = ChunkSize::for_frame_limit(limit).unwrap().raw() as usize;
            assert_eq!(raw % 3, 0);
            assert!(HEADER_LEN + raw / 3 * 4 <= limit);
            assert!(HEADER_LEN + (raw / 3 + 1) * 4 > limit);
        }
        assert_eq!(ChunkSize::for_frame_limit(HEADER_LEN + 3), None);
        assert_eq!(ChunkSize::for_frame_limit(usize::MAX).unwrap().raw(), BLOCK);
    }

    #[test]
    fn an_automatic_chunk_grows_with_the_file() {
        for (size, raw) in [(0, 48 << 10), (1 << 20, 64 << 10), (6 << 20, 384 << 10), (1 << 40, 576 << 10)] {
            assert_eq!(ChunkSize::auto(size).raw(), raw / 3 * 3, "size {size}");
        }
    }

    #[test]
    fn a_chunk_size_is_rounded_down_to_a_multiple_of_three() {
        assert_eq!(ChunkSize::at_most(2), None);
        assert_eq!(ChunkSize::at_most(256 * 1024).unwrap().raw(), 262_143);
    }
}
