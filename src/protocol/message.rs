//! Control messages: small JSON objects, told apart by `type`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::digest::{BlockDigest, FileDigest, HASH_LEN};
use super::geometry::{Geometry, MAX_FILE, MIN_FRAME_LIMIT};
use super::name::{FileName, RelativePath, is_unprintable};
use super::violation::Violation;

/// The longest control message that is read, in bytes.
pub const MAX_CONTROL: usize = 64 * 1024;
/// The most runs of blocks that one message lists.
pub const MAX_RUNS: usize = 64;
/// The most characters of a reason that are sent, and that are kept of a peer's: with all else in its message it
/// fits the smallest frame limit.
const MAX_REASON: usize = 300;

/// A control message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Message {
    /// Sender: may I send this file?
    Offer(Offer),
    /// Receiver: yes, and this is what I hold of it.
    Accept(Accept),
    /// Receiver: no. The connection stays open for the next offer.
    Reject {
        /// The offer's transfer id.
        id: String,
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        reason: String,
        /// The cause may pass: the same offer makes sense again, a little later.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        again: bool,
    },
    /// Receiver: every chunk frame below `sequence` was dealt with, every byte below `durable` is synced.
    Ack {
        /// The next sequence number that is expected.
        sequence: u64,
        /// The offset below which the partial file and its journal survive a loss of power.
        durable: u64,
    },
    /// Receiver: this chunk frame came damaged; send its bytes again, in a new frame.
    Nak {
        /// The damaged frame's sequence number.
        sequence: u64,
    },
    /// Sender: tell me the digests of `count` blocks that you hold, from block `first`.
    Check {
        /// The first block's number.
        first: u64,
        /// How many blocks; the answer may hold fewer.
        count: u64,
    },
    /// Receiver: block digests, from block `first`.
    Digests {
        /// The first block's number.
        first: u64,
        /// 32 bytes a block, in Base64.
        digests: String,
    },
    /// Receiver: send these blocks (again).
    Repair {
        /// Runs of blocks: number of the first, count.
        blocks: Vec<(u64, u64)>,
    },
    /// Sender: every byte was sent and acknowledged; this is the file's digest.
    Finish {
        /// The transfer id.
        id: String,
        /// The whole file's BLAKE3 digest.
        digest: FileDigest,
    },
    /// Receiver: the file is durable under its final name.
    Receipt {
        /// The transfer id.
        id: String,
        /// The digest of what was stored.
        digest: FileDigest,
    },
    /// Either side, after a silence: are you there?
    Ping {
        /// Comes back in the `pong`.
        token: u64,
        /// The receiver is at work on what the sender waits for.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        busy: bool,
    },
    /// The answer to a `ping`.
    Pong {
        /// The `ping`'s token.
        token: u64,
        /// As in `ping`.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        busy: bool,
    },
    /// Either side: the transfer ended here, and the connection with it.
    Error {
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        reason: String,
        /// The cause may pass: another connection makes sense, a little later.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        again: bool,
    },
}

/// Why a transfer was refused or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Code {
    /// A different file of that name is there already.
    Exists,
    /// Another transfer is writing that name.
    Busy,
    /// The name is not allowed.
    Name,
    /// The file is larger than the destination's free space, or than the protocol's limit.
    TooLarge,
    /// Reading or writing failed.
    Storage,
    /// The journal of this partial file was written by a newer version.
    Journal,
    /// The file's digests differ although every block arrived.
    Digest,
    /// The source changed while it was sent.
    Source,
    /// The program is stopping.
    Shutdown,
    /// A file to be discarded was offered, and this receiver takes none.
    Discard,
    /// The peer broke the protocol.
    Protocol,
    /// A code this version does not know.
    #[serde(other)]
    Other,
}

/// What the sender offers. [`Offer::id`] is made from what tells of the file, so a damaged offer is noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The transfer id: see [`transfer_id`].
    pub id: String,
    /// The name to store the file under.
    pub name: String,
    /// The file's size in bytes.
    pub size: u64,
    /// Seconds of its modification time since 1970-01-01 UTC.
    pub mtime: i64,
    /// Nanoseconds of its modification time, 0 to 999,999,999.
    pub mtime_ns: u32,
    /// Its Unix permission bits, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// The most characters that a frame may have on this path, in either direction.
    pub frame_limit: u64,
    /// The most bytes that the sender keeps unacknowledged.
    pub window: u64,
    /// Start from the file that has this name at the destination, and send what differs from it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repair: bool,
    /// Receive the file as any other, check it, and remove it instead of giving it its name: a measurement.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discard: bool,
    /// Bytes that will come as runs of zeros, and need no room.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub zeros: u64,
    /// How many more files the sender means to offer behind this one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left: u64,
    /// Random, the same in all offers of one run of a sender: 32 lower-case hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// What the receiver answers to an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// The offer's transfer id.
    pub id: String,
    /// Runs of blocks that the receiver holds: number of the first, count; ascending, apart.
    pub held: Vec<(u64, u64)>,
    /// Blocks of which the receiver has the first bytes: block, bytes. A hint: to be gone on with and then compared, or
    /// sent from the first byte.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub begun: Vec<(u64, u64)>,
    /// How many bytes of the file ever reached the receiver's partial file, held or not: what lies between this
    /// and `held` is sent again.
    pub received: u64,
    /// The file stands under its final name already; send nothing but `finish`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub complete: bool,
    /// The most characters that the receiver reads in a frame.
    pub frame_limit: u64,
    /// The most bytes that may be unacknowledged.
    pub window: u64,
    /// The file will be removed once it is checked, as the offer asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discard: bool,
}

/// An offer whose fields were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedOffer {
    /// The transfer id.
    pub id: String,
    /// Where to store it, below the destination.
    pub path: RelativePath,
    /// What it is.
    pub kind: Kind,
    /// The file's size and blocks; of anything else 0.
    pub geometry: Geometry,
    /// Seconds of its modification time since 1970-01-01 UTC.
    pub mtime: i64,
    /// Nanoseconds of its modification time.
    pub mtime_ns: u32,
    /// Its Unix permission bits: nine at most, nothing like setuid.
    pub mode: Option<u32>,
    /// Start from the file that has this name already.
    pub repair: bool,
    /// Remove the file once it is checked.
    pub discard: bool,
    /// Bytes that will come as runs of zeros.
    pub zeros: u64,
    /// The file's digest, if the sender knows it before it sends.
    pub digest: Option<FileDigest>,
    /// The sender's run, if it tells.
    pub session: Option<String>,
}

/// What is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory: offered behind what lies in it, so that its time stays.
    Directory,
    /// A symbolic link to this, as it stands in the link.
    Link(String),
}

/// The transfer id: the first 16 bytes, in hexadecimal, of the BLAKE3 digest of
/// `NAME\nSIZE\nMTIME\nMTIME_NS\nMODE\n`, numbers in decimal, an absent mode as `-`.
///
/// The same version of a file has the same id each time it is offered.
pub fn transfer_id(name: &str, size: u64, mtime: i64, mtime_ns: u32, mode: Option<u32>) -> String {
    let mode = mode.map_or_else(|| "-".to_owned(), |mode| mode.to_string());
    let digest = blake3::hash(format!("{name}\n{size}\n{mtime}\n{mtime_ns}\n{mode}\n").as_bytes());
    digest.to_hex()[..32].to_owned()
}

impl Offer {
    /// Checks what a peer sent. A name that is merely not allowed is the sender's mistake and no violation; it
    /// comes back as `Ok(Err(..))`, to be refused.
    pub fn check(self) -> Result<Result<CheckedOffer, super::name::NameError>, Violation> {
        let id = transfer_id(&self.name, self.size, self.mtime, self.mtime_ns, self.mode);
        if self.id != id {
            return Err(Violation::field("offer.id", id, clip(&self.id)));
        }
        let Some(geometry) = Geometry::new(self.size) else {
            return Err(Violation::field("offer.size", format!("at most {MAX_FILE}"), self.size));
        };
        if self.mtime_ns > 999_999_999 {
            return Err(Violation::field("offer.mtime_ns", "at most 999999999", self.mtime_ns));
        }
        if self.mode.is_some_and(|mode| mode > 0o777) {
            return Err(Violation::field("offer.mode", "at most 511", self.mode.unwrap_or_default()));
        }
        if self.frame_limit < MIN_FRAME_LIMIT as u64 {
            return Err(Violation::field(
                "offer.frame_limit",
                format!("at least {MIN_FRAME_LIMIT}"),
                self.frame_limit,
            ));
        }
        if self.window == 0 {
            return Err(Violation::field("offer.window", "at least 1", 0));
        }
        if self.repair && self.discard {
            return Err(Violation::field("offer.discard", "false with `repair`", true));
        }
        if self.zeros > self.size {
            return Err(Violation::field("offer.zeros", format!("at most {}", self.size), self.zeros));
        }
        if self.left > MAX_FILE {
            return Err(Violation::field("offer.left", format!("at most {MAX_FILE}"), self.left));
        }
        if let Some(session) = self.session.as_ref().filter(|session| !is_session(session)) {
            return Err(Violation::field("offer.session", "32 lower-case hexadecimal digits", clip(session)));
        }
        Ok(self.name.parse().map(|name| CheckedOffer {
            id,
            path: FileName::into(name),
            kind: Kind::File,
            geometry,
            mtime: self.mtime,
            mtime_ns: self.mtime_ns,
            mode: self.mode,
            repair: self.repair,
            discard: self.discard,
            zeros: self.zeros,
            digest: None,
            session: self.session,
        }))
    }
}

fn is_session(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl Message {
    /// Reads a control message.
    pub fn parse(frame: &[u8]) -> Result<Self, Violation> {
        if frame.len() > MAX_CONTROL {
            return Err(Violation::field(
                "control message",
                format!("at most {MAX_CONTROL} bytes"),
                frame.len(),
            ));
        }
        let malformed = |why: String| Violation::Malformed {
            why: clip(&why).into_owned(),
            came: clip(&String::from_utf8_lossy(frame)).into_owned(),
        };
        let text = std::str::from_utf8(frame).map_err(|error| malformed(error.to_string()))?;
        // A list would do for the reader below.
        if !text.trim_start().starts_with('{') {
            return Err(malformed("a control message is a JSON object".to_owned()));
        }
        serde_json::from_str(text).map_err(|error| malformed(error.to_string()))
    }

    /// The message as one line of JSON.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("a message holds nothing that JSON cannot say")
    }

    /// The value of `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Offer(_) => "offer",
            Self::Accept(_) => "accept",
            Self::Reject { .. } => "reject",
            Self::Ack { .. } => "ack",
            Self::Nak { .. } => "nak",
            Self::Check { .. } => "check",
            Self::Digests { .. } => "digests",
            Self::Repair { .. } => "repair",
            Self::Finish { .. } => "finish",
            Self::Receipt { .. } => "receipt",
            Self::Ping { .. } => "ping",
            Self::Pong { .. } => "pong",
            Self::Error { .. } => "error",
        }
    }
}

/// Runs of blocks as they stand in a message, checked: within the file, ascending, apart, not too many.
pub fn check_runs(
    field: &'static str,
    runs: &[(u64, u64)],
    geometry: Geometry,
) -> Result<Vec<Range<u64>>, Violation> {
    if runs.len() > MAX_RUNS {
        return Err(Violation::field(field, format!("at most {MAX_RUNS} runs"), runs.len()));
    }
    let mut next = 0;
    let mut checked = Vec::with_capacity(runs.len());
    for &(first, count) in runs {
        let end =
            first.checked_add(count).filter(|&end| end <= geometry.blocks() && count > 0 && first >= next);
        let Some(end) = end else {
            let expected = format!("ascending runs within {} blocks", geometry.blocks());
            return Err(Violation::field(field, expected, format!("[{first},{count}]")));
        };
        next = end;
        checked.push(first..end);
    }
    Ok(checked)
}

/// The beginnings of blocks as they stand in a message, checked: ascending, of blocks that are not whole there, each a
/// multiple of 3 bytes.
pub fn check_begun(
    field: &'static str,
    begun: &[(u64, u64)],
    geometry: Geometry,
) -> Result<BTreeMap<u64, u64>, Violation> {
    if begun.len() > MAX_RUNS {
        return Err(Violation::field(field, format!("at most {MAX_RUNS} blocks"), begun.len()));
    }
    let mut checked = BTreeMap::new();
    for &(block, bytes) in begun {
        let ascends = checked.last_key_value().is_none_or(|(&last, _)| block > last);
        let fits = ascends && block < geometry.blocks() && (3..geometry.block_len(block)).contains(&bytes);
        if !fits || !bytes.is_multiple_of(3) {
            let expected = "ascending blocks, and less than their bytes in multiples of 3";
            return Err(Violation::field(field, expected, format!("[{block},{bytes}]")));
        }
        checked.insert(block, bytes);
    }
    Ok(checked)
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How many block digests fit a `digests` message within a frame limit.
pub fn digests_per_page(frame_limit: u64) -> u64 {
    // {"type":"digests","first":9007199254740991,"digests":""} has 57 characters; 32 bytes take 43 in Base64.
    let room = frame_limit.min(MAX_CONTROL as u64 / 2).saturating_sub(64) / 4 * 3;
    (room / HASH_LEN as u64).max(1)
}

/// Block digests as they stand in a message.
pub fn digests_to_text(digests: &[BlockDigest]) -> String {
    let bytes: Vec<u8> = digests.iter().flat_map(|digest| digest.0).collect();
    STANDARD.encode(bytes)
}

/// Reads block digests from a message.
pub fn digests_from_text(text: &str) -> Result<Vec<BlockDigest>, Violation> {
    let bytes = STANDARD.decode(text).ok();
    match bytes.as_deref().map(<[u8]>::as_chunks::<HASH_LEN>) {
        Some((digests, [])) if !digests.is_empty() => Ok(digests.iter().copied().map(BlockDigest).collect()),
        _ => Err(Violation::field("digests.digests", "32 bytes a block in Base64", clip(text))),
    }
}

/// A peer's text, made safe to print: short and without characters that move others.
pub fn clip(text: &str) -> Cow<'_, str> {
    let fits = text.chars().nth(MAX_REASON).is_none();
    if fits && !text.chars().any(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let printable = text.chars().take(MAX_REASON).map(|c| if is_unprintable(c) { '\u{FFFD}' } else { c });
    let mut clipped: String = printable.collect();
    if !fits {
        clipped.push('…');
    }
    Cow::Owned(clipped)
}
