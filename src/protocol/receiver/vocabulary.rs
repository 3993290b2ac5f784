//! What a receiving machine is told, and what it says to its caller.

use std::time::Duration;

#[cfg(doc)]
use super::Receiver;
use crate::protocol::blocks::BlockSet;
use crate::protocol::digest::{BlockHashes, FileDigest};
use crate::protocol::heartbeat::HeartbeatConfig;
use crate::protocol::message::{CheckedOffer, Code};

/// How a receiver behaves.
#[derive(Debug, Clone, Copy)]
pub struct ReceiverConfig {
    /// The most bytes that the sender may keep unacknowledged.
    pub window: u64,
    /// Sync when this many bytes of whole blocks are not durable.
    pub sync_bytes: u64,
    /// Sync when a whole block has not been durable for this long.
    pub sync_interval: Duration,
    /// Signs of life.
    pub heartbeat: HeartbeatConfig,
}

impl Default for ReceiverConfig {
    fn default() -> Self {
        Self {
            window: 64 << 20,
            sync_bytes: 64 << 20,
            sync_interval: Duration::from_secs(1),
            heartbeat: HeartbeatConfig::default(),
        }
    }
}

/// Something that the caller does, on another thread if it takes long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open the partial file for this offer; then [`Receiver::opened`] or [`Receiver::refuse`].
    Open(CheckedOffer),
    /// Sync the file's data, then write these blocks' hashes to the journal and sync it; then
    /// [`Receiver::synced`].
    Sync(Vec<(u64, BlockHashes)>),
    /// Read this block back and hash it; then [`Receiver::hashed`].
    HashBlock(u64),
    /// Read this block back and compare it with its journal entry; then [`Receiver::checked`].
    CheckBlock(u64),
    /// Read these blocks' digests from the journal; then [`Receiver::digests`].
    ReadDigests {
        /// The first block's number.
        first: u64,
        /// How many blocks.
        count: u64,
    },
    /// All blocks are durable: compare the digest, give the file its final name, sync the directory; then
    /// [`Receiver::sealed`].
    Seal(FileDigest),
}

/// What was found when the partial file was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// Blocks that are whole and in the journal.
    pub held: BlockSet,
    /// Blocks that are whole as far as data and length tell, and not in the journal: to be hashed behind the transfer.
    pub unhashed: BlockSet,
    /// How far bytes of the file ever got: the partial file's length, at most the size.
    pub received: u64,
    /// The file stands under its final name already.
    pub complete: bool,
}

/// Bytes to write, given out by [`Receiver::handle_frame`] in the caller's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// Where in the file.
    pub offset: u64,
    /// How many bytes, from the buffer's start.
    pub len: usize,
}

/// Something the caller should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReceiverEvent {
    /// Chunks may come: the transfer goes on from this many bytes.
    Accepted {
        /// Bytes in blocks that were held.
        held: u64,
        /// The file was there already.
        complete: bool,
    },
    /// The offer was refused, and the sender is told.
    Refused {
        /// The offered name, made safe to print.
        name: String,
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        reason: String,
    },
    /// The receipt is on its way: the file is durable under its final name.
    Sealed(FileDigest),
    /// The sender ended the transfer.
    Failed {
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        reason: String,
    },
}
