//! Files: the source that is sent, and the destination with its partial files and journals.
//!
//! Knows no frames and no sockets; of the protocol it takes types alone. All calls block: run them on a thread
//! that may.

mod abilities;
mod claims;
mod destination;
mod disk;
mod error;
mod existing;
mod folder;
mod inbox;
mod journal;
mod memory;
mod part;
mod partial;
mod plain;
mod reading;
mod remains;
mod room;
mod seal;
mod source;
mod sweep;
mod target;
mod warning;

pub use disk::DiskFolder;
pub use error::StorageError;
pub use folder::{FileId, FileInfo, Folder, FolderFile, Obstacle, Time};
pub use inbox::{Inbox, InboxOptions, Resumable};
pub use plain::{PlainFile, PlainInbox};
pub use source::{Source, SourceError, Standing};
pub use target::{Sealed, Target};
pub use warning::Warning;

use std::io;

use crate::protocol::{BlockHasher, BlockHashes, Geometry};

/// Bytes read at a time when a block is hashed.
const HASH_BUFFER: usize = 256 * 1024;

/// Reads one block and hashes it.
fn hash_block(
    geometry: Geometry,
    block: u64,
    mut read_at: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<BlockHashes> {
    let mut buffer = vec![0; HASH_BUFFER];
    let mut hasher = BlockHasher::new(geometry, block);
    let (start, len) = (geometry.block_start(block), geometry.block_len(block));
    while hasher.hashed() < len {
        let want = buffer.len().min((len - hasher.hashed()) as usize);
        match read_at(&mut buffer[..want], start + hasher.hashed()) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hasher.finish())
}
