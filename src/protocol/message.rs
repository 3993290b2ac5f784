//! Control messages: small JSON objects, told apart by `type`, behind a CRC-32.
//!
//! ```text
//! M 5d0be94a {"type":"ping","token":1}
//! ```

mod hello;
mod offer;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::chunk::{read_hex, write_hex};
use super::digest::{BlockDigest, FileDigest, HASH_LEN};
use super::geometry::Geometry;
use super::name::is_unprintable;
use super::violation::Violation;
pub(super) use hello::Agreed;
pub use hello::{Feature, Hello, MIN_OFFERS, Role};
pub use offer::{CheckedOffer, Kind, Offer, OfferKind, transfer_id};

/// The first character of every frame that carries a message.
pub const KIND: u8 = b'M';
/// The characters in front of a message: kind, CRC-32, a space behind each.
const PREFIX: usize = 11;
/// The longest control message that is read, in bytes.
pub const MAX_CONTROL: usize = 64 * 1024;
/// The most runs of blocks that one message lists.
pub const MAX_RUNS: usize = 64;
/// The most receipts, and the most offsets of what is durable, in one message.
pub const MAX_LISTED: usize = 256;
/// The most characters of a reason that are sent, and that are kept of a peer's: with all else in its message it
/// fits the smallest frame limit.
const MAX_REASON: usize = 300;

/// A control message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Message {
    /// Either side, first of all: who speaks, and what it can.
    Hello(Hello),
    /// Sender: may I send this?
    Offer(Offer),
    /// Receiver: yes, and this is what I hold of it.
    Accept(Accept),
    /// Receiver: no, or not any more. The transfer has ended, the connection has not.
    Reject {
        /// The transfer's number.
        transfer: u32,
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        reason: String,
        /// The cause may pass: the same offer makes sense again, a little later.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        again: bool,
    },
    /// Sender: this transfer ends here. The connection does not.
    Cancel {
        /// The transfer's number.
        transfer: u32,
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        reason: String,
        /// What the source has become will be offered.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        again: bool,
    },
    /// Receiver: every chunk frame below `sequence` was dealt with.
    Ack {
        /// The next sequence number that is expected.
        sequence: u64,
        /// Transfers, and the offset below which the partial file and its journal survive a loss of power: those of which
        /// it moved.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        durable: Vec<(u32, u64)>,
    },
    /// Receiver: this chunk frame came damaged; send its bytes again, in a new frame.
    Nak {
        /// The damaged frame's sequence number.
        sequence: u64,
    },
    /// Sender: tell me the digests of `count` blocks that you hold, from block `first`.
    Check {
        /// The transfer's number.
        transfer: u32,
        /// The first block's number.
        first: u64,
        /// How many blocks; the answer may hold fewer.
        count: u64,
        /// Digests of subtree hashes, where both sides know them; else those of the blocks' bytes.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        tree: bool,
    },
    /// Receiver: block digests, from block `first`.
    Digests {
        /// The transfer's number.
        transfer: u32,
        /// The first block's number.
        first: u64,
        /// 32 bytes a block, in Base64.
        digests: String,
    },
    /// Receiver: send these blocks (again).
    Repair {
        /// The transfer's number.
        transfer: u32,
        /// Runs of blocks: number of the first, count.
        blocks: Vec<(u64, u64)>,
    },
    /// Sender: a file that was offered without its size ends here.
    Size {
        /// The transfer's number.
        transfer: u32,
        /// The file's size in bytes.
        size: u64,
    },
    /// Sender: every byte was sent and acknowledged; this is the file's digest.
    Finish {
        /// The transfer's number.
        transfer: u32,
        /// The whole file's BLAKE3 digest.
        digest: FileDigest,
    },
    /// Receiver: these are durable under their final names.
    Receipt {
        /// Transfers, and the digests of what was stored: of what is no file there is none.
        files: Vec<(u32, Option<FileDigest>)>,
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
    /// Either side: all transfers ended here, and the connection with them.
    Error {
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        reason: String,
        /// The cause may pass: another connection makes sense, a little later.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        again: bool,
    },
    /// Of a type that this version does not know: what was agreed on has none such, so it means nothing here.
    #[serde(other)]
    Unknown,
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
    /// It is of a kind that this receiver does not take: a directory, a link.
    Kind,
    /// The file is larger than the destination's free space, or than the protocol's limit.
    TooLarge,
    /// Reading or writing failed.
    Storage,
    /// The destination is gone, or may not be written to.
    Destination,
    /// The journal of this partial file was written by a newer version.
    Journal,
    /// The file's digests differ although every block arrived.
    Digest,
    /// The source changed while it was sent.
    Source,
    /// The program is stopping.
    Shutdown,
    /// Both sides send, or both receive.
    Role,
    /// A file to be discarded was offered, and this receiver takes none.
    Discard,
    /// The peer broke the protocol.
    Protocol,
    /// A code this version does not know.
    #[serde(other)]
    Other,
}

/// What the receiver answers to an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// The transfer's number.
    pub transfer: u32,
    /// Runs of blocks that the receiver holds: number of the first, count; ascending, apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<(u64, u64)>,
    /// Blocks of which the receiver has the first bytes: block, bytes. A hint: to be gone on with and then compared, or
    /// sent from the first byte.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub begun: Vec<(u64, u64)>,
    /// How many bytes of the file ever reached the receiver's partial file, held or not: what lies between this
    /// and `held` is sent again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub received: u64,
    /// The file stands under its final name already; send nothing but `finish`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub complete: bool,
    /// The file will be removed once it is checked, as the offer asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discard: bool,
}

impl Message {
    /// Reads a frame that carries a message.
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
        let Some((prefix, text)) = frame.split_at_checked(PREFIX).filter(|(prefix, _)| is_prefix(prefix))
        else {
            return Err(malformed("it begins with neither C, Z nor M and what belongs to it".to_owned()));
        };
        let stated = read_hex(prefix, 2, 8).map_err(|error| malformed(error.to_string()))?;
        if stated != u64::from(crc32fast::hash(text)) {
            return Err(Violation::DamagedMessage);
        }
        let text = std::str::from_utf8(text).map_err(|error| malformed(error.to_string()))?;
        // A list would do for the reader below.
        if !text.starts_with('{') {
            return Err(malformed("a control message is a JSON object".to_owned()));
        }
        serde_json::from_str(text).map_err(|error| malformed(error.to_string()))
    }

    /// The frame that carries the message: its CRC-32, and one line of JSON.
    pub fn to_frame(&self) -> String {
        let json = serde_json::to_string(self).expect("a message holds nothing that JSON cannot say");
        frame_of(&json)
    }

    /// The value of `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Offer(_) => "offer",
            Self::Accept(_) => "accept",
            Self::Reject { .. } => "reject",
            Self::Cancel { .. } => "cancel",
            Self::Ack { .. } => "ack",
            Self::Nak { .. } => "nak",
            Self::Check { .. } => "check",
            Self::Digests { .. } => "digests",
            Self::Repair { .. } => "repair",
            Self::Size { .. } => "size",
            Self::Finish { .. } => "finish",
            Self::Receipt { .. } => "receipt",
            Self::Ping { .. } => "ping",
            Self::Pong { .. } => "pong",
            Self::Error { .. } => "error",
            Self::Unknown => "unknown",
        }
    }
}

/// Runs of blocks as they stand in a message, checked: within the file, ascending, apart, not too many.
pub(super) fn check_runs(
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
pub(super) fn check_begun(
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

/// The frame that carries this text.
pub fn frame_of(json: &str) -> String {
    let mut prefix = *b"M 00000000 ";
    write_hex(crc32fast::hash(json.as_bytes()).into(), &mut prefix[2..10]);
    let prefix = std::str::from_utf8(&prefix).expect("digits are ASCII");
    [prefix, json].concat()
}

fn is_prefix(prefix: &[u8]) -> bool {
    prefix[0] == KIND && prefix[1] == b' ' && prefix[PREFIX - 1] == b' '
}

/// Whether it is what names a version of a file, or a run of a program.
fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How many block digests fit a `digests` message within a frame limit.
pub(super) fn digests_per_page(frame_limit: u64) -> u64 {
    // M cccccccc {"type":"digests","transfer":4294967295,"first":9007199254740991,"digests":""} has 90 characters; 32 bytes
    // take 43 in Base64.
    let room = frame_limit.min(MAX_CONTROL as u64 / 2).saturating_sub(96) / 4 * 3;
    (room / HASH_LEN as u64).max(1)
}

/// Block digests as they stand in a message.
pub(super) fn digests_to_text(digests: &[BlockDigest]) -> String {
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
