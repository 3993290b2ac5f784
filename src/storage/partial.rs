//! A partial file and its journal, both open: made by the first write, held against whatever happens to their names,
//! given the final name once.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::destination::{Destination, Names, create_anew, means, open_ours, remove_name_of};
use super::error::StorageError;
use super::folder::{FileId, FileInfo, Folder, FolderFile};
use super::journal::Journal;
use super::warning::Warning;
use crate::protocol::{BLOCK, BlockHashes, BlockSet, CheckedOffer, Geometry};

/// How often what another program undid is done again.
const TRIES: u32 = 10;

/// Bytes copied at a time.
const PIECE: u64 = 1 << 20;

/// A partial file and its journal.
pub(super) struct Partial {
    shelf: Arc<dyn Folder>,
    names: Names,
    part: Box<dyn FolderFile>,
    id: FileId,
    /// It is locked as long as it is open.
    journal: Journal,
    /// Their names survive a loss of power.
    names_durable: AtomicBool,
}

/// What is there of a file before anything is written.
#[derive(Default)]
pub(super) struct Remains {
    part: Option<(Box<dyn FolderFile>, FileInfo)>,
    journal: Option<Journal>,
}

impl Remains {
    /// Opens what is there, and locks it. A partial file that has its final name already is none.
    pub(super) fn find(
        destination: &Destination,
        names: &Names,
        offer: &CheckedOffer,
    ) -> Result<Self, StorageError> {
        let name = offer.name.as_str();
        let Some(shelf) = destination.shelf()? else { return Ok(Self::default()) };
        let journal = match take_journal(destination, &*shelf, names, name, false)? {
            None => None,
            Some(file) => Some(open_journal(file, name)?),
        };
        let part = open_ours(&*shelf, &names.part).map_err(StorageError::io("open", &names.part))?;
        let mut remains = Self { part, journal };
        remains.drop_finished(destination, name)?;
        Ok(remains)
    }

    /// The machine may have stopped between the final name and the end of this one.
    fn drop_finished(&mut self, destination: &Destination, name: &str) -> Result<(), StorageError> {
        if let Some((_, info)) = &self.part
            && means(&*destination.folder, name, info.id).map_err(StorageError::io("stat", name))?
        {
            self.part = None;
        }
        Ok(())
    }

    pub(super) fn file(&self) -> Option<&dyn FolderFile> {
        self.part.as_ref().map(|(part, _)| &**part)
    }

    pub(super) fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    /// Whether this very version of the file was begun.
    pub(super) fn is_of(&self, offer: &CheckedOffer) -> bool {
        self.part.is_some() && self.journal.as_ref().is_some_and(|journal| journal.is_of(offer))
    }

    /// The partial file's length, and what it takes on the disk.
    pub(super) fn size(&self) -> (u64, u64) {
        self.part.as_ref().map_or((0, 0), |(_, info)| (info.len, info.allocated))
    }

    /// Blocks in the journal, and blocks that are whole as far as data tells, and are not.
    pub(super) fn stock(&self, destination: &Destination, geometry: Geometry) -> (BlockSet, BlockSet) {
        match &self.part {
            None => Default::default(),
            Some((part, info)) => {
                let doubted = destination.memory.is_doubted(info.id);
                stock(&**part, self.journal.as_ref(), geometry, doubted)
            }
        }
    }

    /// Removes what is left of a transfer whose file has its final name.
    pub(super) fn clear(&self, destination: &Destination, names: &Names, finished: FileId) {
        let Ok(Some(shelf)) = destination.shelf() else { return };
        remove_name_of(&*shelf, &names.part, finished);
        if let (Some(journal), Ok(None)) = (&self.journal, shelf.lookup(&names.part)) {
            remove_name_of(&*shelf, &names.journal, journal.id);
        }
        destination.clear_shelf();
    }

    /// Makes what is missing, and puts the rest in order for this offer: the first change on the disk.
    pub(super) fn open(
        mut self,
        destination: &Destination,
        names: &Names,
        offer: &CheckedOffer,
    ) -> Result<Partial, StorageError> {
        let name = offer.name.as_str();
        let mut shelf = destination.make_shelf()?;
        let mut journal = match self.journal.take() {
            Some(journal) => journal,
            None => {
                let mut tries = 0;
                let file = loop {
                    match take_journal(destination, &*shelf, names, name, true) {
                        // Another transfer finished and removed the directory just now.
                        Err(StorageError::Io { source, .. })
                            if source.kind() == io::ErrorKind::NotFound && tries < TRIES =>
                        {
                            tries += 1;
                            shelf = destination.make_shelf()?;
                        }
                        taken => break taken?,
                    }
                };
                open_journal(file.ok_or_else(|| disturbed(name))?, name)?
            }
        };
        let cannot = |operation| StorageError::io(operation, name);
        self.drop_finished(destination, name)?;
        let found = self.part.is_some();
        let (part, info) = match self.part.take() {
            Some(part) => part,
            None => {
                let mode = offer.mode.unwrap_or(0o666) | 0o600;
                let part = create_anew(&*shelf, &names.part, mode).map_err(cannot("create"))?;
                let info = part.info().map_err(cannot("stat"))?;
                (part, info)
            }
        };
        if journal.is_worn() {
            journal = renew(destination, &*shelf, names, &journal).map_err(cannot("renew the journal of"))?;
        }
        journal.begin(offer, found).map_err(cannot("begin the journal of"))?;
        // Gives back what a receiver that was killed had set aside. What is longer than this file is cut at its end.
        if info.allocated > info.len {
            part.set_len(info.len).map_err(cannot("give back the room of"))?;
        }
        let names_durable = AtomicBool::new(false);
        Ok(Partial { shelf, names: names.clone(), part, id: info.id, journal, names_durable })
    }
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

    /// As of [`Remains::stock`].
    pub(super) fn stock(&self, destination: &Destination, geometry: Geometry) -> (BlockSet, BlockSet) {
        stock(self.file(), Some(&self.journal), geometry, destination.memory.is_doubted(self.id))
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
            self.put_back(&*shelf).map_err(cannot("put back the partial file of"))?;
        }
        self.shelf = shelf;
        self.names_durable = AtomicBool::new(false);
        Ok(())
    }

    /// Gives the partial file its name again; one that has no name at all any more is copied.
    fn put_back(&mut self, shelf: &dyn Folder) -> io::Result<()> {
        let new = format!("{}-new", self.names.part);
        match shelf.remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if shelf.link(&*self.part, &new).is_err() {
            let info = self.part.info()?;
            let copy = create_anew(shelf, &new, info.mode & 0o777 | 0o600)?;
            copy_data(&*self.part, &*copy, info.len)?;
            copy.sync_data()?;
            self.id = copy.info()?.id;
            self.part = copy;
        }
        shelf.rename(&new, shelf, &self.names.part, true)
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

    /// Gives the file its final name. Where an open file can be given a name it is this one, whatever happens to the
    /// partial file's name in this moment.
    pub(super) fn give_name(
        &self,
        destination: &Destination,
        name: &str,
        overwrite: bool,
    ) -> Result<(), StorageError> {
        let inbox = &*destination.folder;
        let mut from = self.names.part.clone();
        if destination.abilities.links {
            match inbox.link(&*self.part, name) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !overwrite => {
                    return Err(StorageError::Exists { name: name.to_owned() });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let whole = format!("{}-whole", self.names.part);
                    let _ = self.shelf.remove_file(&whole);
                    if self.shelf.link(&*self.part, &whole).is_ok() {
                        from = whole;
                    }
                }
                Err(_) => {}
            }
        }
        let moved = self.shelf.rename(&from, inbox, name, overwrite);
        let moved = match moved {
            // Not every file system knows how to keep what is there: we hold the name's lock.
            Err(error) if super::disk::is_unsupported(&error) => match inbox.lookup(name) {
                Ok(None) => self.shelf.rename(&from, inbox, name, true),
                Ok(Some(_)) => Err(io::ErrorKind::AlreadyExists.into()),
                Err(error) => Err(error),
            },
            moved => moved,
        };
        if let Err(error) = moved {
            if from != self.names.part {
                let _ = self.shelf.remove_file(&from);
            }
            return Err(unnamed(name, error));
        }
        match inbox.lookup(name) {
            // Somebody took the partial file's place just now: what was moved is theirs, and goes back.
            Ok(Some(there)) if there.id != self.id => {
                let _ = inbox.rename(name, &*self.shelf, &from, false);
                Err(disturbed(name))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(StorageError::io("stat", name)(error)),
        }
    }

    /// Removes the partial file's name and the journal.
    pub(super) fn remove(&self, destination: &Destination) {
        remove_name_of(&*self.shelf, &self.names.part, self.id);
        remove_name_of(&*self.shelf, &self.names.journal, self.journal.id);
        destination.clear_shelf();
    }
}

/// Which blocks are in the journal, and which are whole as far as data tells and are not.
fn stock(
    part: &dyn FolderFile,
    journal: Option<&Journal>,
    geometry: Geometry,
    doubted: bool,
) -> (BlockSet, BlockSet) {
    let mut held = BlockSet::new();
    let Ok(info) = part.info() else { return Default::default() };
    // Only what the partial file reaches: an offer's size is the peer's word.
    let whole = if info.len >= geometry.size() { geometry.blocks() } else { info.len / BLOCK };
    if let Some(journal) = journal {
        let mut run = 0..0;
        journal.scan(geometry, 0..whole, |block, _| {
            if block != run.end {
                held.insert_run(std::mem::replace(&mut run, block..block));
            }
            run.end += 1;
        });
        held.insert_run(run);
    }
    let mut unhashed = BlockSet::new();
    let missing: Vec<Range<u64>> = held.missing_below(whole).runs().collect();
    let (mut gap, mut offset) = (0, 0);
    while !doubted
        && gap < missing.len()
        && let Ok(Some(data)) = part.data_from(offset)
    {
        let end = if data.end >= geometry.size() { geometry.blocks() } else { data.end / BLOCK };
        let start = data.start.div_ceil(BLOCK);
        while let Some(missing) = missing.get(gap).filter(|missing| missing.start < end) {
            let both = start.max(missing.start)..end.min(missing.end);
            if !both.is_empty() {
                unhashed.insert_run(both);
            }
            // The rest of it may be in the next run of data.
            if missing.end > end {
                break;
            }
            gap += 1;
        }
        offset = data.end;
    }
    (held, unhashed)
}

/// The journal's file, locked; made if it is not there and may be.
fn take_journal(
    destination: &Destination,
    shelf: &dyn Folder,
    names: &Names,
    name: &str,
    create: bool,
) -> Result<Option<Box<dyn FolderFile>>, StorageError> {
    let cannot = |operation| StorageError::io(operation, &names.journal);
    for _ in 0..TRIES {
        let file = match open_ours(shelf, &names.journal) {
            Ok(Some((file, _))) => file,
            Ok(None) if !create => return Ok(None),
            // One that cannot even be opened is as good as none.
            Err(error) if is_broken(&error) && !create => return Ok(None),
            Err(error) if is_broken(&error) => {
                create_anew(shelf, &names.journal, 0o600).map_err(cannot("create"))?
            }
            Err(error) => return Err(cannot("open")(error)),
            Ok(None) => match shelf.create(&names.journal, 0o600) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    // A link or the like is not ours; a file came in this moment.
                    if shelf.lookup(&names.journal).ok().flatten().is_some_and(|there| !there.is_file) {
                        shelf.remove_file(&names.journal).map_err(cannot("replace"))?;
                    }
                    continue;
                }
                Err(error) => return Err(cannot("create")(error)),
            },
        };
        if !destination.lock(&*file).map_err(cannot("lock"))? {
            return Err(StorageError::Busy { name: name.to_owned() });
        }
        // A lock on a file that has no name any more is none.
        let id = file.info().map_err(cannot("stat"))?.id;
        if means(shelf, &names.journal, id).map_err(cannot("stat"))? {
            return Ok(Some(file));
        }
    }
    Err(disturbed(name))
}

fn open_journal(file: Box<dyn FolderFile>, name: &str) -> Result<Journal, StorageError> {
    let opened = Journal::open(file).map_err(StorageError::io("open the journal of", name))?;
    opened.map_err(|version| StorageError::NewerJournal { name: name.to_owned(), version })
}

/// A new file with all that can be read of a journal takes its name, locked.
fn renew(
    destination: &Destination,
    shelf: &dyn Folder,
    names: &Names,
    journal: &Journal,
) -> io::Result<Journal> {
    let new = format!("{}-new", names.journal);
    let file = create_anew(shelf, &new, 0o600)?;
    if !destination.lock(&*file)? {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let journal = journal.copy_into(file)?;
    journal.sync()?;
    shelf.rename(&new, shelf, &names.journal, true)?;
    Ok(journal)
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

fn is_broken(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::IO)
}

fn disturbed(name: &str) -> StorageError {
    StorageError::Disturbed { name: name.to_owned() }
}

/// Why a whole file did not get its name: what would be so again is told from what may pass.
fn unnamed(name: &str, source: io::Error) -> StorageError {
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
