//! The partial files of a destination, for who looks at them without receiving.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::destination::{Destination, ENDINGS};
use super::disk::DiskFolder;
use super::error::StorageError;
use super::folder::Folder;
use super::journal::Journal;
use super::remains;
use super::sweep;
use crate::protocol::{Geometry, MAX_FILE, RESERVED};

/// The partial files of a destination.
pub struct Partials {
    folder: Arc<dyn Folder>,
    shelf: Option<Arc<dyn Folder>>,
}

/// A file that was begun and is not whole. Who sent it is not kept: any sender of the same file can go on with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialFile {
    /// The path it will have, below the destination; nothing if it is longer than is kept of it.
    pub name: String,
    /// What its sender called this version of the file.
    pub id: String,
    /// The size it will have, if its sender knew.
    pub size: Option<u64>,
    /// Bytes that are there.
    pub received: u64,
    /// Of these, bytes that are durable and need not be looked at to go on.
    pub durable: u64,
    /// When something came last.
    pub changed: SystemTime,
    /// Whether a receiver has it open; `None` where files cannot be locked, so that nobody can tell.
    pub is_written: Option<bool>,
}

/// A partial file that was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The path it would have had; nothing if that is not known.
    pub name: String,
    /// Bytes that had come.
    pub bytes: u64,
}

impl Partials {
    /// Opens a directory of this machine that is there; nothing changes in it.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let folder = DiskFolder::open_existing(path)
            .map_err(StorageError::io("look into", path.display().to_string()))?;
        Self::new(Arc::new(folder))
    }

    /// The partial files in any folder.
    pub fn new(folder: Arc<dyn Folder>) -> Result<Self, StorageError> {
        let shelf = match folder.open_dir(RESERVED) {
            Ok(shelf) => Some(shelf),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(StorageError::io("look into", RESERVED)(error)),
        };
        Ok(Self { folder, shelf })
    }

    /// All of them, by name. Those of measurements are none.
    pub fn list(&self) -> Result<Vec<PartialFile>, StorageError> {
        let Some(shelf) = &self.shelf else { return Ok(Vec::new()) };
        let names = shelf.list().map_err(StorageError::io("list", RESERVED))?;
        let mut partials: Vec<_> = names.iter().filter_map(|journal| look_at(&**shelf, journal)).collect();
        partials.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(partials)
    }

    /// Removes those that nobody has open and of which nothing came for so long; and what finished
    /// transfers left when the machine stopped. Only what is provably ours goes, and what cannot be removed stays.
    pub fn prune(&self, older_than: Duration) -> Result<Vec<Pruned>, StorageError> {
        if self.shelf.is_none() {
            return Ok(Vec::new());
        }
        let destination = Destination::open(self.folder.clone())?;
        if !destination.abilities.locks {
            return Err(StorageError::NoLocks);
        }
        Ok(sweep::prune(&destination, older_than))
    }
}

fn look_at(shelf: &dyn Folder, journal: &str) -> Option<PartialFile> {
    let (header, names) = sweep::header_of(shelf, journal)?;
    if !names.part.ends_with(ENDINGS.0) {
        return None;
    }
    let (part, file) = (shelf.open(&names.part, false).ok()?, shelf.open(journal, false).ok()?);
    let (info, journal_info) = (part.info().ok()?, file.info().ok()?);
    if !info.is_file {
        return None;
    }
    let is_written = file.is_locked().ok();
    let size = Some(header.size).filter(|&size| size < MAX_FILE);
    let geometry = size.map_or_else(|| Some(Geometry::open()), Geometry::new)?;
    let journal = Journal::open(file).ok()?.ok()?;
    let (held, _) = remains::stock(&*part, Some(&journal), geometry, true);
    let received = info.len.min(header.size);
    let durable: u64 = held.runs().map(|run| geometry.bytes_of(run)).sum();
    let (seconds, nanoseconds) = info.mtime.max(journal_info.mtime);
    let since = Duration::new(seconds.try_into().unwrap_or(0), nanoseconds);
    Some(PartialFile {
        name: header.name,
        id: header.id,
        size,
        received,
        durable: durable.min(received),
        changed: SystemTime::UNIX_EPOCH.checked_add(since)?,
        is_written,
    })
}
