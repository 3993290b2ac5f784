//! What a sender offers, as it stands in a message and as it was checked.

use serde::{Deserialize, Serialize};

use super::{clip, is_id, is_zero};
use crate::protocol::digest::FileDigest;
use crate::protocol::geometry::{BLOCK, Geometry, MAX_FILE};
use crate::protocol::name::{NameError, RelativePath};
use crate::protocol::violation::Violation;

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
        checks("offer.id", "32 lower-case hexadecimal digits", &clip(&self.id), is_id(&self.id))?;
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
