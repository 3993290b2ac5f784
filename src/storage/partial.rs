//! A partial file: written at any offset, synced before its journal, sealed under its final name once.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::StorageError;
use super::folder::{Folder, FolderFile};
use super::hash_block;
use super::journal::{Journal, JournalError};
use super::room::Room;
use crate::protocol::{
    BLOCK, BlockDigest, BlockHashes, BlockSet, CheckedOffer, DigestTree, FileDigest, FileName, Geometry,
    Opened, RESERVED,
};

/// The endings of a partial file and its journal, and of those that will be discarded.
pub(super) const ENDINGS: (&str, &str) = (".part", ".journal");
pub(super) const BENCH_ENDINGS: (&str, &str) = (".bench-part", ".bench-journal");

/// How long to wait for another transfer to let go of the name: one that was cut may still be syncing.
const LOCK_WAIT: Duration = Duration::from_secs(3);
const LOCK_POLL: Duration = Duration::from_millis(20);

/// A file on its way into a folder. It holds the lock of its name.
pub struct Partial {
    folder: Arc<dyn Folder>,
    file: Box<dyn FolderFile>,
    journal: Journal,
    offer: CheckedOffer,
    paths: Paths,
    overwrite: bool,
    room: Room,
}

/// Where a name's partial file and journal are: their own names have a fixed length, whatever the file's.
pub(super) struct Paths {
    pub(super) part: String,
    pub(super) journal: String,
}

impl Paths {
    /// What is to be discarded is kept apart: it shall not touch a partial file that someone wants to go on with.
    pub(super) fn of(name: &FileName, discard: bool) -> Self {
        let hash = blake3::hash(name.as_str().as_bytes()).to_hex();
        let (part, journal) = if discard { BENCH_ENDINGS } else { ENDINGS };
        Self {
            part: format!("{RESERVED}/{}{part}", &hash[..32]),
            journal: format!("{RESERVED}/{}{journal}", &hash[..32]),
        }
    }
}

impl Partial {
    /// Opens or makes the partial file for an offer, and says which blocks it holds: those of the journal, and
    /// those behind the journal's last sync, which are read, hashed and made durable here.
    pub(super) fn open(
        folder: Arc<dyn Folder>,
        offer: CheckedOffer,
        overwrite: bool,
    ) -> Result<(Self, Opened), StorageError> {
        let paths = Paths::of(&offer.name, offer.discard);
        let geometry = offer.geometry;
        let file = lock(&*folder, &paths, &offer.name)?;
        let journal = Journal::open(file, &offer).map_err(|error| match error {
            JournalError::Newer(version) => {
                StorageError::NewerJournal { name: offer.name.to_string(), version }
            }
            JournalError::Io(error) => StorageError::io("open the journal", &paths.journal)(error),
        })?;
        let cannot = |operation| StorageError::io(operation, &paths.part);
        let mode = offer.mode.unwrap_or(0o666) | 0o600;
        if offer.repair {
            copy_existing(&*folder, offer.name.as_str(), &paths.part, mode)
                .map_err(cannot("copy the file into"))?;
        }
        let mut file = folder.open(&paths.part, Some(mode)).map_err(cannot("open"))?;
        if file.info().map_err(cannot("stat"))?.links > 1 {
            // The machine stopped between the final name and the end of this one: it is the finished file.
            folder.remove_file(&paths.part).map_err(cannot("remove"))?;
            file = folder.open(&paths.part, Some(mode)).map_err(cannot("open"))?;
        }
        let received = file.info().map_err(cannot("stat"))?.len.min(geometry.size());
        // Cuts off what is too long, and what a receiver that was killed had set aside.
        file.set_len(received).map_err(cannot("truncate"))?;
        let partial = Self { folder, file, journal, offer, paths, overwrite, room: Room::default() };
        let held = partial.take_stock(received)?;
        let free = partial.folder.free_space().map_err(StorageError::io("ask for free space in", "."))?;
        let needed = geometry.size() - received;
        if needed > free {
            let name = partial.offer.name.to_string();
            partial.put_away(&[]);
            return Err(StorageError::NoSpace { name, needed, free });
        }
        // The names have to be durable before the journal says that blocks are.
        let cannot = |path: &'static str| StorageError::io("sync the directory", path);
        partial.folder.sync_dir(RESERVED).map_err(cannot(RESERVED))?;
        partial.folder.sync_dir("").map_err(cannot("."))?;
        Ok((partial, Opened { held, unhashed: BlockSet::new(), received, complete: false }))
    }

    /// The file's size and blocks.
    pub fn geometry(&self) -> Geometry {
        self.offer.geometry
    }

    /// Writes bytes. Not durable before [`sync`](Self::sync).
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StorageError> {
        let write = offset..offset + bytes.len() as u64;
        if let Some(room) = self.room.ahead_of(write, self.geometry().size()) {
            // If there is none, the write that needs it says so.
            let _ = self.file.reserve(room);
        }
        self.file.write_all_at(bytes, offset).map_err(|error| self.error("write", error))
    }

    /// Makes blocks durable: first the data, then the journal.
    pub fn sync(&self, blocks: &[(u64, BlockHashes)]) -> Result<(), StorageError> {
        if let Err(error) = self.file.sync_data() {
            self.give_up_unsynced();
            return Err(self.error("sync", error));
        }
        self.journal
            .write(self.geometry(), blocks)
            .and_then(|()| self.journal.sync())
            .map_err(|error| self.error("write the journal of", error))
    }

    /// Reads a block back and hashes it.
    pub fn hash_block(&self, block: u64) -> Result<BlockHashes, StorageError> {
        hash_block(self.geometry(), block, |bytes, offset| self.file.read_at(bytes, offset))
            .map_err(|error| self.error("read", error))
    }

    /// Whether a block is still what its journal entry says.
    pub fn check_block(&self, block: u64) -> Result<bool, StorageError> {
        let entry = self.journal.read(self.geometry(), block).map_err(|error| self.error("read", error))?;
        Ok(entry == Some(self.hash_block(block)?))
    }

    /// The digests of a run of blocks, from the journal; it ends where one is not held, and a first one that is not
    /// held has no block's digest.
    pub fn digests(&self, first: u64, count: u64) -> Result<Vec<BlockDigest>, StorageError> {
        let digests = self.journal.digests(self.geometry(), first, count);
        let digests = digests.map_err(|error| self.error("read the journal of", error))?;
        Ok(if digests.is_empty() { vec![BlockDigest::NONE] } else { digests })
    }

    /// Gives the file its final name if it has this digest: sync, rename, sync of the directory. All blocks must
    /// be durable. A file that is to be discarded goes instead.
    pub fn seal(&self, digest: FileDigest) -> Result<(), StorageError> {
        let geometry = self.geometry();
        let actual = self.digest().map_err(|error| self.error("read the journal of", error))?;
        if actual != Some(digest) {
            let name = self.offer.name.to_string();
            let actual = actual.unwrap_or_else(|| blake3::hash(b"").into());
            return Err(StorageError::Mismatch { name, expected: digest, actual });
        }
        if self.offer.discard {
            self.discard();
            return Ok(());
        }
        let settle = || {
            self.file.set_len(geometry.size())?;
            self.file.set_mtime(self.offer.mtime, self.offer.mtime_ns)?;
            self.file.sync_all()
        };
        settle().map_err(|error| self.error("finish", error))?;
        let name = self.offer.name.as_str();
        self.folder.rename(&self.paths.part, name, self.overwrite).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => StorageError::Exists { name: name.to_owned() },
            _ => self.error("rename the partial file of", error),
        })?;
        self.folder.sync_dir("").map_err(StorageError::io("sync the directory", "."))?;
        // Only now that the new name is durable: a partial file without write permission could not be taken up again.
        if let Some(mode) = self.offer.mode {
            let restrict = self.file.restrict_mode(mode).and_then(|()| self.file.sync_all());
            restrict.map_err(|error| self.error("set the permissions of", error))?;
        }
        self.remove_journal();
        Ok(())
    }

    fn digest(&self) -> io::Result<Option<FileDigest>> {
        let geometry = self.geometry();
        let mut tree = DigestTree::new(geometry);
        self.journal.scan(geometry, 0..geometry.blocks(), |block, hashes| {
            if let Some(hashes) = hashes {
                tree.insert(block, &hashes);
            }
        })?;
        Ok(tree.digest())
    }

    /// Which blocks are there. What the journal does not know of is hashed, so that it costs no second sending.
    fn take_stock(&self, received: u64) -> Result<BlockSet, StorageError> {
        let geometry = self.geometry();
        // Only what the partial file reaches: an offer's size is the peer's word, and costs nothing here.
        let whole = if received == geometry.size() { geometry.blocks() } else { received / BLOCK };
        let mut tail = Vec::new();
        self.journal
            .scan(geometry, 0..whole, |block, hashes| {
                if hashes.is_none() {
                    tail.push(block);
                }
            })
            .map_err(|error| self.error("read the journal of", error))?;
        // A batch at a time, so that memory stays flat when the whole journal is gone.
        for batch in tail.chunks(256) {
            let hashed = batch.iter().map(|&block| Ok((block, self.hash_block(block)?)));
            self.sync(&hashed.collect::<Result<Vec<_>, StorageError>>()?)?;
        }
        let mut held = BlockSet::new();
        held.insert_run(0..whole);
        Ok(held)
    }

    /// After a sync that failed: what was not durable may be gone although it still reads well, and a second sync
    /// would call it written. It is cut off, to be sent again.
    fn give_up_unsynced(&self) {
        let geometry = self.geometry();
        let Ok(info) = self.file.info() else { return };
        let mut durable = 0;
        let reached = info.len.min(geometry.size()).div_ceil(BLOCK);
        let scanned = self.journal.scan(geometry, 0..reached, |block, hashes| {
            if hashes.is_some() && block == durable {
                durable += 1;
            }
        });
        let end = if scanned.is_ok() { (durable * BLOCK).min(geometry.size()) } else { 0 };
        // If even this fails, the check behind the next transfer is what is left.
        let _ = self.file.set_len(end.min(info.len));
    }

    /// At the end of a connection: gives back the room that was set aside for more, and makes these last blocks
    /// durable. If nobody will go on with the partial file it is removed: nothing ever arrived, or it is to be
    /// discarded.
    ///
    /// What fails here loses nothing: blocks without a journal entry are hashed on the next run, or sent again.
    pub fn put_away(&self, blocks: &[(u64, BlockHashes)]) {
        let Ok(info) = self.file.info() else { return };
        if self.offer.discard || info.len == 0 {
            return self.discard();
        }
        if self.room.reaches_beyond(info.len) {
            let _ = self.file.set_len(info.len);
        }
        if !blocks.is_empty() {
            let _ = self.sync(blocks);
        }
    }

    fn discard(&self) {
        let _ = self.folder.remove_file(&self.paths.part);
        self.remove_journal();
    }

    /// Litter does not undo a transfer: whatever fails here is swept when the folder is opened next.
    fn remove_journal(&self) {
        let _ = self.folder.remove_file(&self.paths.journal);
        let _ = self.folder.remove_dir(RESERVED);
    }

    fn error(&self, operation: &'static str, source: io::Error) -> StorageError {
        StorageError::Io { operation, path: self.offer.name.to_string(), source }
    }
}

/// Starts a partial file from the file that has its final name; its blocks will be found and offered as held. A
/// partial file that is there goes first.
fn copy_existing(folder: &dyn Folder, name: &str, part: &str, mode: u32) -> io::Result<()> {
    if folder.info(name)?.is_none_or(|info| !info.is_file) || folder.info(part)?.is_some() {
        return Ok(());
    }
    folder.copy(name, part, mode).inspect_err(|_| {
        let _ = folder.remove_file(part);
    })
}

/// The journal, opened and locked.
fn lock(folder: &dyn Folder, paths: &Paths, name: &FileName) -> Result<Box<dyn FolderFile>, StorageError> {
    let deadline = Instant::now() + LOCK_WAIT;
    let cannot = |operation| StorageError::io(operation, &paths.journal);
    loop {
        folder.create_dir(RESERVED).map_err(StorageError::io("create", RESERVED))?;
        let file = match folder.open(&paths.journal, Some(0o600)) {
            Ok(file) => file,
            // Another transfer finished and removed the directory just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound && Instant::now() < deadline => continue,
            Err(error) => return Err(cannot("create")(error)),
        };
        if file.try_lock().map_err(cannot("lock"))? {
            // Removed by the transfer that held the lock before: then there is another file by now, or none.
            if file.info().map_err(cannot("stat"))?.links > 0 {
                return Ok(file);
            }
        } else if Instant::now() >= deadline {
            return Err(StorageError::Busy { name: name.to_string() });
        } else {
            std::thread::sleep(LOCK_POLL);
        }
    }
}
