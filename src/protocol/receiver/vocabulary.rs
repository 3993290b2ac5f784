//! What the receiving half of a transfer is told, and what it says to its caller.

use std::ops::Range;
use std::time::Duration;

use crate::protocol::blocks::BlockSet;
use crate::protocol::digest::FileDigest;
use crate::protocol::message::Code;

/// How files are received.
#[derive(Debug, Clone, Copy)]
pub struct Receiving {
    /// Sync when this many bytes of a file's whole blocks are not durable.
    pub sync_bytes: u64,
    /// Sync when a whole block has not been durable for this long.
    pub sync_interval: Duration,
}

impl Default for Receiving {
    fn default() -> Self {
        Self { sync_bytes: 64 << 20, sync_interval: Duration::from_secs(1) }
    }
}

/// What was found when the partial file was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// Blocks that are whole and in the journal.
    pub held: BlockSet,
    /// Blocks that have all their bytes, as far as length and holes tell, and are not in the journal: they are hashed
    /// behind the transfer.
    pub unhashed: BlockSet,
    /// The partial file's length: how far bytes of it ever got.
    pub received: u64,
    /// The file stands under its final name already.
    pub complete: bool,
}

/// How far a transfer is that was offered to here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Received {
    /// Bytes of the file that are there, verified.
    pub bytes: u64,
    /// The offset below which everything survives a loss of power.
    pub durable: u64,
    /// Bytes that came on this connection although they had come on it, or were held.
    pub again: u64,
}

/// What to write, given out by [`Link::handle_frame`](crate::protocol::Link::handle_frame).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Bytes from the start of the caller's buffer.
    Bytes {
        /// Into which transfer's file.
        transfer: u32,
        /// Where in the file.
        offset: u64,
        /// How many.
        len: usize,
    },
    /// Zeros.
    Zeros {
        /// Into which transfer's file.
        transfer: u32,
        /// Where in the file.
        bytes: Range<u64>,
    },
}

/// Something that the caller should know of a transfer that was offered to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReceiverEvent {
    /// It was offered, and will be accepted or refused.
    Offered {
        /// The offered path, made safe to print.
        path: String,
        /// How many more offers follow, at the least.
        left: u64,
    },
    /// Chunks may come: the transfer goes on from this many bytes.
    Accepted {
        /// Bytes in blocks that were held.
        held: u64,
        /// The file was there already.
        complete: bool,
    },
    /// The file, which was offered without its size, has this one.
    Sized {
        /// In bytes.
        size: u64,
    },
    /// It was refused, or failed here, and the sender is told: the transfer has ended.
    Refused {
        /// The offered path, made safe to print.
        path: String,
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        reason: String,
    },
    /// The file that was there already is another, and is replaced.
    Replacing {
        /// Bytes of the new one that are held.
        held: u64,
    },
    /// The receipt is on its way: it is durable under its final name. The transfer has ended.
    Sealed {
        /// The digest; of what is no file there is none.
        digest: Option<FileDigest>,
        /// How far it was on this connection.
        received: Received,
    },
    /// The sender ended the transfer; [`Link::take_unfinished`](crate::protocol::Link::take_unfinished) says what is left of
    /// it.
    Cancelled {
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        reason: String,
        /// It will offer what the source became.
        again: bool,
    },
}
