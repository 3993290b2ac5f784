//! The file that is sent, and whether it is still what it was.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::buffer::spare_capacity;
use rustix::fs::{self as sys, Mode, OFlags};
use rustix::io::Errno;

use super::zeros::find_zero_blocks;
use super::{hash_block, plain_digest};
use crate::protocol::message::transfer_id;
use crate::protocol::{
    BlockDigest, BlockHashes, BlockSet, DigestTree, FileDigest, FileName, Geometry, MAX_FILE, NameError,
    Offer, OfferKind, RelativePath,
};

/// A file that is open to be sent.
#[derive(Debug)]
pub struct Source {
    file: File,
    path: PathBuf,
    /// Whether the path may lead to it through a symbolic link.
    through_link: bool,
    name: RelativePath,
    mode: u32,
    stamp: Stamp,
    geometry: Geometry,
    /// What it grows by is left out, and no change.
    growing: bool,
    zero_blocks: BlockSet,
    /// All of its bytes, if they were read and are kept until they are read again.
    content: Mutex<Option<Box<[u8]>>>,
}

/// What a file is, beside what it was when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The same.
    Same,
    /// The same as far as can be told without reading it: its digest will say.
    Unclear,
}

/// What changes when a file is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    mtime: i64,
    mtime_ns: i64,
    ctime: i64,
    ctime_ns: i64,
}

/// Why a file cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// An operation of the operating system failed.
    #[error("cannot {operation} {path}: {source}", path = .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, a device or the like.
    #[error("{path} is not a regular file", path = .0.display())]
    NotAFile(PathBuf),
    /// A file of the kernel's that has content and says that it has none.
    #[error("{path} has content and no size, as files in /proc have; copy it to a file first", path = .0.display())]
    NoSize(PathBuf),
    /// The name cannot be used at the destination.
    #[error("{path} cannot be sent under its name: {error}", path = .path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// What is wrong with its name.
        error: NameError,
    },
    /// Larger than the protocol allows.
    #[error("{path} has {size} bytes, {MAX_FILE} at most can be sent", path = .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// Another file has the path, and the one that was begun is not what it was.
    #[error("{path} was replaced while it was sent, and the file that was begun changed too; send the new one", path = .0.display())]
    Replaced(PathBuf),
    /// What cannot be read twice is needed again.
    #[error(
        "{name} cannot be read twice, and the receiver lost it from byte {offset} on after it had called it durable; send all of it again"
    )]
    Gone {
        /// Its name.
        name: String,
        /// The first byte that is needed.
        offset: u64,
    },
    /// The file is not what it was when it was offered.
    #[error("{path} changed while it was sent: {what}", path = .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// What is different.
        what: String,
    },
}

impl Source {
    /// Opens a file to be sent under its own name, or under `name`. A symbolic link is followed.
    pub fn open(path: &Path, name: Option<RelativePath>) -> Result<Self, SourceError> {
        let cannot = |source| SourceError::Io { operation: "open", path: path.to_owned(), source };
        // Opening a named pipe would let its writer go on: ask first what it is.
        if !std::fs::metadata(path).map_err(cannot)?.is_file() {
            return Err(SourceError::NotAFile(path.to_owned()));
        }
        let own = || {
            let name = path.file_name().unwrap_or_default().to_str().ok_or(NameError::NotUtf8)?;
            name.parse::<FileName>().map(RelativePath::from)
        };
        let name = name.map_or_else(own, Ok);
        let name = name.map_err(|error| SourceError::Name { path: path.to_owned(), error })?;
        Self::open_at(sys::CWD, path, path, name, true)
    }

    /// Opens what was a regular file when it was looked at last: `at`, from `dir`, which is what `path` means. If a
    /// symbolic link has its place now, it is followed only with `through_link`.
    pub(super) fn open_at(
        dir: impl AsFd,
        at: &Path,
        path: &Path,
        name: RelativePath,
        through_link: bool,
    ) -> Result<Self, SourceError> {
        let cannot = |operation| move |source| SourceError::Io { operation, path: path.to_owned(), source };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = if through_link { flags } else { flags | OFlags::NOFOLLOW };
        let file = sys::openat(dir, at, flags, Mode::empty()).map(File::from);
        let file = file.map_err(|error| cannot("open")(error.into()))?;
        let metadata = file.metadata().map_err(cannot("stat"))?;
        if !metadata.is_file() {
            return Err(SourceError::NotAFile(path.to_owned()));
        }
        let size = metadata.len();
        let is_empty = || Ok(file.metadata()?.len() == 0);
        if size == 0
            && file.read_at(&mut [0], 0).map_err(cannot("read"))? > 0
            && is_empty().map_err(cannot("stat"))?
        {
            return Err(SourceError::NoSize(path.to_owned()));
        }
        let geometry =
            Geometry::new(size).ok_or_else(|| SourceError::TooLarge { path: path.to_owned(), size })?;
        if geometry.blocks() > 1 {
            // Advice: a failure changes nothing but speed.
            let _ = sys::fadvise(&file, 0, None, sys::Advice::Sequential);
        }
        Ok(Self {
            path: path.to_owned(),
            through_link,
            name,
            mode: metadata.mode() & 0o777,
            stamp: Stamp::of(&metadata),
            geometry,
            growing: false,
            zero_blocks: find_zero_blocks(&file, &metadata, geometry),
            content: Mutex::default(),
            file,
        })
    }

    /// Sends what is there now and takes no notice of what is added later.
    pub fn growing(mut self, growing: bool) -> Self {
        self.growing = growing;
        self
    }

    /// The file as it is now, to be sent instead: the same one, not another that has its path meanwhile.
    pub fn reopen(&self) -> Result<Self, SourceError> {
        if self.is_elsewhere() {
            return Err(SourceError::Replaced(self.path.clone()));
        }
        let now = Self::open_at(sys::CWD, &self.path, &self.path, self.name.clone(), self.through_link)?;
        let id = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
        let cannot = |source| SourceError::Io { operation: "stat", path: self.path.clone(), source };
        if id(&now.file).map_err(cannot)? != id(&self.file).map_err(cannot)? {
            return Err(SourceError::Replaced(self.path.clone()));
        }
        Ok(now.growing(self.growing))
    }

    /// The path that it is offered under.
    pub fn name(&self) -> &RelativePath {
        &self.name
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size and blocks.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The offer of this file.
    pub fn offer(&self) -> Offer {
        let Stamp { size, mtime, mtime_ns, .. } = self.stamp;
        let (mtime_ns, mode) = (mtime_ns as u32, Some(self.mode));
        let id = transfer_id(self.name.as_str(), size, mtime, mtime_ns, mode);
        Offer {
            size: Some(size),
            mtime,
            mtime_ns,
            mode,
            zeros: self.zero_bytes(),
            ..Offer::new(id, self.name.to_string(), OfferKind::File)
        }
    }

    /// Reads bytes; an end of file before the last of them is a change.
    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), SourceError> {
        {
            let mut content = self.content();
            let end = offset + bytes.len() as u64;
            if let Some(kept) = content.as_ref().and_then(|kept| kept.get(offset as usize..end as usize)) {
                bytes.copy_from_slice(kept);
                if end == self.geometry.size() {
                    *content = None;
                }
                return Ok(());
            }
        }
        self.file.read_exact_at(bytes, offset).map_err(|error| self.read_error(error))
    }

    /// The digest of a file of at most one block, from one read of its bytes; `None` of a larger one. With `keep` the bytes
    /// are kept until they are read to their end, and are what is sent: the file is not read again.
    pub fn digest_of_small(&self, keep: bool) -> Result<Option<FileDigest>, SourceError> {
        if self.geometry.blocks() > 1 {
            return Ok(None);
        }
        let content = self.read_all().map_err(|error| self.read_error(error))?;
        let digest = blake3::hash(&content).into();
        if keep && !content.is_empty() {
            *self.content() = Some(content.into_boxed_slice());
        }
        Ok(Some(digest))
    }

    /// Reads the bytes of a small file, into memory that is not cleared first.
    fn read_all(&self) -> io::Result<Vec<u8>> {
        let size = self.geometry.size() as usize;
        let mut content = Vec::with_capacity(size);
        while content.len() < size {
            let offset = content.len() as u64;
            match rustix::io::pread(&self.file, spare_capacity(&mut content), offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // What it has grown by is not of it.
        content.truncate(size);
        Ok(content)
    }

    fn content(&self) -> MutexGuard<'_, Option<Box<[u8]>>> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks that lie in holes: zeros that take no room, and need neither be read nor be sent.
    pub fn zero_blocks(&self) -> &BlockSet {
        &self.zero_blocks
    }

    /// How many bytes these blocks have.
    pub fn zero_bytes(&self) -> u64 {
        self.zero_blocks.runs().map(|run| self.geometry.bytes_of(run)).sum()
    }

    /// Reads a block and hashes it; of one that lies in a hole nothing is read.
    pub fn hash_block(&self, block: u64) -> Result<BlockHashes, SourceError> {
        self.hash(block, &self.zero_blocks)
    }

    /// The BLAKE3 digest of a block's bytes, for a receiver that knows no subtree hashes.
    pub fn plain_digest(&self, block: u64) -> Result<BlockDigest, SourceError> {
        let read = |bytes: &mut [u8], offset| self.file.read_at(bytes, offset);
        plain_digest(self.geometry, block, read).map_err(|error| self.read_error(error))
    }

    fn hash(&self, block: u64, zero_blocks: &BlockSet) -> Result<BlockHashes, SourceError> {
        let is_zero = zero_blocks.contains(block);
        let read = |bytes: &mut [u8], offset| {
            if is_zero {
                bytes.fill(0);
                return Ok(bytes.len());
            }
            self.file.read_at(bytes, offset)
        };
        hash_block(self.geometry, block, read).map_err(|error| self.read_error(error))
    }

    /// Reads the whole file once more, as far as it is sent.
    pub fn digest(&self) -> Result<Option<FileDigest>, SourceError> {
        let zero_blocks = find_zero_blocks(&self.file, &self.metadata()?, self.geometry);
        let mut tree = DigestTree::new(self.geometry);
        for block in 0..self.geometry.blocks() {
            tree.insert(block, &self.hash(block, &zero_blocks)?);
        }
        Ok(tree.digest())
    }

    /// Whether the file is what it was when it was opened, whatever became of its path.
    pub fn standing(&self) -> Result<Standing, SourceError> {
        let metadata = self.metadata()?;
        let (before, now) = (self.stamp, Stamp::of(&metadata));
        if before == now {
            return Ok(Standing::Same);
        }
        let elsewhere = self.is_elsewhere();
        if metadata.nlink() == 0 && !elsewhere {
            return Err(self.changed("it was removed"));
        }
        let content = |stamp: Stamp| (stamp.size, stamp.mtime, stamp.mtime_ns);
        // Names, links and permissions move the change time, and the content does not.
        if content(before) == content(now) || (self.growing && now.size >= before.size) {
            return Ok(Standing::Unclear);
        }
        if elsewhere {
            return Err(SourceError::Replaced(self.path.clone()));
        }
        Err(if before.size != now.size {
            self.changed(format!("it had {} bytes and has {}", before.size, now.size))
        } else {
            self.changed("its times moved")
        })
    }

    /// Its digest is another.
    pub fn changed_content(&self) -> SourceError {
        if self.is_elsewhere() {
            return SourceError::Replaced(self.path.clone());
        }
        self.changed("its content is another")
    }

    /// Whether another file has its path, or it was moved away.
    pub fn is_elsewhere(&self) -> bool {
        let named = if self.through_link { std::fs::metadata } else { std::fs::symlink_metadata };
        let (Ok(open), named) = (self.file.metadata(), named(&self.path)) else { return false };
        match named {
            Ok(named) => (named.dev(), named.ino()) != (open.dev(), open.ino()),
            // Without any name it was removed.
            Err(error) => error.kind() == io::ErrorKind::NotFound && open.nlink() > 0,
        }
    }

    fn metadata(&self) -> Result<Metadata, SourceError> {
        let cannot = |source| SourceError::Io { operation: "stat", path: self.path.clone(), source };
        self.file.metadata().map_err(cannot)
    }

    fn changed(&self, what: impl Into<String>) -> SourceError {
        SourceError::Changed { path: self.path.clone(), what: what.into() }
    }

    fn read_error(&self, source: io::Error) -> SourceError {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            return if self.is_elsewhere() {
                SourceError::Replaced(self.path.clone())
            } else {
                self.changed("it was cut short")
            };
        }
        SourceError::Io { operation: "read", path: self.path.clone(), source }
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len(),
            mtime: metadata.mtime(),
            mtime_ns: metadata.mtime_nsec(),
            ctime: metadata.ctime(),
            ctime_ns: metadata.ctime_nsec(),
        }
    }
}
