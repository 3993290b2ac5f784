//! The destination: decides whether an offer can be taken, and where it stands.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::StorageError;
use super::folder::{DiskFolder, Folder, FolderFile};
use super::hash_block;
use super::journal::{JournalError, read_header};
use super::partial::{BENCH_ENDINGS, ENDINGS, Partial, Paths};
use super::plain::PlainInbox;
use crate::protocol::{BlockSet, CheckedOffer, DigestTree, FileDigest, Geometry, Opened, RESERVED};

/// How many transfers are remembered whose file turned out to be another than the one that was there.
const REMEMBERED: usize = 1024;

/// How a destination treats what is there.
#[derive(Debug, Clone, Copy, Default)]
pub struct InboxOptions {
    /// A file of the same name may be replaced.
    pub overwrite: bool,
    /// Files that are offered to be discarded are taken.
    pub allow_bench: bool,
}

/// A destination directory.
pub struct Inbox {
    folder: Arc<dyn Folder>,
    options: InboxOptions,
    /// Transfer ids of files that are not what stands there under their name, size and time: they may replace it, and
    /// need not be compared with it once more.
    others: Mutex<HashSet<String>>,
}

/// What an accepted offer is received into.
pub enum Target {
    /// A partial file.
    Partial(Partial),
    /// The file stands under its final name already, as far as name, size and time tell; the digest will say.
    Existing(Existing),
}

/// A file that may be what is offered.
pub struct Existing {
    folder: Arc<dyn Folder>,
    file: Box<dyn FolderFile>,
    name: String,
    geometry: Geometry,
    /// If it differs it may be replaced.
    overwrite: bool,
}

/// A partial file that a sender can go on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumable {
    /// The name it will have.
    pub name: String,
    /// The size it will have.
    pub size: u64,
    /// Bytes that are there.
    pub received: u64,
}

impl Inbox {
    /// Opens a directory of this machine as a destination, makes it if need be, and sweeps what finished
    /// transfers may have left when the machine stopped.
    pub fn open(path: &Path, options: InboxOptions) -> Result<Self, StorageError> {
        let folder =
            DiskFolder::open(path).map_err(StorageError::io("write to", path.display().to_string()))?;
        Ok(Self::new(Arc::new(folder), options))
    }

    /// A destination in any folder.
    pub fn new(folder: Arc<dyn Folder>, options: InboxOptions) -> Self {
        let inbox = Self { folder, options, others: Mutex::default() };
        inbox.sweep();
        inbox
    }

    /// The same directory, for files that nobody announces.
    pub fn plain(&self) -> PlainInbox {
        PlainInbox::new(self.folder.clone(), self.options.overwrite)
    }

    /// Takes an offer, or says why not.
    pub fn begin(&self, offer: CheckedOffer) -> Result<(Target, Opened), StorageError> {
        if offer.discard {
            if !self.options.allow_bench {
                return Err(StorageError::NoBench);
            }
            let (partial, opened) = Partial::open(self.folder.clone(), offer, false)?;
            return Ok((Target::Partial(partial), opened));
        }
        if let Some(existing) = self.existing(&offer)? {
            return Ok(existing);
        }
        let (partial, opened) = Partial::open(self.folder.clone(), offer.clone(), self.options.overwrite)?;
        // Whoever held the lock before may have finished that very file.
        let existing = self.existing(&offer);
        if !matches!(existing, Ok(None)) {
            partial.put_away(&[]);
        }
        Ok(existing?.unwrap_or((Target::Partial(partial), opened)))
    }

    /// The file that has the offered name, if it may be what is offered. An error if it may not, and may not be
    /// replaced.
    fn existing(&self, offer: &CheckedOffer) -> Result<Option<(Target, Opened)>, StorageError> {
        let name = offer.name.as_str();
        let cannot = |operation| StorageError::io(operation, name);
        let Some(info) = self.folder.info(name).map_err(cannot("stat"))? else {
            return Ok(None);
        };
        if !info.is_file {
            return Err(StorageError::NotAFile { name: name.to_owned() });
        }
        let same_size = info.len == offer.geometry.size();
        let same_time = (info.mtime, info.mtime_ns) == (offer.mtime, offer.mtime_ns);
        let other = self.others.lock().unwrap_or_else(PoisonError::into_inner).contains(&offer.id);
        // Content decides. What may be replaced is compared if it is likely to be the same: else that is time lost. A
        // repair compares in any case.
        let overwrite = self.options.overwrite;
        if same_size && (!overwrite || (same_time && !other && !offer.repair)) {
            let file = self.folder.open(name, None).map_err(cannot("open"))?;
            let mut held = BlockSet::new();
            held.insert_run(0..offer.geometry.blocks());
            let folder = self.folder.clone();
            let (name, geometry) = (name.to_owned(), offer.geometry);
            let existing = Existing { folder, file, name, geometry, overwrite };
            return Ok(Some((
                Target::Existing(existing),
                Opened { held, received: info.len, complete: true },
            )));
        }
        if overwrite { Ok(None) } else { Err(StorageError::Exists { name: name.to_owned() }) }
    }

    /// Remembers whether what is there under this transfer's name, size and time is its file.
    pub fn remember(&self, id: &str, is_same: bool) {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if is_same {
            others.remove(id);
            return;
        }
        if others.len() >= REMEMBERED {
            others.clear();
        }
        others.insert(id.to_owned());
    }

    /// Partial files that a sender can go on with.
    pub fn resumable(&self) -> Vec<Resumable> {
        let journals = self.journals(ENDINGS);
        let partials = journals.iter().filter_map(|path| {
            let journal = self.folder.open(path, None).ok()?;
            let header = read_header(&*journal).ok()??;
            let part = Paths::of(&header.name.parse().ok()?, false).part;
            let received = self.folder.info(&part).ok()??.len.min(header.size);
            Some(Resumable { name: header.name, size: header.size, received })
        });
        partials.collect()
    }

    fn journals(&self, (_, ending): (&str, &str)) -> Vec<String> {
        let names = self.folder.list(RESERVED).unwrap_or_default();
        names.iter().filter(|name| name.ends_with(ending)).map(|name| format!("{RESERVED}/{name}")).collect()
    }

    /// Removes journals whose partial file has its final name already, and what was to be discarded. What cannot be
    /// removed stays.
    fn sweep(&self) {
        for path in self.journals(ENDINGS) {
            let part = path.replace(ENDINGS.1, ENDINGS.0);
            let _ = match self.folder.info(&part) {
                Ok(None) => self.remove_stale(&path, None),
                // Where a file cannot be renamed without replacing another, it has both names for a moment.
                Ok(Some(info)) if info.links > 1 => self.remove_stale(&path, Some(&part)),
                _ => Ok(()),
            };
        }
        for path in self.journals(BENCH_ENDINGS) {
            let part = path.replace(BENCH_ENDINGS.1, BENCH_ENDINGS.0);
            let _ = self.remove_stale(&path, Some(&part));
        }
        let _ = self.folder.remove_dir(RESERVED);
    }

    fn remove_stale(&self, journal: &str, part: Option<&str>) -> io::Result<()> {
        let file = self.folder.open(journal, None)?;
        let newer = matches!(read_header(&*file), Err(JournalError::Newer(_)));
        // Without a name it is not the journal that has the name by now.
        if !newer && file.try_lock()? && file.info()?.links > 0 {
            if let Some(part) = part {
                let _ = self.folder.remove_file(part);
            }
            self.folder.remove_file(journal)
        } else {
            Ok(())
        }
    }
}

impl Target {
    /// The partial file, if chunks can be taken.
    pub fn partial(&self) -> Option<&Partial> {
        match self {
            Self::Partial(partial) => Some(partial),
            Self::Existing(_) => None,
        }
    }

    /// Makes sure that the file under its final name has this digest, whole and durable.
    pub fn seal(&self, digest: FileDigest) -> Result<(), StorageError> {
        match self {
            Self::Partial(partial) => partial.seal(digest),
            Self::Existing(existing) => existing.compare(digest),
        }
    }
}

impl Existing {
    fn compare(&self, digest: FileDigest) -> Result<(), StorageError> {
        let mut tree = DigestTree::new(self.geometry);
        for block in 0..self.geometry.blocks() {
            let hashes = hash_block(self.geometry, block, |bytes, offset| self.file.read_at(bytes, offset))
                .map_err(StorageError::io("read", &self.name))?;
            tree.insert(block, &hashes);
        }
        if tree.digest() != Some(digest) {
            let name = self.name.clone();
            return Err(if self.overwrite {
                StorageError::Outdated { name }
            } else {
                StorageError::Exists { name }
            });
        }
        // A receipt promises durability, whoever put the file here.
        self.file.sync_all().map_err(StorageError::io("sync", &self.name))?;
        self.folder.sync_dir("").map_err(StorageError::io("sync the directory", "."))
    }
}
