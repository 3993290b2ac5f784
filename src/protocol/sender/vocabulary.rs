//! What the sending half of a transfer is told, and what it says to its caller.

use crate::protocol::blocks::BlockSet;
use crate::protocol::digest::{DigestTree, FileDigest};
use crate::protocol::geometry::ChunkSize;
use crate::protocol::message::Code;

/// How one file is sent.
#[derive(Debug, Clone)]
pub struct Sending {
    /// The most raw bytes of a chunk; the frame limit may lower it, and what is learnt of the path.
    pub chunk: ChunkSize,
    /// Blocks of the file that are zeros, all of them: they are told of and do not cross.
    pub zeros: BlockSet,
    /// Bytes that an earlier connection of the same program sent already: sending them again counts as re-sent.
    pub already_sent: u64,
    /// The bytes come one after the other and cannot be read twice, but for those that the caller keeps.
    pub input: Option<Input>,
}

/// What is known of a source that cannot be read twice.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// As many bytes of it have come.
    pub available: u64,
    /// The blocks that earlier connections hashed.
    pub hashed: Hashed,
}

/// Blocks that were hashed: they need not be read again, and what the receiver holds of them is not compared block by block.
#[derive(Debug, Clone, Default)]
pub struct Hashed(pub(in crate::protocol) Option<(DigestTree, BlockSet)>);

/// Something that the caller should know of a transfer that it offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SenderEvent {
    /// The receiver took the offer and holds this many bytes of the file.
    Accepted {
        /// Bytes in blocks that the receiver holds.
        held: u64,
        /// The file is there already, whole.
        complete: bool,
    },
    /// The receiver does not want the file, or not any more: the transfer has ended.
    Rejected {
        /// It was accepted before.
        accepted: bool,
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        reason: String,
        /// The cause may pass.
        again: bool,
        /// How far it was.
        progress: Progress,
    },
    /// What stood there under the file's name is another file, which is replaced: blocks cross after all.
    Replacing {
        /// Bytes in blocks that the receiver holds.
        held: u64,
    },
    /// It is durable under its final name: the transfer has ended.
    Receipted {
        /// The digest; of what is no file there is none.
        digest: Option<FileDigest>,
        /// It was there already.
        complete: bool,
        /// The counts at the end.
        progress: Progress,
    },
    /// What was read of the source is not what was offered: the transfer is to be cancelled.
    Changed,
}

/// How far a transfer is, in bytes of the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The file's size, if it is known.
    pub total: Option<u64>,
    /// What the receiver held when this connection began.
    pub held: u64,
    /// What was acknowledged: held, or arrived and verified.
    pub acknowledged: u64,
    /// What survives a loss of power, as an offset.
    pub durable: u64,
    /// Held bytes whose blocks were compared so far.
    pub verified: u64,
    /// Bytes that were sent although they had been sent before.
    pub resent: u64,
    /// Chunk frames that came damaged and were asked for again.
    pub naks: u32,
    /// Held blocks that differed and were sent again.
    pub repaired_blocks: u64,
}
