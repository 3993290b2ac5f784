//! Files: the source that is sent, and the destination with its partial files and journals.
//!
//! Knows no frames and no sockets; of the protocol it takes types alone. All calls block: run them on a thread
//! that may.

mod abilities;
mod actions;
mod claims;
mod destination;
mod disk;
mod entries;
mod error;
mod existing;
mod folder;
mod follow;
mod group;
mod inbox;
mod journal;
mod keeping;
mod memory;
mod offers;
mod outlet;
mod part;
mod partial;
mod partials;
mod plain;
mod reading;
mod remains;
mod room;
mod scan;
mod seal;
mod size;
mod small;
mod source;
mod stream;
mod sweep;
mod target;
mod tree;
mod warning;
mod zeros;

pub use disk::DiskFolder;
pub use error::StorageError;
pub use folder::{FileId, FileInfo, Folder, FolderFile, Obstacle, Time};
pub use follow::{FollowEnd, Follower};
pub use inbox::{Inbox, InboxOptions, Resumable};
pub use offers::Begun;
pub use outlet::Outlet;
pub use partials::{PartialFile, Partials, Pruned};
pub use plain::{PlainFile, PlainInbox};
pub use scan::{
    Entry, Filter, FilterError, FilterRule, Links, Root, Scan, ScanOptions, SkipReason, Skipped, Special,
    What, stays_inside,
};
pub use size::Size;
pub use source::{Source, SourceError, Standing};
pub use stream::{Come, MOST_KEPT, Stream};
pub use target::{Sealed, Target};
pub use warning::Warning;

use std::cell::RefCell;
use std::io;

use crate::protocol::{BlockDigest, BlockHasher, BlockHashes, Geometry};

/// Bytes read at a time when a block is hashed.
const HASH_BUFFER: usize = 256 * 1024;

thread_local! {
    /// What is hashed goes through here: a new buffer for each small file would be cleared each time.
    static HASHED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Reads one block and hashes it.
fn hash_block(
    geometry: Geometry,
    block: u64,
    read_at: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<BlockHashes> {
    let mut hasher = BlockHasher::new(geometry, block);
    read_block(geometry, block, read_at, |bytes| hasher.update(bytes))?;
    Ok(hasher.finish())
}

/// Reads one block, for the BLAKE3 digest of its bytes.
fn plain_digest(
    geometry: Geometry,
    block: u64,
    read_at: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<BlockDigest> {
    let mut hasher = blake3::Hasher::new();
    read_block(geometry, block, read_at, |bytes| {
        hasher.update(bytes);
    })?;
    Ok(BlockDigest(*hasher.finalize().as_bytes()))
}

fn read_block(
    geometry: Geometry,
    block: u64,
    mut read_at: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    mut take: impl FnMut(&[u8]),
) -> io::Result<()> {
    let (start, end) = (geometry.block_start(block), geometry.block_end(block));
    HASHED.with_borrow_mut(|buffer| {
        let most = HASH_BUFFER.min((end - start) as usize);
        if buffer.len() < most {
            buffer.resize(most, 0);
        }
        let mut at = start;
        while at < end {
            let want = buffer.len().min((end - at) as usize);
            match read_at(&mut buffer[..want], at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    take(&buffer[..read]);
                    at += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    })
}
