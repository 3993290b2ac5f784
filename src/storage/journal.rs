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

use serde::{Deserialize, Serialize};

use super::folder::FolderFile;
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
    salt: String,
}

/// What the header says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    #[serde(rename = "wsferry-journal")]
    version: u64,
    /// Distinguishes this journal's slots from any other's.
    salt: String,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) size: u64,
}

/// Why a journal could not be opened.
#[derive(Debug)]
pub(super) enum JournalError {
    Newer(u64),
    Io(io::Error),
}

impl From<io::Error> for JournalError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Journal {
    /// Takes up the journal in `file` for this offer, or starts a new one if there is none that can be read.
    ///
    /// The slots of another version of the file stay: what a block holds does not depend on the offer.
    pub(super) fn open(file: Box<dyn FolderFile>, offer: &CheckedOffer) -> Result<Self, JournalError> {
        let kept = read_header(&*file)?;
        let header = Header {
            version: VERSION,
            salt: kept.as_ref().map_or_else(new_salt, |kept| kept.salt.clone()),
            id: offer.id.clone(),
            name: offer.name.to_string(),
            size: offer.geometry.size(),
        };
        if kept.as_ref() != Some(&header) {
            if kept.is_none() {
                file.set_len(0)?;
            }
            file.write_all_at(&header.to_bytes(), 0)?;
            file.sync_data()?;
        }
        Ok(Self { file, salt: header.salt })
    }

    /// Writes the hashes of blocks. Not durable before [`sync`](Self::sync).
    pub(super) fn write(&self, geometry: Geometry, blocks: &[(u64, BlockHashes)]) -> io::Result<()> {
        // Blocks mostly come in runs; a run is one write.
        for run in blocks.chunk_by(|&(a, _), &(b, _)| a + 1 == b) {
            let slots: Vec<u8> =
                run.iter().flat_map(|(block, hashes)| self.slot(geometry, *block, hashes)).collect();
            self.file.write_all_at(&slots, slot_offset(run[0].0))?;
        }
        Ok(())
    }

    /// Makes what was written durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// The hashes of one block, if it is held.
    pub(super) fn read(&self, geometry: Geometry, block: u64) -> io::Result<Option<BlockHashes>> {
        let mut found = None;
        self.scan(geometry, block..block + 1, |_, hashes| found = hashes)?;
        Ok(found)
    }

    /// The digests of a run of blocks; it ends where one is not held.
    pub(super) fn digests(&self, geometry: Geometry, first: u64, count: u64) -> io::Result<Vec<BlockDigest>> {
        let mut digests = Vec::new();
        self.scan(geometry, first..first + count, |block, hashes| {
            if let Some(hashes) = hashes
                && block - first == digests.len() as u64
            {
                digests.push(hashes.digest());
            }
        })?;
        Ok(digests)
    }

    /// Calls `visit` for each block in order, with its hashes if it is held.
    pub(super) fn scan(
        &self,
        geometry: Geometry,
        blocks: std::ops::Range<u64>,
        mut visit: impl FnMut(u64, Option<BlockHashes>),
    ) -> io::Result<()> {
        let mut slots = vec![0; SLOTS_PER_READ.min((blocks.end - blocks.start) as usize) * SLOT_LEN];
        let mut block = blocks.start;
        while block < blocks.end {
            let want = slots.len().min((blocks.end - block) as usize * SLOT_LEN);
            let read = read_full(&*self.file, &mut slots[..want], slot_offset(block))?;
            slots[read..want].fill(0);
            for slot in slots[..want].as_chunks::<SLOT_LEN>().0 {
                visit(block, self.parse_slot(geometry, block, slot));
                block += 1;
            }
        }
        Ok(())
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
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("a header is plain JSON");
        assert!(bytes.len() <= HEADER_TEXT_LEN, "a name of 255 bytes fits, however it is escaped");
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
