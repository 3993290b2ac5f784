//! What a connection's machine is told, and what it says to its caller.

use std::collections::VecDeque;

#[cfg(doc)]
use super::Link;
use crate::protocol::digest::{BlockDigest, BlockHashes, FileDigest};
use crate::protocol::heartbeat::HeartbeatConfig;
use crate::protocol::message::{CheckedOffer, Code, Hello, Message};
use crate::protocol::path::Path;
use crate::protocol::receiver::{Opened, ReceiverEvent, Receiving};
use crate::protocol::sender::SenderEvent;

/// How a connection behaves.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// What is said first.
    pub hello: Hello,
    /// What is known of the path.
    pub path: Path,
    /// How files are received.
    pub receiving: Receiving,
    /// Signs of life.
    pub heartbeat: HeartbeatConfig,
}

/// Something that the caller does, on another thread if it takes long, and reports with the [`Done`] of the same name, or
/// with [`Link::fail`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// See whether this can be taken, and open the partial file for it.
    Open {
        /// The transfer's number.
        transfer: u32,
        /// What is offered.
        offer: CheckedOffer,
    },
    /// Sync the file's data, then write these blocks' hashes to the journal and sync it.
    Sync {
        /// The transfer's number.
        transfer: u32,
        /// Whole blocks.
        blocks: Vec<(u64, BlockHashes)>,
    },
    /// Read this block back and hash it, if it can be read.
    HashBlock {
        /// The transfer's number.
        transfer: u32,
        /// The block's number.
        block: u64,
    },
    /// Read this block back and compare it with its journal entry.
    CheckBlock {
        /// The transfer's number.
        transfer: u32,
        /// The block's number.
        block: u64,
    },
    /// Read these blocks' digests.
    ReadDigests {
        /// The transfer's number.
        transfer: u32,
        /// The first block's number.
        first: u64,
        /// How many blocks.
        count: u64,
        /// Those of their subtree hashes, as the journal has them; else those of their bytes.
        tree: bool,
    },
    /// Everything is there: compare the digest, give the file its final name, sync the directory.
    Seal {
        /// The transfer's number.
        transfer: u32,
        /// What it has to be.
        digest: FileDigest,
        /// The hashes of a file of at most one block, if it was hashed as it came.
        hashes: Option<BlockHashes>,
    },
    /// Hash this block of the source.
    HashSource {
        /// The transfer's number.
        transfer: u32,
        /// The block's number.
        block: u64,
        /// What is compared: the digest of its subtree hashes, or of its bytes.
        tree: bool,
    },
    /// Everything was sent: make sure that the source is still what was offered.
    Confirm {
        /// The transfer's number.
        transfer: u32,
    },
}

impl Action {
    /// The transfer's number.
    pub fn transfer(&self) -> u32 {
        match *self {
            Self::Open { transfer, .. }
            | Self::Sync { transfer, .. }
            | Self::HashBlock { transfer, .. }
            | Self::CheckBlock { transfer, .. }
            | Self::ReadDigests { transfer, .. }
            | Self::Seal { transfer, .. }
            | Self::HashSource { transfer, .. }
            | Self::Confirm { transfer } => transfer,
        }
    }
}

/// What became of an [`Action`] of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Of [`Action::Open`]: it can be taken, and this is there of it.
    Opened(Opened),
    /// Of [`Action::Sync`].
    Synced,
    /// Of [`Action::HashBlock`]: the hashes, if it could be read.
    Hashed(u64, Option<BlockHashes>),
    /// Of [`Action::CheckBlock`]: whether it is what its journal entry says.
    Checked(u64, bool),
    /// Of [`Action::ReadDigests`], from the first block on.
    Digests(u64, Vec<BlockDigest>),
    /// Of [`Action::Seal`]: it has its final name, and that is durable. Of [`Action::Open`]: it was so already.
    Sealed(Option<FileDigest>),
    /// Of [`Action::Seal`]: what was there, or was to get its name, is something else, and there is a partial file with this
    /// in it.
    Differs(Opened),
    /// Of [`Action::HashSource`]: the hashes, and the digest that was asked for.
    HashedSource(u64, BlockHashes, BlockDigest),
    /// Of [`Action::Confirm`]: it is.
    Confirmed,
}

/// The next chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Of which transfer's file.
    pub transfer: u32,
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub len: usize,
}

/// Something that the caller should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// The peer said hello.
    Greeted(Hello),
    /// Of a transfer that was offered from here.
    Sender(u32, SenderEvent),
    /// Of a transfer that was offered to here.
    Receiver(u32, ReceiverEvent),
    /// The peer ends the connection, and all transfers with it.
    Ended {
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        reason: String,
        /// The cause may pass.
        again: bool,
    },
}

/// What transfers have to say, and want done.
#[derive(Debug)]
pub(in crate::protocol) struct Out {
    pub(super) messages: VecDeque<Message>,
    pub(super) events: VecDeque<LinkEvent>,
    pub(super) actions: VecDeque<Action>,
    pub(in crate::protocol) frame_limit: u64,
}

impl Out {
    pub(super) fn new(frame_limit: u64) -> Self {
        Self { messages: VecDeque::new(), events: VecDeque::new(), actions: VecDeque::new(), frame_limit }
    }

    pub(in crate::protocol) fn send(&mut self, message: Message) {
        self.messages.push_back(message);
    }

    pub(in crate::protocol) fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(in crate::protocol) fn confirm(&mut self, transfer: u32) {
        self.act(Action::Confirm { transfer });
    }

    pub(in crate::protocol) fn sender(&mut self, transfer: u32, event: SenderEvent) {
        self.events.push_back(LinkEvent::Sender(transfer, event));
    }

    pub(in crate::protocol) fn receiver(&mut self, transfer: u32, event: ReceiverEvent) {
        self.events.push_back(LinkEvent::Receiver(transfer, event));
    }
}
