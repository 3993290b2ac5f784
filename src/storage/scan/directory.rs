//! A directory that is walked: its names in order, and a handle that is what it was.

use std::ffi::{CStr, OsStr};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self as sys, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

use super::entry::SkipReason;
use crate::protocol::RelativePath;
use crate::storage::folder::FileId;

/// The bytes of names that are asked for at a time.
const LISTING: usize = 32 * 1024;

/// A directory that the walk is in.
#[derive(Debug)]
pub(super) struct Directory {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Where it goes; `None` for what is the destination itself.
    pub(super) to: Option<RelativePath>,
    /// Where it is below the root of the walk.
    pub(super) within: PathBuf,
    /// What it was when it was opened.
    pub(super) stat: Stat,
    /// What is left of it.
    pub(super) names: Names,
    handle: Option<Arc<OwnedFd>>,
}

impl Directory {
    /// A directory that was opened. Where its names end before all were read, it has those that were, and the error is
    /// told.
    pub(super) fn of(
        fd: OwnedFd,
        path: PathBuf,
        to: Option<RelativePath>,
        within: PathBuf,
    ) -> Result<(Self, Result<(), SkipReason>), SkipReason> {
        let stat = sys::fstat(&fd).map_err(SkipReason::io("stat"))?;
        let mut names = Names::default();
        let listed = names.read(&fd).map_err(SkipReason::io("list"));
        Ok((Self { path, to, within, stat, names, handle: Some(Arc::new(fd)) }, listed))
    }

    pub(super) fn id(&self) -> FileId {
        id(&self.stat)
    }

    /// The open directory. One that was put away is found again by its path, if it is still there.
    pub(super) fn handle(&mut self) -> Result<Arc<OwnedFd>, SkipReason> {
        if let Some(handle) = &self.handle {
            return Ok(handle.clone());
        }
        let fd = match open(sys::CWD, &self.path, true) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(SkipReason::Moved),
            Err(error) => return Err(SkipReason::io("open")(error)),
        };
        let stat = sys::fstat(&fd).map_err(SkipReason::io("stat"))?;
        if id(&stat) != self.id() {
            return Err(SkipReason::Moved);
        }
        Ok(self.handle.insert(Arc::new(fd)).clone())
    }

    /// Lets the handle go, for the walk is far below.
    pub(super) fn put_away(&mut self) {
        self.handle = None;
    }
}

/// Opens a directory.
pub(super) fn open(dir: impl AsFd, at: &Path, through_link: bool) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    sys::openat(dir, at, if through_link { flags } else { flags | OFlags::NOFOLLOW }, Mode::empty())
}

fn id(stat: &Stat) -> FileId {
    FileId { device: stat.st_dev, inode: stat.st_ino }
}

/// A directory's names, sorted by their bytes, in little memory: there may be a million.
#[derive(Default)]
pub(super) struct Names {
    /// Each with a NUL behind it.
    bytes: Vec<u8>,
    /// Where those begin that are left, the next one last.
    starts: Vec<usize>,
}

impl Names {
    fn read(&mut self, dir: &OwnedFd) -> Result<(), Errno> {
        let mut buffer = vec![MaybeUninit::uninit(); LISTING];
        let mut listing = RawDir::new(dir, &mut buffer);
        let read = loop {
            match listing.next() {
                None => break Ok(()),
                Some(Err(error)) => break Err(error),
                Some(Ok(entry)) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                Some(Ok(entry)) => {
                    self.starts.push(self.bytes.len());
                    self.bytes.extend_from_slice(entry.file_name().to_bytes_with_nul());
                }
            }
        };
        let bytes = &self.bytes;
        self.starts.sort_unstable_by(|&a, &b| name(bytes, b).cmp(name(bytes, a)));
        read
    }

    /// The next name.
    pub(super) fn next(&mut self) -> Option<&OsStr> {
        let start = self.starts.pop()?;
        Some(OsStr::from_bytes(name(&self.bytes, start)))
    }

    /// Whether none is left.
    pub(super) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").field("left", &self.starts.len()).finish_non_exhaustive()
    }
}

fn name(bytes: &[u8], start: usize) -> &[u8] {
    CStr::from_bytes_until_nul(&bytes[start..]).expect("each name has a NUL behind it").to_bytes()
}
