//! What is there of a file before anything is written: found and locked, and made into a partial file by the first write.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::destination::{
    Destination, Names, TRIES, create_anew, means, open_ours, remove_name_of, remove_stopgaps,
};
use super::error::StorageError;
use super::folder::{FileId, FileInfo, Folder, FolderFile};
use super::journal::Journal;
use super::partial::{Partial, disturbed, put_back, renew};
use crate::protocol::{BLOCK, BlockSet, CheckedOffer, Geometry};

/// What is there of a file before anything is written.
#[derive(Default)]
pub(super) struct Remains {
    part: Option<(Box<dyn FolderFile>, FileInfo)>,
    journal: Option<Journal>,
    /// The partial file has its final name already: the machine may have stopped before it lost this one.
    is_finished: bool,
}

impl Remains {
    /// Opens what is there, and locks it. A partial file that has its final name already is none.
    pub(super) fn find(
        destination: &Destination,
        names: &Names,
        offer: &CheckedOffer,
    ) -> Result<Self, StorageError> {
        let name = offer.path.as_str();
        let Some(shelf) = destination.shelf()? else { return Ok(Self::default()) };
        let journal = match take_journal(destination, &*shelf, names, name, false)? {
            None => None,
            Some(file) => Some(open_journal(file, name)?),
        };
        let mut remains = Self { part: None, journal, is_finished: false };
        // Opening a partial file may make it writable: one that is the file already keeps its permissions.
        let named = destination.lookup(&offer.path)?;
        remains.is_finished = match named {
            Some(named) => {
                means(&*shelf, &names.part, named.id).map_err(StorageError::io("stat", &names.part))?
            }
            None => false,
        };
        if !remains.is_finished {
            remains.part = open_ours(&*shelf, &names.part).map_err(StorageError::io("open", &names.part))?;
            remains.forget_another(offer);
        }
        Ok(remains)
    }

    /// Blocks of another version are good for what is compared. A sender that does not know its own end sends what it cannot
    /// read twice, and takes what is held for its own.
    fn forget_another(&mut self, offer: &CheckedOffer) {
        if offer.geometry.is_open() && !self.is_of(offer) {
            self.part = None;
        }
    }

    /// A partial file that was given its final name since is none.
    fn drop_finished(&mut self, destination: &Destination, offer: &CheckedOffer) -> Result<(), StorageError> {
        if let Some((_, info)) = &self.part
            && destination.lookup(&offer.path)?.is_some_and(|named| named.id == info.id)
        {
            (self.part, self.is_finished) = (None, true);
        }
        Ok(())
    }

    /// Whether something of a transfer that was finished may be left.
    pub(super) fn may_be_cleared(&self) -> bool {
        self.is_finished || !self.is_nothing()
    }

    /// Whether there is nothing to go on with.
    pub(super) fn is_nothing(&self) -> bool {
        self.part.is_none() && self.journal.is_none()
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
        remove_stopgaps(&*shelf, names);
        if let (Some(journal), Ok(None)) = (&self.journal, shelf.lookup(&names.part)) {
            remove_name_of(&*shelf, &names.journal, journal.id);
        }
        destination.clear_shelf();
    }

    /// Makes what is missing, and puts the rest in order for this offer: the first change on the disk. What has come
    /// already into a file without a name is the partial file from now on.
    pub(super) fn open(
        mut self,
        come: Option<Arc<dyn FolderFile>>,
        destination: &Destination,
        names: &Names,
        offer: &CheckedOffer,
    ) -> Result<Partial, StorageError> {
        let name = offer.path.as_str();
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
        self.drop_finished(destination, offer)?;
        let mode = offer.mode.unwrap_or(0o666) | 0o600;
        let found = self.part.is_some() && come.is_none();
        let (part, info) = match (self.part.take(), come) {
            (Some((part, info)), None) => (part.into(), info),
            (_, come) => {
                let part = match come {
                    None => create_anew(&*shelf, &names.part, mode).map_err(cannot("create"))?.into(),
                    Some(come) => {
                        shelve(&*shelf, &names.part, come, mode).map_err(cannot("keep what came of"))?
                    }
                };
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

/// Gives a file its name on the shelf, and what it takes to be gone on with.
fn shelve(
    shelf: &dyn Folder,
    name: &str,
    file: Arc<dyn FolderFile>,
    mode: u32,
) -> io::Result<Arc<dyn FolderFile>> {
    // Never more than it had, but for its owner.
    file.set_mode(file.info()?.mode & mode | 0o600)?;
    Ok(put_back(shelf, name, &*file)?.map_or(file, |(copy, _)| copy.into()))
}

/// Which blocks are in the journal, and which are whole as far as data tells and are not.
pub(super) fn stock(
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

fn is_broken(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::IO)
}
