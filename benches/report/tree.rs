//! Directories of small files, made and compared.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Makes so many files of random bytes, so many in a directory.
pub fn make(root: &Path, files: usize, in_each: usize, len: impl Fn(&mut fastrand::Rng) -> usize) -> PathBuf {
    let mut rng = fastrand::Rng::with_seed(files as u64);
    // Long ago: rsync takes two times of one second for the same, and what just came has the present one.
    let set_time = |path: &Path, rng: &mut fastrand::Rng| {
        let time = Duration::new(rng.u64(1_500_000_000..1_600_000_000), rng.u32(0..1_000_000_000));
        let file = fs::File::open(path).expect("it is there");
        file.set_modified(SystemTime::UNIX_EPOCH + time).expect("it is ours");
    };
    for number in 0..files {
        let directory = root.join(format!("directory {:03}", number / in_each));
        if number % in_each == 0 {
            fs::create_dir_all(&directory).expect("it can be made");
        }
        let mut bytes = vec![0; len(&mut rng)];
        rng.fill(&mut bytes);
        let file = directory.join(format!("file {number:06}.bin"));
        fs::write(&file, bytes).expect("there is room for the file");
        set_time(&file, &mut rng);
        if (number + 1) % in_each == 0 {
            set_time(&directory, &mut rng);
        }
    }
    root.to_owned()
}

/// Bytes of all files.
pub fn size(root: &Path) -> u64 {
    listing(root).values().filter(|metadata| metadata.is_file()).map(fs::Metadata::len).sum()
}

/// Both have the same directories and files, with the same bytes, times and permissions, and nothing else.
pub fn assert_same(sent: &Path, arrived: &Path) {
    let (before, after) = (listing(sent), listing(arrived));
    assert!(before.keys().eq(after.keys()), "other names arrived in {}", arrived.display());
    for ((name, before), after) in before.iter().zip(after.values()) {
        let look = |metadata: &fs::Metadata| (metadata.mode(), metadata.mtime(), metadata.mtime_nsec());
        // What is in a directory is sent, and not the directory: the root has a time of its own.
        let is_root = name.as_os_str().is_empty();
        let (sent_as, arrived_as) = (look(before), look(after));
        assert!(is_root || sent_as == arrived_as, "{} became {arrived_as:?}: {sent_as:?}", name.display());
        let read = |root: &Path| fs::read(root.join(name)).expect("it reads");
        assert!(!before.is_file() || read(sent) == read(arrived), "{} has other bytes", name.display());
    }
}

/// What is in a directory, and it itself under an empty name.
fn listing(root: &Path) -> BTreeMap<PathBuf, fs::Metadata> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(name) = waiting.pop() {
        let path = root.join(&name);
        let metadata = fs::symlink_metadata(&path).expect("it is there");
        if metadata.is_dir() {
            let entries = fs::read_dir(&path).expect("it can be listed");
            waiting.extend(entries.map(|entry| name.join(entry.expect("it can be listed").file_name())));
        }
        found.insert(name, metadata);
    }
    found
}
