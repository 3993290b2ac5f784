//! The file that is sent, and whether it is still what it was.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::hash_block;
use crate::protocol::message::transfer_id;
use crate::protocol::{BlockHashes, FileName, Geometry, MAX_FILE, NameError, Offer};

/// A file that is open to be sent.
#[derive(Debug)]
pub struct Source {
    file: File,
    path: PathBuf,
    name: FileName,
    mode: u32,
    stamp: Stamp,
    geometry: Geometry,
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
    #[error("{path} is not a regular file; wsferry sends files (pack a directory with tar first)", path = .0.display())]
    NotAFile(PathBuf),
    /// A file of the kernel's that has content and says that it has none.
    #[error("{path} has content and no size, as files in /proc have; copy it to a file first", path = .0.display())]
    NoSize(PathBuf),
    /// The name cannot be used at the destination.
    #[error("{path} cannot be sent under its name: {error}; choose another with --name", path = .path.display())]
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
    /// Opens a file to be sent under its own name, or under `name`.
    pub fn open(path: &Path, name: Option<FileName>) -> Result<Self, SourceError> {
        let cannot = |operation| move |source| SourceError::Io { operation, path: path.to_owned(), source };
        // A named pipe without a writer would block the opening: ask first what it is.
        if !std::fs::metadata(path).map_err(cannot("open"))?.is_file() {
            return Err(SourceError::NotAFile(path.to_owned()));
        }
        let file = File::options()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
            .open(path)
            .map_err(cannot("open"))?;
        let metadata = file.metadata().map_err(cannot("stat"))?;
        if !metadata.is_file() {
            return Err(SourceError::NotAFile(path.to_owned()));
        }
        let name = match name {
            Some(name) => name,
            None => path
                .file_name()
                .unwrap_or_default()
                .to_str()
                .ok_or(NameError::NotUtf8)
                .and_then(str::parse)
                .map_err(|error| SourceError::Name { path: path.to_owned(), error })?,
        };
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
        // Advice: a failure changes nothing but speed.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
        Ok(Self {
            path: path.to_owned(),
            name,
            mode: metadata.mode() & 0o777,
            stamp: Stamp::of(&metadata),
            geometry,
            file,
        })
    }

    /// The name that it is offered under.
    pub fn name(&self) -> &FileName {
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

    /// The offer of this file, for a path with this frame limit and window.
    pub fn offer(&self, frame_limit: u64, window: u64) -> Offer {
        let Stamp { size, mtime, mtime_ns, .. } = self.stamp;
        let (mtime_ns, mode) = (mtime_ns as u32, Some(self.mode));
        Offer {
            id: transfer_id(self.name.as_str(), size, mtime, mtime_ns, mode),
            name: self.name.to_string(),
            size,
            mtime,
            mtime_ns,
            mode,
            frame_limit,
            window,
            repair: false,
            discard: false,
            left: 0,
            session: None,
        }
    }

    /// Reads bytes; an end of file before the last of them is a change.
    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), SourceError> {
        self.file.read_exact_at(bytes, offset).map_err(|error| self.read_error(error))
    }

    /// Reads a block and hashes it.
    pub fn hash_block(&self, block: u64) -> Result<BlockHashes, SourceError> {
        hash_block(self.geometry, block, |bytes, offset| self.file.read_at(bytes, offset))
            .map_err(|error| self.read_error(error))
    }

    /// Whether size and times are what they were when the file was opened.
    pub fn check_unchanged(&self) -> Result<(), SourceError> {
        let metadata = self.file.metadata().map_err(|source| SourceError::Io {
            operation: "stat",
            path: self.path.clone(),
            source,
        })?;
        let (before, now) = (self.stamp, Stamp::of(&metadata));
        if before == now {
            return Ok(());
        }
        let what = if metadata.nlink() == 0 {
            "it was removed".to_owned()
        } else if before.size != now.size {
            format!("it had {} bytes and has {}", before.size, now.size)
        } else {
            "its times moved".to_owned()
        };
        Err(SourceError::Changed { path: self.path.clone(), what })
    }

    fn read_error(&self, source: io::Error) -> SourceError {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            return SourceError::Changed { path: self.path.clone(), what: "it was cut short".to_owned() };
        }
        SourceError::Io { operation: "read", path: self.path.clone(), source }
    }
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            size: metadata.len(),
            mtime: metadata.mtime(),
            mtime_ns: metadata.mtime_nsec(),
            ctime: metadata.ctime(),
            ctime_ns: metadata.ctime_nsec(),
        }
    }
}
