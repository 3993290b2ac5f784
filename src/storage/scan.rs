//! What is to be sent of files and directories: a walk that holds no more than one directory's names on each level.

mod directory;
mod entry;
mod filter;

pub use entry::{Entry, SkipReason, Skipped, Special, What, stays_inside};
pub use filter::{Filter, FilterError, FilterRule};

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self as sys, AtFlags, FileType, Stat};
use rustix::io::Errno;

use self::directory::Directory;
use super::folder::Time;
use crate::protocol::{FileName, NameError, RelativePath};

/// How many directories are kept open, from the deepest up: system calls name what lies in them by its last name alone.
const OPEN: usize = 64;

/// A walk through files and directories: what of them is sent, and what is not, one after another.
///
/// Within a directory the order is that of the names' bytes, and a directory comes behind all that is in it, so that its
/// time can be set when nothing more is written there. Hidden files are sent, other file systems are entered, a file with
/// several names is sent under each.
///
/// An [`Entry`] keeps the directory open that it lies in, until it is dropped: a thread that walks ahead needs a bound.
#[derive(Debug)]
pub struct Scan {
    roots: std::vec::IntoIter<Root>,
    options: ScanOptions,
    /// The directories that the walk is in, from the root down.
    open: Vec<Directory>,
    /// The root that is walked.
    root: Arc<Path>,
    /// Which root a name at the destination is from. One root's paths differ, so those of two can only be the same below
    /// the same name.
    taken: HashMap<String, Arc<Path>>,
}

/// How to walk.
#[derive(Debug, Clone, Default)]
pub struct ScanOptions {
    /// What becomes of symbolic links.
    pub links: Links,
    /// What is left out.
    pub filter: Filter,
}

/// What becomes of symbolic links. One that is named as a root is followed, except with [`Keep`](Self::Keep).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Links {
    /// They are left out.
    #[default]
    Skip,
    /// They are sent as what they are, if they stay inside of the destination.
    Keep,
    /// What they lead to is sent in their place.
    Follow,
}

/// Something to be sent, with all that is in it.
#[derive(Debug, Clone)]
pub struct Root {
    path: PathBuf,
    name: Option<RelativePath>,
}

impl Root {
    /// A file or a directory, under its own name; of a directory whose path ends in `/`, `.` or `..` what is in it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), name: None }
    }

    /// Sends it under this name.
    pub fn named(self, name: Option<RelativePath>) -> Self {
        Self { name, ..self }
    }

    /// The name that it has at the destination; `None` if it is the destination itself.
    pub fn name(&self) -> Option<Result<RelativePath, NameError>> {
        if let Some(name) = &self.name {
            return Some(Ok(name.clone()));
        }
        let bytes = self.path.as_os_str().as_bytes();
        let last = bytes.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        if matches!(last, b"." | b"..") || (last.is_empty() && !bytes.is_empty()) {
            return None;
        }
        let name = std::str::from_utf8(last).map_err(|_| NameError::NotUtf8);
        Some(name.and_then(|name| Ok(name.parse::<FileName>()?.into())))
    }
}

/// Something that was found, before it is known what it is.
struct Found {
    path: PathBuf,
    to: RelativePath,
    within: PathBuf,
    dir: Option<Arc<OwnedFd>>,
    through_link: bool,
}

type Item = Result<Entry, Skipped>;

impl Scan {
    /// A walk through these, in this order.
    pub fn new(roots: impl IntoIterator<Item = Root>, options: ScanOptions) -> Self {
        let roots = roots.into_iter().collect::<Vec<_>>().into_iter();
        Self { roots, options, open: Vec::new(), root: Path::new("").into(), taken: HashMap::new() }
    }

    /// Begins with a root. `None`: there is something in it, or nothing to tell.
    fn begin(&mut self, root: Root) -> Option<Item> {
        self.root = root.path.as_path().into();
        let name = root.name();
        let path = root.path;
        let Some(name) = name else {
            // What it is the path itself says.
            return match directory::open(sys::CWD, &path, true) {
                Ok(fd) => self.enter(fd, path, None, PathBuf::new()),
                Err(error) => skipped(path, SkipReason::io("open")(error)),
            };
        };
        let through_link = self.options.links != Links::Keep;
        let look = if through_link { sys::stat(&path) } else { sys::lstat(&path) };
        let stat = match look {
            Ok(stat) => stat,
            Err(error) => return skipped(path, SkipReason::io("open")(error)),
        };
        if self.is_excluded(Path::new(path.file_name().unwrap_or_default()), &stat) {
            return skipped(path, SkipReason::Excluded);
        }
        match name {
            Ok(to) => self.meet(Found { path, to, within: PathBuf::new(), dir: None, through_link }, &stat),
            Err(error) => skipped(path, error.into()),
        }
    }

    /// Looks at the next name of the directory that the walk is in, or leaves it behind the last one.
    fn step(&mut self) -> Option<Item> {
        let directory = self.open.last_mut()?;
        if directory.names.is_empty() {
            return self.leave();
        }
        let dir = match directory.handle() {
            Ok(dir) => dir,
            Err(why) => {
                let path = self.open.pop()?.path;
                return skipped(path, why);
            }
        };
        let name = directory.names.next()?;
        let (path, within) = (directory.path.join(name), directory.within.join(name));
        let to = name.to_str().ok_or(NameError::NotUtf8).and_then(|name| {
            let name = name.parse::<FileName>()?;
            directory.to.as_ref().map_or_else(|| Ok(name.clone().into()), |to| to.join(&name))
        });
        let look = |flags| sys::statat(&dir, name, flags);
        let mut stat = match look(AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(error) => return skipped(path, SkipReason::io("stat")(error)),
        };
        let through_link = self.options.links == Links::Follow && kind(&stat) == FileType::Symlink;
        let followed = if through_link { look(AtFlags::empty()).map(|target| stat = target) } else { Ok(()) };
        if self.is_excluded(&within, &stat) {
            return None;
        }
        match (to, followed) {
            (Err(error), _) => skipped(path, error.into()),
            (_, Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => skipped(path, SkipReason::LeadsNowhere),
            (_, Err(error)) => skipped(path, SkipReason::io("follow")(error)),
            (Ok(to), Ok(())) => self.meet(Found { path, to, within, dir: Some(dir), through_link }, &stat),
        }
    }

    /// Finds out what something is, and enters a directory.
    fn meet(&mut self, found: Found, stat: &Stat) -> Option<Item> {
        let kind = kind(stat);
        let what = match kind {
            FileType::RegularFile => Ok(Some(What::File { len: stat.st_size as u64 })),
            FileType::Directory => Ok(None),
            FileType::Symlink if self.options.links != Links::Keep => Err(SkipReason::Link),
            FileType::Symlink => found.target().map(|target| Some(What::Link { target, mtime: mtime(stat) })),
            _ => Err(SkipReason::special(kind)),
        };
        let what = what.and_then(|what| self.take(&found.to).map(|()| what));
        match what {
            Err(why) => skipped(found.path, why),
            Ok(Some(what)) => {
                let Found { path, to, dir, through_link, .. } = found;
                Some(Ok(Entry { path, to, what, dir, through_link }))
            }
            Ok(None) => {
                let (dir, at) = found.place();
                match directory::open(dir, at, found.through_link) {
                    Ok(fd) => self.enter(fd, found.path, Some(found.to), found.within),
                    Err(error) => skipped(found.path, SkipReason::io("open")(error)),
                }
            }
        }
    }

    /// Goes into a directory.
    fn enter(
        &mut self,
        fd: OwnedFd,
        path: PathBuf,
        to: Option<RelativePath>,
        within: PathBuf,
    ) -> Option<Item> {
        let (directory, listed) = match Directory::of(fd, path.clone(), to, within) {
            Ok(opened) => opened,
            Err(why) => return skipped(path, why),
        };
        let is_above = |above: &Directory| above.id() == directory.id();
        if self.options.links == Links::Follow && self.open.iter().any(is_above) {
            return skipped(path, SkipReason::Loop);
        }
        self.open.push(directory);
        if let Some(far) = self.open.len().checked_sub(OPEN + 1) {
            self.open[far].put_away();
        }
        listed.err().and_then(|why| skipped(path, why))
    }

    /// Leaves a directory, which is sent now.
    fn leave(&mut self) -> Option<Item> {
        let Directory { path, to, stat, .. } = self.open.pop()?;
        let what = What::Directory { mode: stat.st_mode & 0o777, mtime: mtime(&stat) };
        to.map(|to| Ok(Entry { path, to, what, dir: None, through_link: false }))
    }

    /// Takes a name at the destination for the root that is walked.
    fn take(&mut self, to: &RelativePath) -> Result<(), SkipReason> {
        let top = to.components().next().expect("a path has a component");
        match self.taken.get(top) {
            Some(first) if !Arc::ptr_eq(first, &self.root) => {
                Err(SkipReason::Taken { first: first.to_path_buf(), to: top.to_owned() })
            }
            // Nobody comes behind the last root, and what lies deeper came with what it lies in.
            None if self.roots.len() > 0 => {
                self.taken.insert(top.to_owned(), self.root.clone());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn is_excluded(&self, path: &Path, stat: &Stat) -> bool {
        self.options.filter.excludes(path, kind(stat) == FileType::Directory)
    }
}

impl Iterator for Scan {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        loop {
            let item = if self.open.is_empty() {
                let root = self.roots.next()?;
                self.begin(root)
            } else {
                self.step()
            };
            if item.is_some() {
                return item;
            }
        }
    }
}

impl Found {
    /// A directory, and the path from there.
    fn place(&self) -> (BorrowedFd<'_>, &Path) {
        match (&self.dir, self.path.file_name()) {
            (Some(dir), Some(name)) => (dir.as_fd(), Path::new(name)),
            _ => (sys::CWD, &self.path),
        }
    }

    /// What it says, of a symbolic link.
    fn target(&self) -> Result<String, SkipReason> {
        let (dir, at) = self.place();
        let target = sys::readlinkat(dir, at, Vec::new()).map_err(SkipReason::io("read"))?;
        entry::link_target(&self.to, &target)
    }
}

fn skipped(path: PathBuf, why: SkipReason) -> Option<Item> {
    Some(Err(Skipped { path, why }))
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn mtime(stat: &Stat) -> Time {
    (stat.st_mtime, stat.st_mtime_nsec as u32)
}
