//! What is open of the model: its operations as the storage calls them.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::io::Errno;
use wsferry::storage::{FileId, FileInfo, Folder, FolderFile, Obstacle};

use super::{Change, Inode, Lie, Model, PAGE, Renaming, apply};

impl Folder for Model {
    fn id(&self) -> FileId {
        FileId { device: 1, inode: self.dir as u64 }
    }

    fn info(&self) -> io::Result<FileInfo> {
        self.step("stat", |disk| Ok(disk.info(self.dir)))
    }

    fn lookup(&self, name: &str) -> io::Result<Option<FileInfo>> {
        self.step("lookup", |disk| {
            let inode = disk.names.get(&(self.dir, name.to_owned()));
            Ok(inode.map(|&inode| disk.info(inode)))
        })
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.step("list", |disk| {
            let names = disk.names.keys().filter(|(dir, _)| *dir == self.dir);
            Ok(names.map(|(_, name)| name.clone()).collect())
        })
    }

    fn open(&self, name: &str, write: bool) -> io::Result<Box<dyn FolderFile>> {
        let inode = self.step("open", |disk| {
            let inode = *disk.names.get(&(self.dir, name.to_owned())).ok_or(io::ErrorKind::NotFound)?;
            if disk.inodes[inode].link.is_some() {
                return Err(Errno::LOOP.into());
            }
            if write && disk.inodes[inode].read_only {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            Ok(inode)
        })?;
        Ok(self.file(inode, name))
    }

    fn open_past_cache(&self, name: &str) -> io::Result<Box<dyn FolderFile>> {
        let inode = self.step("open past cache", |disk| {
            Ok(*disk.names.get(&(self.dir, name.to_owned())).ok_or(io::ErrorKind::NotFound)?)
        })?;
        Ok(Box::new(ModelFile { model: self.clone(), inode, handle: 0, journal: false, past_cache: true }))
    }

    fn create(&self, name: &str, _: u32) -> io::Result<Box<dyn FolderFile>> {
        let inode =
            self.operate("create", |disk| disk.make((self.dir, name.to_owned()), Inode::default()))?;
        Ok(self.file(inode, name))
    }

    fn create_unnamed(&self, _: u32) -> io::Result<Box<dyn FolderFile>> {
        let inode = self.operate("create", |disk| {
            disk.inodes.push(Inode { unnamed: true, ..Inode::default() });
            Ok(disk.inodes.len() - 1)
        })?;
        Ok(self.file(inode, ""))
    }

    fn open_dir(&self, name: &str) -> io::Result<Arc<dyn Folder>> {
        let dir = self.step("open dir", |disk| {
            let inode = *disk.names.get(&(self.dir, name.to_owned())).ok_or(io::ErrorKind::NotFound)?;
            if disk.inodes[inode].is_dir { Ok(inode) } else { Err(io::ErrorKind::NotADirectory.into()) }
        })?;
        Ok(Arc::new(Model { disk: self.disk.clone(), dir }))
    }

    fn create_dir(&self, name: &str, _: u32) -> io::Result<()> {
        let name = (self.dir, name.to_owned());
        if self.disk().names.contains_key(&name) {
            return self.step("create dir", |_| Err(io::ErrorKind::AlreadyExists.into()));
        }
        self.operate("create dir", |disk| {
            disk.make(name, Inode { is_dir: true, ..Inode::default() }).map(drop)
        })
    }

    fn symlink(&self, target: &str, name: &str) -> io::Result<()> {
        self.operate("symlink", |disk| {
            let link = Some(target.to_owned());
            disk.make((self.dir, name.to_owned()), Inode { link, ..Inode::default() }).map(drop)
        })
    }

    fn read_link(&self, name: &str) -> io::Result<String> {
        self.step("read link", |disk| {
            let inode = *disk.names.get(&(self.dir, name.to_owned())).ok_or(io::ErrorKind::NotFound)?;
            disk.inodes[inode].link.clone().ok_or(io::ErrorKind::InvalidInput.into())
        })
    }

    fn set_link_mtime(&self, name: &str, seconds: i64, nanoseconds: u32) -> io::Result<()> {
        self.operate("set time", |disk| {
            let inode = *disk.names.get(&(self.dir, name.to_owned())).ok_or(io::ErrorKind::NotFound)?;
            disk.inodes[inode].mtime = (seconds, nanoseconds);
            Ok(())
        })
    }

    fn set_mode(&self, _: u32) -> io::Result<()> {
        self.operate("set mode", |_| Ok(()))
    }

    fn set_mtime(&self, seconds: i64, nanoseconds: u32) -> io::Result<()> {
        self.operate("set time", |disk| {
            disk.inodes[self.dir].mtime = (seconds, nanoseconds);
            Ok(())
        })
    }

    fn remove_dir(&self, name: &str) -> io::Result<()> {
        self.operate("remove dir", |disk| {
            let name = (self.dir, name.to_owned());
            let inode = *disk.names.get(&name).ok_or(io::ErrorKind::NotFound)?;
            if disk.names.keys().any(|(dir, _)| *dir == inode) {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            disk.rename(vec![(name, None)]);
            Ok(())
        })
    }

    fn remove_file(&self, name: &str) -> io::Result<()> {
        self.operate("remove file", |disk| {
            let name = (self.dir, name.to_owned());
            let inode = *disk.names.get(&name).ok_or(io::ErrorKind::NotFound)?;
            disk.touch(inode);
            disk.rename(vec![(name, None)]);
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &dyn Folder, name: &str, replace: bool) -> io::Result<()> {
        self.operate("rename", |disk| {
            let (from, to) = ((self.dir, from.to_owned()), (to.id().inode as usize, name.to_owned()));
            disk.exists(to.0)?;
            if !replace && disk.names.contains_key(&to) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let inode = *disk.names.get(&from).ok_or(io::ErrorKind::NotFound)?;
            // Two names of one file: nothing happens.
            if disk.names.get(&to) != Some(&inode) {
                disk.rename(vec![(from, None), (to, Some(inode))]);
            }
            Ok(())
        })
    }

    fn link(&self, file: &dyn FolderFile, name: &str) -> io::Result<()> {
        // Asked for outside: this is no operation of the file's.
        let inode = file.info()?.id.inode as usize;
        self.operate("link", |disk| {
            let name = (self.dir, name.to_owned());
            disk.exists(name.0)?;
            if disk.names.contains_key(&name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            // What has no name any more gets none; what never had one gets its first.
            let unnamed = std::mem::take(&mut disk.inodes[inode].unnamed);
            if !unnamed && !disk.names.values().any(|&named| named == inode) {
                return Err(io::ErrorKind::NotFound.into());
            }
            disk.rename(vec![(name, Some(inode))]);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.operate("sync dir", |disk| {
            if disk.lie != Lie::DirSync {
                let is_in = |renaming: &Renaming| renaming.iter().any(|((dir, _), _)| *dir == self.dir);
                let (synced, pending) = std::mem::take(&mut disk.pending_names).into_iter().partition(is_in);
                disk.pending_names = pending;
                let synced: Vec<Renaming> = synced;
                synced.iter().for_each(|renaming| apply(&mut disk.durable_names, renaming));
            }
            Ok(())
        })
    }

    fn free_space(&self) -> io::Result<u64> {
        self.step("free space", |_| Ok(u64::MAX))
    }

    fn obstacle(&self, _: &str) -> io::Result<Option<Obstacle>> {
        self.step("obstacle", |_| Ok(None))
    }

    fn handle(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

pub struct ModelFile {
    pub(super) model: Model,
    pub(super) inode: usize,
    pub(super) handle: u64,
    pub(super) journal: bool,
    pub(super) past_cache: bool,
}

impl ModelFile {
    fn kind(&self, part: &'static str, journal: &'static str) -> &'static str {
        if self.journal { journal } else { part }
    }
}

impl FolderFile for ModelFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.model.step(self.kind("read", "read journal"), |disk| {
            let inode = &disk.inodes[self.inode];
            let content = if self.past_cache { &inode.durable } else { &inode.now };
            let content = content.bytes.get(offset as usize..).unwrap_or_default();
            let n = content.len().min(bytes.len());
            bytes[..n].copy_from_slice(&content[..n]);
            Ok(n)
        })
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.model.operate(self.kind("write", "write journal"), |disk| {
            disk.change(self.inode, Change::Write(offset, bytes.to_vec()));
            Ok(())
        })
    }

    fn zero(&self, bytes: Range<u64>) -> io::Result<()> {
        self.model.operate("zero", |disk| {
            disk.change(self.inode, Change::Zero(bytes));
            Ok(())
        })
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.model.step(self.kind("seek", "seek journal"), |disk| {
            let now = &disk.inodes[self.inode].now;
            let len = now.bytes.len() as u64;
            let Some(&first) = now.pages.range(offset / PAGE..).next() else { return Ok(None) };
            let end = (first..).find(|page| !now.pages.contains(page)).unwrap_or(first) * PAGE;
            let data = offset.max(first * PAGE)..end.min(len);
            Ok((offset < len).then_some(data))
        })
    }

    fn info(&self) -> io::Result<FileInfo> {
        self.model.step("stat", |disk| Ok(disk.info(self.inode)))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.model.operate(self.kind("set length", "set length of journal"), |disk| {
            disk.change(self.inode, Change::Len(len));
            Ok(())
        })
    }

    fn reserve(&self, _: Range<u64>) -> io::Result<()> {
        self.model.step("reserve", |_| Ok(()))
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.model.operate("set mode", |disk| {
            disk.touch(self.inode);
            disk.inodes[self.inode].read_only = mode & 0o200 == 0;
            Ok(())
        })
    }

    fn restrict_mode(&self, mode: u32) -> io::Result<()> {
        self.model.operate("set mode", |disk| {
            disk.touch(self.inode);
            disk.inodes[self.inode].read_only |= mode & 0o200 == 0;
            Ok(())
        })
    }

    fn set_mtime(&self, seconds: i64, nanoseconds: u32) -> io::Result<()> {
        self.model.operate("set time", |disk| {
            disk.touch(self.inode);
            disk.inodes[self.inode].mtime = (seconds, nanoseconds);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.model.operate(self.kind("sync", "sync journal"), |disk| {
            let fails = disk.fails_at == Some(disk.syncs) || disk.lost_at_sync;
            disk.syncs += 1;
            if disk.lie != Lie::DataSync || self.journal {
                let inode = &mut disk.inodes[self.inode];
                let written = std::mem::take(&mut inode.pending);
                if fails {
                    return Err(io::Error::other("input/output error"));
                }
                written.iter().for_each(|change| inode.durable.apply(change));
            }
            Ok(())
        })
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.model.step("lock", |disk| {
            let locked = &mut disk.inodes[self.inode].locked;
            Ok(*locked.get_or_insert(self.handle) == self.handle)
        })
    }

    fn handle(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl Drop for ModelFile {
    fn drop(&mut self) {
        let mut disk = self.model.disk();
        let locked = &mut disk.inodes[self.inode].locked;
        *locked = locked.filter(|&handle| handle != self.handle);
    }
}
