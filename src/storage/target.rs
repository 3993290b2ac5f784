//! What an accepted offer is received into.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::claims::Claim;
use super::destination::{Destination, Names};
use super::error::StorageError;
use super::folder::FolderFile;
use super::partial::Partial;
use super::remains::Remains;
use super::room::Room;
use super::small::Small;
use super::warning::Warning;
use crate::protocol::{BLOCK, BlockSet, CheckedOffer, FileDigest, Geometry, Opened};

/// What an accepted offer is received into: a partial file, or a file that stands under its final name already, as far
/// as name, size and time tell. It holds the name. Nothing on the disk changes before the first write.
pub struct Target {
    pub(super) destination: Arc<Destination>,
    pub(super) offer: CheckedOffer,
    /// As it was offered, until a file that was offered without its size turns out to have one.
    geometry: Mutex<Geometry>,
    /// The most bytes that it may have.
    most: u64,
    pub(super) overwrite: bool,
    pub(super) names: Names,
    claim: Claim,
    stage: RwLock<Stage>,
    /// The file that is repaired: its blocks are taken over as they are hashed.
    pub(super) basis: RwLock<Option<Box<dyn FolderFile>>>,
    /// Those that are still to be taken over.
    pub(super) to_take: Mutex<BlockSet>,
    pub(super) room: Mutex<Room>,
    /// Blocks that are zeros, and may be a hole.
    pub(super) zeros: Mutex<BlockSet>,
    /// How far the partial file ever reached.
    pub(super) reached: AtomicU64,
    /// Bytes that are there and take room, held ones included.
    come: AtomicU64,
    /// The partial file has, or had, the final name.
    pub(super) named: AtomicBool,
    pub(super) warnings: Mutex<Vec<Warning>>,
    /// Behind all else, when nothing is open any more.
    tidy: Tidy,
}

/// Removes the shelf if it is empty: some file systems keep a name for what is open, whatever was removed.
struct Tidy {
    destination: Arc<Destination>,
    /// Something of it was there.
    is_used: AtomicBool,
}

impl Drop for Tidy {
    fn drop(&mut self) {
        if self.is_used.load(Ordering::Relaxed) {
            self.destination.clear_shelf();
        }
    }
}

/// How sealing went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sealed {
    /// The file is durable under its final name; what the file system would not do for it.
    Stored(Vec<Warning>),
    /// What is there is another file, and may be replaced, or something of it was lost: the target is a partial file from
    /// now on, with this in it.
    Differs(Opened),
}

/// How far it is.
pub(super) enum Stage {
    /// The file is there, to be compared.
    Existing(Remains),
    /// Nothing was changed yet.
    Found(Remains),
    /// A small file, of which nothing was there.
    Small(Small),
    /// Something was written.
    Partial(Partial),
}

impl Stage {
    /// Of a file that is to come.
    pub(super) fn new(destination: &Destination, offer: &CheckedOffer, remains: Remains) -> Self {
        let is_small = Small::fits(destination, offer, &remains);
        if is_small { Self::Small(Small::default()) } else { Self::Found(remains) }
    }
}

impl Target {
    pub(super) fn new(
        destination: Arc<Destination>,
        offer: CheckedOffer,
        (overwrite, most): (bool, u64),
        claim: Claim,
        stage: Stage,
    ) -> Self {
        Self {
            names: Names::of(&offer.path, offer.discard),
            tidy: Tidy {
                destination: destination.clone(),
                is_used: AtomicBool::new(!matches!(stage, Stage::Small(_))),
            },
            destination,
            geometry: Mutex::new(offer.geometry),
            most,
            offer,
            overwrite,
            claim,
            stage: RwLock::new(stage),
            basis: RwLock::default(),
            to_take: Mutex::default(),
            room: Mutex::default(),
            zeros: Mutex::default(),
            reached: AtomicU64::new(0),
            come: AtomicU64::new(0),
            named: AtomicBool::new(false),
            warnings: Mutex::default(),
        }
    }

    /// As [`take_stock`](Self::take_stock).
    pub(super) fn opened(&self, free: Option<u64>) -> Result<Opened, StorageError> {
        let geometry = self.geometry();
        let size = geometry.size();
        let ((held, unhashed), (len, allocated)) = match &*self.read() {
            Stage::Existing(_) => return Ok(Opened::default()),
            Stage::Small(_) => Default::default(),
            Stage::Found(remains) => (remains.stock(&self.destination, geometry), remains.size()),
            Stage::Partial(partial) => {
                let info = partial.file().info().map_err(|error| self.error("stat", error))?;
                (partial.stock(&self.destination, geometry), (info.len, info.allocated))
            }
        };
        let come = if geometry.is_open() { allocated } else { allocated.min(self.weight()) };
        self.come.store(come, Ordering::Relaxed);
        let needed = self.weight() - come;
        let free = free.map_or_else(|| self.destination.free_space(), Ok);
        let free = free.map_err(StorageError::io("ask for free space in", "."))?;
        let free = free.saturating_sub(self.claim.expected_by_others());
        if needed > free {
            return Err(StorageError::NoSpace { name: self.offer.path.to_string(), needed, free });
        }
        self.claim.expect(come, needed);
        self.reached.store(len.min(size), Ordering::Relaxed);
        let mut opened = Opened { held, unhashed, received: len.min(size), complete: false };
        if let Some(basis) = &*self.basis() {
            let len = basis.info().map_err(|error| self.error("stat", error))?.len;
            let whole = if len >= size { geometry.blocks() } else { len / BLOCK };
            let mut to_take = BlockSet::new();
            to_take.insert_run(0..whole);
            for block in opened.held.runs().chain(opened.unhashed.runs()).flatten() {
                to_take.remove(block);
            }
            to_take.runs().for_each(|run| opened.unhashed.insert_run(run));
            *lock(&self.to_take) = to_take;
            opened.received = opened.received.max(len.min(size));
        }
        *lock(&self.room) = Room::new(opened.held.clone());
        Ok(opened)
    }

    pub(super) fn basis(&self) -> RwLockReadGuard<'_, Option<Box<dyn FolderFile>>> {
        self.basis.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file that has the name, to take its blocks over.
    fn open_basis(&self) -> Result<Option<Box<dyn FolderFile>>, StorageError> {
        let Some(place) = self.destination.find(&self.offer.path)? else { return Ok(None) };
        if !place.lookup()?.is_some_and(|there| there.is_file) {
            return Ok(None);
        }
        // What cannot be opened cannot be taken over, and is received.
        Ok(place.folder.open(place.name(), false).ok())
    }

    /// The file's size and blocks.
    pub fn geometry(&self) -> Geometry {
        *lock(&self.geometry)
    }

    /// The file was offered without its size, and has this one.
    pub fn ends_with(&self, geometry: Geometry) {
        *lock(&self.geometry) = geometry;
    }

    /// How many bytes of it take room: holes take none, where there can be holes.
    fn weight(&self) -> u64 {
        if self.geometry().is_open() {
            return self.come.load(Ordering::Relaxed);
        }
        let holes = if self.destination.abilities.holes { self.offer.zeros } else { 0 };
        self.geometry().size().saturating_sub(holes)
    }

    /// Writes bytes. Not durable before [`sync`](Self::sync).
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StorageError> {
        let write = offset..offset + bytes.len() as u64;
        if write.end > self.most {
            return Err(StorageError::TooLarge {
                name: self.offer.path.to_string(),
                size: write.end,
                most: self.most,
            });
        }
        self.destination.check_room(bytes.len() as u64).map_err(|error| self.error("write", error))?;
        if let Stage::Small(small) = &*self.read() {
            small.changes();
            let file = small.file(&self.destination, &self.offer)?;
            write_all(&**file, bytes, offset).map_err(|error| self.error("write", error))?;
            self.has_come(write);
            return Ok(());
        }
        let stage = self.partial()?;
        let partial = partial_of(&stage);
        lock(&self.to_take).remove(offset / BLOCK);
        lock(&self.zeros).remove(offset / BLOCK);
        if let Some(room) = lock(&self.room).ahead_of(write.clone(), self.geometry().size()) {
            // If there is none, the write that needs it says so.
            if self.destination.check_room(room.end - room.start).is_ok() {
                let _ = partial.file().reserve(room);
            }
        }
        write_all(partial.file(), bytes, offset).map_err(|error| self.error("write", error))?;
        self.has_come(write);
        Ok(())
    }

    /// Has these bytes be zeros, and take no room where that can be. Not durable before [`sync`](Self::sync).
    pub fn write_zeros(&self, bytes: Range<u64>) -> Result<(), StorageError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let geometry = self.geometry();
        if let Stage::Small(small) = &*self.read() {
            small.changes();
            let file = small.file(&self.destination, &self.offer)?;
            file.zero(bytes.clone()).map_err(|error| self.error("write", error))?;
            self.reached.fetch_max(bytes.end, Ordering::Relaxed);
            return Ok(());
        }
        let stage = self.partial()?;
        let blocks = bytes.start / BLOCK..bytes.end.div_ceil(BLOCK);
        for block in blocks {
            lock(&self.to_take).remove(block);
            if bytes.start <= geometry.block_start(block) && geometry.block_end(block) <= bytes.end {
                lock(&self.zeros).insert(block);
            }
        }
        partial_of(&stage).file().zero(bytes.clone()).map_err(|error| self.error("write", error))?;
        if self.destination.abilities.holes {
            self.reached.fetch_max(bytes.end, Ordering::Relaxed);
        } else {
            self.has_come(bytes);
        }
        Ok(())
    }

    pub(super) fn has_come(&self, bytes: Range<u64>) {
        self.reached.fetch_max(bytes.end, Ordering::Relaxed);
        let len = bytes.end - bytes.start;
        let come = self.come.fetch_add(len, Ordering::Relaxed) + len;
        self.claim.expect(come, self.weight().saturating_sub(come));
    }

    /// Makes sure that the file under its final name has this digest, whole and durable. All blocks of a partial file
    /// must be durable. A file that is to be discarded goes instead.
    pub fn seal(&self, digest: FileDigest) -> Result<Sealed, StorageError> {
        let small = matches!(&*self.read(), Stage::Small(_));
        if small { self.seal_alone(digest) } else { self.seal_large(digest) }
    }

    /// What is sealed by itself.
    pub(super) fn seal_large(&self, digest: FileDigest) -> Result<Sealed, StorageError> {
        let existing = matches!(&*self.read(), Stage::Existing(_));
        if existing { self.compare(digest) } else { self.finish(digest) }
    }

    /// Says what is there of a file that is to come, and whether the rest fits into these bytes, or into what is free.
    pub(super) fn take_stock(&self, free: Option<u64>) -> Result<Opened, StorageError> {
        let basis = if self.offer.repair { self.open_basis()? } else { None };
        *self.basis.write().unwrap_or_else(PoisonError::into_inner) = basis;
        self.opened(free)
    }

    /// From a file that is there to one that is to come in its place.
    pub(super) fn become_partial(&self) -> Result<Opened, StorageError> {
        {
            let mut stage = self.change();
            if let Stage::Existing(remains) | Stage::Found(remains) = &mut *stage {
                *stage = Stage::Partial(self.open(std::mem::take(remains), None)?);
            }
        }
        self.take_stock(None)
    }

    /// As [`become_partial`](Self::become_partial), before anything is written.
    pub(super) fn receive_instead(&self) -> Result<Opened, StorageError> {
        {
            let mut stage = self.change();
            if let Stage::Existing(remains) = &mut *stage {
                *stage = Stage::new(&self.destination, &self.offer, std::mem::take(remains));
            }
        }
        self.take_stock(None)
    }

    fn open(&self, remains: Remains, come: Option<Arc<dyn FolderFile>>) -> Result<Partial, StorageError> {
        self.uses_shelf();
        remains.open(come, &self.destination, &self.names, &self.offer)
    }

    pub(super) fn uses_shelf(&self) {
        self.tidy.is_used.store(true, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Stage> {
        self.stage.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change(&self) -> RwLockWriteGuard<'_, Stage> {
        self.stage.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The partial file, made if it is not there.
    pub(super) fn partial(&self) -> Result<RwLockReadGuard<'_, Stage>, StorageError> {
        let stage = self.read();
        if matches!(&*stage, Stage::Partial(_)) {
            return Ok(stage);
        }
        drop(stage);
        let mut stage = self.change();
        match &mut *stage {
            Stage::Found(remains) => *stage = Stage::Partial(self.open(std::mem::take(remains), None)?),
            Stage::Small(small) => {
                let come = small.opened().cloned();
                *stage = Stage::Partial(self.open(Remains::default(), come)?);
            }
            Stage::Existing(_) | Stage::Partial(_) => {}
        }
        Ok(RwLockWriteGuard::downgrade(stage))
    }

    pub(super) fn error(&self, operation: &'static str, source: io::Error) -> StorageError {
        StorageError::Io { operation, path: self.offer.path.to_string(), source }
    }
}

/// The partial file of a stage that has one.
pub(super) fn partial_of(stage: &Stage) -> &Partial {
    match stage {
        Stage::Partial(partial) => partial,
        _ => unreachable!("chunks are taken for a partial file alone"),
    }
}

pub(super) fn write_all(file: &dyn FolderFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    match file.write_all_at(bytes, offset) {
        // A place on the disk that is broken: another place for these bytes, if there is one.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
            file.zero(offset..offset + bytes.len() as u64)?;
            file.write_all_at(bytes, offset)
        }
        written => written,
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is a single call: a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
