//! The file that is sent, and whether it is still what it was.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;

use super::hash_block;
use crate::protocol::message::transfer_id;
use crate::protocol::{
    BLOCK, BlockHashes, BlockSet, DigestTree, FileDigest, FileName, Geometry, MAX_FILE, NameError, Offer,
};

/// A file that is open to be sent.
#[derive(Debug)]
pub struct Source {
    file: File,
    path: PathBuf,
    name: FileName,
    mode: u32,
    stamp: Stamp,
    geometry: Geometry,
    /// What it grows by is left out, and no change.
    growing: bool,
    zero_blocks: BlockSet,
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
    /// Another file has the path, and the one that was begun is not what it was.
    #[error("{path} was replaced while it was sent, and the file that was begun changed too; send the new one", path = .0.display())]
    Replaced(PathBuf),
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
            growing: false,
            zero_blocks: find_zero_blocks(&file, &metadata, geometry),
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
        let now = Self::open(&self.path, Some(self.name.clone()))?;
        let id = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
        let cannot = |source| SourceError::Io { operation: "stat", path: self.path.clone(), source };
        if id(&now.file).map_err(cannot)? != id(&self.file).map_err(cannot)? {
            return Err(SourceError::Replaced(self.path.clone()));
        }
        Ok(now.growing(self.growing))
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
            zeros: 0,
            left: 0,
            session: None,
        }
    }

    /// Reads bytes; an end of file before the last of them is a change.
    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), SourceError> {
        self.file.read_exact_at(bytes, offset).map_err(|error| self.read_error(error))
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
        let (Ok(open), named) = (self.file.metadata(), std::fs::metadata(&self.path)) else { return false };
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

/// Blocks that lie wholly in holes. Looked for only where the file takes less room than it has bytes; what cannot be told
/// is read.
fn find_zero_blocks(file: &File, metadata: &Metadata, geometry: Geometry) -> BlockSet {
    let mut zeros = BlockSet::new();
    if metadata.blocks() * 512 >= geometry.size() {
        return zeros;
    }
    let mut offset = 0;
    while offset < geometry.size() {
        let data = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
            Ok(data) => data.min(geometry.size()),
            Err(rustix::io::Errno::NXIO) => geometry.size(),
            Err(_) => return zeros,
        };
        let end = if data == geometry.size() { geometry.blocks() } else { data / BLOCK };
        zeros.insert_run(offset.div_ceil(BLOCK)..end);
        if data == geometry.size() {
            break;
        }
        offset = match rustix::fs::seek(file, SeekFrom::Hole(data)) {
            Ok(hole) => hole,
            Err(_) => return zeros,
        };
    }
    zeros
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_in_holes_are_found_and_not_read() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let size = 9 * BLOCK + 5;
        file.as_file().set_len(size).unwrap();
        // Data in block 2, at the seam of blocks 4 and 5, and in the middle of block 7.
        for at in [2 * BLOCK, 5 * BLOCK - 1, 7 * BLOCK + BLOCK / 2] {
            file.as_file().write_all_at(b"xy", at).unwrap();
        }
        io::Write::flush(&mut file).unwrap();
        let source = Source::open(file.path(), Some("f".parse().unwrap())).unwrap();
        let found: Vec<_> = source.zero_blocks().runs().collect();
        if found.is_empty() {
            println!("lacking: holes, where temporary files are");
            return;
        }
        assert_eq!(found, [0..2, 3..4, 6..7, 8..10]);
        assert_eq!(source.zero_bytes(), 5 * BLOCK + 5);
        assert_eq!(source.digest().unwrap(), Some(blake3::hash(&std::fs::read(file.path()).unwrap()).into()));
        // What is not read does not show: the hole is filled behind the source's back.
        file.as_file().write_all_at(&[7; 4096], 0).unwrap();
        let zeros = source.hash_block(0).unwrap();
        assert_eq!(zeros, source.hash(0, &std::iter::once(0..1).collect()).unwrap());
        assert_ne!(zeros, source.hash(0, &BlockSet::new()).unwrap());
        // But a whole digest looks again.
        assert_eq!(source.digest().unwrap(), Some(blake3::hash(&std::fs::read(file.path()).unwrap()).into()));
    }
}
