//! A partial file and its journal, both open: held against whatever happens to their names, given the final name once.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::destination::{
    Destination, Names, create_anew, means, open_ours, remove_name_of, remove_stopgaps, second_name,
    successor,
};
use super::error::StorageError;
use super::folder::{FileId, Folder, FolderFile};
use super::journal::Journal;
use super::tree::Place;
use super::warning::Warning;
use crate::protocol::{BLOCK, BlockHashes, BlockSet, Geometry};

/// Bytes copied at a time.
const PIECE: u64 = 1 << 20;

/// A partial file and its journal.
pub(super) struct Partial {
    pub(super) shelf: Arc<dyn Folder>,
    pub(super) names: Names,
    pub(super) part: Arc<dyn FolderFile>,
    pub(super) id: FileId,
    /// It is locked as long as it is open.
    pub(super) journal: Journal,
    /// Their names survive a loss of power.
    pub(super) names_durable: AtomicBool,
}

impl Partial {
    pub(super) fn file(&self) -> &dyn FolderFile {
        &*self.part
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// As of [`Remains::stock`](super::remains::Remains::stock).
    pub(super) fn stock(&self, destination: &Destination, geometry: Geometry) -> (BlockSet, BlockSet) {
        super::remains::stock(
            self.file(),
            Some(&self.journal),
            geometry,
            destination.memory.is_doubted(self.id),
        )
    }

    /// Whether the names still mean what is open, and the journal is good to be written to.
    pub(super) fn is_in_order(&self, destination: &Destination) -> io::Result<bool> {
        Ok(!self.journal.is_worn()
            && destination.is_shelf(&*self.shelf)?
            && means(&*self.shelf, &self.names.part, self.id)?
            && means(&*self.shelf, &self.names.journal, self.journal.id)?)
    }

    /// Gives what is open its names again, unless somebody else is writing under them by now.
    pub(super) fn put_in_order(&mut self, destination: &Destination, name: &str) -> Result<(), StorageError> {
        let cannot = |operation| StorageError::io(operation, name);
        let shelf = destination.make_shelf()?;
        let has_lock = means(&*shelf, &self.names.journal, self.journal.id).map_err(cannot("stat"))?;
        if !has_lock || self.journal.is_worn() {
            // Locked until ours has its name.
            let other = open_ours(&*shelf, &self.names.journal).map_err(cannot("open"))?;
            if let (Some((other, _)), false) = (&other, has_lock)
                && !destination.lock(&**other).map_err(cannot("lock"))?
            {
                return Err(disturbed(name));
            }
            self.journal = renew(destination, &*shelf, &self.names, &self.journal)
                .map_err(cannot("put back the journal of"))?;
        }
        if !means(&*shelf, &self.names.part, self.id).map_err(cannot("stat"))? {
            let copied = put_back(&*shelf, &self.names.part, self.file());
            if let Some((copy, id)) = copied.map_err(cannot("put back the partial file of"))? {
                (self.part, self.id) = (copy.into(), id);
            }
        }
        self.shelf = shelf;
        self.names_durable = AtomicBool::new(false);
        Ok(())
    }

    /// Makes blocks durable whose data is.
    pub(super) fn record(
        &self,
        destination: &Destination,
        geometry: Geometry,
        blocks: &[(u64, BlockHashes)],
        warnings: &mut Vec<Warning>,
    ) -> io::Result<()> {
        // The names have to be durable before the journal says that blocks are.
        if !self.names_durable.load(Ordering::Relaxed) {
            destination.sync_names(&*self.shelf, warnings)?;
            destination.sync_names(&*destination.folder, warnings)?;
            self.names_durable.store(true, Ordering::Relaxed);
        }
        self.journal.write(geometry, blocks)?;
        self.journal.sync()
    }

    /// After a sync that failed: what was not durable may be gone although it still reads well, and a second sync
    /// would call it written. It is emptied, to be sent again.
    pub(super) fn give_up_unsynced(&self, geometry: Geometry) {
        let Ok(info) = self.part.info() else { return };
        let mut next = 0;
        let reached = info.len.min(geometry.size());
        let empty = |bytes: Range<u64>| {
            if !bytes.is_empty() {
                // If even this fails, the doubt is what is left, and the check behind the next transfer.
                let _ = self.part.zero(bytes);
            }
        };
        self.journal.scan(geometry, 0..reached.div_ceil(BLOCK), |block, _| {
            empty(next..geometry.block_start(block).min(reached));
            next = geometry.block_end(block);
        });
        let _ = self.part.set_len(next.min(info.len));
    }

    /// As of [`give_name`].
    pub(super) fn give_name(
        &self,
        destination: &Destination,
        place: &Place,
        overwrite: bool,
    ) -> Result<(), StorageError> {
        let whole = Whole { shelf: &*self.shelf, part: &self.names.part, file: self.file(), id: self.id };
        give_name(destination, &whole, place, overwrite)
    }

    /// Removes the partial file's name and the journal.
    pub(super) fn remove(&self, destination: &Destination) {
        remove_name_of(&*self.shelf, &self.names.part, self.id);
        remove_stopgaps(&*self.shelf, &self.names);
        remove_name_of(&*self.shelf, &self.names.journal, self.journal.id);
        destination.clear_shelf();
    }
}

/// A whole file on the shelf, open, that is to get its final name.
pub(super) struct Whole<'a> {
    pub(super) shelf: &'a dyn Folder,
    pub(super) part: &'a str,
    pub(super) file: &'a dyn FolderFile,
    pub(super) id: FileId,
}

/// Gives the file its final name. Where an open file can be given a name it is this one, whatever happens to the
/// partial file's name in this moment.
pub(super) fn give_name(
    destination: &Destination,
    whole: &Whole<'_>,
    place: &Place,
    overwrite: bool,
) -> Result<(), StorageError> {
    let (folder, name, path) = (&*place.folder, place.name(), place.path.as_str());
    let mut from = whole.part.to_owned();
    if destination.abilities.links {
        match folder.link(whole.file, name) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !overwrite => {
                return Err(StorageError::Exists { name: path.to_owned() });
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let second = second_name(whole.part);
                let _ = whole.shelf.remove_file(&second);
                if whole.shelf.link(whole.file, &second).is_ok() {
                    from = second;
                }
            }
            Err(_) => {}
        }
    }
    let moved = whole.shelf.rename(&from, folder, name, overwrite);
    let moved = match moved {
        // Not every file system knows how to keep what is there: we hold the name's lock.
        Err(error) if super::disk::is_unsupported(&error) => match folder.lookup(name) {
            Ok(None) => whole.shelf.rename(&from, folder, name, true),
            Ok(Some(_)) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) => Err(error),
        },
        moved => moved,
    };
    if let Err(error) = moved {
        if from != whole.part {
            let _ = whole.shelf.remove_file(&from);
        }
        return Err(unnamed(path, error));
    }
    match folder.lookup(name) {
        // Somebody took the partial file's place just now: what was moved is theirs, and goes back.
        Ok(Some(there)) if there.id != whole.id => {
            let _ = folder.rename(name, whole.shelf, &from, false);
            Err(disturbed(path))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(StorageError::io("stat", path)(error)),
    }
}

/// A new file with all that can be read of a journal takes its name, locked.
pub(super) fn renew(
    destination: &Destination,
    shelf: &dyn Folder,
    names: &Names,
    journal: &Journal,
) -> io::Result<Journal> {
    let new = successor(&names.journal);
    let file = create_anew(shelf, &new, 0o600)?;
    if !destination.lock(&*file)? {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let journal = journal.copy_into(file)?;
    journal.sync()?;
    shelf.rename(&new, shelf, &names.journal, true)?;
    Ok(journal)
}

/// Gives an open file its name on the shelf again; one that has no name at all any more is copied, and the copy is it from
/// then on.
pub(super) fn put_back(
    shelf: &dyn Folder,
    name: &str,
    file: &dyn FolderFile,
) -> io::Result<Option<(Box<dyn FolderFile>, FileId)>> {
    let new = successor(name);
    match shelf.remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut copied = None;
    if shelf.link(file, &new).is_err() {
        let info = file.info()?;
        let copy = create_anew(shelf, &new, info.mode & 0o777 | 0o600)?;
        copy_data(file, &*copy, info.len)?;
        copy.sync_data()?;
        let id = copy.info()?.id;
        copied = Some((copy, id));
    }
    shelf.rename(&new, shelf, name, true)?;
    Ok(copied)
}

/// Copies what was ever written.
fn copy_data(from: &dyn FolderFile, to: &dyn FolderFile, len: u64) -> io::Result<()> {
    let mut piece = vec![0; PIECE as usize];
    let mut offset = 0;
    while let Some(data) = from.data_from(offset)? {
        offset = data.start;
        while offset < data.end {
            let want = PIECE.min(data.end - offset) as usize;
            let read = from.read_at(&mut piece[..want], offset)?;
            if read == 0 {
                break;
            }
            to.write_all_at(&piece[..read], offset)?;
            offset += read as u64;
        }
        offset = data.end;
    }
    to.set_len(len)
}

pub(super) fn disturbed(name: &str) -> StorageError {
    StorageError::Disturbed { name: name.to_owned() }
}

/// Why a whole file did not get its name: what would be so again is told from what may pass.
pub(super) fn unnamed(name: &str, source: io::Error) -> StorageError {
    let name = name.to_owned();
    match source.kind() {
        io::ErrorKind::AlreadyExists => StorageError::Exists { name },
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ResourceBusy
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::DirectoryNotEmpty
        | io::ErrorKind::CrossesDevices
        | io::ErrorKind::ExecutableFileBusy => StorageError::NoName { name, source },
        // The partial file's name is gone.
        io::ErrorKind::NotFound => disturbed(&name),
        _ => StorageError::io("rename the partial file of", name)(source),
    }
}
