//! Seeded trees of files with odd names, and all that there is to say of a tree, so that two of them can be compared.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use fastrand::Rng;
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT, futimens, mknodat};

use crate::support::{Place, random};
use crate::trees::umask;

/// Names that are odd and harmless.
const ODD: [&str; 30] = [
    " ",
    "trailing ",
    " leading",
    "a  b",
    "it's",
    "say \"hi\"",
    "$(true)`true`",
    "-rf",
    "--",
    "...",
    "*?[x]",
    "{a,b}",
    "~",
    "#",
    "%2F..%2F",
    ".hidden",
    "..hidden",
    "con",
    "aux.txt",
    "name.",
    "a:b",
    "<|>&;!",
    "é",
    "e\u{301}",
    "🦀 👩‍🚀",
    "日本語",
    "Twin",
    "twin",
    "\u{feff}bom",
    "\u{a0}",
];
/// Names that no destination takes.
const REFUSED: [&[u8]; 9] = [
    b"new\nline",
    b"tab\t",
    b"back\\slash",
    b"caf\xe9",
    b"\x1b[31m",
    b"del\x7f",
    "\u{85}next".as_bytes(),
    "\u{202e}right to left".as_bytes(),
    "\u{2028}line".as_bytes(),
];
/// A path that is longer is another matter: system calls take no more than 4,095 bytes.
const LONGEST: usize = 2000;

/// What grows where.
#[derive(Debug, Clone, Copy)]
pub struct Forest {
    pub seed: u64,
    pub directories: usize,
    pub files: usize,
    /// The most bytes of a file.
    pub largest: usize,
}

/// What of a tree is not sent.
#[derive(Debug, Default)]
pub struct Weeds {
    /// What has a name that no destination takes.
    pub refused: Vec<PathBuf>,
    /// What was not asked for, and is no failure.
    pub left_out: Vec<PathBuf>,
}

impl Forest {
    /// Makes the tree.
    pub fn plant(self, root: &Path) {
        self.grow(root, false);
    }

    /// Makes the tree, and in it what is not sent.
    pub fn plant_with_weeds(self, root: &Path) -> Weeds {
        self.grow(root, true)
    }

    fn grow(self, root: &Path, weeds: bool) -> Weeds {
        let mut rng = Rng::with_seed(self.seed);
        std::fs::create_dir(root).unwrap();
        let mut directories = vec![root.to_owned()];
        while directories.len() < self.directories {
            let path = free(rng.choice(&directories).unwrap(), &mut rng);
            std::fs::create_dir(&path).unwrap();
            if path.as_os_str().len() < LONGEST {
                directories.push(path);
            }
        }
        for _ in 0..self.files {
            let path = free(rng.choice(&directories).unwrap(), &mut rng);
            let len = if rng.u8(..16) == 0 { 0 } else { rng.usize(..=self.largest) };
            std::fs::write(&path, random(len, rng.u64(..))).unwrap();
        }
        let weeds = if weeds { sow(&directories, &mut rng) } else { Weeds::default() };
        // Times last: what is made in a directory changes its own.
        for path in look(root).into_keys().map(|path| root.join(path)).collect::<Vec<_>>().iter().rev() {
            age(path, &mut rng);
        }
        weeds
    }
}

/// A name that nothing has there.
fn free(directory: &Path, rng: &mut Rng) -> PathBuf {
    loop {
        let name = match rng.u8(..4) {
            0 => format!("{:x}", rng.u32(..)),
            1 if rng.u8(..8) == 0 => format!("{:n<255}", rng.u32(..)),
            1 => format!("{} {}", rng.choice(ODD).unwrap(), rng.u8(..)),
            _ => (*rng.choice(&ODD).unwrap()).to_owned(),
        };
        let path = directory.join(name);
        if std::fs::symlink_metadata(&path).is_err() {
            return path;
        }
    }
}

/// Puts what is not sent somewhere.
fn sow(directories: &[PathBuf], rng: &mut Rng) -> Weeds {
    let mut place = |name: &[u8]| rng.choice(directories).unwrap().join(OsStr::from_bytes(name));
    let mut weeds = Weeds::default();
    for name in REFUSED {
        weeds.refused.push(place(name));
        std::fs::write(weeds.refused.last().unwrap(), b"refused").unwrap();
    }
    // A directory is refused once, with all that is in it.
    weeds.refused.push(place(b"direc\rtory"));
    std::fs::create_dir(weeds.refused.last().unwrap()).unwrap();
    std::fs::write(weeds.refused.last().unwrap().join("f"), b"refused").unwrap();
    let [reserved, other_case, pipe, link] = [&b".wsferry"[..], b".WSFerry", b"a pipe", b"a link"].map(place);
    std::fs::create_dir(&reserved).unwrap();
    std::fs::write(reserved.join("f.part"), b"somebody's").unwrap();
    std::fs::write(&other_case, b"reserved as well").unwrap();
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
    symlink("nowhere", &link).unwrap();
    weeds.left_out.extend([reserved, other_case, pipe, link]);
    weeds
}

/// Gives something permission bits, and a time with nanoseconds, some before 1970.
fn age(path: &Path, rng: &mut Rng) {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    let modes = match () {
        () if metadata.is_dir() => [0o755, 0o700, 0o750, 0o555],
        () if metadata.is_file() => [0o644, 0o600, 0o755, 0o400],
        () => return,
    };
    let time =
        Timespec { tv_sec: rng.i64(-1_000_000_000..2_000_000_000), tv_nsec: rng.i64(0..1_000_000_000) };
    let kept = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let file = File::open(path).unwrap();
    futimens(&file, &Timestamps { last_access: kept, last_modification: time }).unwrap();
    // What the receiver's user would not give by itself does not arrive.
    let mode = rng.choice(modes).unwrap() & !umask();
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// All that there is to say of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub what: Kind,
    pub mode: u32,
    pub mtime: (i64, i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    File { len: u64, digest: String },
    Directory,
    Link(PathBuf),
    Other,
}

pub type Tree = BTreeMap<PathBuf, Node>;

/// Everything in a directory, and, under the empty path, itself.
pub fn look(root: &Path) -> Tree {
    let mut found = Tree::new();
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        let at = if path.as_os_str().is_empty() { root.to_owned() } else { root.join(&path) };
        let metadata = std::fs::symlink_metadata(&at).unwrap();
        let what = match metadata.file_type() {
            kind if kind.is_dir() => {
                open.extend(
                    std::fs::read_dir(&at).unwrap().map(|entry| path.join(entry.unwrap().file_name())),
                );
                Kind::Directory
            }
            kind if kind.is_file() => {
                let bytes = std::fs::read(&at).unwrap();
                Kind::File { len: bytes.len() as u64, digest: blake3::hash(&bytes).to_string() }
            }
            kind if kind.is_symlink() => Kind::Link(std::fs::read_link(&at).unwrap()),
            _ => Kind::Other,
        };
        let (mode, mtime) = (metadata.mode() & 0o7777, (metadata.mtime(), metadata.mtime_nsec()));
        found.insert(path, Node { what, mode, mtime });
    }
    found
}

/// How many bytes the files of a tree have.
pub fn bytes_of(tree: &Tree) -> u64 {
    let len = |node: &Node| if let Kind::File { len, .. } = node.what { len } else { 0 };
    tree.values().map(len).sum()
}

/// Asserts that two trees are the same in all that there is to say, and shows the first differences.
pub fn assert_same(expected: &Tree, found: &Tree) {
    let paths = expected.keys().chain(found.keys().filter(|path| !expected.contains_key(*path)));
    let differ = paths.filter(|path| expected.get(*path) != found.get(*path)).map(|path| {
        format!("{}: expected {:?}, found {:?}", path.display(), expected.get(path), found.get(path))
    });
    let differ: Vec<_> = differ.take(5).collect();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// A place whose directories can be removed at the end, whatever their permission bits are.
pub struct Grove(pub Place);

impl Grove {
    pub fn new() -> Self {
        Self(Place::new())
    }
}

impl std::ops::Deref for Grove {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.0
    }
}

impl Drop for Grove {
    fn drop(&mut self) {
        let mut open = vec![self.path("")];
        while let Some(path) = open.pop() {
            let _ = std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755));
            let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
            open.extend(entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
        }
    }
}

#[test]
fn two_trees_of_one_seed_are_the_same_until_anything_about_them_is_changed() {
    let grove = Grove::new();
    let forest = Forest { seed: 1, directories: 5, files: 20, largest: 100 };
    forest.plant(&grove.path("a"));
    forest.plant(&grove.path("b"));
    let (a, b) = (look(&grove.path("a")), look(&grove.path("b")));
    assert_same(&a, &b);
    let file = b.iter().find(|(_, node)| matches!(node.what, Kind::File { len: 1.., .. })).unwrap().0;
    let file = grove.path("b").join(file);
    let metadata = std::fs::metadata(&file).unwrap();
    let differs = |what: &str| assert!(look(&grove.path("b")) != a, "{what}");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o611)).unwrap();
    differs("mode");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    std::fs::set_permissions(&file, metadata.permissions()).unwrap();
    let modified = metadata.modified().unwrap();
    let set = |time| File::open(&file).unwrap().set_modified(time).unwrap();
    set(modified);
    differs("content");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[0] ^= 1;
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(&file, bytes).unwrap();
    std::fs::set_permissions(&file, metadata.permissions()).unwrap();
    set(modified + std::time::Duration::from_nanos(1));
    differs("a nanosecond");
    set(modified);
    assert_same(&a, &look(&grove.path("b")));
}
