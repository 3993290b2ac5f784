//! Trees below the destination, and many small files at once: nothing leads outside, nothing that is told is untrue.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use wsferry::protocol::{CheckedOffer, FileDigest, Kind};
use wsferry::storage::{Begun, Inbox, InboxOptions, Sealed, StorageError, Target, Warning};

use crate::link::File;
use crate::support::{Place, random};

/// An offer of a file below the destination.
pub fn offer(path: &str, bytes: &[u8]) -> CheckedOffer {
    let file = File::new(bytes.to_vec());
    let offer = file.offer().check().unwrap().unwrap();
    CheckedOffer { path: path.parse().unwrap(), ..offer }
}

/// An offer of something that is no file.
pub fn entry(path: &str, kind: Kind) -> CheckedOffer {
    CheckedOffer { kind, mode: Some(0o755), ..offer(path, b"") }
}

fn link(path: &str, target: &str) -> CheckedOffer {
    entry(path, Kind::Link(target.to_owned()))
}

fn digest(bytes: &[u8]) -> FileDigest {
    blake3::hash(bytes).into()
}

pub fn open(place: &Place) -> Inbox {
    Inbox::open(&place.inbox(), InboxOptions::default()).unwrap()
}

pub fn open_to_overwrite(place: &Place) -> Inbox {
    Inbox::open(&place.inbox(), InboxOptions { overwrite: true, ..InboxOptions::default() }).unwrap()
}

/// Takes an offer and writes all of the file.
pub fn written(inbox: &Inbox, path: &str, bytes: &[u8]) -> Result<(Arc<Target>, FileDigest), StorageError> {
    let (target, opened) = inbox.begin(offer(path, bytes))?;
    if !opened.complete && !bytes.is_empty() {
        target.write_at(bytes, 0)?;
    }
    Ok((Arc::new(target), digest(bytes)))
}

/// Receives one file.
fn receive(inbox: &Inbox, path: &str, bytes: &[u8]) -> Result<Sealed, StorageError> {
    let (target, digest) = written(inbox, path, bytes)?;
    target.seal(digest)
}

/// No warnings.
const NONE: [Warning; 0] = [];

fn stored() -> Sealed {
    Sealed::Stored(Vec::new())
}

pub fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap();
    u32::from_str_radix(line.trim(), 8).unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o7777
}

/// Everything that is below a directory.
fn tree(dir: &Path) -> Vec<String> {
    fn walk(dir: &Path, prefix: &str, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &format!("{path}/"), found);
            }
            found.push(path);
        }
    }
    let mut found = Vec::new();
    walk(dir, "", &mut found);
    found.sort();
    found
}

#[test]
fn files_below_directories_are_received_small_and_large_and_parents_are_made_with_the_umask() {
    let place = Place::new();
    let inbox = open(&place);
    for (path, len) in [("a/b/small", 5000), ("a/c/d/large", (3 << 20) + 7), ("a/empty", 0), ("top", 100)] {
        let bytes = random(len, len as u64);
        let (target, digest) = written(&inbox, path, &bytes).unwrap();
        assert!(!place.inbox().join("a/c").exists() || len < 3 << 20, "nothing is made before it is whole");
        if len > 3 << 20 {
            let file = File::new(bytes.clone());
            target.sync(&[(0, file.hashes(0)), (1, file.hashes(1))]).unwrap();
        }
        assert_eq!(target.seal(digest).unwrap(), stored(), "{path}");
        drop(target);
        assert!(place.received(path) == bytes, "{path}");
        assert_eq!(mode(&place.inbox().join(path)), 0o640 & !umask(), "{path}");
        assert_eq!(std::fs::metadata(place.inbox().join(path)).unwrap().mtime(), 1_700_000_000, "{path}");
    }
    assert_eq!(mode(&place.inbox().join("a/b")), 0o777 & !umask());
    let expected = ["a", "a/b", "a/b/small", "a/c", "a/c/d", "a/c/d/large", "a/empty", "top"];
    assert_eq!(tree(&place.inbox()), expected);
}

#[test]
fn an_offer_below_a_directory_that_is_not_there_changes_nothing() {
    let place = Place::new();
    let inbox = open_to_overwrite(&place);
    let offers =
        ["a/b/c", "a/d"].map(|path| CheckedOffer { digest: Some(digest(b"x")), ..offer(path, b"x") });
    let begun = inbox.begin_all(offers.to_vec());
    assert!(begun.iter().all(|begun| matches!(begun, Ok(Begun::Open(_, opened)) if !opened.complete)));
    // Not even a write does, of a file that is small.
    for begun in begun.into_iter().flatten() {
        if let Begun::Open(target, _) = begun {
            target.write_at(b"x", 0).unwrap();
        }
    }
    assert_eq!(tree(&place.inbox()), [""; 0]);
}

#[test]
fn a_step_that_is_a_link_or_a_file_is_an_error_that_names_it_and_nothing_is_written_behind_it() {
    let place = Place::new();
    let inbox = open_to_overwrite(&place);
    std::fs::create_dir_all(place.path("outside/deep")).unwrap();
    std::fs::create_dir_all(place.inbox().join("in")).unwrap();
    symlink(place.path("outside"), place.inbox().join("out")).unwrap();
    symlink("in", place.inbox().join("alias")).unwrap();
    symlink(place.path("outside"), place.inbox().join("in/up")).unwrap();
    std::fs::write(place.inbox().join("file"), b"theirs").unwrap();
    for (path, at, what) in [
        ("out/f", "out ", "symbolic link"),
        ("out/deep/f", "out ", "symbolic link"),
        ("alias/f", "alias ", "symbolic link"),
        ("in/up/f", "in/up ", "symbolic link"),
        ("file/f", "file ", "not a directory"),
        ("file/f/g", "file ", "not a directory"),
    ] {
        let error = receive(&inbox, path, b"hello").unwrap_err();
        assert!(matches!(error, StorageError::NoDirectory { .. }), "{error:?}");
        assert!(error.to_string().starts_with(at) && error.to_string().contains(what), "{error}");
        let made = inbox.place_all(&[entry(path, Kind::Directory)]).pop().unwrap();
        assert!(matches!(made, Err(StorageError::NoDirectory { .. })), "{made:?}");
    }
    // As the last step: a link is never followed, and is no file.
    let error = receive(&inbox, "out", b"hello").unwrap_err();
    assert!(matches!(error, StorageError::NotAFile { .. }), "{error:?}");
    let made = inbox.place_all(&[entry("out", Kind::Directory), entry("file", Kind::Directory)]);
    assert!(made.iter().all(|made| matches!(made, Err(StorageError::NoDirectory { .. }))), "{made:?}");
    assert_eq!(tree(&place.path("outside")), ["deep"]);
    assert_eq!(place.received("file"), b"theirs");
}

#[test]
fn a_link_that_is_planted_between_two_calls_is_not_followed() {
    for plant_before_write in [false, true] {
        let place = Place::new();
        let inbox = open(&place);
        receive(&inbox, "d/first", b"known from now on").unwrap();
        std::fs::create_dir(place.path("outside")).unwrap();
        let plant = || {
            std::fs::rename(place.inbox().join("d"), place.path("moved")).unwrap();
            symlink(place.path("outside"), place.inbox().join("d")).unwrap();
        };
        let (target, _) = inbox.begin(offer("d/second", b"hello")).unwrap();
        if plant_before_write {
            plant();
        }
        target.write_at(b"hello", 0).unwrap();
        if !plant_before_write {
            plant();
        }
        let error = target.seal(digest(b"hello")).unwrap_err();
        assert!(matches!(error, StorageError::NoDirectory { .. }), "{error:?}");
        assert_eq!(tree(&place.path("outside")), [""; 0]);
        assert_eq!(tree(&place.path("moved")), ["first"]);
    }
}

#[test]
fn a_directory_that_was_replaced_is_not_mistaken_for_the_one_that_was_open() {
    let place = Place::new();
    let inbox = open(&place);
    receive(&inbox, "d/e/first", b"1").unwrap();
    std::fs::rename(place.inbox().join("d"), place.inbox().join("old")).unwrap();
    std::fs::create_dir_all(place.inbox().join("d/e")).unwrap();
    assert_eq!(receive(&inbox, "d/e/first", b"2").unwrap(), stored());
    assert_eq!((place.received("d/e/first"), place.received("old/e/first")), (b"2".to_vec(), b"1".to_vec()));
}

#[test]
fn a_path_of_two_thousand_levels_and_a_name_of_255_bytes_are_received_and_resumed() {
    let place = Place::new();
    let inbox = open(&place);
    let deep = vec!["d"; 2047].join("/") + "/f";
    assert_eq!(deep.len(), 4095);
    let long = format!("{0}/{0}/{0}/{0}", "\u{e9}".repeat(127) + "n");
    for path in [deep.as_str(), long.as_str()] {
        assert_eq!(receive(&inbox, path, b"hello").unwrap(), stored());
        let error = receive(&inbox, path, b"other, and longer").unwrap_err();
        assert!(matches!(error, StorageError::Exists { .. }), "{error:?}");
        // What is kept of it has no room for such a path.
        let resumed = format!("{}g", &path[..path.len() - 1]);
        let bytes = random(100_000, 1);
        let (target, _) = inbox.begin(offer(&resumed, &bytes)).unwrap();
        target.write_at(&bytes[..60_000], 0).unwrap();
        target.put_away(&[], Some(60_000));
        drop(target);
        assert_eq!(open(&place).resumable().len(), 1);
        let (target, opened) = inbox.begin(offer(&resumed, &bytes)).unwrap();
        assert_eq!(opened.received, 60_000);
        target.write_at(&bytes[60_000..], 60_000).unwrap();
        target.sync(&[(0, File::new(bytes.clone()).hashes(0))]).unwrap();
        assert_eq!(target.seal(digest(&bytes)).unwrap(), stored());
        drop(target);
        assert!(!place.inbox().join(".wsferry").exists());
    }
    assert_eq!(place.received(&long), b"hello");
}

#[test]
fn what_cannot_be_a_path_never_gets_here() {
    for path in ["../f", "a/../f", "/f", "a//f", "a/.", ".wsferry/f", "a/.WSFERRY/f", "a\\f", "a/\0", ""] {
        assert!(path.parse::<wsferry::protocol::RelativePath>().is_err(), "{path:?}");
    }
}

#[test]
fn in_a_group_each_file_has_its_own_result_and_what_fails_harms_no_other() {
    let place = Place::new();
    let inbox = open(&place);
    std::fs::create_dir_all(place.inbox().join("d")).unwrap();
    let mut expected = Vec::new();
    let mut files: Vec<_> = (0..40)
        .map(|n| {
            let (path, bytes) = (format!("d/{}/f{n}", n % 5), random(1000 * n, n as u64));
            let file = written(&inbox, &path, &bytes).unwrap();
            expected.push((path, bytes));
            file
        })
        .collect();
    // One is not what it was said to be, one finds its name taken, one its directory.
    files[7].1 = digest(b"another");
    std::fs::create_dir_all(place.inbox().join("d/3")).unwrap();
    std::fs::write(place.inbox().join("d/3/f13"), b"theirs").unwrap();
    std::fs::write(place.inbox().join("d/4"), b"theirs").unwrap();
    // And a large one among them.
    let large = random((3 << 20) + 1, 99);
    let (target, large_digest) = written(&inbox, "d/large", &large).unwrap();
    let file = File::new(large.clone());
    target.sync(&[(0, file.hashes(0)), (1, file.hashes(1))]).unwrap();
    files.insert(20, (target, large_digest));
    expected.insert(20, ("d/large".to_owned(), large));
    let sealed = inbox.seal_all(&files);
    assert_eq!(sealed.len(), files.len());
    for ((path, bytes), sealed) in expected.iter().zip(&sealed) {
        match (path.as_str(), sealed) {
            ("d/2/f7", sealed) => assert!(matches!(sealed, Err(StorageError::Mismatch { .. })), "{sealed:?}"),
            ("d/3/f13", sealed) => assert!(matches!(sealed, Err(StorageError::Exists { .. })), "{sealed:?}"),
            (path, sealed) if path.starts_with("d/4/") => {
                assert!(matches!(sealed, Err(StorageError::NoDirectory { .. })), "{sealed:?}");
            }
            (path, sealed) => {
                assert_eq!(sealed.as_ref().unwrap(), &stored(), "{path}");
                assert!(place.received(path) == *bytes, "{path}");
            }
        }
    }
    assert_eq!(place.received("d/3/f13"), b"theirs");
    assert!(!place.inbox().join("d/2/f7").exists());
}

#[test]
fn hashes_that_were_told_are_believed_until_something_is_written_behind_them() {
    let place = Place::new();
    let inbox = open(&place);
    let bytes = random(10_000, 1);
    let hashes = File::new(bytes.clone()).hashes(0);
    let (target, digest) = written(&inbox, "f", &bytes).unwrap();
    target.note_hashes(hashes).unwrap();
    target.write_at(b"changed", 50).unwrap();
    assert!(matches!(target.seal(digest), Err(StorageError::Mismatch { .. })));
    target.write_at(&bytes, 0).unwrap();
    target.note_hashes(hashes).unwrap();
    assert_eq!(target.seal(digest).unwrap(), stored());
    assert!(place.received("f") == bytes);
}

#[test]
fn a_small_file_that_was_begun_is_gone_on_with_when_only_the_connection_ended() {
    let place = Place::new();
    let inbox = open(&place);
    let bytes = CheckedOffer { mode: Some(0o440), ..offer("a/f", &random(100_000, 1)) };
    let content = random(100_000, 1);
    let (target, opened) = inbox.begin(bytes.clone()).unwrap();
    assert_eq!(opened.received, 0);
    target.write_at(&content[..30_000], 0).unwrap();
    assert_eq!(tree(&place.inbox()), [""; 0], "no name before it is whole");
    target.put_away(&[], Some(30_000));
    drop(target);
    assert_eq!(tree(&place.inbox()).len(), 3, "a partial file and its journal");
    let inbox = open(&place);
    let (target, opened) = inbox.begin(bytes).unwrap();
    assert_eq!(opened.received, 30_000);
    target.write_at(&content[30_000..], 30_000).unwrap();
    target.sync(&[(0, File::new(content.clone()).hashes(0))]).unwrap();
    let results = inbox.seal_all(&[(Arc::new(target), digest(&content))]);
    assert_eq!(results.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [stored()]);
    assert!(place.received("a/f") == content);
    assert_eq!(mode(&place.inbox().join("a/f")), 0o440);
    assert_eq!(tree(&place.inbox()), ["a", "a/f"]);
}

#[test]
fn a_small_file_takes_the_place_of_another_only_where_that_is_allowed() {
    let place = Place::new();
    let (old, new) = (random(5000, 1), random(5000, 2));
    let put = |path: &str| {
        std::fs::create_dir_all(place.inbox().join("d")).unwrap();
        std::fs::write(place.inbox().join(path), &old).unwrap();
    };
    put("d/f");
    let kept = receive(&open(&place), "d/f", &new);
    assert!(matches!(kept, Err(StorageError::Exists { .. })), "{kept:?}");
    let inbox = open_to_overwrite(&place);
    assert_eq!(receive(&inbox, "d/f", &new).unwrap(), stored());
    assert!(place.received("d/f") == new);
    // One that comes while ours is on its way.
    let (target, digest) = written(&inbox, "d/g", &new).unwrap();
    put("d/g");
    assert_eq!(target.seal(digest).unwrap(), stored());
    let (target, digest) = written(&open(&place), "d/h", &new).unwrap();
    put("d/h");
    assert!(matches!(target.seal(digest), Err(StorageError::Exists { .. })));
    assert!(place.received("d/g") == new && place.received("d/h") == old);
    drop(target);
    assert_eq!(tree(&place.inbox()), ["d", "d/f", "d/g", "d/h"]);
}

#[test]
fn two_receivers_of_one_small_file_do_not_mix_it_and_one_of_them_gets_the_name() {
    let place = Place::new();
    let (one, two) = (open(&place), open(&place));
    let (bytes, others) = (random(5000, 1), random(5000, 2));
    let (first, first_digest) = written(&one, "d/f", &bytes).unwrap();
    let (second, second_digest) = written(&two, "d/f", &others).unwrap();
    assert_eq!(second.seal(second_digest).unwrap(), stored());
    assert!(matches!(first.seal(first_digest), Err(StorageError::Exists { .. })));
    assert!(place.received("d/f") == others);
}

#[test]
fn what_is_there_already_is_told_from_the_offer_and_what_differs_is_refused_or_replaced() {
    let place = Place::new();
    let (bytes, other) = (random(5000, 1), random(5000, 2));
    let inbox = open(&place);
    receive(&inbox, "d/same", &bytes).unwrap();
    receive(&inbox, "d/other", &other).unwrap();
    receive(&inbox, "d/longer", &random(6000, 3)).unwrap();
    std::fs::create_dir(place.inbox().join("d/dir")).unwrap();
    let paths = ["d/same", "d/other", "d/longer", "d/dir", "d/new", "none/new"];
    let offers = || {
        let offer = |path: &&str| CheckedOffer { digest: Some(digest(&bytes)), ..offer(path, &bytes) };
        paths.iter().map(offer).collect()
    };
    let told = |begun: Result<Begun, StorageError>| match begun {
        Ok(Begun::Stored(warnings)) => {
            assert!(warnings.is_empty());
            "stored"
        }
        Ok(Begun::Open(target, opened)) => {
            assert!(!opened.complete && target.hash_block(0).unwrap().is_none());
            "open"
        }
        Err(StorageError::Exists { .. }) => "exists",
        Err(StorageError::NotAFile { .. }) => "no file",
        Err(error) => panic!("{error:?}"),
    };
    let begun: Vec<_> = inbox.begin_all(offers()).into_iter().map(told).collect();
    assert_eq!(begun, ["stored", "exists", "exists", "no file", "open", "open"]);
    let overwriting = open_to_overwrite(&place);
    let old = std::fs::File::options().write(true).open(place.inbox().join("d/same")).unwrap();
    old.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let begun: Vec<_> = overwriting.begin_all(offers()).into_iter().map(told).collect();
    assert_eq!(begun, ["stored", "open", "open", "no file", "open", "open"]);
    assert_eq!(old.metadata().unwrap().mtime(), 1_700_000_000, "its time is the offer's now");
    assert!(place.received("d/other") == other, "an offer alone changes nothing");
    // The name is free again in any case.
    assert!(overwriting.begin(offer("d/same", &bytes)).is_ok());
    // Twice in one group: the name is taken by the first.
    let twice = inbox.begin_all(vec![offer("x", b"1"), offer("x", b"1")]);
    assert!(matches!(twice[..], [Ok(Begun::Open(..)), Err(StorageError::Busy { .. })]));
}

#[test]
fn directories_are_made_with_mode_and_time_and_those_that_are_there_are_fine() {
    let place = Place::new();
    let inbox = open(&place);
    receive(&inbox, "a/b/f", b"inside").unwrap();
    let with = |path: &str, mode: u32, mtime: i64| CheckedOffer {
        mode: Some(mode),
        mtime,
        ..entry(path, Kind::Directory)
    };
    let offers = [
        with("a/b/empty", 0o777, 1_600_000_000),
        with("a/b", 0o750, 1_600_000_001),
        with("a", 0o555, 1_600_000_002),
        with("other/deep/er", 0o700, -5),
    ];
    for _ in 0..2 {
        for placed in inbox.place_all(&offers) {
            assert_eq!(placed.unwrap(), NONE);
        }
        for offer in &offers {
            let path = place.inbox().join(offer.path.as_str());
            assert_eq!(mode(&path), offer.mode.unwrap() & !umask(), "{path:?}");
            assert_eq!(std::fs::metadata(&path).unwrap().mtime(), offer.mtime, "{path:?}");
        }
    }
    // What is there is not opened to others by somebody who may not replace it.
    std::fs::create_dir(place.inbox().join("private")).unwrap();
    std::fs::set_permissions(place.inbox().join("private"), PermissionsExt::from_mode(0o700)).unwrap();
    inbox.place_all(&[with("private", 0o755, 0)]).pop().unwrap().unwrap();
    assert_eq!(mode(&place.inbox().join("private")), 0o700);
    open_to_overwrite(&place).place_all(&[with("private", 0o755, 0)]).pop().unwrap().unwrap();
    assert_eq!(mode(&place.inbox().join("private")), 0o755 & !umask());
    assert!(!place.inbox().join(".wsferry").exists());
}

#[test]
fn a_link_is_made_if_it_stays_inside_and_refused_if_it_may_not() {
    let place = Place::new();
    let inbox = open(&place);
    let inside = [
        ("l", "f"),
        ("a/l", "../f"),
        ("a/b/l", "../../c/d"),
        ("a/b/same", "./l"),
        ("dangling", "nothing/there/"),
        ("a/root", ".."),
    ];
    let links: Vec<_> = inside.iter().map(|(path, target)| link(path, target)).collect();
    for _ in 0..2 {
        for (made, (path, target)) in inbox.place_all(&links).into_iter().zip(inside) {
            assert_eq!(made.unwrap(), NONE, "{path}");
            assert_eq!(std::fs::read_link(place.inbox().join(path)).unwrap().to_str(), Some(target));
            let time = std::fs::symlink_metadata(place.inbox().join(path)).unwrap().mtime();
            assert_eq!(time, 1_700_000_000, "{path}");
        }
    }
    for (path, target) in [
        ("x", "/etc/passwd"),
        ("x", ".."),
        ("x", "../inbox/f"),
        ("a/x", "../../f"),
        ("a/x", "b/../../.."),
        // Inside, if `b` is a directory; anywhere, if it is a link.
        ("a/x", "b/.."),
        ("x", ""),
        ("x", "a\0b"),
        ("x", "a\u{1b}[2Jb"),
        ("x", ".wsferry/journal"),
    ] {
        let made = inbox.place_all(&[link(path, target)]).pop().unwrap();
        assert!(matches!(made, Err(StorageError::LinkOutside { .. })), "{target:?}: {made:?}");
        assert!(!place.inbox().join(path).is_symlink(), "{target:?}");
    }
    // Something else is there.
    std::fs::write(place.inbox().join("file"), b"theirs").unwrap();
    std::fs::create_dir(place.inbox().join("dir")).unwrap();
    for path in ["l", "file", "dir"] {
        let made = inbox.place_all(&[link(path, "elsewhere")]).pop().unwrap();
        assert!(matches!(made, Err(StorageError::Exists { .. })), "{path}: {made:?}");
    }
    let overwriting = open_to_overwrite(&place);
    let made = overwriting.place_all(&[link("l", "new"), link("file", "new"), link("dir", "new")]);
    assert!(matches!(made[..], [Ok(_), Ok(_), Err(StorageError::NoName { .. })]), "{made:?}");
    for path in ["l", "file"] {
        assert_eq!(std::fs::read_link(place.inbox().join(path)).unwrap().to_str(), Some("new"));
    }
    assert!(!place.inbox().join(".wsferry").exists());
}

#[test]
fn what_a_receiver_that_was_killed_left_of_a_replacement_is_swept() {
    let place = Place::new();
    let inbox = open_to_overwrite(&place);
    receive(&inbox, "f", b"old").unwrap();
    let shelf = place.inbox().join(".wsferry");
    std::fs::create_dir(&shelf).unwrap();
    std::fs::set_permissions(&shelf, PermissionsExt::from_mode(0o700)).unwrap();
    // A number, and what follows from it.
    let name = |number: u64| {
        let check = blake3::hash(&number.to_le_bytes()).to_hex();
        format!("{number:016x}{}.plain", &check[..16])
    };
    std::fs::write(shelf.join(format!("{}-whole", name(5))), b"left").unwrap();
    symlink("somewhere", shelf.join(name(6))).unwrap();
    symlink("somewhere", shelf.join("theirs.plain")).unwrap();
    assert_eq!(open(&place).sweep(), 0, "it was swept when it was opened");
    assert_eq!(tree(&shelf), ["theirs.plain"]);
}
