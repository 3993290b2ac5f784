//! A destination for files of which nothing is known before they come: no size, no digest, perhaps no name.
//!
//! What comes is written to a part file with a name of its own, which gets the final one when it is whole and durable.
//! There is no journal: a sender that cannot say where to go on begins anew.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::claims::Claim;
use super::destination::{Destination, Names, TRIES, open_ours, remove_name_of};
use super::disk::DiskFolder;
use super::error::StorageError;
use super::folder::{FileId, Folder, FolderFile};
use super::partial::{Whole, disturbed, give_name};
use super::sweep;
use super::warning::Warning;
use crate::protocol::{FileName, RESERVED};

/// The ending of a part file.
const ENDING: &str = ".plain";
/// What files are called that nobody named.
const NAMELESS: &str = "received";
/// The ending of those whose content tells none.
const UNKNOWN: &str = "bin";

/// A destination directory.
pub struct PlainInbox {
    destination: Arc<Destination>,
    overwrite: bool,
    /// The last number of a file that nobody named.
    last: Mutex<u64>,
}

/// A file on its way. Dropped before it is sealed, it leaves nothing behind.
pub struct PlainFile {
    destination: Arc<Destination>,
    part: Part,
    /// Nobody else in this process is writing the name; of one that nobody named, once it is sealed.
    claim: Option<Claim>,
    name: String,
    /// A number that can be another.
    number: Option<u64>,
    overwrite: bool,
    /// Bytes that were free when it was begun.
    free: u64,
    len: u64,
}

/// A file on the shelf, locked, and a name of its own there that goes with it.
struct Part {
    destination: Arc<Destination>,
    shelf: Arc<dyn Folder>,
    name: String,
    file: Box<dyn FolderFile>,
    id: FileId,
    claim: Claim,
}

impl PlainInbox {
    /// Opens a directory of this machine, and makes it if need be. With `overwrite` a file of the same name may be
    /// replaced. Removes what is left of files that did not arrive.
    pub fn open(path: &Path, overwrite: bool) -> Result<Self, StorageError> {
        let folder =
            DiskFolder::open(path).map_err(StorageError::io("write to", path.display().to_string()))?;
        let destination = Arc::new(Destination::open(Arc::new(folder))?);
        sweep::sweep_plain(&destination);
        Ok(Self::new(destination, overwrite))
    }

    pub(super) fn new(destination: Arc<Destination>, overwrite: bool) -> Self {
        let names = destination.folder.list().unwrap_or_default();
        let last = names.iter().filter_map(|name| number_of(name)).max().unwrap_or(0);
        Self { destination, overwrite, last: Mutex::new(last) }
    }

    /// Begins a file: under this name, or under a number.
    pub fn begin(&self, name: Option<&FileName>) -> Result<PlainFile, StorageError> {
        let destination = self.destination.clone();
        let claim = match name {
            Some(name) => Some(claim(&destination, name)?),
            None => None,
        };
        if let Some(name) = name {
            self.check(name.as_str())?;
        }
        let part = Part::create(&destination)?;
        let free = destination.folder.free_space().map_err(StorageError::io("ask for free space in", "."))?;
        let free = free.saturating_sub(part.claim.expected_by_others());
        let (name, number) = match name {
            Some(name) => (name.to_string(), None),
            None => {
                let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                *last += 1;
                (numbered(*last, UNKNOWN), Some(*last))
            }
        };
        let overwrite = self.overwrite && number.is_none();
        Ok(PlainFile { destination, part, claim, name, number, overwrite, free, len: 0 })
    }

    /// Whether a file can have this name in the end, as far as that is known before it comes.
    fn check(&self, name: &str) -> Result<(), StorageError> {
        let cannot = |operation| StorageError::io(operation, name);
        let folder = &self.destination.folder;
        let Some(there) = folder.lookup(name).map_err(cannot("stat"))? else { return Ok(()) };
        let name = name.to_owned();
        if !there.is_file {
            return Err(StorageError::NotAFile { name });
        }
        if !self.overwrite {
            return Err(StorageError::Exists { name });
        }
        match folder.obstacle(&name).map_err(cannot("stat"))? {
            Some(obstacle) => Err(StorageError::Fixed { name, obstacle }),
            None => Ok(()),
        }
    }
}

/// Claims a name in this process, as every transfer does.
fn claim(destination: &Destination, name: &FileName) -> Result<Claim, StorageError> {
    let claim = destination.claims.take(&Names::of(name, false).journal);
    claim.ok_or_else(|| StorageError::Busy { name: name.to_string() })
}

impl Part {
    fn create(destination: &Arc<Destination>) -> Result<Self, StorageError> {
        let cannot = |operation| StorageError::io(operation, RESERVED);
        for _ in 0..TRIES {
            let shelf = destination.make_shelf()?;
            let name = format!("{:016x}{ENDING}", RandomState::new().hash_one(0));
            let Some(claim) = destination.claims.take(&name) else { continue };
            let file = match shelf.create(&name, 0o666) {
                Ok(file) => file,
                // Another transfer finished and removed the directory just now; or it is another's.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) =>
                {
                    continue;
                }
                Err(error) => return Err(cannot("create a file in")(error)),
            };
            let id = file.info().map_err(cannot("stat a file in"))?.id;
            let part = Self { destination: destination.clone(), shelf, name, file, id, claim };
            if destination.lock(&*part.file).map_err(cannot("lock a file in"))? {
                return Ok(part);
            }
        }
        Err(cannot("create a file in")(io::ErrorKind::NotFound.into()))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        remove_name_of(&*self.shelf, &self.name, self.id);
        self.destination.clear_shelf();
    }
}

impl PlainFile {
    /// The name that it will have, as far as that is known.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes that were free when it was begun.
    pub fn free(&self) -> u64 {
        self.free
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing has come.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What its content says of it, if nobody named it.
    pub fn set_extension(&mut self, extension: &str) {
        if let Some(number) = self.number {
            self.name = numbered(number, extension);
        }
    }

    /// Writes the next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let written = self.part.file.write_all_at(bytes, self.len);
        written.map_err(StorageError::io("write", &self.name))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Gives it its final name, whole and durable; which one that is, and what the file system would not do for it.
    pub fn seal(mut self) -> Result<(String, Vec<Warning>), StorageError> {
        let destination = self.destination.clone();
        let memory = &destination.memory;
        let (file, id) = (&*self.part.file, self.part.id);
        if let Err(error) = file.sync_all() {
            memory.doubt(id);
            return Err(StorageError::io("sync", &self.name)(error));
        }
        let settled = file.info().map_err(StorageError::io("stat", &self.name))?;
        if settled.len != self.len {
            return Err(disturbed(&self.name));
        }
        self.take_name()?;
        let mut warnings = Vec::new();
        let synced = destination.sync_names(&*destination.folder, &mut warnings);
        synced.map_err(StorageError::io("sync the directory", "."))?;
        // What is told is of this very file under this name, as it was written.
        let named = destination.folder.lookup(&self.name).map_err(StorageError::io("stat", &self.name))?;
        if named.is_none_or(|named| (named.id, named.len, named.mtime) != (id, settled.len, settled.mtime)) {
            return Err(disturbed(&self.name));
        }
        memory.trust(id);
        Ok((self.name.clone(), warnings))
    }

    /// Gives it its name; if that is a number that somebody else took, the next one.
    fn take_name(&mut self) -> Result<(), StorageError> {
        loop {
            let named = self.try_name();
            match (named, &mut self.number) {
                (Err(StorageError::Exists { .. } | StorageError::Busy { .. }), Some(number)) => {
                    *number += 1;
                    let extension = self.name.rsplit_once('.').map_or(UNKNOWN, |(_, extension)| extension);
                    self.name = numbered(*number, extension);
                }
                (named, _) => return named,
            }
        }
    }

    fn try_name(&mut self) -> Result<(), StorageError> {
        if self.number.is_some() {
            let name = self.name.parse().expect("a number and an ending are a name");
            self.claim = Some(claim(&self.destination, &name)?);
        }
        let Part { shelf, name, file, id, .. } = &self.part;
        let whole = Whole { shelf: &**shelf, part: name, file: &**file, id: *id };
        give_name(&self.destination, &whole, &self.name, self.overwrite)
    }
}

fn numbered(number: u64, extension: &str) -> String {
    format!("{NAMELESS}-{number:04}.{extension}")
}

fn number_of(name: &str) -> Option<u64> {
    let (number, _) = name.strip_prefix(NAMELESS)?.strip_prefix('-')?.split_once('.')?;
    number.parse().ok().filter(|_| number.len() >= 4)
}

/// Removes a part file that nobody is writing.
pub(super) fn sweep_one(destination: &Destination, shelf: &dyn Folder, name: &str) -> Option<()> {
    let stem = name.strip_suffix(ENDING)?;
    let is_ours = stem.len() == 16 && stem.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    if !is_ours {
        return None;
    }
    let _claim = destination.claims.take(name)?;
    let (file, info) = open_ours(shelf, name).ok()??;
    if info.owner != destination.abilities.owner || !destination.lock(&*file).ok()? {
        return None;
    }
    remove_name_of(shelf, name, info.id);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(dir: &Path) -> Vec<String> {
        let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_gets_its_name_once_it_is_whole_and_leaves_nothing_if_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let inbox = PlainInbox::open(dir.path(), false).unwrap();
        let name: FileName = "a.txt".parse().unwrap();
        let mut file = inbox.begin(Some(&name)).unwrap();
        file.write(b"hel").unwrap();
        file.write(b"lo").unwrap();
        assert_eq!(contents(dir.path()), [RESERVED]);
        assert_eq!(file.seal().unwrap().0, "a.txt");
        assert_eq!(std::fs::read(dir.path().join("a.txt")).unwrap(), b"hello");
        let mut dropped = inbox.begin(None).unwrap();
        dropped.write(b"x").unwrap();
        drop(dropped);
        assert_eq!(contents(dir.path()), ["a.txt"]);
    }

    #[test]
    fn what_is_there_is_replaced_only_where_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let name: FileName = "a".parse().unwrap();
        let inbox = PlainInbox::open(dir.path(), false).unwrap();
        let begun = inbox.begin(Some(&name)).unwrap();
        std::fs::write(dir.path().join("a"), "another").unwrap();
        assert!(matches!(inbox.begin(Some(&name)), Err(StorageError::Busy { .. })));
        // It came while the other was on its way.
        assert!(matches!(begun.seal(), Err(StorageError::Exists { .. })));
        assert!(matches!(inbox.begin(Some(&name)), Err(StorageError::Exists { .. })));
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"another");
        let inbox = PlainInbox::open(dir.path(), true).unwrap();
        assert_eq!(inbox.begin(Some(&name)).unwrap().seal().unwrap().0, "a");
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"");
        std::fs::create_dir(dir.path().join("d")).unwrap();
        let name: FileName = "d".parse().unwrap();
        assert!(matches!(inbox.begin(Some(&name)), Err(StorageError::NotAFile { .. })));
        assert_eq!(contents(dir.path()), ["a", "d"]);
    }

    #[test]
    fn who_has_no_name_gets_the_next_number_and_takes_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("received-0041.png"), "").unwrap();
        std::fs::write(dir.path().join("received-9.png"), "").unwrap();
        let inbox = PlainInbox::open(dir.path(), true).unwrap();
        let (mut first, second) = (inbox.begin(None).unwrap(), inbox.begin(None).unwrap());
        first.set_extension("jpg");
        std::fs::write(dir.path().join("received-0042.jpg"), "somebody's").unwrap();
        assert_eq!(second.seal().unwrap().0, "received-0043.bin");
        assert_eq!(first.seal().unwrap().0, "received-0043.jpg");
        assert_eq!(std::fs::read(dir.path().join("received-0042.jpg")).unwrap(), b"somebody's");
    }

    #[test]
    fn what_a_killed_receiver_left_is_swept_and_what_another_one_writes_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let reserved = dir.path().join(RESERVED);
        std::fs::create_dir(&reserved).unwrap();
        for name in ["0123456789abcdef.plain", "notours.plain", "0123456789abcdef.part"] {
            std::fs::write(reserved.join(name), "x").unwrap();
        }
        let other = PlainInbox::open(dir.path(), false).unwrap();
        assert_eq!(contents(&reserved), ["0123456789abcdef.part", "notours.plain"]);
        let mut file = other.begin(None).unwrap();
        file.write(b"on its way").unwrap();
        let _another = PlainInbox::open(dir.path(), false).unwrap();
        file.seal().unwrap();
        assert_eq!(std::fs::read(dir.path().join("received-0001.bin")).unwrap(), b"on its way");
    }
}
