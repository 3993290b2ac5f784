#![doc = include_str!("PROTOCOL.md")]
//!
//! # This module
//!
//! Sans-IO: no socket, file, clock, thread or runtime in sight. Frames and the time come in as arguments,
//! frames and requests come out of the machine of a connection, [`Link`].

mod arrivals;
mod assembly;
mod blocks;
mod check;
pub mod chunk;
pub mod codec;
mod digest;
mod flight;
mod geometry;
mod heartbeat;
mod idle;
mod link;
pub mod message;
mod name;
mod path;
mod receiver;
mod sender;
mod syncing;
mod violation;

pub use blocks::BlockSet;
pub use digest::{
    BlockDigest, BlockHasher, BlockHashes, DigestTree, FileDigest, HASH_LEN, SUBTREES_PER_BLOCK,
};
pub use geometry::{BLOCK, ChunkSize, Geometry, MAX_FILE, MAX_FRAME, MIN_FRAME_LIMIT, SUBTREE};
pub use heartbeat::HeartbeatConfig;
pub use link::{Action, Done, Due, Link, LinkConfig, LinkEvent, NotOffered, Unfinished};
pub use message::{
    Accept, CheckedOffer, Code, Feature, Hello, Kind, MIN_OFFERS, Message, Offer, OfferKind, Role,
};
pub use name::{FileName, MAX_PATH, NameError, RESERVED, RelativePath};
pub use path::Path;
pub use receiver::{Opened, Received, ReceiverEvent, Receiving, Write};
pub use sender::{Hashed, Input, Progress, SenderEvent, Sending};
pub use violation::Violation;

/// The WebSocket subprotocol that both sides ask for.
pub const SUBPROTOCOL: &str = "wsferry.v1";

/// How many damaged chunk frames one connection may have before it is given up.
pub const MAX_NAKS: u32 = 100;

/// The default window: bytes sent and not yet acknowledged. 1 Gbit/s over 100 ms holds 12.5 MB.
pub const DEFAULT_WINDOW: u64 = 32 << 20;
