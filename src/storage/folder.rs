//! The few file operations that the destination needs, as traits: a directory of this machine, or a model of one.
//!
//! A [`Folder`] and a [`FolderFile`] are what is open, not what has a name: a name may be removed, replaced or moved
//! by anyone at any moment, what is open stays what it is. [`FileId`] tells whether a name still means it.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// An open directory. Names are of one path component; symbolic links are never followed.
pub trait Folder: Send + Sync {
    /// Which directory it is.
    fn id(&self) -> FileId;
    /// Whose it is and what others may do with it.
    fn info(&self) -> io::Result<FileInfo>;
    /// Whether it was removed, as far as that can be told: nothing can be made in it any more.
    fn is_gone(&self) -> bool {
        false
    }
    /// What has this name; `None` if nothing has.
    fn lookup(&self, name: &str) -> io::Result<Option<FileInfo>>;
    /// The names that are there, without those that are no UTF-8.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file that is there to read, or to read and write.
    fn open(&self, name: &str, write: bool) -> io::Result<Box<dyn FolderFile>>;
    /// Opens a file that is there to read what the disk has, not what memory says that the disk has.
    fn open_past_cache(&self, name: &str) -> io::Result<Box<dyn FolderFile>>;
    /// Makes a file to read and write, with these permission bits less the umask; `AlreadyExists` if the name is taken.
    fn create(&self, name: &str, mode: u32) -> io::Result<Box<dyn FolderFile>>;
    /// Makes a file without a name on the same file system, to read and write, with these permission bits less the
    /// umask. [`link`](Self::link) gives it one; it is gone with its handle if nothing does.
    fn create_unnamed(&self, mode: u32) -> io::Result<Box<dyn FolderFile>>;
    /// Opens a directory that is there.
    fn open_dir(&self, name: &str) -> io::Result<Arc<dyn Folder>>;
    /// Makes a directory with these permission bits less the umask; `AlreadyExists` if the name is taken.
    fn create_dir(&self, name: &str, mode: u32) -> io::Result<()>;
    /// Makes a symbolic link; `AlreadyExists` if the name is taken.
    fn symlink(&self, target: &str, name: &str) -> io::Result<()>;
    /// What a symbolic link says.
    fn read_link(&self, name: &str) -> io::Result<String>;
    /// Sets a symbolic link's own modification time: seconds since 1970-01-01 UTC, and nanoseconds.
    fn set_link_mtime(&self, name: &str, seconds: i64, nanoseconds: u32) -> io::Result<()>;
    /// Sets its own permission bits.
    fn set_mode(&self, mode: u32) -> io::Result<()>;
    /// Sets its own modification time: seconds since 1970-01-01 UTC, and nanoseconds.
    fn set_mtime(&self, seconds: i64, nanoseconds: u32) -> io::Result<()>;
    /// Removes a directory, if it is empty.
    fn remove_dir(&self, name: &str) -> io::Result<()>;
    /// Removes a name of a file or of a link.
    fn remove_file(&self, name: &str) -> io::Result<()>;
    /// Moves a file or a link into `to`, in one step; with `replace` in the place of what has the name there, without it that is
    /// `AlreadyExists`.
    fn rename(&self, from: &str, to: &dyn Folder, name: &str, replace: bool) -> io::Result<()>;
    /// Gives an open file a name here; `AlreadyExists` if the name is taken.
    fn link(&self, file: &dyn FolderFile, name: &str) -> io::Result<()>;
    /// Makes the names in it durable, and what is its own.
    fn sync(&self) -> io::Result<()>;
    /// Bytes that can still be written.
    fn free_space(&self) -> io::Result<u64>;
    /// What is known to keep this name from being given to another file.
    fn obstacle(&self, name: &str) -> io::Result<Option<Obstacle>>;
    /// The descriptor, of a directory of this machine.
    fn handle(&self) -> Option<BorrowedFd<'_>>;
}

/// An open file.
pub trait FolderFile: Send + Sync {
    /// Reads some bytes; 0 at the end.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Has these bytes be zeros that take no room, where that can be; the file is lengthened to hold them.
    fn zero(&self, bytes: Range<u64>) -> io::Result<()>;
    /// The first run of bytes at or behind `offset` that was ever written, as far as the file system tells.
    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>>;
    /// What and how long it is.
    fn info(&self) -> io::Result<FileInfo>;
    /// Cuts or lengthens the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Sets room aside for these bytes, so that writing them finds it; length and contents stay. Cutting the file gives
    /// back what is behind its end. Does nothing where there is no room to set aside.
    fn reserve(&self, bytes: Range<u64>) -> io::Result<()>;
    /// Sets the permission bits.
    fn set_mode(&self, mode: u32) -> io::Result<()>;
    /// Takes away all permission bits but these.
    fn restrict_mode(&self, mode: u32) -> io::Result<()>;
    /// Sets the modification time: seconds since 1970-01-01 UTC, and nanoseconds.
    fn set_mtime(&self, seconds: i64, nanoseconds: u32) -> io::Result<()>;
    /// Makes contents and length durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes contents and all else durable.
    fn sync_all(&self) -> io::Result<()>;
    /// Locks the file against other processes, until it is closed. `false` if it is locked.
    fn try_lock(&self) -> io::Result<bool>;
    /// Whether another process has locked it, without keeping anyone from doing so. Files that cannot tell it without a lock
    /// of their own give it back when they are closed.
    fn is_locked(&self) -> io::Result<bool> {
        self.try_lock().map(|locked| !locked)
    }
    /// The descriptor, of a file of this machine.
    fn handle(&self) -> Option<BorrowedFd<'_>>;
}

/// Which file: two names that mean the same one have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// The device that it is on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

/// A moment: seconds since 1970-01-01 UTC, and nanoseconds.
pub type Time = (i64, u32);

/// What is open, or has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileInfo {
    /// Which file.
    pub id: FileId,
    /// A regular file, not a directory, a link or a device.
    pub is_file: bool,
    /// A directory.
    pub is_dir: bool,
    /// A symbolic link.
    pub is_link: bool,
    /// The user that it belongs to.
    pub owner: u32,
    /// Its permission bits.
    pub mode: u32,
    /// Its length in bytes.
    pub len: u64,
    /// The bytes that it takes on the disk.
    pub allocated: u64,
    /// When its content was last changed, as far as programs do not say otherwise.
    pub mtime: Time,
    /// When anything of it was last changed.
    pub ctime: Time,
}

impl FileInfo {
    /// What moves when the content is changed; programs can set the modification time, the other one they cannot.
    pub(super) fn stamp(&self) -> Stamp {
        Stamp { id: self.id, len: self.len, mtime: self.mtime, ctime: self.ctime }
    }
}

/// A version of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) id: FileId,
    pub(super) len: u64,
    pub(super) mtime: Time,
    pub(super) ctime: Time,
}

/// Why a file cannot be replaced, as far as that is known beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// Something is mounted there.
    MountPoint,
    /// It was made immutable, or can only be appended to.
    Immutable,
    /// It is another user's, in a directory where each may remove its own files only.
    Sticky,
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::MountPoint => "it is a mount point",
            Self::Immutable => "it is immutable (chattr)",
            Self::Sticky => "it belongs to another user, and the directory is sticky",
        })
    }
}
