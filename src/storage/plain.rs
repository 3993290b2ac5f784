//! A destination for files of which nothing is known before they come: no size, no digest, perhaps no name.
//!
//! What comes is written to a part file with a name of its own, which gets the final one when it is whole and durable.
//! There is no journal: a sender that cannot say where to go on begins anew.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::StorageError;
use super::folder::{DiskFolder, Folder, FolderFile};
use crate::protocol::{FileName, RESERVED};

/// The ending of a part file.
const ENDING: &str = ".plain";
/// What files are called that nobody named.
const NAMELESS: &str = "received";
/// How often a directory that others remove may be made anew.
const ATTEMPTS: usize = 100;

/// A destination directory.
pub struct PlainInbox {
    folder: Arc<dyn Folder>,
    overwrite: bool,
    /// The last number of a file that nobody named.
    last: Mutex<u64>,
}

/// A file on its way. Dropped before it is sealed, it leaves nothing behind.
pub struct PlainFile {
    folder: Arc<dyn Folder>,
    file: Box<dyn FolderFile>,
    part: String,
    name: String,
    /// A number that can be another.
    number: Option<u64>,
    overwrite: bool,
    /// Bytes that were free when it was begun.
    free: u64,
    len: u64,
    sealed: bool,
}

impl PlainInbox {
    /// Opens a directory of this machine, and makes it if need be. With `overwrite` a file of the same name may be
    /// replaced.
    pub fn open(path: &Path, overwrite: bool) -> Result<Self, StorageError> {
        let folder =
            DiskFolder::open(path).map_err(StorageError::io("write to", path.display().to_string()))?;
        Ok(Self::new(Arc::new(folder), overwrite))
    }

    /// A destination in any folder. Removes what is left of files that did not arrive.
    pub fn new(folder: Arc<dyn Folder>, overwrite: bool) -> Self {
        let names = folder.list(".").unwrap_or_default();
        let last = names.iter().filter_map(|name| number_of(name)).max().unwrap_or(0);
        sweep(&*folder);
        Self { folder, overwrite, last: Mutex::new(last) }
    }

    /// Begins a file: under this name, or under a number.
    pub fn begin(&self, name: Option<&FileName>) -> Result<PlainFile, StorageError> {
        if let Some(name) = name {
            self.check(name.as_str())?;
        }
        let (part, file) = self.part()?;
        let free = self.folder.free_space().map_err(StorageError::io("ask for free space in", "."))?;
        let (name, number) = match name {
            Some(name) => (name.to_string(), None),
            None => {
                let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                *last += 1;
                (numbered(*last, "bin"), Some(*last))
            }
        };
        let (folder, overwrite) = (self.folder.clone(), self.overwrite);
        Ok(PlainFile { folder, file, part, name, number, overwrite, free, len: 0, sealed: false })
    }

    /// Whether a file can have this name in the end, as far as that is known before it comes.
    fn check(&self, name: &str) -> Result<(), StorageError> {
        match self.folder.info(name).map_err(StorageError::io("stat", name))? {
            Some(info) if !info.is_file => Err(StorageError::NotAFile { name: name.to_owned() }),
            Some(_) if !self.overwrite => Err(StorageError::Exists { name: name.to_owned() }),
            _ => Ok(()),
        }
    }

    /// A part file that nobody else has, locked.
    fn part(&self) -> Result<(String, Box<dyn FolderFile>), StorageError> {
        let cannot = |operation| StorageError::io(operation, RESERVED);
        for _ in 0..ATTEMPTS {
            self.folder.create_dir(RESERVED).map_err(cannot("create"))?;
            let part = format!("{RESERVED}/{:016x}{ENDING}", RandomState::new().hash_one(0));
            match self.folder.open(&part, Some(0o666)) {
                Ok(file) if file.try_lock().map_err(cannot("lock a file in"))? => return Ok((part, file)),
                Ok(_) => {}
                // Another transfer finished and removed the directory just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(cannot("create a file in")(error)),
            }
        }
        Err(cannot("create a file in")(io::ErrorKind::NotFound.into()))
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
        let written = self.file.write_all_at(bytes, self.len);
        written.map_err(StorageError::io("write", &self.name))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Gives it its final name, whole and durable; which one that is.
    pub fn seal(mut self) -> Result<String, StorageError> {
        self.file.sync_all().map_err(StorageError::io("sync", &self.name))?;
        loop {
            match self.folder.rename(&self.part, &self.name, self.overwrite && self.number.is_none()) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let name = self.name.clone();
                    let Some(number) = &mut self.number else { return Err(StorageError::Exists { name }) };
                    // Somebody else took that one.
                    *number += 1;
                    let extension = name.rsplit_once('.').map_or("bin", |(_, extension)| extension);
                    self.name = numbered(*number, extension);
                }
                Err(error) => return Err(StorageError::io("rename the finished file to", &self.name)(error)),
            }
        }
        self.sealed = true;
        let _ = self.folder.remove_dir(RESERVED);
        self.folder.sync_dir("").map_err(StorageError::io("sync the directory", "."))?;
        Ok(self.name.clone())
    }
}

impl Drop for PlainFile {
    fn drop(&mut self) {
        if !self.sealed {
            let _ = self.folder.remove_file(&self.part);
            let _ = self.folder.remove_dir(RESERVED);
        }
    }
}

fn numbered(number: u64, extension: &str) -> String {
    format!("{NAMELESS}-{number:04}.{extension}")
}

fn number_of(name: &str) -> Option<u64> {
    let (number, _) = name.strip_prefix(NAMELESS)?.strip_prefix('-')?.split_once('.')?;
    number.parse().ok().filter(|_| number.len() >= 4)
}

/// Removes the part files that nobody is writing. What cannot be removed stays.
fn sweep(folder: &dyn Folder) {
    for name in folder.list(RESERVED).unwrap_or_default() {
        let path = format!("{RESERVED}/{name}");
        let ours = name.strip_suffix(ENDING).is_some_and(|name| {
            name.len() == 16 && name.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
        });
        if ours
            && let Ok(file) = folder.open(&path, None)
            && file.try_lock().is_ok_and(|locked| locked)
        {
            let _ = folder.remove_file(&path);
        }
    }
    let _ = folder.remove_dir(RESERVED);
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
        assert_eq!(file.seal().unwrap(), "a.txt");
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
        assert!(matches!(inbox.begin(Some(&name)), Err(StorageError::Exists { .. })));
        // It came while the other was on its way.
        assert!(matches!(begun.seal(), Err(StorageError::Exists { .. })));
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"another");
        let inbox = PlainInbox::open(dir.path(), true).unwrap();
        assert_eq!(inbox.begin(Some(&name)).unwrap().seal().unwrap(), "a");
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
        assert_eq!(second.seal().unwrap(), "received-0043.bin");
        assert_eq!(first.seal().unwrap(), "received-0043.jpg");
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
