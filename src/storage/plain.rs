//! A destination for files of which nothing is known before they come: no size, no digest, perhaps no name.
//!
//! What comes is written to a part file with a name of its own, which gets the final one when it is whole and durable.
//! There is no journal: a sender that cannot say where to go on begins anew.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::HASH_BUFFER;
use super::claims::Claim;
use super::destination::{Destination, Names};
use super::disk::DiskFolder;
use super::error::StorageError;
use super::folder::FileInfo;
use super::part::Part;
use super::partial::disturbed;
use super::sweep;
use super::target;
use super::warning::Warning;
use crate::protocol::{FileDigest, FileName};

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
        let free = part.free_space().map_err(StorageError::io("ask for free space in", "."))?;
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
            return Err(StorageError::Taken { name });
        }
        match folder.obstacle(&name).map_err(cannot("stat"))? {
            Some(obstacle) => Err(StorageError::Fixed { name, obstacle }),
            None => Ok(()),
        }
    }
}

/// Claims a name in this process, as every transfer does.
fn claim(destination: &Destination, name: &FileName) -> Result<Claim, StorageError> {
    let claim = destination.claims.take(&Names::of(&name.clone().into(), false).journal);
    claim.ok_or_else(|| StorageError::Busy { name: name.to_string() })
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
        let file = self.part.file();
        // What somebody cut off would be zeros.
        if file.info().map_err(StorageError::io("stat", &self.name))?.len != self.len {
            return Err(disturbed(&self.name));
        }
        let room = self.destination.check_room(bytes.len() as u64);
        room.map_err(StorageError::io("write", &self.name))?;
        target::write_all(file, bytes, self.len).map_err(StorageError::io("write", &self.name))?;
        self.len += bytes.len() as u64;
        self.part.expect(self.len, self.free.saturating_sub(self.len));
        Ok(())
    }

    /// Gives it its final name, whole and durable; which one that is, and what the file system would not do for it. The
    /// digest is that of what came.
    pub fn seal(mut self, digest: FileDigest) -> Result<(String, Vec<Warning>), StorageError> {
        self.part.put_in_place(&self.name)?;
        let settled = self.settle(digest)?;
        self.take_name()?;
        let Self { destination, part, claim: _claim, name, .. } = self;
        let (folder, mut warnings) = (&*destination.folder, Vec::new());
        let synced = destination.sync_names(folder, &mut warnings);
        synced.map_err(StorageError::io("sync the directory", "."))?;
        let id = part.id();
        drop(part);
        // What is told is of this very file under this name, as it was written.
        let named = folder.lookup(&name).map_err(StorageError::io("stat", &name))?;
        let as_written =
            |named: FileInfo| (named.id, named.len, named.mtime) == (id, settled.len, settled.mtime);
        if !named.is_some_and(as_written) {
            return Err(disturbed(&name));
        }
        destination.memory.trust(id);
        Ok((name, warnings))
    }

    /// Makes it durable, if it is what came.
    fn settle(&self, digest: FileDigest) -> Result<FileInfo, StorageError> {
        let cannot = |operation| StorageError::io(operation, &self.name);
        let file = self.part.file();
        if let Err(error) = file.sync_all() {
            self.destination.memory.doubt(self.part.id());
            return Err(cannot("sync")(error));
        }
        let settled = file.info().map_err(cannot("stat"))?;
        let is_whole = settled.len == self.len
            && (!self.has_holes() || self.digest().map_err(cannot("read"))? == digest);
        if is_whole { Ok(settled) } else { Err(disturbed(&self.name)) }
    }

    /// Somebody may have cut it meanwhile, and what was written behind that lengthened it again. A file system that has
    /// no room for zeros has holes as well.
    fn has_holes(&self) -> bool {
        let mut end = 0;
        while end < self.len {
            match self.part.file().data_from(end) {
                Ok(Some(data)) if data.start == end && data.end > end => end = data.end,
                _ => return true,
            }
        }
        false
    }

    /// Of what it holds.
    fn digest(&self) -> io::Result<FileDigest> {
        let (mut hasher, mut buffer, mut at) = (blake3::Hasher::new(), vec![0; HASH_BUFFER], 0);
        loop {
            match self.part.file().read_at(&mut buffer, at) {
                Ok(0) => return Ok(hasher.finalize().into()),
                Ok(read) => {
                    hasher.update(&buffer[..read]);
                    at += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
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
        let name = self.name.parse().expect("it was a name, or is a number and an ending");
        if self.number.is_some() {
            self.claim = Some(claim(&self.destination, &name)?);
        }
        self.part.give_name(&name, self.overwrite)
    }
}

fn numbered(number: u64, extension: &str) -> String {
    format!("{NAMELESS}-{number:04}.{extension}")
}

fn number_of(name: &str) -> Option<u64> {
    let (number, _) = name.strip_prefix(NAMELESS)?.strip_prefix('-')?.split_once('.')?;
    number.parse().ok().filter(|_| number.len() >= 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::RESERVED;
    use crate::storage::part;

    fn seal(file: PlainFile, bytes: &[u8]) -> Result<String, StorageError> {
        file.seal(blake3::hash(bytes).into()).map(|(name, _)| name)
    }

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
        assert_eq!(seal(file, b"hello").unwrap(), "a.txt");
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
        assert!(matches!(seal(begun, b""), Err(StorageError::Exists { .. })));
        assert!(matches!(inbox.begin(Some(&name)), Err(StorageError::Taken { .. })));
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"another");
        let inbox = PlainInbox::open(dir.path(), true).unwrap();
        assert_eq!(seal(inbox.begin(Some(&name)).unwrap(), b"").unwrap(), "a");
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
        assert_eq!(seal(second, b"").unwrap(), "received-0043.bin");
        assert_eq!(seal(first, b"").unwrap(), "received-0043.jpg");
        assert_eq!(std::fs::read(dir.path().join("received-0042.jpg")).unwrap(), b"somebody's");
    }

    #[test]
    fn a_cleaner_takes_neither_the_content_nor_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let inbox = PlainInbox::open(dir.path(), false).unwrap();
        let name: FileName = "a".parse().unwrap();
        let mut file = inbox.begin(Some(&name)).unwrap();
        file.write(b"before ").unwrap();
        std::fs::remove_dir_all(dir.path().join(RESERVED)).unwrap();
        file.write(b"and after").unwrap();
        assert_eq!(seal(file, b"before and after").unwrap(), "a");
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"before and after");
        assert_eq!(contents(dir.path()), ["a"]);
    }

    #[test]
    fn what_a_killed_receiver_left_is_swept_and_what_another_one_writes_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let reserved = dir.path().join(RESERVED);
        std::fs::create_dir(&reserved).unwrap();
        let ours = part::name_of(7);
        let theirs = ["0123456789abcdef.plain".to_owned(), format!("{ours}.bak"), "notours.plain".to_owned()];
        let left = [ours.clone(), format!("{ours}-new"), format!("{ours}-whole")];
        for name in theirs.iter().chain(&left) {
            std::fs::write(reserved.join(name), "x").unwrap();
        }
        let other = PlainInbox::open(dir.path(), false).unwrap();
        let mut kept = contents(&reserved);
        kept.retain(|name| !theirs.contains(name));
        assert!(kept.is_empty() && contents(&reserved).len() == theirs.len(), "{kept:?}");
        let mut file = other.begin(None).unwrap();
        file.write(b"on its way").unwrap();
        let _another = PlainInbox::open(dir.path(), false).unwrap();
        seal(file, b"on its way").unwrap();
        assert_eq!(std::fs::read(dir.path().join("received-0001.bin")).unwrap(), b"on its way");
    }
}
