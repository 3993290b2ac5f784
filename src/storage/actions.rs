//! What the machine of a connection wants done with a file that is received.

use super::error::StorageError;
use super::target::{Sealed, Target};
use crate::protocol::{Action, BlockDigest, Done};

impl Target {
    /// Does what the machine asked for, all but [`Action::Open`], which is [`Inbox::begin`](super::Inbox::begin)'s; gives what
    /// the machine is to be told. What the file system would not do for a file that is sealed is not told:
    /// [`seal`](Self::seal) says it. Blocks.
    ///
    /// # Errors
    /// If the storage failed: the transfer is to be given up with [`Link::fail`](crate::protocol::Link::fail).
    ///
    /// # Panics
    /// If it is no action on a file that is received.
    pub fn carry_out(&self, action: Action) -> Result<Done, StorageError> {
        Ok(match action {
            Action::Sync { blocks, .. } => {
                self.sync(&blocks)?;
                Done::Synced
            }
            Action::HashBlock { block, .. } => Done::Hashed(block, self.hash_block(block)?),
            Action::CheckBlock { block, .. } => Done::Checked(block, self.check_block(block)?),
            Action::ReadDigests { first, count, tree, .. } => Done::Digests(
                first,
                match tree {
                    false => self.plain_digests(first, count)?,
                    // There may be no journal of what has one block.
                    true if self.geometry().blocks() == 1 => {
                        vec![self.hash_block(first)?.map_or(BlockDigest::NONE, |hashes| hashes.digest())]
                    }
                    true => self.digests(first, count)?,
                },
            ),
            Action::Seal { digest, hashes, .. } => {
                hashes.map_or(Ok(()), |hashes| self.note_hashes(hashes))?;
                match self.seal(digest)? {
                    Sealed::Stored(_) => Done::Sealed(Some(digest)),
                    Sealed::Differs(opened) => Done::Differs(opened),
                }
            }
            Action::Open { .. } | Action::HashSource { .. } | Action::Confirm { .. } => {
                panic!("it is no work on a file that is received: {action:?}")
            }
        })
    }
}
