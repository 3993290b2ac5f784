//! Loss of power, modelled: a folder that forgets what was not synced, at every operation of a small transfer.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use fastrand::Rng;
use wsferry::protocol::message::transfer_id;
use wsferry::protocol::{BlockHashes, CheckedOffer, Offer};
use wsferry::storage::{FileInfo, Folder, FolderFile, Inbox, InboxOptions, StorageError, Target};

use crate::link::File;
use crate::support::random;

/// How the machine stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// Nothing that was not synced is left.
    All,
    /// Of what was not synced, this seed's choice of writes and names is left.
    Some(u64),
}

/// What is wrong with the machine, to see whether the tests notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
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
}

/// A change of names that no directory sync has made durable: each name with its new file, or none.
type Renaming = Vec<(String, Option<usize>)>;

#[derive(Debug)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<Renaming>,
    /// Operations that change something, so far; and the one at which the power goes.
    operations: u64,
    dies_at: Option<u64>,
    lie: Lie,
}

#[derive(Clone)]
struct Model(Arc<Mutex<Disk>>);

impl Model {
    fn new(lie: Lie) -> Self {
        Self(Arc::new(Mutex::new(Disk {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            operations: 0,
            dies_at: None,
            lie,
        })))
    }

    fn operations(&self) -> u64 {
        self.0.lock().unwrap().operations
    }

    fn die_at(&self, operation: Option<u64>) {
        self.0.lock().unwrap().dies_at = operation;
    }

    /// What is left when the machine starts again.
    fn restart(&self, loss: Loss) -> Model {
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
            lie: disk.lie,
        })))
    }

    fn content(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.0.lock().unwrap();
        disk.names.get(name).map(|&inode| disk.inodes[inode].now.clone())
    }

    fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().names.keys().cloned().collect()
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
            (Some(inode), _) => inode,
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

    fn create_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        if self.list(path)?.is_empty() { Ok(()) } else { Err(io::ErrorKind::DirectoryNotEmpty.into()) }
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

    fn copy(&self, _: &str, _: &str) -> io::Result<()> {
        unimplemented!("no test here repairs")
    }

    fn sync_dir(&self, _: &str) -> io::Result<()> {
        self.operate(|disk| {
            if disk.lie != Lie::DirSync {
                disk.durable_names = disk.names.clone();
                disk.pending_names.clear();
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

struct ModelFile {
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
            disk.inodes[self.inode].now.resize(len as usize, 0);
            Ok(())
        })
    }

    fn restrict_mode(&self, _: u32) -> io::Result<()> {
        Ok(())
    }

    fn set_mtime(&self, seconds: i64, nanoseconds: u32) -> io::Result<()> {
        self.model.operate(|disk| {
            disk.inodes[self.inode].mtime = (seconds, nanoseconds);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.model.operate(|disk| {
            if disk.lie != Lie::DataSync || self.journal {
                let inode = &mut disk.inodes[self.inode];
                inode.durable = inode.now.clone();
                inode.pending.clear();
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

fn offer(file: &File) -> CheckedOffer {
    let size = file.bytes.len() as u64;
    let offer = Offer {
        id: transfer_id(&file.name, size, file.mtime, 5, file.mode),
        name: file.name.clone(),
        size,
        mtime: file.mtime,
        mtime_ns: 5,
        mode: file.mode,
        frame_limit: 32_768,
        window: 1000,
        repair: false,
    };
    offer.check().unwrap().unwrap()
}

/// What a receiver was promised by the storage before the power went.
#[derive(Debug, Default)]
struct Promises {
    durable: Vec<u64>,
    sealed: bool,
}

/// Receives `file` as far as the power lasts: whole blocks, a sync behind each second one. A held block that
/// differs is written again, as the check behind a transfer does.
fn receive(model: &Model, file: &File, promises: &mut Promises) -> Result<(), StorageError> {
    let inbox = Inbox::new(Arc::new(model.clone()), InboxOptions::default());
    let (target, opened) = inbox.begin(offer(file))?;
    let digest = blake3::hash(&file.bytes).into();
    if let Target::Partial(partial) = &target {
        let geometry = file.geometry();
        let mut unsynced: Vec<(u64, BlockHashes)> = Vec::new();
        for block in 0..geometry.blocks() {
            let hashes = file.hashes(block);
            if opened.held.contains(block)
                && partial.check_block(block)?
                && partial.hash_block(block)? == hashes
            {
                continue;
            }
            let (start, end) = (geometry.block_start(block), geometry.block_end(block));
            // Two writes, so that a block can be torn between them.
            let middle = start + (end - start) / 2;
            partial.write_at(&file.bytes[start as usize..middle as usize], start)?;
            partial.write_at(&file.bytes[middle as usize..end as usize], middle)?;
            unsynced.push((block, hashes));
            if unsynced.len() == 2 {
                partial.sync(&unsynced)?;
                promises.durable.extend(unsynced.drain(..).map(|(block, _)| block));
            }
        }
        partial.sync(&unsynced)?;
    }
    target.seal(digest)?;
    promises.sealed = true;
    Ok(())
}

/// Everything that has to hold after the machine started again.
fn check(model: &Model, file: &File, promises: &Promises) -> Result<(), String> {
    if let Some(content) = model.content(&file.name)
        && content != file.bytes
    {
        return Err("the final name stands for something else".to_owned());
    }
    if promises.sealed && model.content(&file.name).is_none() {
        return Err("a receipt was given and the file is not there".to_owned());
    }
    if model.content(&file.name).is_none() && !promises.durable.is_empty() {
        let inbox = Inbox::new(Arc::new(model.clone()), InboxOptions::default());
        let (target, opened) = inbox.begin(offer(file)).map_err(|error| error.to_string())?;
        let partial = target.partial().ok_or("there is no partial file")?;
        for &block in &promises.durable {
            if !opened.held.contains(block) {
                return Err(format!("block {block} was reported durable and is not held"));
            }
            if partial.hash_block(block).map_err(|error| error.to_string())? != file.hashes(block) {
                return Err(format!("block {block} was reported durable and is another"));
            }
        }
    }
    Ok(())
}

/// Loses power at every operation, in several ways; gives the first thing that was wrong afterwards.
fn lose_power_everywhere(lie: Lie) -> Result<u64, String> {
    let file = File::new(random(5 * (3 << 20) - 7, 1));
    let whole = Model::new(lie);
    receive(&whole, &file, &mut Promises::default()).unwrap();
    let operations = whole.operations();
    assert!(operations > 25, "{operations}");
    assert_eq!(whole.names(), [file.name.as_str()], "no litter");
    for at in 0..=operations {
        for loss in [Loss::All, Loss::Some(at), Loss::Some(at + 1000)] {
            let model = Model::new(lie);
            model.die_at(Some(at));
            let mut promises = Promises::default();
            let received = receive(&model, &file, &mut promises);
            assert_eq!(received.is_ok(), promises.sealed);
            let restarted = model.restart(loss);
            check(&restarted, &file, &promises)
                .map_err(|what| format!("operation {at}, {loss:?}: {what}"))?;
            // And the power goes once more, early in the second run.
            restarted.die_at(Some(at % 7));
            let _ = receive(&restarted, &file, &mut promises);
            let restarted = restarted.restart(loss);
            check(&restarted, &file, &promises)
                .map_err(|what| format!("operation {at}, twice, {loss:?}: {what}"))?;
            receive(&restarted, &file, &mut promises)
                .map_err(|error| format!("operation {at}, {loss:?}: {error}"))?;
            if restarted.content(&file.name).as_ref() != Some(&file.bytes) {
                return Err(format!("operation {at}, {loss:?}: the file is another"));
            }
        }
    }
    Ok(operations)
}

#[test]
fn power_lost_at_any_operation_leaves_the_exact_file_or_a_clean_restart() {
    let operations = lose_power_everywhere(Lie::No).unwrap();
    println!("power was lost at each of {operations} operations, in three ways, twice");
}

#[test]
fn the_model_catches_a_journal_that_is_durable_before_its_data_and_a_directory_that_is_not_synced() {
    let caught = lose_power_everywhere(Lie::DataSync).unwrap_err();
    assert!(caught.contains("was reported durable") || caught.contains("something else"), "{caught}");
    let caught = lose_power_everywhere(Lie::DirSync).unwrap_err();
    assert!(caught.contains("not held") || caught.contains("is not there"), "{caught}");
}
