//! A folder in memory that knows what was synced: what is left of it after a loss of power can be asked for.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use fastrand::Rng;
use wsferry::storage::{FileInfo, Folder, FolderFile};

/// How the machine stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing that was not synced is left.
    All,
    /// Of what was not synced, this seed's choice of writes and names is left.
    Some(u64),
}

/// What is wrong with the machine, to see whether the tests notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    No,
    /// Syncing the partial file does nothing: the journal is durable before its data.
    DataSync,
    /// Syncing a directory does nothing.
    DirSync,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    now: Vec<u8>,
    /// Writes since the last sync.
    pending: Vec<(u64, Vec<u8>)>,
    mtime: (i64, u32),
    links: u64,
    /// No permission to write: durable at once, the worst that can happen to a file that is still to be written.
    read_only: bool,
}

/// A change of names that no directory sync has made durable: each name with its new file, or none.
type Renaming = Vec<(String, Option<usize>)>;

/// Instead of a file's number: the name is a directory's.
const DIRECTORY: usize = usize::MAX;

#[derive(Debug)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<Renaming>,
    /// Operations that change something, so far; and the one at which the power goes.
    operations: u64,
    dies_at: Option<u64>,
    /// Syncs of files, so far; and the one that fails.
    syncs: u64,
    fails_at: Option<u64>,
    lie: Lie,
}

#[derive(Clone)]
pub struct Model(Arc<Mutex<Disk>>);

impl Model {
    pub fn new(lie: Lie) -> Self {
        Self(Arc::new(Mutex::new(Disk {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            operations: 0,
            dies_at: None,
            syncs: 0,
            fails_at: None,
            lie,
        })))
    }

    pub fn operations(&self) -> u64 {
        self.0.lock().unwrap().operations
    }

    pub fn die_at(&self, operation: Option<u64>) {
        self.0.lock().unwrap().dies_at = operation;
    }

    /// How many times a file was synced.
    pub fn syncs(&self) -> u64 {
        self.0.lock().unwrap().syncs
    }

    /// Has one sync fail as Linux does it: what was written is lost and still reads well, and the next sync says
    /// that all is well.
    pub fn fail_sync_at(&self, sync: u64) {
        self.0.lock().unwrap().fails_at = Some(sync);
    }

    /// A file that some other program wrote and did not sync.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let file = self.open(name, Some(0o644)).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        self.sync_dir("").unwrap();
    }

    /// What is left when the machine starts again.
    pub fn restart(&self, loss: Loss) -> Model {
        let disk = self.0.lock().unwrap();
        let mut rng = Rng::with_seed(if let Loss::Some(seed) = loss { seed } else { 0 });
        let mut keep = || loss != Loss::All && rng.bool();
        let mut names = disk.durable_names.clone();
        for renaming in &disk.pending_names {
            // Directories are written in order, so what is lost is a tail.
            if !keep() {
                break;
            }
            apply(&mut names, renaming);
        }
        let there = names.clone();
        names.retain(|name, _| parent(name).is_empty() || there.contains_key(parent(name)));
        let mut inodes = disk.inodes.clone();
        for inode in &mut inodes {
            inode.now = inode.durable.clone();
            for (offset, bytes) in std::mem::take(&mut inode.pending) {
                if keep() {
                    // Torn: a write is kept to any of its bytes.
                    let kept = if keep() { bytes.len() } else { bytes.len() / 3 };
                    put(&mut inode.now, offset, &bytes[..kept]);
                }
            }
            inode.durable = inode.now.clone();
        }
        Model(Arc::new(Mutex::new(Disk {
            inodes,
            durable_names: names.clone(),
            names,
            pending_names: Vec::new(),
            operations: 0,
            dies_at: None,
            syncs: 0,
            fails_at: None,
            lie: disk.lie,
        })))
    }

    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.0.lock().unwrap();
        disk.names.get(name).map(|&inode| disk.inodes[inode].now.clone())
    }

    pub fn names(&self) -> Vec<String> {
        let disk = self.0.lock().unwrap();
        disk.names.iter().filter(|&(_, &inode)| inode != DIRECTORY).map(|(name, _)| name.clone()).collect()
    }

    /// Counts an operation that changes something; an error once the power is gone.
    fn operate<T>(&self, operation: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        let mut disk = self.0.lock().unwrap();
        if disk.dies_at.is_some_and(|at| disk.operations >= at) {
            return Err(io::Error::other("no power"));
        }
        disk.operations += 1;
        operation(&mut disk)
    }
}

fn apply(names: &mut BTreeMap<String, usize>, renaming: &Renaming) {
    for (name, inode) in renaming {
        match inode {
            Some(inode) => names.insert(name.clone(), *inode),
            None => names.remove(name),
        };
    }
}

/// The directory that a name is in; the folder itself is the empty one.
fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(directory, _)| directory)
}

fn put(bytes: &mut Vec<u8>, offset: u64, new: &[u8]) {
    let end = offset as usize + new.len();
    bytes.resize(bytes.len().max(end), 0);
    bytes[offset as usize..end].copy_from_slice(new);
}

impl Disk {
    fn rename(&mut self, renaming: Renaming) {
        apply(&mut self.names, &renaming);
        self.pending_names.push(renaming);
    }
}

impl Folder for Model {
    fn open(&self, path: &str, create: Option<u32>) -> io::Result<Box<dyn FolderFile>> {
        let there = self.0.lock().unwrap().names.get(path).copied();
        let inode = match (there, create) {
            (Some(inode), create) => {
                if create.is_some() && self.0.lock().unwrap().inodes[inode].read_only {
                    return Err(io::ErrorKind::PermissionDenied.into());
                }
                inode
            }
            (None, None) => return Err(io::ErrorKind::NotFound.into()),
            (None, Some(_)) => self.operate(|disk| {
                disk.inodes.push(Inode { links: 1, ..Inode::default() });
                let inode = disk.inodes.len() - 1;
                disk.rename(vec![(path.to_owned(), Some(inode))]);
                Ok(inode)
            })?,
        };
        let journal = path.ends_with(".journal");
        Ok(Box::new(ModelFile { model: self.clone(), inode, journal }))
    }

    fn info(&self, path: &str) -> io::Result<Option<FileInfo>> {
        let disk = self.0.lock().unwrap();
        Ok(disk.names.get(path).map(|&inode| info(&disk.inodes[inode])))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let prefix = format!("{path}/");
        Ok(self.names().iter().filter_map(|name| name.strip_prefix(&prefix).map(str::to_owned)).collect())
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        if self.0.lock().unwrap().names.contains_key(path) {
            return Ok(());
        }
        self.operate(|disk| {
            disk.rename(vec![(path.to_owned(), Some(DIRECTORY))]);
            Ok(())
        })
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        if !self.list(path)?.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.operate(|disk| {
            disk.rename(vec![(path.to_owned(), None)]);
            Ok(())
        })
    }

    fn remove_file(&self, path: &str) -> io::Result<()> {
        self.operate(|disk| {
            let inode = *disk.names.get(path).ok_or(io::ErrorKind::NotFound)?;
            disk.inodes[inode].links = 0;
            disk.rename(vec![(path.to_owned(), None)]);
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str, replace: bool) -> io::Result<()> {
        self.operate(|disk| {
            if !replace && disk.names.contains_key(to) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let inode = *disk.names.get(from).ok_or(io::ErrorKind::NotFound)?;
            disk.rename(vec![(from.to_owned(), None), (to.to_owned(), Some(inode))]);
            Ok(())
        })
    }

    fn copy(&self, _: &str, _: &str, _: u32) -> io::Result<()> {
        unimplemented!("no test here repairs")
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.operate(|disk| {
            if disk.lie != Lie::DirSync {
                let is_in = |renaming: &Renaming| renaming.iter().any(|(name, _)| parent(name) == path);
                let (synced, pending) = std::mem::take(&mut disk.pending_names).into_iter().partition(is_in);
                disk.pending_names = pending;
                let synced: Vec<Renaming> = synced;
                synced.iter().for_each(|renaming| apply(&mut disk.durable_names, renaming));
            }
            Ok(())
        })
    }

    fn free_space(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

fn info(inode: &Inode) -> FileInfo {
    FileInfo {
        is_file: true,
        links: inode.links,
        len: inode.now.len() as u64,
        mtime: inode.mtime.0,
        mtime_ns: inode.mtime.1,
    }
}

pub struct ModelFile {
    model: Model,
    inode: usize,
    journal: bool,
}

impl FolderFile for ModelFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = self.model.0.lock().unwrap();
        let now = disk.inodes[self.inode].now.get(offset as usize..).unwrap_or_default();
        let n = now.len().min(bytes.len());
        bytes[..n].copy_from_slice(&now[..n]);
        Ok(n)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.model.operate(|disk| {
            let inode = &mut disk.inodes[self.inode];
            put(&mut inode.now, offset, bytes);
            inode.pending.push((offset, bytes.to_vec()));
            Ok(())
        })
    }

    fn info(&self) -> io::Result<FileInfo> {
        Ok(info(&self.model.0.lock().unwrap().inodes[self.inode]))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.model.operate(|disk| {
            let inode = &mut disk.inodes[self.inode];
            inode.now.resize(len as usize, 0);
            for (offset, bytes) in &mut inode.pending {
                bytes.truncate(len.saturating_sub(*offset) as usize);
            }
            Ok(())
        })
    }

    fn reserve(&self, _: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    fn restrict_mode(&self, mode: u32) -> io::Result<()> {
        self.model.operate(|disk| {
            disk.inodes[self.inode].read_only |= mode & 0o200 == 0;
            Ok(())
        })
    }

    fn set_mtime(&self, seconds: i64, nanoseconds: u32) -> io::Result<()> {
        self.model.operate(|disk| {
            disk.inodes[self.inode].mtime = (seconds, nanoseconds);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.model.operate(|disk| {
            let fails = disk.fails_at == Some(disk.syncs);
            disk.syncs += 1;
            if disk.lie != Lie::DataSync || self.journal {
                let inode = &mut disk.inodes[self.inode];
                let written = std::mem::take(&mut inode.pending);
                if fails {
                    return Err(io::Error::other("input/output error"));
                }
                for (offset, bytes) in written {
                    put(&mut inode.durable, offset, &bytes);
                }
                inode.durable.resize(inode.now.len(), 0);
            }
            Ok(())
        })
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }
}
