//! The journal beside a partial file: which blocks are durable, and their subtree hashes.
//!
//! A header of 1024 bytes, then a slot of 104 bytes for each block, at a place that follows from its number:
//!
//! ```text
//! header  {"wsferry-journal":1,"salt":...,"id":...,"name":...,"size":...}  spaces  CRC-32 in hex  newline
//! slot    hashes, 3 x 32 bytes   block length, u32 LE   CRC-32 of salt, block number and these, u32 LE
//! ```
//!
//! A slot that was never written, was torn, or belongs to another file fails its CRC and means "not held", so
//! damage costs blocks that are sent again and never a wrong one. In every version the header has this length
//! and ends in its CRC.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::folder::{FileId, FolderFile};
use crate::protocol::{BlockDigest, BlockHashes, CheckedOffer, Geometry, HASH_LEN, SUBTREES_PER_BLOCK};

/// The version that this program reads and writes.
const VERSION: u64 = 1;
const HEADER_LEN: usize = 1024;
/// The header's last 9 bytes: 8 hexadecimal digits and a newline.
const HEADER_TEXT_LEN: usize = HEADER_LEN - 9;
const HASHES_LEN: usize = HASH_LEN * SUBTREES_PER_BLOCK;
const SLOT_LEN: usize = HASHES_LEN + 4 + 4;
/// Slots read at a time.
const SLOTS_PER_READ: usize = 512;

/// An open journal.
pub(super) struct Journal {
    file: Box<dyn FolderFile>,
    pub(super) id: FileId,
    salt: String,
    header: Option<Header>,
    /// Something of it could not be read or written: it is copied before more is written.
    worn: AtomicBool,
}

/// What the header says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    #[serde(rename = "wsferry-journal")]
    version: u64,
    /// Distinguishes this journal's slots from any other's.
    salt: String,
    pub(super) id: String,
    /// The file's path; nothing if it is too long for a header: the journal's own name is made from it anyway.
    pub(super) name: String,
    pub(super) size: u64,
}

/// Why a journal's header was not read.
#[derive(Debug)]
pub(super) enum JournalError {
    Newer(u64),
    Unreadable,
}

impl From<io::Error> for JournalError {
    fn from(_: io::Error) -> Self {
        Self::Unreadable
    }
}

impl Journal {
    /// Takes up the journal in `file`; one that cannot be read has nothing in it. An error is a newer version.
    pub(super) fn open(file: Box<dyn FolderFile>) -> io::Result<Result<Self, u64>> {
        let id = file.info()?.id;
        let (header, worn) = match read_header(&*file) {
            Ok(header) => (header, false),
            Err(JournalError::Newer(version)) => return Ok(Err(version)),
            Err(JournalError::Unreadable) => (None, true),
        };
        let salt = header.as_ref().map_or_else(new_salt, |header| header.salt.clone());
        Ok(Ok(Self { file, id, salt, header, worn: AtomicBool::new(worn) }))
    }

    /// Whether it was begun for this very version of the file.
    pub(super) fn is_of(&self, offer: &CheckedOffer) -> bool {
        self.header.as_ref().is_some_and(|header| header.id == offer.id)
    }

    /// Whether something of it could not be read or written.
    pub(super) fn is_worn(&self) -> bool {
        self.worn.load(Ordering::Relaxed)
    }

    /// Makes it this offer's. The slots of another version of the file stay, unless they are of no use: what a block
    /// holds does not depend on the offer. Not durable before [`sync`](Self::sync).
    pub(super) fn begin(&mut self, offer: &CheckedOffer, keep_slots: bool) -> io::Result<()> {
        if !keep_slots {
            self.header = None;
            self.salt = new_salt();
        }
        let mut header = Header {
            version: VERSION,
            salt: self.salt.clone(),
            id: offer.id.clone(),
            name: offer.path.to_string(),
            size: offer.geometry.size(),
        };
        if header.to_json().len() > HEADER_TEXT_LEN {
            header.name.clear();
        }
        if self.header.as_ref() != Some(&header) {
            if self.header.is_none() {
                self.file.set_len(0)?;
            }
            self.file.write_all_at(&header.to_bytes(), 0)?;
            self.header = Some(header);
        }
        Ok(())
    }

    /// Writes all that can be read of it into another file, which takes its place.
    pub(super) fn copy_into(&self, file: Box<dyn FolderFile>) -> io::Result<Self> {
        let mut piece = vec![0; SLOTS_PER_READ * SLOT_LEN];
        let (mut at, end) = (0, self.file.info().map_or(0, |info| info.len));
        while at < end {
            let want = piece.len().min((end - at) as usize);
            // What cannot be read is of blocks that will be hashed again, or sent again.
            if let Ok(read) = read_full(&*self.file, &mut piece[..want], at) {
                file.write_all_at(&piece[..read], at)?;
            }
            at += want as u64;
        }
        if let Some(header) = &self.header {
            file.write_all_at(&header.to_bytes(), 0)?;
        }
        let (id, salt) = (file.info()?.id, self.salt.clone());
        Ok(Self { file, id, salt, header: self.header.clone(), worn: AtomicBool::new(false) })
    }

    /// Writes the hashes of blocks. Not durable before [`sync`](Self::sync).
    pub(super) fn write(&self, geometry: Geometry, blocks: &[(u64, BlockHashes)]) -> io::Result<()> {
        // Blocks mostly come in runs; a run is one write.
        for run in blocks.chunk_by(|&(a, _), &(b, _)| a + 1 == b) {
            let slots: Vec<u8> =
                run.iter().flat_map(|(block, hashes)| self.slot(geometry, *block, hashes)).collect();
            self.file.write_all_at(&slots, slot_offset(run[0].0)).inspect_err(|_| self.wear())?;
        }
        Ok(())
    }

    /// Makes what was written durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data().inspect_err(|_| self.wear())
    }

    /// Takes a block's hashes back.
    pub(super) fn forget(&self, block: u64) -> io::Result<()> {
        self.file.write_all_at(&[0; SLOT_LEN], slot_offset(block)).inspect_err(|_| self.wear())
    }

    /// The hashes of one block, if it is held.
    pub(super) fn read(&self, geometry: Geometry, block: u64) -> Option<BlockHashes> {
        let mut found = None;
        self.scan(geometry, block..block + 1, |_, hashes| found = Some(hashes));
        found
    }

    /// The digests of a run of blocks; it ends where one is not held.
    pub(super) fn digests(&self, geometry: Geometry, first: u64, count: u64) -> Vec<BlockDigest> {
        let mut digests = Vec::new();
        self.scan(geometry, first..first + count, |block, hashes| {
            if block - first == digests.len() as u64 {
                digests.push(hashes.digest());
            }
        });
        digests
    }

    /// Calls `visit` for each held block, in order. What cannot be read is not held. What was never written costs
    /// nothing: an offer's size is the peer's word.
    pub(super) fn scan(
        &self,
        geometry: Geometry,
        blocks: Range<u64>,
        mut visit: impl FnMut(u64, BlockHashes),
    ) {
        let most = SLOTS_PER_READ.min((blocks.end - blocks.start) as usize);
        let mut slots = vec![0; most * SLOT_LEN];
        let mut block = blocks.start;
        while block < blocks.end {
            match self.file.data_from(slot_offset(block)) {
                Ok(Some(data)) => block = block.max(block_at(data.start)),
                Ok(None) => return,
                Err(_) => self.wear(),
            }
            let want = slots.len().min(blocks.end.saturating_sub(block) as usize * SLOT_LEN);
            let read = read_full(&*self.file, &mut slots[..want], slot_offset(block)).unwrap_or_else(|_| {
                self.wear();
                0
            });
            slots[read..want].fill(0);
            for slot in slots[..want].as_chunks::<SLOT_LEN>().0 {
                if let Some(hashes) = self.parse_slot(geometry, block, slot) {
                    visit(block, hashes);
                }
                block += 1;
            }
        }
    }

    fn wear(&self) {
        self.worn.store(true, Ordering::Relaxed);
    }

    fn slot(&self, geometry: Geometry, block: u64, hashes: &BlockHashes) -> [u8; SLOT_LEN] {
        let mut slot = [0; SLOT_LEN];
        let bytes = hashes.as_bytes();
        slot[..bytes.len()].copy_from_slice(bytes);
        slot[HASHES_LEN..][..4].copy_from_slice(&(geometry.block_len(block) as u32).to_le_bytes());
        let crc = self.slot_crc(block, &slot);
        slot[HASHES_LEN + 4..].copy_from_slice(&crc.to_le_bytes());
        slot
    }

    fn parse_slot(&self, geometry: Geometry, block: u64, slot: &[u8; SLOT_LEN]) -> Option<BlockHashes> {
        let (hashes, rest) = slot.split_first_chunk::<HASHES_LEN>()?;
        let (len, crc) = rest.split_first_chunk::<4>()?;
        let len = u64::from(u32::from_le_bytes(*len));
        let good = crc == self.slot_crc(block, slot).to_le_bytes() && len == geometry.block_len(block);
        good.then(|| BlockHashes::from_bytes(hashes, len))
    }

    fn slot_crc(&self, block: u64, slot: &[u8; SLOT_LEN]) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        crc.update(self.salt.as_bytes());
        crc.update(&block.to_le_bytes());
        crc.update(&slot[..HASHES_LEN + 4]);
        crc.finalize()
    }
}

impl Header {
    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a header is plain JSON")
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.to_json();
        assert!(bytes.len() <= HEADER_TEXT_LEN, "a name that does not fit is left out");
        bytes.resize(HEADER_TEXT_LEN, b' ');
        let crc = crc32fast::hash(&bytes);
        bytes.extend(format!("{crc:08x}\n").into_bytes());
        bytes
    }
}

/// The header of a journal; `None` if it is damaged or not there.
pub(super) fn read_header(file: &dyn FolderFile) -> Result<Option<Header>, JournalError> {
    #[derive(Deserialize)]
    struct Version {
        #[serde(rename = "wsferry-journal")]
        version: u64,
    }
    let mut bytes = vec![0; HEADER_LEN];
    if read_full(file, &mut bytes, 0)? < HEADER_LEN {
        return Ok(None);
    }
    let (text, crc) = bytes.split_at(HEADER_TEXT_LEN);
    if format!("{:08x}\n", crc32fast::hash(text)).as_bytes() != crc {
        return Ok(None);
    }
    match serde_json::from_slice(text) {
        Ok(Version { version }) if version > VERSION => Err(JournalError::Newer(version)),
        Ok(_) => Ok(serde_json::from_slice(text).ok()),
        Err(_) => Ok(None),
    }
}

fn slot_offset(block: u64) -> u64 {
    HEADER_LEN as u64 + block * SLOT_LEN as u64
}

/// The block whose slot holds the byte at this offset.
fn block_at(offset: u64) -> u64 {
    offset.saturating_sub(HEADER_LEN as u64) / SLOT_LEN as u64
}

fn read_full(file: &dyn FolderFile, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

fn new_salt() -> String {
    let random = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", random(), random())
}
