//! Where a source has holes: zeros that take no room, and need neither be read nor be sent.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;

use rustix::fs::SeekFrom;

use crate::protocol::{BLOCK, BlockSet, Geometry};

/// Blocks that lie wholly in holes. Looked for only in files of more than one block, as most are small, and where the file
/// takes less room than it has bytes; what cannot be told is read.
pub(super) fn find_zero_blocks(file: &File, metadata: &Metadata, geometry: Geometry) -> BlockSet {
    let mut zeros = BlockSet::new();
    if geometry.blocks() <= 1 || metadata.blocks() * 512 >= geometry.size() {
        return zeros;
    }
    let mut offset = 0;
    while offset < geometry.size() {
        let data = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
            Ok(data) => data.min(geometry.size()),
            Err(rustix::io::Errno::NXIO) => geometry.size(),
            Err(_) => return zeros,
        };
        let end = if data == geometry.size() { geometry.blocks() } else { data / BLOCK };
        zeros.insert_run(offset.div_ceil(BLOCK)..end);
        if data == geometry.size() {
            break;
        }
        offset = match rustix::fs::seek(file, SeekFrom::Hole(data)) {
            Ok(hole) => hole,
            Err(_) => return zeros,
        };
    }
    zeros
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::storage::Source;

    #[test]
    fn blocks_in_holes_are_found_and_not_read() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let size = 9 * BLOCK + 5;
        file.as_file().set_len(size).unwrap();
        // Data in block 2, at the seam of blocks 4 and 5, and in the middle of block 7.
        for at in [2 * BLOCK, 5 * BLOCK - 1, 7 * BLOCK + BLOCK / 2] {
            file.as_file().write_all_at(b"xy", at).unwrap();
        }
        io::Write::flush(&mut file).unwrap();
        let source = Source::open(file.path(), Some("f".parse().unwrap())).unwrap();
        let found: Vec<_> = source.zero_blocks().runs().collect();
        if found.is_empty() {
            println!("lacking: holes, where temporary files are");
            return;
        }
        assert_eq!(found, [0..2, 3..4, 6..7, 8..10]);
        assert_eq!(source.zero_bytes(), 5 * BLOCK + 5);
        assert_eq!(source.digest().unwrap(), Some(blake3::hash(&std::fs::read(file.path()).unwrap()).into()));
        let zeros = source.hash_block(0).unwrap();
        // What is not read does not show: the hole is filled behind the source's back.
        file.as_file().write_all_at(&[7; 4096], 0).unwrap();
        assert_eq!(source.hash_block(0).unwrap(), zeros);
        assert_ne!(source.reopen().unwrap().hash_block(0).unwrap(), zeros);
        // But a whole digest looks again.
        assert_eq!(source.digest().unwrap(), Some(blake3::hash(&std::fs::read(file.path()).unwrap()).into()));
    }
}
