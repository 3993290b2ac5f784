//! Where files go: into a directory, or one of them in order into a pipe.

use std::future::poll_fn;
use std::sync::Arc;

use super::work::Outcome;
use crate::protocol::{
    Action, BLOCK, BlockDigest, BlockHashes, Done, FileDigest, Geometry, Receiving, Unfinished, Write,
};
use crate::runtime;
use crate::storage::{Inbox, Outlet, Sealed, StorageError, Target};

/// What a sender to a pipe may have in flight: as much may come when no more can be taken.
const WINDOW_OF_PIPE: u64 = 16 << 20;

/// Where files go.
#[derive(Debug, Clone)]
pub enum Receptacle {
    /// Into a directory.
    Inbox(Arc<Inbox>),
    /// One file, in order, into a pipe; others are refused.
    Outlet(Arc<Outlet>),
}

impl From<&Arc<Inbox>> for Receptacle {
    fn from(inbox: &Arc<Inbox>) -> Self {
        Self::Inbox(inbox.clone())
    }
}

impl From<&Arc<Outlet>> for Receptacle {
    fn from(outlet: &Arc<Outlet>) -> Self {
        Self::Outlet(outlet.clone())
    }
}

impl Receptacle {
    /// How much a sender may have in flight, and when what has come is written to its end.
    pub(super) fn limits(&self, window: u64, receiving: Receiving) -> (u64, Receiving) {
        match self {
            Self::Inbox(_) => (window, receiving),
            // A block is passed on, and forgotten, as soon as it can be.
            Self::Outlet(_) => (
                window.min(WINDOW_OF_PIPE),
                Receiving { sync_bytes: receiving.sync_bytes.min(BLOCK), ..receiving },
            ),
        }
    }
}

/// Where one file goes that was accepted.
#[derive(Clone)]
pub(super) enum Place {
    Target(Arc<Target>),
    Outlet(Arc<Outlet>),
}

impl Place {
    pub(super) fn write(&self, write: Write, bytes: &[u8]) -> Result<(), StorageError> {
        match (self, write) {
            (Self::Target(target), Write::Bytes { offset, len, .. }) => {
                target.write_at(&bytes[..len], offset)
            }
            (Self::Target(target), Write::Zeros { bytes, .. }) => target.write_zeros(bytes),
            (Self::Outlet(outlet), Write::Bytes { offset, len, .. }) => {
                outlet.write_at(&bytes[..len], offset)
            }
            (Self::Outlet(outlet), Write::Zeros { bytes, .. }) => outlet.write_zeros(bytes),
        }
    }

    /// The file was offered without its size, and has this one.
    pub(super) fn ends_with(&self, geometry: Geometry) {
        match self {
            Self::Target(target) => target.ends_with(geometry),
            Self::Outlet(outlet) => outlet.ends_with(geometry),
        }
    }

    /// Makes durable what came of a file that is not whole, and closes it. Blocks.
    pub(super) fn put_away(&self, unfinished: Unfinished, storage_failed: bool) {
        match self {
            Self::Target(target) => {
                let blocks = if storage_failed { Vec::new() } else { unfinished.unsynced };
                target.put_away(&blocks, unfinished.end);
            }
            Self::Outlet(outlet) => outlet.put_away(),
        }
    }
}

/// Does what the machine asked for of a file that goes into a pipe: durable is what was written.
pub(super) async fn pass_on(action: Action, outlet: Arc<Outlet>) -> Outcome {
    match action {
        Action::Sync { transfer, blocks } => {
            let synced = match outlet.note(&blocks) {
                Ok(below) => poll_fn(|cx| outlet.poll_written(below, cx)).await,
                Err(error) => Err(error),
            };
            Outcome::Done(transfer, synced.map(|()| Done::Synced))
        }
        Action::HashBlock { transfer, block } => {
            let hashes = runtime::spawn_blocking(move || outlet.hash_block(block)).await;
            Outcome::Done(transfer, Ok(Done::Hashed(block, hashes)))
        }
        // What left cannot be read back.
        Action::CheckBlock { transfer, block } => Outcome::Done(transfer, Ok(Done::Checked(block, true))),
        Action::ReadDigests { transfer, first, count, tree } => {
            let digests = match tree {
                true if outlet.geometry().blocks() == 1 => {
                    let hashes = outlet.hash_block(first);
                    vec![hashes.map_or(BlockDigest::NONE, |hashes| hashes.digest())]
                }
                true => outlet.digests(first, count),
                // What left was hashed once, for its subtrees.
                false => vec![BlockDigest::NONE],
            };
            Outcome::Done(transfer, Ok(Done::Digests(first, digests)))
        }
        Action::Seal { transfer, digest, hashes } => {
            let sealed = seal(digest, hashes, &outlet).await.map(|()| Sealed::Stored(Vec::new()));
            Outcome::SealedOne(transfer, digest, sealed)
        }
        Action::Open { .. } | Action::HashSource { .. } | Action::Confirm { .. } => {
            unreachable!("it is no work on a file that is received")
        }
    }
}

/// Waits until all of it was written, and makes sure of it.
async fn seal(digest: FileDigest, hashes: Option<BlockHashes>, outlet: &Outlet) -> Result<(), StorageError> {
    let geometry = outlet.geometry();
    // Of a small file nothing was noted before.
    if geometry.blocks() == 1
        && let Some(hashes) = hashes.or_else(|| outlet.hash_block(0))
    {
        outlet.note(&[(0, hashes)])?;
    }
    poll_fn(|cx| outlet.poll_written(geometry.size(), cx)).await?;
    outlet.seal(digest)
}
