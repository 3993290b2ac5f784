//! Control messages: small JSON objects, told apart by `type`, behind a CRC-32.
//!
//! ```text
//! M 5d0be94a {"type":"ping","token":1}
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::chunk::{read_hex, write_hex};
use super::digest::{BlockDigest, FileDigest, HASH_LEN};
use super::geometry::{BLOCK, Geometry, MAX_FILE, MIN_FRAME_LIMIT};
use super::name::{NameError, RelativePath, is_unprintable};
use super::violation::Violation;

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

/// What a side can do beyond what each has to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Feature {
    /// Runs of zeros.
    Zeros,
    /// Paths of several components, directories and links.
    Trees,
    /// Block digests made of subtree hashes.
    TreeDigests,
    /// Files that are offered without their size, which comes at the end.
    LateSize,
    /// One that this version does not know.
    #[serde(other)]
    Unknown,
}

/// What a side does on a connection, if it is one of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It offers files, and takes none.
    Sender,
    /// It takes files, and offers none.
    Receiver,
    /// One that this version does not know.
    #[serde(other)]
    Unknown,
}

/// What each side says first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What it can do: what both can is used.
    pub features: Vec<Feature>,
    /// The most characters that a frame may have on this path, in either direction.
    pub frame_limit: u64,
    /// The most bytes that may be unacknowledged.
    pub window: u64,
    /// The most offers that may be open at a time, at least [`MIN_OFFERS`].
    pub offers: u64,
    /// Random, the same on all connections of one run of a program: 32 lower-case hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// What it does on this connection, if it does one thing alone: two of one role have nothing to say to each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The program and its version, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub program: String,
}

/// As many offers may be open on any connection, also before the peer's `hello` has come.
pub const MIN_OFFERS: u64 = 16;

impl Hello {
    /// Checks what a peer sent.
    pub fn check(mut self) -> Result<Self, Violation> {
        if self.frame_limit < MIN_FRAME_LIMIT as u64 {
            let expected = format!("at least {MIN_FRAME_LIMIT}");
            return Err(Violation::field("hello.frame_limit", expected, self.frame_limit));
        }
        if self.window == 0 {
            return Err(Violation::field("hello.window", "at least 1", 0));
        }
        if self.offers < MIN_OFFERS {
            return Err(Violation::field("hello.offers", format!("at least {MIN_OFFERS}"), self.offers));
        }
        if let Some(session) = self.session.as_ref().filter(|session| !is_session(session)) {
            return Err(Violation::field("hello.session", "32 lower-case hexadecimal digits", clip(session)));
        }
        self.program = clip(&self.program).into_owned();
        Ok(self)
    }

    /// What holds between two sides.
    pub(super) fn agree(&self, other: &Self) -> Agreed {
        let both = |feature| self.features.contains(&feature) && other.features.contains(&feature);
        Agreed {
            zeros: both(Feature::Zeros),
            trees: both(Feature::Trees),
            tree_digests: both(Feature::TreeDigests),
            late_size: both(Feature::LateSize),
            frame_limit: self.frame_limit.min(other.frame_limit),
            window: self.window.min(other.window),
        }
    }
}

/// What holds on a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Agreed {
    pub(super) zeros: bool,
    pub(super) trees: bool,
    pub(super) tree_digests: bool,
    pub(super) late_size: bool,
    pub(super) frame_limit: u64,
    pub(super) window: u64,
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

/// What the sender offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The transfer's number on this connection: larger than all before it.
    pub transfer: u32,
    /// The sender's word for this version of this file: see [`transfer_id`].
    pub id: String,
    /// Where to store it, below the destination: components with `/` between them.
    pub path: String,
    /// What it is; a file if it is left out.
    #[serde(default, skip_serializing_if = "OfferKind::is_file")]
    pub kind: OfferKind,
    /// Where a link leads, as it stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The file's size in bytes; 0 of what is none, and nothing where the end is not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Seconds of its modification time since 1970-01-01 UTC.
    pub mtime: i64,
    /// Nanoseconds of its modification time, 0 to 999,999,999.
    pub mtime_ns: u32,
    /// Its Unix permission bits, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// The file's digest, if it is known beforehand, of a file of at most one block: then no `finish` follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<FileDigest>,
    /// Start from the file that has this name at the destination, and send what differs from it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repair: bool,
    /// Receive the file as any other, check it, and remove it instead of giving it its name: a measurement.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discard: bool,
    /// Bytes that will come as runs of zeros, and need no room.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub zeros: u64,
    /// A file that is there with the same size and time is taken for the same, and not compared.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quick: bool,
    /// How many more offers follow behind this one, at the least; 0 if it is the last.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left: u64,
}

/// What an offer says that it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OfferKind {
    /// A regular file.
    #[default]
    File,
    /// A directory: offered behind what lies in it, so that its time stays.
    Directory,
    /// A symbolic link.
    Link,
}

impl OfferKind {
    fn is_file(&self) -> bool {
        *self == Self::File
    }
}

impl From<&Kind> for OfferKind {
    fn from(kind: &Kind) -> Self {
        match kind {
            Kind::File => Self::File,
            Kind::Directory => Self::Directory,
            Kind::Link(_) => Self::Link,
        }
    }
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

/// An offer whose fields were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedOffer {
    /// The transfer id.
    pub id: String,
    /// Where to store it, below the destination.
    pub path: RelativePath,
    /// What it is.
    pub kind: Kind,
    /// The file's size and blocks, as far as they are known; of anything else 0.
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
    /// A file that is there with the same size and time is taken for the same.
    pub quick: bool,
    /// How many more offers follow, at the least.
    pub left: u64,
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
    /// An offer of something without content; what is more is filled in by the caller.
    pub fn new(id: String, path: String, kind: OfferKind) -> Self {
        Self {
            transfer: 0,
            id,
            path,
            kind,
            target: None,
            size: Some(0),
            mtime: 0,
            mtime_ns: 0,
            mode: None,
            digest: None,
            repair: false,
            discard: false,
            zeros: 0,
            quick: false,
            left: 0,
        }
    }

    /// Checks what a peer sent. A name that is merely not allowed is the sender's mistake and no violation; it
    /// comes back as `Ok(Err(..))`, to be refused.
    pub fn check(self) -> Result<Result<CheckedOffer, NameError>, Violation> {
        let checks = |field, expected: &str, came: &dyn ToString, holds: bool| {
            if holds { Ok(()) } else { Err(Violation::field(field, expected, came.to_string())) }
        };
        let is_file = self.kind.is_file();
        checks("offer.id", "32 lower-case hexadecimal digits", &clip(&self.id), is_session(&self.id))?;
        let most = if is_file { MAX_FILE } else { 0 };
        let geometry = match self.size {
            None if !is_file || self.repair => {
                return Err(Violation::field(
                    "offer.size",
                    "a number of what is no file, or with `repair`",
                    "none",
                ));
            }
            None => Geometry::open(),
            Some(size) => Geometry::new(size)
                .filter(|_| size <= most)
                .ok_or_else(|| Violation::field("offer.size", format!("at most {most}"), size))?,
        };
        // Of a file whose size is not known nothing else can be.
        let size = self.size.unwrap_or(if self.digest.is_some() { MAX_FILE } else { 0 });
        checks("offer.mtime_ns", "at most 999999999", &self.mtime_ns, self.mtime_ns <= 999_999_999)?;
        let mode = self.mode.unwrap_or_default();
        checks("offer.mode", "at most 511", &mode, mode <= 0o777)?;
        checks("offer.discard", "false with `repair`", &true, !(self.repair && self.discard))?;
        checks("offer.zeros", &format!("at most {size}"), &self.zeros, self.zeros <= size)?;
        checks("offer.left", &format!("at most {MAX_FILE}"), &self.left, self.left <= MAX_FILE)?;
        let may_know = is_file && size <= BLOCK;
        checks("offer.digest", "none of more than a block", &size, self.digest.is_none() || may_know)?;
        let plain = !self.repair && !self.discard && self.zeros == 0;
        checks("offer.kind", "a file with `repair`, `discard` or `zeros`", &"another", is_file || plain)?;
        let kind = match (self.kind, self.target) {
            (OfferKind::File, None) => Kind::File,
            (OfferKind::Directory, None) => Kind::Directory,
            (OfferKind::Link, Some(target)) if !target.is_empty() && !target.contains('\0') => {
                Kind::Link(target)
            }
            (_, target) => {
                let came = target.map_or_else(|| "none".to_owned(), |target| clip(&target).into_owned());
                return Err(Violation::field("offer.target", "one of a link alone", came));
            }
        };
        Ok(self.path.parse().map(|path| CheckedOffer {
            id: self.id,
            path,
            kind,
            geometry,
            mtime: self.mtime,
            mtime_ns: self.mtime_ns,
            mode: self.mode,
            repair: self.repair,
            discard: self.discard,
            zeros: self.zeros,
            digest: self.digest,
            quick: self.quick,
            left: self.left,
        }))
    }
}

fn is_session(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
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
