//! What all transfers into one directory share: its handle, the shelf inside it, what its file system can do, which
//! names are taken.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::abilities::Abilities;
use super::claims::Claims;
use super::disk::is_unsupported;
use super::error::StorageError;
use super::folder::{FileId, FileInfo, Folder, FolderFile};
use super::memory::Memory;
use super::tree::{Dirs, Place, Walk};
use super::warning::Warning;
use crate::protocol::{RESERVED, RelativePath};

/// How often what another program undid is done again.
pub(super) const TRIES: u32 = 10;

/// Permission bits of what nobody else may enter.
const OURS_ALONE: u32 = 0o700;
/// Permission bits that let others in.
const OTHERS_WRITE: u32 = 0o022;

/// A directory that files are received into.
pub(super) struct Destination {
    pub(super) folder: Arc<dyn Folder>,
    pub(super) abilities: Abilities,
    pub(super) claims: Arc<Claims>,
    pub(super) memory: Memory,
    pub(super) dirs: Dirs,
    /// Bytes that are left free.
    keep_free: u64,
    /// The shelf that was found or made last.
    shelf: Mutex<Option<Arc<dyn Folder>>>,
    /// It was said that directories are not synced here.
    said: AtomicBool,
}

/// The names of a file's parts on the shelf: they have a fixed length, whatever the file's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) part: String,
    pub(super) journal: String,
}

/// The endings of a partial file and its journal, and of those that will be discarded.
pub(super) const ENDINGS: (&str, &str) = (".part", ".journal");
pub(super) const BENCH_ENDINGS: (&str, &str) = (".bench-part", ".bench-journal");

/// Hexadecimal digits of a name's hash.
const STEM: usize = 32;

impl Names {
    /// What is to be discarded is kept apart: it shall not touch a partial file that someone wants to go on with.
    pub(super) fn of(name: &RelativePath, discard: bool) -> Self {
        let hash = blake3::hash(name.as_str().as_bytes()).to_hex();
        Self::with_stem(&hash[..STEM], discard)
    }

    /// Those that go with a journal, if it has the name of one.
    pub(super) fn of_journal(journal: &str, discard: bool) -> Option<Self> {
        let stem = journal.get(..STEM)?;
        let is_hash = stem.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_hash.then(|| Self::with_stem(stem, discard)).filter(|names| names.journal == journal)
    }

    fn with_stem(stem: &str, discard: bool) -> Self {
        let (part, journal) = if discard { BENCH_ENDINGS } else { ENDINGS };
        Self { part: format!("{stem}{part}"), journal: format!("{stem}{journal}") }
    }
}

impl Destination {
    /// Finds out what the folder can do. A shelf that is there has to be ours alone.
    pub(super) fn open(folder: Arc<dyn Folder>) -> Result<Self, StorageError> {
        let probe = format!("{RESERVED}-probe-{}", std::process::id());
        let abilities = Abilities::of(&*folder, &probe);
        let destination = Self {
            folder,
            abilities,
            claims: Arc::default(),
            memory: Memory::default(),
            dirs: Dirs::default(),
            keep_free: 0,
            shelf: Mutex::default(),
            said: AtomicBool::new(false),
        };
        if destination.shelf()?.is_none() {
            destination.try_privacy(&probe)?;
        }
        Ok(destination)
    }

    /// The same, where so many bytes are left free.
    pub(super) fn keeping_free(mut self, bytes: u64) -> Self {
        self.keep_free = bytes;
        self
    }

    /// Bytes that can be written.
    pub(super) fn free_space(&self) -> io::Result<u64> {
        Ok(self.folder.free_space()?.saturating_sub(self.keep_free))
    }

    /// Whether so many bytes more leave free what is to be left free. Transfers that run beside each other, and other
    /// programs, may take what was free when a file was accepted.
    pub(super) fn check_room(&self, bytes: u64) -> io::Result<()> {
        let fits = self.keep_free == 0 || self.free_space()? >= bytes;
        if fits { Ok(()) } else { Err(rustix::io::Errno::NOSPC.into()) }
    }

    /// Some file systems give everything the same permissions: a directory of ours has to be ours alone there too.
    fn try_privacy(&self, probe: &str) -> Result<(), StorageError> {
        // What cannot be tried is seen when the first file comes.
        if self.folder.create_dir(probe, OURS_ALONE).is_err() {
            return Ok(());
        }
        let made = self.folder.lookup(probe);
        let _ = self.folder.remove_dir(probe);
        match made {
            Ok(Some(made)) if made.mode & OTHERS_WRITE != 0 => Err(StorageError::NotPrivate),
            _ => Ok(()),
        }
    }

    /// The place that a path means; `None` if its directory is not there.
    pub(super) fn find(&self, path: &RelativePath) -> Result<Option<Place>, StorageError> {
        Walk::finding(self).find(path)
    }

    /// What has this path.
    pub(super) fn lookup(&self, path: &RelativePath) -> Result<Option<FileInfo>, StorageError> {
        self.find(path)?.map_or(Ok(None), |place| place.lookup())
    }

    /// The directory of partial files, if it is there: the one that has its name now.
    pub(super) fn shelf(&self) -> Result<Option<Arc<dyn Folder>>, StorageError> {
        let cannot = |operation| StorageError::io(operation, RESERVED);
        let mut known = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(there) = self.folder.lookup(RESERVED).map_err(cannot("stat"))? else {
            *known = None;
            return Ok(None);
        };
        if let Some(shelf) = &*known
            && shelf.id() == there.id
        {
            return Ok(Some(shelf.clone()));
        }
        let shelf = match self.folder.open_dir(RESERVED) {
            Ok(shelf) => shelf,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if is_no_directory(&error) => {
                return Err(StorageError::NotOurs { what: "is not a directory" });
            }
            Err(error) => return Err(cannot("open")(error)),
        };
        let info = shelf.info().map_err(cannot("stat"))?;
        if info.owner != self.abilities.owner {
            return Err(StorageError::NotOurs { what: "belongs to another user" });
        }
        if info.mode & OTHERS_WRITE != 0 {
            return Err(StorageError::NotOurs { what: "is where others can write" });
        }
        *known = Some(shelf.clone());
        Ok(Some(shelf))
    }

    /// The directory of partial files, made if it is not there.
    pub(super) fn make_shelf(&self) -> Result<Arc<dyn Folder>, StorageError> {
        for _ in 0..TRIES {
            match self.folder.create_dir(RESERVED, OURS_ALONE) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(StorageError::io("create", RESERVED)(error));
                }
                _ => {}
            }
            if let Some(shelf) = self.shelf()? {
                return Ok(shelf);
            }
        }
        Err(StorageError::io("keep", RESERVED)(io::ErrorKind::NotFound.into()))
    }

    /// Whether this is the shelf that has the name now.
    pub(super) fn is_shelf(&self, shelf: &dyn Folder) -> io::Result<bool> {
        Ok(self.folder.lookup(RESERVED)?.is_some_and(|there| there.id == shelf.id()))
    }

    /// Removes the shelf if nothing is on it. Litter does not undo a transfer.
    pub(super) fn clear_shelf(&self) {
        // One that was never seen is not there, or not this program's to remove.
        if self.shelf.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            let _ = self.folder.remove_dir(RESERVED);
        }
    }

    /// Locks a file against other processes, where that can be done. `false` if it is locked.
    pub(super) fn lock(&self, file: &dyn FolderFile) -> io::Result<bool> {
        if self.abilities.locks { file.try_lock() } else { Ok(true) }
    }

    /// Makes names durable, as far as the file system does that.
    pub(super) fn sync_names(&self, folder: &dyn Folder, warnings: &mut Vec<Warning>) -> io::Result<()> {
        match folder.sync() {
            Err(error) if is_unsupported(&error) => {
                if !self.said.swap(true, Ordering::Relaxed) {
                    warnings.push(Warning::NoDirectorySync(error.to_string()));
                }
                Ok(())
            }
            synced => synced,
        }
    }
}

/// Whether `name` means this file.
pub(super) fn means(folder: &dyn Folder, name: &str, file: FileId) -> io::Result<bool> {
    Ok(folder.lookup(name)?.is_some_and(|there| there.id == file))
}

/// Removes a name if it means this file. What fails is swept another time.
pub(super) fn remove_name_of(folder: &dyn Folder, name: &str, file: FileId) {
    if means(folder, name, file).unwrap_or(false) {
        let _ = folder.remove_file(name);
    }
}

/// The name on the shelf of what takes the place of this, for a moment.
pub(super) fn successor(name: &str) -> String {
    format!("{name}-new")
}

/// The name on the shelf that a whole partial file has beside its own, for a moment.
pub(super) fn second_name(part: &str) -> String {
    format!("{part}-whole")
}

/// Removes what a program that was killed left under the names that something has for a moment. Whoever holds the journal's
/// lock may.
pub(super) fn remove_stopgaps(shelf: &dyn Folder, Names { part, journal }: &Names) {
    for name in [successor(journal), successor(part), second_name(part)] {
        let _ = shelf.remove_file(&name);
    }
}

/// Opens a regular file to read and write; `None` if there is none, or something that is no file of ours.
pub(super) fn open_ours(
    folder: &dyn Folder,
    name: &str,
) -> io::Result<Option<(Box<dyn FolderFile>, FileInfo)>> {
    let file = match folder.open(name, true) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_no_directory(&error) => return Ok(None),
        // It has its source's permissions already, and was about to get its final name.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let writable = folder.open(name, false).and_then(|file| make_writable(&*file));
            match writable.and_then(|()| folder.open(name, true)) {
                Ok(file) => file,
                Err(_) => return Err(error),
            }
        }
        Err(error) => return Err(error),
    };
    let info = file.info()?;
    Ok(info.is_file.then_some((file, info)))
}

/// Lets its owner read and write it.
pub(super) fn make_writable(file: &dyn FolderFile) -> io::Result<()> {
    file.set_mode(file.info()?.mode & 0o777 | 0o600)
}

/// Makes a file in the place of what has the name.
pub(super) fn create_anew(folder: &dyn Folder, name: &str, mode: u32) -> io::Result<Box<dyn FolderFile>> {
    for _ in 0..TRIES {
        match folder.create(name, mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match folder.remove_file(name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            },
            made => return made,
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// A link, or a file, where a directory was to be opened.
pub(super) fn is_no_directory(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::LOOP | Errno::NOTDIR))
}
