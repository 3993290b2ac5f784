//! What a transfer tells whoever watches it.

use std::time::Duration;

use super::Error;
use crate::protocol::{FileDigest, OfferKind, Progress};
use crate::storage::Skipped;
use crate::transport::Page;

/// Something happened in a transfer.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A file, directory or link was offered to a receiver, which will accept or refuse it.
    Offered {
        /// Its name at the destination.
        name: String,
        /// How many more files the sender means to offer.
        left: u64,
        /// The sender's run, if it tells.
        session: Option<String>,
    },
    /// A file, directory or link was offered and accepted.
    Started {
        /// Its name at the destination.
        name: String,
        /// Which of them it is.
        kind: OfferKind,
        /// Its size in bytes, if it is known beforehand.
        size: Option<u64>,
        /// The peer's address.
        peer: String,
    },
    /// The receiver held part of the file, so the transfer goes on instead of beginning.
    Resumed {
        /// Bytes that were held.
        held: u64,
    },
    /// What stood there under the file's name is another file, which is replaced: what it was taken to hold counts no
    /// more.
    Replacing {
        /// Bytes of the new one that are held.
        held: u64,
    },
    /// How far it is; several times a second at most.
    Progress(Progress),
    /// Something worth knowing that ends nothing.
    Notice {
        /// What.
        what: String,
    },
    /// A connection is being made, which takes its time.
    Connecting {
        /// Where to, without what may be secret.
        to: String,
    },
    /// The connection was cut, and will be made again.
    Reconnecting {
        /// After this long.
        delay: Duration,
        /// How many times since bytes last moved, this one included.
        attempt: u32,
        /// Why it was cut.
        why: String,
    },
    /// In a dry run: it would be taken, and was not sent.
    Foreseen {
        /// Its name at the destination.
        name: String,
        /// Whether it is a file, a directory or a link; the latter two are not asked about.
        kind: OfferKind,
        /// Its size in bytes.
        size: u64,
        /// Bytes that the receiver holds: the transfer would go on there.
        held: u64,
        /// A file of that name and size is there, and would be compared.
        complete: bool,
    },
    /// The file is durable under its final name.
    Finished(Summary),
    /// The transfer ended without a receipt.
    Failed(Error),
    /// Something that was found is not sent.
    Skipped(Skipped),
    /// Somebody connected to a receiver.
    Connected {
        /// Its address; behind a proxy it may turn out to be another's.
        peer: String,
    },
    /// A request to a receiver that was for no WebSocket was answered: a health check, a monitor, a browser.
    Answered {
        /// What it was for.
        page: Page,
        /// The status of the answer.
        status: u16,
    },
    /// A connection to a receiver ended: nothing more is told of it.
    Disconnected,
    /// A connection to a receiver ended before a file was offered on it: a port scan, a web page, a wrong token.
    Unserved(Error),
}

/// How a finished transfer went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The file's name at the destination.
    pub name: String,
    /// Whether it is a file, a directory or a link.
    pub kind: OfferKind,
    /// The peer's address.
    pub peer: String,
    /// The file's BLAKE3 digest; none of what is no file, or was taken for the same by its size and time.
    pub digest: Option<FileDigest>,
    /// From the offer to the receipt.
    pub elapsed: Duration,
    /// The counts at the end. `held` is what the first connection found.
    pub progress: Progress,
    /// The file was there already: nothing was sent.
    pub complete: bool,
    /// The receiver removed it once it was checked, as was asked for.
    pub discarded: bool,
    /// What the receiver's file system would not do for the file; only a receiver knows it.
    pub warnings: Vec<String>,
    /// Bytes of WebSocket frames that crossed for it, both ways together, on all connections.
    pub wire_bytes: u64,
}

impl Summary {
    /// The file's size in bytes.
    pub fn size(&self) -> u64 {
        self.progress.acknowledged
    }

    /// Bytes of the file that moved in this transfer.
    pub fn new_bytes(&self) -> u64 {
        self.size().saturating_sub(self.progress.held)
    }

    /// New bytes a second.
    pub fn rate(&self) -> f64 {
        self.new_bytes() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}
