//! Directories below the destination: found step by step, made when something is about to get its name in them.
//!
//! A path is the peer's word, and others play with what lies on it: each step is opened relative to the last one, and a
//! link is never followed. What was opened is kept for a while, and is believed where its name still means it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::destination::{Destination, TRIES, is_no_directory};
use super::error::StorageError;
use super::folder::{FileId, FileInfo, Folder};
use super::partial::disturbed;
use super::warning::Warning;
use crate::protocol::RelativePath;

/// The most directories that are kept open, and that wait to be synced.
const MOST: usize = 64;
/// Permission bits of a directory, less the umask.
const MODE: u32 = 0o777;

/// Where something has its name, or will have it.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) folder: Arc<dyn Folder>,
    pub(super) path: RelativePath,
}

impl Place {
    pub(super) fn name(&self) -> &str {
        self.path.name()
    }

    pub(super) fn lookup(&self) -> Result<Option<FileInfo>, StorageError> {
        self.folder.lookup(self.name()).map_err(StorageError::io("stat", self.path.as_str()))
    }
}

/// A directory of the destination.
struct Dir {
    folder: Arc<dyn Folder>,
    /// Its name, as it was found, survives a loss of power.
    is_durable: AtomicBool,
}

/// Directories that were opened lately, by their paths.
#[derive(Default)]
pub(super) struct Dirs(Mutex<HashMap<String, Arc<Dir>>>);

impl Dirs {
    fn known(&self, path: &str) -> Option<Arc<Dir>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    fn keep(&self, path: &str, dir: &Arc<Dir>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(path.to_owned(), dir.clone());
    }
}

/// What a walk is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To look: nothing changes.
    Find,
    /// To call durable what is there.
    Settle,
    /// To give names: what is missing is made.
    Make,
}

/// A walk to some places, for a moment: what it found once it believes until it ends.
pub(super) struct Walk<'a> {
    destination: &'a Destination,
    purpose: Purpose,
    known: HashMap<String, Arc<Dir>>,
    /// What was not there, where nothing is made.
    missing: HashSet<String>,
    unsynced: BTreeMap<FileId, Unsynced>,
    failed: Vec<(String, io::Error)>,
    pub(super) warnings: Vec<Warning>,
}

/// A directory that has names which are not durable yet.
struct Unsynced {
    path: String,
    folder: Arc<dyn Folder>,
    /// Directories in it, whose names are durable once it is synced.
    dirs: Vec<Arc<Dir>>,
}

impl<'a> Walk<'a> {
    /// Only to look.
    pub(super) fn finding(destination: &'a Destination) -> Self {
        Self::new(destination, Purpose::Find)
    }

    /// To make durable what is there.
    pub(super) fn settling(destination: &'a Destination) -> Self {
        Self::new(destination, Purpose::Settle)
    }

    /// To make what is missing.
    pub(super) fn making(destination: &'a Destination) -> Self {
        Self::new(destination, Purpose::Make)
    }

    fn new(destination: &'a Destination, purpose: Purpose) -> Self {
        Self {
            destination,
            purpose,
            known: HashMap::new(),
            missing: HashSet::new(),
            unsynced: BTreeMap::new(),
            failed: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The place that a path means; `None` if its directory is not there.
    pub(super) fn find(&mut self, path: &RelativePath) -> Result<Option<Place>, StorageError> {
        let folder = match path.parent() {
            None => Some(self.destination.folder.clone()),
            Some(dir) => self.open(dir)?,
        };
        Ok(folder.map(|folder| Place { folder, path: path.clone() }))
    }

    /// The place that a path means, in a walk that makes what is missing.
    pub(super) fn make(&mut self, path: &RelativePath) -> Result<Place, StorageError> {
        self.find(path)?.ok_or_else(|| disturbed(path.as_str()))
    }

    /// The directory that has this path.
    pub(super) fn open(&mut self, path: &str) -> Result<Option<Arc<dyn Folder>>, StorageError> {
        let starts = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let ends: Vec<usize> = starts.collect();
        let known = ends.iter().rposition(|&end| self.known.contains_key(&path[..end]));
        let mut above = known.map(|at| self.known[&path[..ends[at]]].clone());
        for &end in &ends[known.map_or(0, |at| at + 1)..] {
            if self.missing.contains(&path[..end]) {
                return Ok(None);
            }
            let Some(dir) = self.step(above.as_deref(), &path[..end])? else {
                self.missing.insert(path[..end].to_owned());
                return Ok(None);
            };
            // Of a deep tree only what is asked for.
            if self.known.len() < MOST || end == path.len() {
                self.known.insert(path[..end].to_owned(), dir.clone());
            }
            above = Some(dir);
        }
        Ok(above.map(|dir| dir.folder.clone()))
    }

    /// One step further down.
    fn step(&mut self, above: Option<&Dir>, path: &str) -> Result<Option<Arc<Dir>>, StorageError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let folder = above.map_or(&self.destination.folder, |above| &above.folder).clone();
        let dir = match self.believed(&*folder, path, name)? {
            Some(dir) => dir,
            None => match self.enter(&*folder, path, name)? {
                Some(dir) => dir,
                None => return Ok(None),
            },
        };
        if self.purpose != Purpose::Find && !dir.is_durable.load(Ordering::Relaxed) {
            self.changed(parent, &folder).dirs.push(dir.clone());
            if self.unsynced.len() >= MOST {
                self.sync();
            }
        }
        Ok(Some(dir))
    }

    /// A directory that is open already, if its name still means it.
    fn believed(&self, above: &dyn Folder, path: &str, name: &str) -> Result<Option<Arc<Dir>>, StorageError> {
        let Some(dir) = self.destination.dirs.known(path) else { return Ok(None) };
        let there = above.lookup(name).map_err(StorageError::io("stat", path))?;
        Ok(there.is_some_and(|there| there.id == dir.folder.id()).then_some(dir))
    }

    fn enter(&self, above: &dyn Folder, path: &str, name: &str) -> Result<Option<Arc<Dir>>, StorageError> {
        for _ in 0..TRIES {
            match above.open_dir(name) {
                Ok(folder) if folder.id().device != above.id().device => {
                    return Err(no_directory(path, "is on another file system"));
                }
                Ok(folder) => {
                    let dir = Arc::new(Dir { folder, is_durable: AtomicBool::new(false) });
                    self.destination.dirs.keep(path, &dir);
                    return Ok(Some(dir));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.purpose != Purpose::Make => {
                    return Ok(None);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if is_no_directory(&error) => {
                    let there = above.lookup(name).map_err(StorageError::io("stat", path))?;
                    let is_link = there.is_some_and(|there| there.is_link);
                    let what = if is_link { "is a symbolic link" } else { "is not a directory" };
                    return Err(no_directory(path, what));
                }
                Err(error) => return Err(StorageError::io("open", path)(error)),
            }
            match above.create_dir(name, MODE) {
                // The one above was removed just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(disturbed(path)),
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(StorageError::io("create", path)(error));
                }
                _ => {}
            }
        }
        Err(disturbed(path))
    }

    /// A name was given at this place, or is to be called durable.
    pub(super) fn has_changed(&mut self, place: &Place) {
        self.changed(place.path.parent().unwrap_or_default(), &place.folder);
    }

    /// A directory itself has changed.
    pub(super) fn has_changed_itself(&mut self, path: &str, folder: &Arc<dyn Folder>) {
        self.changed(path, folder);
    }

    fn changed(&mut self, path: &str, folder: &Arc<dyn Folder>) -> &mut Unsynced {
        self.unsynced.entry(folder.id()).or_insert_with(|| Unsynced {
            path: path.to_owned(),
            folder: folder.clone(),
            dirs: Vec::new(),
        })
    }

    /// Makes all names durable that were given, those of the directories above included.
    pub(super) fn sync(&mut self) {
        for (_, unsynced) in std::mem::take(&mut self.unsynced) {
            match self.destination.sync_names(&*unsynced.folder, &mut self.warnings) {
                Ok(()) => unsynced.dirs.iter().for_each(|dir| dir.is_durable.store(true, Ordering::Relaxed)),
                Err(error) => self.failed.push((unsynced.path, error)),
            }
        }
    }

    /// Whether a name at this place is durable, and what is there if it is a directory: a sync on the way to it may have
    /// failed.
    pub(super) fn check_durable(&self, place: &Place) -> Result<(), StorageError> {
        let is_above = |dir: &str| {
            let below = place.path.as_str().strip_prefix(dir);
            dir.is_empty() || below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
        };
        match self.failed.iter().find(|(dir, _)| is_above(dir)) {
            None => Ok(()),
            Some((dir, error)) => {
                let dir = if dir.is_empty() { "." } else { dir };
                let same =
                    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
                Err(StorageError::io("sync the directory", dir)(same))
            }
        }
    }

    /// Whether a path still means this place: its directory may have been moved away meanwhile.
    pub(super) fn is_still(&mut self, place: &Place) -> Result<bool, StorageError> {
        Ok(self.find(&place.path)?.is_some_and(|now| now.folder.id() == place.folder.id()))
    }
}

fn no_directory(path: &str, what: &'static str) -> StorageError {
    StorageError::NoDirectory { path: path.to_owned(), what }
}
