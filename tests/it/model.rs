//! A folder in memory that knows what was synced, whose operations fail on demand, and whose names others play with.

mod handles;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use fastrand::Rng;
use rustix::io::Errno;
use wsferry::storage::{FileId, FileInfo, Folder, FolderFile, Time};

use handles::ModelFile;

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

/// An operation that fails.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Which, counted from 0.
    pub at: u64,
    pub errno: Errno,
    /// It, and all like it from then on.
    pub forever: bool,
}

/// What another program does just before an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Act {
    pub at: u64,
    pub deed: Deed,
    /// To which of the names that are there.
    pub which: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Remove,
    /// Another file is renamed over it.
    Replace,
    /// It gets another name.
    Rename,
    Append,
    Truncate,
    /// It gets one more name.
    Link,
    /// The directory of partial files goes with all that is in it.
    Clean,
    /// Another directory gets another name.
    MoveDir,
}

pub const DEEDS: [Deed; 7] =
    [Deed::Remove, Deed::Replace, Deed::Rename, Deed::Append, Deed::Truncate, Deed::Link, Deed::Clean];

/// Holes are whole pages that were never written.
const PAGE: u64 = 4096;

#[derive(Debug, Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    pages: BTreeSet<u64>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Zero(Range<u64>),
    Len(u64),
}

impl Content {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write(offset, bytes) => {
                let end = *offset as usize + bytes.len();
                self.bytes.resize(self.bytes.len().max(end), 0);
                self.bytes[*offset as usize..end].copy_from_slice(bytes);
                self.pages.extend(offset / PAGE..(end as u64).div_ceil(PAGE));
            }
            Change::Zero(range) => {
                let end = range.end as usize;
                self.bytes.resize(self.bytes.len().max(end), 0);
                self.bytes[range.start as usize..end].fill(0);
                for page in range.start.div_ceil(PAGE)..range.end / PAGE {
                    self.pages.remove(&page);
                }
            }
            Change::Len(len) => {
                self.bytes.resize(*len as usize, 0);
                self.pages.split_off(&len.div_ceil(PAGE));
            }
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Inode {
    is_dir: bool,
    /// What a symbolic link says.
    link: Option<String>,
    /// It never had a name, and may still be given one.
    unnamed: bool,
    durable: Content,
    now: Content,
    /// Changes since the last sync.
    pending: Vec<Change>,
    mtime: Time,
    ctime: Time,
    /// No permission to write: durable at once, the worst that can happen to a file that is still to be written.
    read_only: bool,
    /// The handle that holds the lock.
    locked: Option<u64>,
}

/// A directory's number and a name in it.
type Name = (usize, String);

/// A change of names that no directory sync has made durable: each name with its new file, or none.
type Renaming = Vec<(Name, Option<usize>)>;

const ROOT: usize = 0;

#[derive(Debug)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<Name, usize>,
    durable_names: BTreeMap<Name, usize>,
    pending_names: Vec<Renaming>,
    /// Moves with every change, in nanoseconds.
    clock: u32,
    /// When it began: a minute ago.
    began: i64,
    handles: u64,
    /// Operations of all kinds so far, with what each was.
    steps: u64,
    log: Vec<&'static str>,
    faults: Vec<Fault>,
    /// What fails from now on.
    failing: Vec<(&'static str, Errno)>,
    acts: Vec<Act>,
    /// What was done by others, for people.
    done: Vec<String>,
    /// Operations that change something, so far; and the one at which the power goes.
    operations: u64,
    dies_at: Option<u64>,
    /// Syncs of files, so far; and the one that fails.
    syncs: u64,
    fails_at: Option<u64>,
    /// The sync that is under way fails.
    lost_at_sync: bool,
    lie: Lie,
}

#[derive(Clone)]
pub struct Model {
    disk: Arc<Mutex<Disk>>,
    dir: usize,
}

impl Model {
    pub fn new(lie: Lie) -> Self {
        let root = Inode { is_dir: true, ..Inode::default() };
        Self::of(vec![root], BTreeMap::new(), lie)
    }

    fn of(inodes: Vec<Inode>, names: BTreeMap<Name, usize>, lie: Lie) -> Self {
        let disk = Disk {
            inodes,
            durable_names: names.clone(),
            names,
            pending_names: Vec::new(),
            clock: 0,
            began: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64 - 60,
            handles: 0,
            steps: 0,
            log: Vec::new(),
            faults: Vec::new(),
            failing: Vec::new(),
            acts: Vec::new(),
            done: Vec::new(),
            operations: 0,
            dies_at: None,
            syncs: 0,
            fails_at: None,
            lost_at_sync: false,
            lie,
        };
        Self { disk: Arc::new(Mutex::new(disk)), dir: ROOT }
    }

    fn disk(&self) -> std::sync::MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }

    pub fn operations(&self) -> u64 {
        self.disk().operations
    }

    pub fn die_at(&self, operation: Option<u64>) {
        self.disk().dies_at = operation;
    }

    /// How many times a file was synced.
    pub fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    /// Has one sync fail as Linux does it: what was written is lost and still reads well, and the next sync says
    /// that all is well.
    pub fn fail_sync_at(&self, sync: u64) {
        self.disk().fails_at = Some(sync);
    }

    /// Operations of all kinds, by what they are.
    pub fn log(&self) -> Vec<&'static str> {
        self.disk().log.clone()
    }

    /// Has operations fail, and others act, counted from now.
    pub fn disturb(&self, faults: &[Fault], acts: &[Act]) {
        let mut disk = self.disk();
        (disk.faults, disk.acts, disk.steps) = (faults.to_vec(), acts.to_vec(), 0);
        disk.failing.clear();
        disk.log.clear();
    }

    /// What others did.
    pub fn done(&self) -> Vec<String> {
        self.disk().done.clone()
    }

    /// A file that some other program wrote and did not sync.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let file = self.create(name, 0o644).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        self.sync().unwrap();
    }

    /// What is left when the machine starts again.
    pub fn restart(&self, loss: Loss) -> Model {
        let disk = self.disk();
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
        // What lies in a directory that is gone is gone, and what lies in that.
        loop {
            let dirs: BTreeSet<usize> = names.values().copied().chain([ROOT]).collect();
            let before = names.len();
            names.retain(|(dir, _), _| dirs.contains(dir));
            if names.len() == before {
                break;
            }
        }
        let mut inodes = disk.inodes.clone();
        for inode in &mut inodes {
            inode.now = inode.durable.clone();
            for change in std::mem::take(&mut inode.pending) {
                if keep() {
                    // Torn: a write is kept to any of its bytes.
                    match change {
                        Change::Write(offset, bytes) if !keep() => {
                            inode.now.apply(&Change::Write(offset, bytes[..bytes.len() / 3].to_vec()));
                        }
                        change => inode.now.apply(&change),
                    }
                }
            }
            inode.durable = inode.now.clone();
            inode.locked = None;
        }
        Model::of(inodes, names, disk.lie)
    }

    /// What a path in the folder, or in a directory of it, stands for.
    pub fn content(&self, path: &str) -> Option<Vec<u8>> {
        let disk = self.disk();
        let inode = disk.find(path)?;
        Some(disk.inodes[inode].now.bytes.clone())
    }

    /// Whether nobody has permission to write to the file at a path.
    pub fn is_read_only(&self, path: &str) -> bool {
        let disk = self.disk();
        disk.find(path).is_some_and(|inode| disk.inodes[inode].read_only)
    }

    /// What the symbolic link at a path says.
    pub fn link_at(&self, path: &str) -> Option<String> {
        let disk = self.disk();
        disk.inodes[disk.find(path)?].link.clone()
    }

    /// Whether a path stands for a directory.
    pub fn is_dir(&self, path: &str) -> bool {
        let disk = self.disk();
        disk.find(path).is_some_and(|inode| disk.inodes[inode].is_dir)
    }

    /// The paths of all files.
    pub fn names(&self) -> Vec<String> {
        let disk = self.disk();
        let files = disk.names.iter().filter(|&(_, &inode)| !disk.inodes[inode].is_dir);
        files.map(|(name, _)| disk.path(name)).collect()
    }

    /// One operation of any kind: others act before it, and it may fail.
    fn step<T>(
        &self,
        kind: &'static str,
        operation: impl FnOnce(&mut Disk) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut disk = self.disk();
        let step = disk.steps;
        disk.steps += 1;
        disk.log.push(kind);
        let acts: Vec<Act> = disk.acts.iter().copied().filter(|act| act.at == step).collect();
        acts.into_iter().for_each(|act| disk.act(act));
        let fault = disk.faults.iter().copied().find(|fault| fault.at == step);
        if let Some(fault) = fault.filter(|fault| fault.forever) {
            disk.failing.push((kind, fault.errno));
        }
        let failing = disk.failing.iter().find(|(failing, _)| *failing == kind).map(|&(_, errno)| errno);
        if let Some(errno) = fault.map(|fault| fault.errno).or(failing) {
            if kind == "sync" || kind == "sync journal" {
                // What a failed sync did not write is lost, and reads well.
                disk.lost_at_sync = true;
                let _ = operation(&mut disk);
                disk.lost_at_sync = false;
            }
            return Err(errno.into());
        }
        operation(&mut disk)
    }

    /// An operation that changes something; an error once the power is gone.
    fn operate<T>(
        &self,
        kind: &'static str,
        operation: impl FnOnce(&mut Disk) -> io::Result<T>,
    ) -> io::Result<T> {
        self.step(kind, |disk| {
            if disk.dies_at.is_some_and(|at| disk.operations >= at) {
                return Err(io::Error::other("no power"));
            }
            disk.operations += 1;
            operation(disk)
        })
    }

    fn file(&self, inode: usize, name: &str) -> Box<dyn FolderFile> {
        let mut disk = self.disk();
        disk.handles += 1;
        let (handle, journal) = (disk.handles, name.contains("journal"));
        Box::new(ModelFile { model: self.clone(), inode, handle, journal, past_cache: false })
    }
}

fn apply(names: &mut BTreeMap<Name, usize>, renaming: &Renaming) {
    for (name, inode) in renaming {
        match inode {
            Some(inode) => names.insert(name.clone(), *inode),
            None => names.remove(name),
        };
    }
}

impl Disk {
    fn rename(&mut self, renaming: Renaming) {
        for inode in renaming.iter().filter_map(|(_, inode)| *inode) {
            self.touch(inode);
        }
        apply(&mut self.names, &renaming);
        self.pending_names.push(renaming);
    }

    /// Its change time moves.
    fn touch(&mut self, inode: usize) {
        self.clock += 1;
        self.inodes[inode].ctime = (self.began, self.clock);
    }

    fn change(&mut self, inode: usize, change: Change) {
        self.touch(inode);
        let mtime = (self.began, self.clock);
        let inode = &mut self.inodes[inode];
        inode.mtime = mtime;
        inode.now.apply(&change);
        inode.pending.push(change);
    }

    fn find(&self, path: &str) -> Option<usize> {
        path.split('/').try_fold(ROOT, |dir, name| self.names.get(&(dir, name.to_owned())).copied())
    }

    fn path(&self, (dir, name): &Name) -> String {
        match self.names.iter().find(|&(_, inode)| inode == dir) {
            Some((parent, _)) => format!("{}/{name}", self.path(parent)),
            None => name.clone(),
        }
    }

    fn exists(&self, dir: usize) -> io::Result<()> {
        let there = dir == ROOT || self.names.values().any(|&inode| inode == dir);
        if there { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn make(&mut self, name: Name, inode: Inode) -> io::Result<usize> {
        self.exists(name.0)?;
        if self.names.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.inodes.push(inode);
        let inode = self.inodes.len() - 1;
        self.rename(vec![(name, Some(inode))]);
        self.inodes[inode].mtime = (self.began, self.clock);
        Ok(inode)
    }

    fn info(&self, inode: usize) -> FileInfo {
        let this = &self.inodes[inode];
        FileInfo {
            id: FileId { device: 1, inode: inode as u64 },
            is_file: !this.is_dir && this.link.is_none(),
            is_dir: this.is_dir,
            is_link: this.link.is_some(),
            owner: std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()),
            mode: if this.is_dir { 0o700 } else { 0o600 },
            len: this.now.bytes.len() as u64,
            allocated: this.now.pages.len() as u64 * PAGE,
            mtime: this.mtime,
            ctime: this.ctime,
        }
    }

    fn act(&mut self, act: Act) {
        let names: Vec<(Name, usize)> = self
            .names
            .iter()
            .filter(|&(_, &inode)| !self.inodes[inode].is_dir)
            .map(|(name, &inode)| (name.clone(), inode))
            .collect();
        if act.deed == Deed::Clean {
            let shelf = self.names.iter().find(|&(name, _)| *name == (ROOT, ".wsferry".to_owned()));
            let Some((shelf, inode)) = shelf.map(|(name, &inode)| (name.clone(), inode)) else { return };
            let inside = names.iter().filter(|((dir, _), _)| *dir == inode);
            let mut gone: Renaming = inside.map(|(name, _)| (name.clone(), None)).collect();
            gone.push((shelf, None));
            self.done.push("Clean".to_owned());
            return self.rename(gone);
        }
        if act.deed == Deed::MoveDir {
            let is_theirs = |name: &Name, inode: usize| self.inodes[inode].is_dir && name.1 != ".wsferry";
            let dirs: Vec<_> = self.names.iter().filter(|&(name, &inode)| is_theirs(name, inode)).collect();
            if dirs.is_empty() {
                return;
            }
            let (name, inode) = (dirs[act.which % dirs.len()].0.clone(), *dirs[act.which % dirs.len()].1);
            self.done.push(format!("{:?} {}", act.deed, self.path(&name)));
            let beside = (name.0, format!("{}.theirs", name.1));
            return self.rename(vec![(name, None), (beside, Some(inode))]);
        }
        if names.is_empty() {
            return;
        }
        let (name, inode) = names[act.which % names.len()].clone();
        self.done.push(format!("{:?} {}", act.deed, self.path(&name)));
        let beside = (name.0, format!("{}.theirs", name.1));
        match act.deed {
            Deed::Remove => self.rename(vec![(name, None)]),
            Deed::Rename => self.rename(vec![(name, None), (beside, Some(inode))]),
            Deed::Link => self.rename(vec![(beside, Some(inode))]),
            Deed::Append => {
                let len = self.inodes[inode].now.bytes.len() as u64;
                self.change(inode, Change::Write(len, b"theirs".to_vec()));
            }
            Deed::Truncate => {
                let len = self.inodes[inode].now.bytes.len() as u64;
                self.change(inode, Change::Len(len / 2));
            }
            Deed::Replace => {
                // As long as what was there, so that only the content tells.
                let bytes = vec![b'x'; self.inodes[inode].now.bytes.len()];
                self.inodes.push(Inode { mtime: self.inodes[inode].mtime, ..Inode::default() });
                let new = self.inodes.len() - 1;
                self.inodes[new].now.apply(&Change::Write(0, bytes));
                self.inodes[new].durable = self.inodes[new].now.clone();
                self.rename(vec![(name, Some(new))]);
            }
            Deed::Clean | Deed::MoveDir => unreachable!("done above"),
        }
    }
}
