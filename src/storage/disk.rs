//! A directory of this machine, and its files. Every operation is rooted in an open handle.

use std::fs::{File, Permissions};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{self as sys, AtFlags, FallocateFlags, Mode, OFlags, RenameFlags, SeekFrom, Stat};
use rustix::fs::{StatxAttributes, StatxFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::folder::{FileId, FileInfo, Folder, FolderFile, Obstacle};

/// Zeros written at a time where a file cannot have holes.
const ZEROS: usize = 256 * 1024;

/// What is read past the cache is read in whole pieces of this, which every disk takes.
const SECTOR: u64 = 4096;

/// A directory of this machine.
#[derive(Debug)]
pub struct DiskFolder {
    dir: OwnedFd,
    id: FileId,
}

impl DiskFolder {
    /// Opens a directory, and makes it and its parents first if need be, durably. Fails if it cannot be written to.
    pub fn open(path: &Path) -> io::Result<Self> {
        make_dirs(path)?;
        let dir = sys::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        sys::accessat(&dir, ".", sys::Access::WRITE_OK | sys::Access::EXEC_OK, AtFlags::empty())?;
        Self::of(dir)
    }

    /// Opens a directory that is there, to look at what is in it.
    pub fn open_existing(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        Self::of(sys::open(path, flags, Mode::empty())?)
    }

    fn of(dir: OwnedFd) -> io::Result<Self> {
        let id = file_info(&sys::fstat(&dir)?).id;
        Ok(Self { dir, id })
    }

    fn open_file(&self, name: &str, flags: OFlags, mode: u32) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(File::from(sys::openat(&self.dir, name, flags, Mode::from_raw_mode(mode))?))
    }
}

impl Folder for DiskFolder {
    fn id(&self) -> FileId {
        self.id
    }

    fn info(&self) -> io::Result<FileInfo> {
        Ok(file_info(&sys::fstat(&self.dir)?))
    }

    fn is_gone(&self) -> bool {
        sys::fstat(&self.dir).is_ok_and(|stat| stat.st_nlink == 0)
    }

    fn lookup(&self, name: &str) -> io::Result<Option<FileInfo>> {
        match sys::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(file_info(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in sys::Dir::read_from(&self.dir)? {
            if let Ok(name) = entry?.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str, write: bool) -> io::Result<Box<dyn FolderFile>> {
        let flags = if write { OFlags::RDWR } else { OFlags::RDONLY };
        Ok(Box::new(DiskFile { file: self.open_file(name, flags, 0)?, past_cache: false }))
    }

    fn open_past_cache(&self, name: &str) -> io::Result<Box<dyn FolderFile>> {
        Ok(Box::new(DiskFile {
            file: self.open_file(name, OFlags::RDONLY | OFlags::DIRECT, 0)?,
            past_cache: true,
        }))
    }

    fn create(&self, name: &str, mode: u32) -> io::Result<Box<dyn FolderFile>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        Ok(Box::new(DiskFile { file: self.open_file(name, flags, mode)?, past_cache: false }))
    }

    fn create_unnamed(&self, mode: u32) -> io::Result<Box<dyn FolderFile>> {
        let file = self.open_file(".", OFlags::RDWR | OFlags::TMPFILE, mode)?;
        Ok(Box::new(DiskFile { file, past_cache: false }))
    }

    fn open_dir(&self, name: &str) -> io::Result<Arc<dyn Folder>> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Arc::new(Self::of(sys::openat(&self.dir, name, flags, Mode::empty())?)?))
    }

    fn create_dir(&self, name: &str, mode: u32) -> io::Result<()> {
        Ok(sys::mkdirat(&self.dir, name, Mode::from_raw_mode(mode))?)
    }

    fn symlink(&self, target: &str, name: &str) -> io::Result<()> {
        Ok(sys::symlinkat(target, &self.dir, name)?)
    }

    fn read_link(&self, name: &str) -> io::Result<String> {
        let target = sys::readlinkat(&self.dir, name, Vec::new())?;
        target.into_string().map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn set_link_mtime(&self, name: &str, seconds: i64, nanoseconds: u32) -> io::Result<()> {
        let times = modified_at(seconds, nanoseconds);
        Ok(sys::utimensat(&self.dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(sys::fchmod(&self.dir, Mode::from_raw_mode(mode))?)
    }

    fn set_mtime(&self, seconds: i64, nanoseconds: u32) -> io::Result<()> {
        Ok(sys::futimens(&self.dir, &modified_at(seconds, nanoseconds))?)
    }

    fn remove_dir(&self, name: &str) -> io::Result<()> {
        Ok(sys::unlinkat(&self.dir, name, AtFlags::REMOVEDIR)?)
    }

    fn remove_file(&self, name: &str) -> io::Result<()> {
        Ok(sys::unlinkat(&self.dir, name, AtFlags::empty())?)
    }

    fn rename(&self, from: &str, to: &dyn Folder, name: &str, replace: bool) -> io::Result<()> {
        let to = to.handle().ok_or(io::ErrorKind::CrossesDevices)?;
        let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        Ok(sys::renameat_with(&self.dir, from, to, name, flags)?)
    }

    fn link(&self, file: &dyn FolderFile, name: &str) -> io::Result<()> {
        let file = file.handle().ok_or(io::ErrorKind::CrossesDevices)?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        match sys::linkat(sys::CWD, path, &self.dir, name, AtFlags::SYMLINK_FOLLOW) {
            Err(Errno::EXIST) => Err(Errno::EXIST.into()),
            // Without /proc; whether it may be done this way depends on the kernel and on who we are.
            Err(_) => Ok(sys::linkat(file, "", &self.dir, name, AtFlags::EMPTY_PATH)?),
            Ok(()) => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        Ok(sys::fsync(&self.dir)?)
    }

    fn free_space(&self) -> io::Result<u64> {
        let stat = sys::fstatvfs(self.dir.as_fd())?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn obstacle(&self, name: &str) -> io::Result<Option<Obstacle>> {
        let known = StatxFlags::BASIC_STATS;
        let there = match sys::statx(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW, known) {
            Ok(there) => there,
            Err(Errno::NOENT) => return Ok(None),
            // An old kernel: what there is to say is said by the rename.
            Err(Errno::NOSYS) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let has = |attribute| there.stx_attributes.contains(attribute);
        let dir = sys::fstat(&self.dir)?;
        let user = rustix::process::geteuid();
        let sticky = dir.st_mode & Mode::SVTX.as_raw_mode() != 0;
        Ok(if has(StatxAttributes::MOUNT_ROOT) {
            Some(Obstacle::MountPoint)
        } else if has(StatxAttributes::IMMUTABLE) || has(StatxAttributes::APPEND) {
            Some(Obstacle::Immutable)
        } else if sticky && !user.is_root() && there.stx_uid != user.as_raw() && dir.st_uid != user.as_raw() {
            Some(Obstacle::Sticky)
        } else {
            None
        })
    }

    fn handle(&self) -> Option<BorrowedFd<'_>> {
        Some(self.dir.as_fd())
    }
}

/// A file of this machine.
struct DiskFile {
    file: File,
    past_cache: bool,
}

impl FolderFile for DiskFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.past_cache {
            read_direct(&self.file, bytes, offset)
        } else {
            self.file.read_at(bytes, offset)
        }
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn zero(&self, bytes: Range<u64>) -> io::Result<()> {
        let len = self.file.metadata()?.len();
        let within = bytes.start..bytes.end.min(len);
        if !within.is_empty() {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match sys::fallocate(&self.file, flags, within.start, within.end - within.start) {
                Err(Errno::NOTSUP | Errno::NOSYS | Errno::INVAL | Errno::NODEV) => {
                    let zeros = vec![0; ZEROS];
                    for at in within.clone().step_by(ZEROS) {
                        let end = within.end.min(at + ZEROS as u64);
                        self.file.write_all_at(&zeros[..(end - at) as usize], at)?;
                    }
                }
                punched => punched?,
            }
        }
        if bytes.end > len { self.file.set_len(bytes.end) } else { Ok(()) }
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let len = self.file.metadata()?.len();
        if offset >= len {
            return Ok(None);
        }
        let start = match sys::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            // Where holes cannot be asked for there are none.
            Err(Errno::INVAL | Errno::NOTSUP) => return Ok(Some(offset..len)),
            Err(error) => return Err(error.into()),
        };
        Ok(Some(start..sys::seek(&self.file, SeekFrom::Hole(start))?.max(start)))
    }

    fn info(&self) -> io::Result<FileInfo> {
        Ok(file_info(&sys::fstat(&self.file)?))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn reserve(&self, bytes: Range<u64>) -> io::Result<()> {
        // What lies on no block device of its own is memory, a network or a file system that writes elsewhere each time.
        if sys::major(sys::fstat(&self.file)?.st_dev) == 0 {
            return Ok(());
        }
        Ok(sys::fallocate(&self.file, FallocateFlags::KEEP_SIZE, bytes.start, bytes.end - bytes.start)?)
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.file.set_permissions(Permissions::from_mode(mode))
    }

    fn restrict_mode(&self, mode: u32) -> io::Result<()> {
        let current = self.file.metadata()?.permissions().mode() & 0o777;
        // What need not be changed may be something that cannot be changed.
        if current & mode == current {
            return Ok(());
        }
        self.file.set_permissions(Permissions::from_mode(current & mode))
    }

    fn set_mtime(&self, seconds: i64, nanoseconds: u32) -> io::Result<()> {
        Ok(sys::futimens(&self.file, &modified_at(seconds, nanoseconds))?)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn try_lock(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(std::fs::TryLockError::WouldBlock) => Ok(false),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn is_locked(&self) -> io::Result<bool> {
        match self.file.try_lock_shared() {
            Ok(()) => self.file.unlock().map(|()| false),
            Err(std::fs::TryLockError::WouldBlock) => Ok(true),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn handle(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}

/// Reads past the cache: in whole sectors, into memory that begins where the disk wants it to.
fn read_direct(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let (start, sector) = (offset / SECTOR * SECTOR, SECTOR as usize);
    let before = (offset - start) as usize;
    let whole = (before + bytes.len()).next_multiple_of(sector);
    let mut buffer = vec![0; whole + sector];
    let aligned = buffer.as_ptr().align_offset(sector);
    let read = file.read_at(&mut buffer[aligned..aligned + whole], start)?;
    let got = read.saturating_sub(before).min(bytes.len());
    bytes[..got].copy_from_slice(&buffer[aligned + before..][..got]);
    Ok(got)
}

/// This modification time, and the time of access as it is.
fn modified_at(seconds: i64, nanoseconds: u32) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: sys::UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
    }
}

fn file_info(stat: &Stat) -> FileInfo {
    let kind = sys::FileType::from_raw_mode(stat.st_mode);
    FileInfo {
        id: FileId { device: stat.st_dev, inode: stat.st_ino },
        is_file: kind.is_file(),
        is_dir: kind.is_dir(),
        is_link: kind.is_symlink(),
        owner: stat.st_uid,
        mode: stat.st_mode & 0o7777,
        len: stat.st_size as u64,
        allocated: stat.st_blocks as u64 * 512,
        mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
        ctime: (stat.st_ctime, stat.st_ctime_nsec as u32),
    }
}

/// Makes a directory and those above it, and makes their names durable.
fn make_dirs(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    std::fs::create_dir_all(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => io::ErrorKind::NotADirectory.into(),
        _ => error,
    })?;
    for parent in missing.iter().rev().filter_map(|path| path.parent()) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        match File::open(parent)?.sync_all() {
            // Not every file system syncs directories.
            Err(error) if is_unsupported(&error) => {}
            synced => synced?,
        }
    }
    Ok(())
}

/// Whether the file system, or the kernel, knows no such operation.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS | Errno::NOTTY | Errno::BADF)
    )
}
