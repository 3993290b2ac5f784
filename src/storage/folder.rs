//! The few file operations that the destination needs, as a trait: a directory of this machine, or a model of one.

use std::fs::{File, Permissions};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{self as sys, AtFlags, FallocateFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// A directory. Paths are relative to it: a file's name, or one directory's name and a file's.
pub trait Folder: Send + Sync {
    /// Opens a file to read and, with `create`, to write: it is made with those permission bits, less the umask,
    /// if it is not there. A symbolic link is not followed.
    fn open(&self, path: &str, create: Option<u32>) -> io::Result<Box<dyn FolderFile>>;
    /// What has this name, without following a link; `None` if nothing has.
    fn info(&self, path: &str) -> io::Result<Option<FileInfo>>;
    /// The names in a directory; none if it is not there.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;
    /// Makes a directory; fine if it is there.
    fn create_dir(&self, path: &str) -> io::Result<()>;
    /// Removes a directory, if it is empty.
    fn remove_dir(&self, path: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &str) -> io::Result<()>;
    /// Gives a file another name, in one step; with `replace` in the place of what had it, without it fails with
    /// `AlreadyExists`.
    fn rename(&self, from: &str, to: &str, replace: bool) -> io::Result<()>;
    /// Copies a file's bytes into another file, which must not be there and is made with these permission bits, as far
    /// as the umask lets it.
    fn copy(&self, from: &str, to: &str, mode: u32) -> io::Result<()>;
    /// Makes names in a directory durable; an empty path is the folder itself.
    fn sync_dir(&self, path: &str) -> io::Result<()>;
    /// Bytes that can still be written.
    fn free_space(&self) -> io::Result<u64>;
}

/// A file of a [`Folder`].
pub trait FolderFile: Send + Sync {
    /// Reads some bytes; 0 at the end.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Length and modification time.
    fn info(&self) -> io::Result<FileInfo>;
    /// Cuts or lengthens the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Sets room aside for these bytes, so that writing them finds it; length and contents stay. Cutting the file gives
    /// back what is behind its end. Does nothing where there is no room to set aside.
    fn reserve(&self, bytes: Range<u64>) -> io::Result<()>;
    /// Takes away all permission bits but these.
    fn restrict_mode(&self, mode: u32) -> io::Result<()>;
    /// Sets the modification time.
    fn set_mtime(&self, seconds: i64, nanoseconds: u32) -> io::Result<()>;
    /// Makes contents and length durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes contents and all else durable.
    fn sync_all(&self) -> io::Result<()>;
    /// Locks the file against other processes and other handles, until it is closed. `false` if it is locked.
    fn try_lock(&self) -> io::Result<bool>;
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileInfo {
    /// A regular file, not a directory, a link or a device.
    pub is_file: bool,
    /// How many names it has; 0 once it was removed while open.
    pub links: u64,
    /// Its length in bytes.
    pub len: u64,
    /// Seconds of its modification time since 1970-01-01 UTC.
    pub mtime: i64,
    /// Nanoseconds of its modification time.
    pub mtime_ns: u32,
}

/// A directory of this machine. Every operation is rooted in its open handle.
#[derive(Debug)]
pub struct DiskFolder {
    dir: OwnedFd,
}

impl DiskFolder {
    /// Opens a directory, and makes it first if need be. Fails if it cannot be written to.
    pub fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => io::ErrorKind::NotADirectory.into(),
            _ => error,
        })?;
        let dir = sys::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        sys::accessat(&dir, ".", sys::Access::WRITE_OK | sys::Access::EXEC_OK, AtFlags::empty())?;
        Ok(Self { dir })
    }
}

impl Folder for DiskFolder {
    fn open(&self, path: &str, create: Option<u32>) -> io::Result<Box<dyn FolderFile>> {
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let (flags, mode) = match create {
            Some(mode) => (flags | OFlags::RDWR | OFlags::CREATE, Mode::from_raw_mode(mode)),
            None => (flags | OFlags::RDONLY, Mode::empty()),
        };
        Ok(Box::new(File::from(sys::openat(&self.dir, path, flags, mode)?)))
    }

    fn info(&self, path: &str) -> io::Result<Option<FileInfo>> {
        match sys::statat(&self.dir, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileInfo {
                is_file: sys::FileType::from_raw_mode(stat.st_mode).is_file(),
                links: stat.st_nlink,
                len: stat.st_size as u64,
                mtime: stat.st_mtime,
                mtime_ns: stat.st_mtime_nsec as u32,
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let dir = match sys::openat(&self.dir, path, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(Vec::new()),
            dir => sys::Dir::read_from(dir?)?,
        };
        let mut names = Vec::new();
        for entry in dir {
            if let Ok(name) = entry?.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        match sys::mkdirat(&self.dir, path, Mode::RWXU) {
            Err(Errno::EXIST) => Ok(()),
            made => Ok(made?),
        }
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        Ok(sys::unlinkat(&self.dir, path, AtFlags::REMOVEDIR)?)
    }

    fn remove_file(&self, path: &str) -> io::Result<()> {
        Ok(sys::unlinkat(&self.dir, path, AtFlags::empty())?)
    }

    fn rename(&self, from: &str, to: &str, replace: bool) -> io::Result<()> {
        let dir = &self.dir;
        if replace {
            return Ok(sys::renameat(dir, from, dir, to)?);
        }
        match sys::renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE) {
            // Not every file system knows the flag; a second name never replaces either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                sys::linkat(dir, from, dir, to, AtFlags::empty())?;
                self.remove_file(from)
            }
            renamed => Ok(renamed?),
        }
    }

    fn copy(&self, from: &str, to: &str, mode: u32) -> io::Result<()> {
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut from = File::from(sys::openat(&self.dir, from, read, Mode::empty())?);
        let mut to = File::from(sys::openat(&self.dir, to, write, Mode::from_raw_mode(mode))?);
        // On file systems that can share blocks this copies none.
        io::copy(&mut from, &mut to).map(|_| ())
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let path = if path.is_empty() { "." } else { path };
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(sys::fsync(sys::openat(&self.dir, path, flags, Mode::empty())?)?)
    }

    fn free_space(&self) -> io::Result<u64> {
        let stat = sys::fstatvfs(self.dir.as_fd())?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl FolderFile for File {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, bytes, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn info(&self) -> io::Result<FileInfo> {
        let metadata = self.metadata()?;
        Ok(FileInfo {
            is_file: metadata.is_file(),
            links: metadata.nlink(),
            len: metadata.len(),
            mtime: metadata.mtime(),
            mtime_ns: metadata.mtime_nsec() as u32,
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn reserve(&self, bytes: Range<u64>) -> io::Result<()> {
        // What lies on no block device of its own is memory, a network or a file system that writes elsewhere each time.
        if sys::major(sys::fstat(self)?.st_dev) == 0 {
            return Ok(());
        }
        Ok(sys::fallocate(self, FallocateFlags::KEEP_SIZE, bytes.start, bytes.end - bytes.start)?)
    }

    fn restrict_mode(&self, mode: u32) -> io::Result<()> {
        let current = self.metadata()?.permissions().mode();
        self.set_permissions(Permissions::from_mode(current & 0o777 & mode))
    }

    fn set_mtime(&self, seconds: i64, nanoseconds: u32) -> io::Result<()> {
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let base = if seconds < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(whole)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(whole)
        };
        let time = base.and_then(|base| base.checked_add(Duration::from_nanos(nanoseconds.into())));
        self.set_modified(time.ok_or(io::ErrorKind::InvalidInput)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        File::sync_all(self)
    }

    fn try_lock(&self) -> io::Result<bool> {
        match File::try_lock(self) {
            Ok(()) => Ok(true),
            Err(std::fs::TryLockError::WouldBlock) => Ok(false),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }
}
