//! What is sent: a file, a stream, or a place without anything in it.

use std::sync::Arc;

use crate::protocol::message::transfer_id;
use crate::protocol::{BlockDigest, BlockHashes, FileDigest, Offer, OfferKind, RelativePath};
use crate::storage::{Source, SourceError, Standing, Stream, What};

/// What is sent.
#[derive(Clone)]
pub(super) enum Content {
    File(Arc<Source>),
    /// It cannot be read twice, and may not have ended.
    Stream(Arc<Stream>),
    /// A directory, or a link: there is nothing in it.
    Place(Place),
}

impl Content {
    pub(super) fn offer(&self) -> Offer {
        match self {
            Self::File(source) => source.offer(),
            Self::Stream(stream) => stream.offer(),
            Self::Place(place) => place.offer(),
        }
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::File(source) => source.name().to_string(),
            Self::Stream(stream) => stream.name().to_string(),
            Self::Place(place) => place.to.to_string(),
        }
    }

    pub(super) fn kind(&self) -> OfferKind {
        match self {
            Self::File(_) | Self::Stream(_) => OfferKind::File,
            Self::Place(place) => place.kind(),
        }
    }

    /// Bytes of the file, if that is known.
    pub(super) fn size(&self) -> Option<u64> {
        match self {
            Self::File(source) => Some(source.geometry().size()),
            Self::Stream(stream) => stream.geometry().known_size(),
            Self::Place(_) => Some(0),
        }
    }

    pub(super) fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), SourceError> {
        match self {
            Self::File(source) => source.read_exact_at(bytes, offset),
            Self::Stream(stream) => stream.read_exact_at(bytes, offset),
            Self::Place(_) => unreachable!("there is nothing in it"),
        }
    }

    /// Hashes a block, and the digest of it that is compared. Blocks.
    pub(super) fn hash(&self, block: u64, tree: bool) -> Result<(BlockHashes, BlockDigest), SourceError> {
        let hashes = match self {
            Self::File(source) => source.hash_block(block)?,
            Self::Stream(stream) => stream.hash_block(block)?,
            Self::Place(_) => unreachable!("there is nothing in it"),
        };
        let digest = match self {
            _ if tree => hashes.digest(),
            Self::File(source) => source.plain_digest(block)?,
            Self::Stream(stream) => stream.plain_digest(block)?,
            Self::Place(_) => unreachable!("there is nothing in it"),
        };
        Ok((hashes, digest))
    }

    /// Whether it is still what was offered; if that is not clear, its digest. Blocks.
    pub(super) fn confirm(&self) -> Result<Option<FileDigest>, SourceError> {
        match self {
            Self::File(source) => match source.standing()? {
                Standing::Same => Ok(None),
                Standing::Unclear => source.digest(),
            },
            Self::Stream(_) | Self::Place(_) => Ok(None),
        }
    }
}

#[derive(Clone)]
pub(super) struct Place {
    pub(super) to: RelativePath,
    pub(super) what: What,
}

impl Place {
    fn kind(&self) -> OfferKind {
        match self.what {
            What::Link { .. } => OfferKind::Link,
            What::Directory { .. } => OfferKind::Directory,
            What::File { .. } => unreachable!("a file is opened"),
        }
    }

    fn offer(&self) -> Offer {
        let path = self.to.to_string();
        let (target, mode, (mtime, mtime_ns)) = match &self.what {
            What::Link { target, mtime } => (Some(target.clone()), None, *mtime),
            What::Directory { mode, mtime } => (None, Some(*mode), *mtime),
            What::File { .. } => unreachable!("a file is opened"),
        };
        let id = transfer_id(&path, 0, mtime, mtime_ns, mode);
        Offer { target, mtime, mtime_ns, mode, ..Offer::new(id, path, self.kind()) }
    }
}
