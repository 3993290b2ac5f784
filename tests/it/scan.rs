//! What is sent: small files that are read once, and trees that are walked.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use wsferry::protocol::NameError;
use wsferry::storage::{
    Filter, FilterRule, Links, Root, Scan, ScanOptions, SkipReason, Skipped, Source, SourceError, Special,
    What,
};

use crate::filesystems::{Mounted, run};
use crate::support::{Place, random};

/// Walks through these, each a path below the place.
fn scan(place: &Place, roots: &[&str], links: Links) -> Scan {
    let roots = roots.iter().map(|root| Root::new(at(place, root)));
    Scan::new(roots, ScanOptions { links, ..ScanOptions::default() })
}

/// The path as it is written: `Path` would forget what it ends with.
fn at(place: &Place, path: &str) -> PathBuf {
    format!("{}/{path}", place.path("").display().to_string().trim_end_matches('/')).into()
}

/// What is sent: directories end in `/`, and links say what they lead to.
fn told(scan: Scan) -> (Vec<String>, Vec<Skipped>) {
    let (mut sent, mut not) = (Vec::new(), Vec::new());
    for item in scan {
        match item {
            Err(skipped) => not.push(skipped),
            Ok(entry) => sent.push(match entry.what {
                What::File { .. } => entry.to.to_string(),
                What::Directory { .. } => format!("{}/", entry.to),
                What::Link { target, .. } => format!("{} -> {target}", entry.to),
            }),
        }
    }
    (sent, not)
}

fn sent(place: &Place, roots: &[&str]) -> Vec<String> {
    let (sent, not) = told(scan(place, roots, Links::Skip));
    assert!(not.is_empty(), "{not:?}");
    sent
}

#[test]
fn the_bytes_of_a_small_file_that_were_hashed_are_the_ones_that_are_sent() {
    let place = Place::new();
    for size in [0, 1, 4096, 3 << 20] {
        let bytes = random(size, size as u64);
        let path = place.file("f", &bytes);
        let (source, unkept) = (Source::open(&path, None).unwrap(), Source::open(&path, None).unwrap());
        let digest = Some(blake3::hash(&bytes).into());
        assert_eq!(source.digest_of_small(true).unwrap(), digest);
        assert_eq!(unkept.digest_of_small(false).unwrap(), digest);
        let hashes = |source: &Source| (size > 0).then(|| source.hash_block(0).ok());
        let before = hashes(&unkept);
        place.file("f", &random(size + 1, 99));
        let mut read = vec![0; size];
        source.read_exact_at(&mut read, 0).unwrap();
        assert!(read == bytes, "{size} bytes");
        // Once: what was sent is not kept.
        assert!(size == 0 || hashes(&source) != before);
        assert!(source.standing().is_err(), "that shows");
        assert!(size == 0 || source.digest().unwrap() != digest, "and is read anew");
        assert!(
            size == 0 || unkept.digest_of_small(false).unwrap() != digest,
            "what was not kept is read again"
        );
    }
    let large = place.file("large", &random((3 << 20) + 1, 4));
    assert_eq!(Source::open(&large, None).unwrap().digest_of_small(true).unwrap(), None);
}

#[test]
fn a_tree_is_told_in_the_order_of_names_and_a_directory_behind_what_is_in_it() {
    let place = Place::new();
    for file in ["t/b", "t/a/z", "t/a/y/x", "t/.hidden/.f", "t/B", "t/a.b"] {
        place.file(file, b"content");
    }
    std::fs::create_dir_all(place.path("t/empty/er")).unwrap();
    std::fs::hard_link(place.path("t/b"), place.path("t/c")).unwrap();
    let below =
        [".hidden/.f", ".hidden/", "B", "a/y/x", "a/y/", "a/z", "a/", "a.b", "b", "c", "empty/er/", "empty/"];
    let named: Vec<_> = below.iter().map(|path| format!("t/{path}")).chain(["t/".to_owned()]).collect();
    assert_eq!(sent(&place, &["t"]), named);
    for root in ["t/", "t//", "t/.", "t/./", "t/a/..", "t/a/../"] {
        assert_eq!(sent(&place, &[root]), below, "{root}");
    }
    assert_eq!(sent(&place, &["t/a/y/x", "t/a/y"]), ["x", "y/x", "y/"]);
    let root = Root::new(place.path("t/a")).named(Some("new/name".parse().unwrap()));
    let (renamed, _) = told(Scan::new([root], ScanOptions::default()));
    assert_eq!(renamed, ["new/name/y/x", "new/name/y/", "new/name/z", "new/name/"]);
}

#[test]
fn sizes_times_and_permission_bits_are_told() {
    let place = Place::new();
    place.file("t/f", b"12345");
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_007, 125);
    std::fs::File::open(place.path("t")).unwrap().set_modified(time).unwrap();
    std::fs::set_permissions(place.path("t"), PermissionsExt::from_mode(0o1750)).unwrap();
    symlink("f", place.path("t/l")).unwrap();
    let link = std::fs::symlink_metadata(place.path("t/l")).unwrap();
    std::fs::File::open(place.path("t")).unwrap().set_modified(time).unwrap();
    let found: Vec<_> = scan(&place, &["t"], Links::Keep).map(|item| item.unwrap().what).collect();
    assert_eq!(
        found,
        [
            What::File { len: 5 },
            What::Link { target: "f".to_owned(), mtime: (link.mtime(), link.mtime_nsec() as u32) },
            What::Directory { mode: 0o750, mtime: (1_000_000_007, 125) },
        ]
    );
}

#[test]
fn odd_names_are_sent_and_names_that_could_do_harm_are_told() {
    let place = Place::new();
    let longest = "n".repeat(255);
    let odd = [" ", "'quotes\"", "-rf", "...", "a b", &*longest, "é", "🦀"];
    for name in odd {
        place.file(&format!("t/{name}"), b"x");
    }
    let mut sorted = odd;
    sorted.sort_unstable();
    place.file("t/new\nline/f", b"x");
    place.file("t/back\\slash", b"x");
    place.file("t/.wsferry/f", b"x");
    std::fs::write(place.path("t").join(OsStr::from_bytes(b"caf\xe9")), b"x").unwrap();
    let (sent, not) = told(scan(&place, &["t/"], Links::Skip));
    assert_eq!(sent, sorted);
    let why: Vec<_> = not
        .iter()
        .map(|skipped| match &skipped.why {
            SkipReason::Name(error) => (*error, skipped.is_failure()),
            why => panic!("{why}"),
        })
        .collect();
    let expected = [
        (NameError::Reserved, false),
        (NameError::Separator, true),
        (NameError::NotUtf8, true),
        (NameError::Control('\n'), true),
    ];
    assert_eq!(why, expected);
    assert!(not[1].to_string().contains("back\\slash is not sent: its name cannot be used"), "{}", not[1]);
    let (sent, not) = told(scan(&place, &["t/back\\slash"], Links::Skip));
    assert!(sent.is_empty() && matches!(not[0].why, SkipReason::Name(NameError::Separator)), "{not:?}");
}

/// A tree with links of all kinds, and where they lead.
fn links() -> Place {
    let place = Place::new();
    place.file("out/secret", b"outside");
    place.file("t/d/f", b"inside");
    for (link, target) in [
        ("t/absolute", place.path("t/d").to_str().unwrap()),
        ("t/d/up", "../d/f"),
        ("t/dir", "d"),
        ("t/d/loop", ".."),
        ("t/gone", "nothing"),
        ("t/self", "self"),
        ("t/out", "../out/secret"),
        ("t/d/through", "../d/../../out"),
    ] {
        symlink(target, place.path(link)).unwrap();
    }
    place
}

#[test]
fn links_are_skipped_and_counted_unless_they_are_asked_for() {
    let place = links();
    let (sent, not) = told(scan(&place, &["t/"], Links::Skip));
    assert_eq!(sent, ["d/f", "d/"]);
    assert_eq!(not.len(), 8);
    assert!(not.iter().all(|skipped| matches!(skipped.why, SkipReason::Link) && !skipped.is_failure()));
    // What is named is meant.
    let (sent, not) = told(scan(&place, &["t/d/up", "t/dir", "t/out"], Links::Skip));
    assert_eq!((sent, not.len()), (vec!["up".into(), "dir/f".into(), "dir/".into(), "out".into()], 3));
}

#[test]
fn links_are_kept_where_they_stay_inside() {
    let place = links();
    let (sent, not) = told(scan(&place, &["t/"], Links::Keep));
    assert_eq!(
        sent,
        ["d/f", "d/loop -> ..", "d/up -> ../d/f", "d/", "dir -> d", "gone -> nothing", "self -> self"]
    );
    let outside: Vec<_> =
        not.iter().map(|skipped| skipped.path.strip_prefix(place.path("t")).unwrap()).collect();
    assert_eq!(outside, ["absolute", "d/through", "out"].map(Path::new));
    assert!(not.iter().all(|skipped| matches!(skipped.why, SkipReason::LeadsOutside { .. })), "{not:?}");
    // Below its own name the tree lies deeper, and a link may lead to what lies beside it.
    let (sent, _) = told(scan(&place, &["t", "t/dir", "t/dir/"], Links::Keep));
    assert!(sent.contains(&"t/out -> ../out/secret".to_owned()), "{sent:?}");
    assert_eq!(
        sent[sent.len() - 3..],
        ["t/", "dir -> d", "f"],
        "a root is a link too, but for the one that is entered"
    );
}

#[test]
fn links_are_followed_but_not_around_in_a_circle() {
    let place = links();
    let (sent, not) = told(scan(&place, &["t/"], Links::Follow));
    let directory =
        |name: &str| ["f", "through/secret", "through/", "up", ""].map(|of| format!("{name}/{of}"));
    let expected =
        [&directory("absolute")[..], &directory("d"), &directory("dir"), &["out".to_owned()]].concat();
    assert_eq!(sent, expected);
    let mut why = [0; 2];
    for skipped in &not {
        why[match skipped.why {
            SkipReason::Loop => 0,
            SkipReason::LeadsNowhere => 1,
            _ => panic!("{skipped}"),
        }] += 1;
    }
    assert_eq!(why, [3, 2], "{not:?}");
    let entries = scan(&place, &["t/"], Links::Follow).flatten();
    let secret = entries.into_iter().find(|entry| entry.to.as_str() == "d/through/secret").unwrap();
    assert_eq!(secret.open().unwrap().digest().unwrap(), Some(blake3::hash(b"outside").into()));
}

#[test]
fn what_is_no_file_is_told_and_never_opened() {
    let place = Place::new();
    place.file("t/f", b"x");
    rustix::fs::mknodat(CWD, place.path("t/pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let _socket = UnixListener::bind(place.path("t/socket")).unwrap();
    let device = rustix::fs::mknodat(
        CWD,
        place.path("t/device"),
        FileType::CharacterDevice,
        Mode::RUSR,
        rustix::fs::makedev(1, 3),
    );
    let (sent, not) = told(scan(&place, &["t", "t/pipe"], Links::Follow));
    assert_eq!(sent, ["t/f", "t/"]);
    let mut special = vec![Special::Pipe, Special::Socket, Special::Pipe];
    match device {
        Ok(()) => special.insert(0, Special::Device),
        Err(_) => println!("lacking: the right to make devices"),
    }
    let found: Vec<_> = not
        .iter()
        .map(|skipped| match skipped.why {
            SkipReason::Special(special) if !skipped.is_failure() => special,
            _ => panic!("{skipped}"),
        })
        .collect();
    assert_eq!(found, special);
}

#[test]
fn what_cannot_be_read_or_is_not_there_is_told_and_the_rest_is_sent() {
    let place = Place::new();
    for file in ["t/a/f", "t/b/f", "t/c"] {
        place.file(file, b"x");
    }
    let (told_sent, not) = told(scan(&place, &["missing", "t/c/", "t/c"], Links::Skip));
    assert_eq!(told_sent, ["c"]);
    assert!(not.iter().all(|skipped| skipped.is_failure()), "{not:?}");
    assert!(not[0].to_string().contains("missing is not sent: cannot open it: No such file"), "{}", not[0]);
    assert!(not[1].to_string().contains("Not a directory"), "{}", not[1]);
    std::fs::set_permissions(place.path("t/a"), PermissionsExt::from_mode(0o000)).unwrap();
    if std::fs::read_dir(place.path("t/a")).is_ok() {
        return println!("lacking: a user whom permissions bind");
    }
    let (sent, not) = told(scan(&place, &["t/"], Links::Skip));
    assert_eq!(sent, ["b/f", "b/", "c"]);
    assert!(not[0].to_string().contains("t/a is not sent: cannot open it: Permission denied"), "{not:?}");
    assert!(not.len() == 1 && not[0].is_failure());
    std::fs::set_permissions(place.path("t/a"), PermissionsExt::from_mode(0o700)).unwrap();
}

#[test]
#[ignore = "mounts a file system, as root"]
fn what_is_mounted_in_a_tree_is_sent_too() {
    let place = Place::new();
    std::fs::create_dir(place.inbox()).unwrap();
    if let Err(lacking) = run("mount", &["-t", "tmpfs", "tmpfs", place.inbox().to_str().unwrap()]) {
        return println!("lacking: {lacking}");
    }
    let _mounted = Mounted(&place);
    place.file("inbox/below/f", b"x");
    assert_eq!(sent(&place, &[""]), ["inbox/below/f", "inbox/below/", "inbox/"]);
}

#[test]
fn a_name_at_the_destination_is_the_first_roots_alone() {
    let place = Place::new();
    for file in ["a/x/f", "a/y", "b/x/g", "b/z", "y/h"] {
        place.file(file, b"x");
    }
    let (sent, not) = told(scan(&place, &["a/", "b/", "y", "b", "b/z"], Links::Skip));
    assert_eq!(sent, ["x/f", "x/", "y", "z", "b/x/g", "b/x/", "b/z", "b/"]);
    let taken: Vec<_> = not
        .iter()
        .map(|skipped| match &skipped.why {
            SkipReason::Taken { first, to } if skipped.is_failure() => {
                (skipped.path.clone(), first.clone(), &**to)
            }
            _ => panic!("{skipped}"),
        })
        .collect();
    let expected = [("b/x", "a/", "x"), ("y", "a/", "y"), ("b/z", "b/", "z")];
    assert_eq!(taken, expected.map(|(path, first, to)| (at(&place, path), at(&place, first), to)));
}

#[test]
fn what_is_excluded_is_not_told_and_not_entered() {
    let place = Place::new();
    for file in ["t/a.o", "t/keep.o", "t/target/keep.o", "t/src/target", "t/src/a.c", "t/new\nline.o"] {
        place.file(file, b"x");
    }
    let rules = [
        FilterRule::Exclude("target/".to_owned()),
        FilterRule::Include("keep.o".to_owned()),
        FilterRule::Exclude("*.o".to_owned()),
        FilterRule::Exclude("/src/*.c".to_owned()),
    ];
    let options = ScanOptions { filter: Filter::new(rules).unwrap(), links: Links::Skip };
    let scan = |roots: &[&str]| {
        told(Scan::new(roots.iter().map(|root| Root::new(at(&place, root))), options.clone()))
    };
    for (root, expected) in
        [("t", &["t/keep.o", "t/src/target", "t/src/", "t/"][..]), ("t/", &["keep.o", "src/target", "src/"])]
    {
        let (sent, not) = scan(&[root]);
        assert_eq!(sent, expected);
        assert!(not.is_empty(), "{not:?}");
    }
    // What is named and excluded is told.
    let (sent, not) = scan(&["t/a.o", "t/target", "t/keep.o"]);
    assert_eq!(sent, ["keep.o"]);
    assert!(
        not.len() == 2 && not.iter().all(|skipped| matches!(skipped.why, SkipReason::Excluded)),
        "{not:?}"
    );
}

#[test]
fn a_file_that_becomes_a_link_before_it_is_opened_is_not_followed() {
    let place = Place::new();
    let secret = place.file("secret", b"secret");
    place.file("t/d/f", b"mine");
    for links in [Links::Skip, Links::Keep] {
        let entry = scan(&place, &["t"], links).next().unwrap().unwrap();
        let opened = entry.open().unwrap();
        assert_eq!((opened.name().as_str(), opened.path()), ("t/d/f", &*place.path("t/d/f")));
        std::fs::rename(place.path("t/d/f"), place.path("t/d/g")).unwrap();
        symlink(&secret, place.path("t/d/f")).unwrap();
        assert!(matches!(entry.open(), Err(SourceError::Io { operation: "open", .. })));
        assert!(opened.is_elsewhere() && matches!(opened.reopen(), Err(SourceError::Replaced(_))));
        std::fs::remove_file(place.path("t/d/f")).unwrap();
        symlink("g", place.path("t/d/f")).unwrap();
        assert!(opened.is_elsewhere(), "a link to the file is another thing");
        std::fs::rename(place.path("t/d/g"), place.path("t/d/f")).unwrap();
        assert!(!opened.is_elsewhere());
        // Nor is the directory that it lies in.
        std::fs::rename(place.path("t/d"), place.path("t/e")).unwrap();
        place.file("elsewhere/f", b"secret");
        symlink(place.path("elsewhere"), place.path("t/d")).unwrap();
        assert_eq!(entry.open().unwrap().digest().unwrap(), Some(blake3::hash(b"mine").into()));
        std::fs::remove_file(place.path("t/d")).unwrap();
        std::fs::rename(place.path("t/e"), place.path("t/d")).unwrap();
    }
}

#[test]
fn a_directory_that_becomes_a_link_is_not_entered() {
    let place = Place::new();
    place.file("secret/f", b"secret");
    for file in ["t/a", "t/d/f", "t/z"] {
        place.file(file, b"mine");
    }
    let mut scan = scan(&place, &["t/"], Links::Skip);
    assert_eq!(scan.next().unwrap().unwrap().to.as_str(), "a");
    std::fs::rename(place.path("t/d"), place.path("d")).unwrap();
    symlink(place.path("secret"), place.path("t/d")).unwrap();
    let (sent, not) = told(scan);
    assert_eq!(sent, ["z"]);
    assert!(not.len() == 1 && matches!(not[0].why, SkipReason::Link), "{not:?}");
}

#[test]
fn a_directory_that_is_moved_while_the_walk_is_far_below_is_told() {
    let place = Place::new();
    let below = vec!["d"; 100].join("/");
    place.file(&format!("t/{below}/f"), b"x");
    place.file("t/d/d/z", b"x");
    let mut scan = scan(&place, &["t/"], Links::Skip);
    assert!(scan.next().unwrap().unwrap().to.as_str().ends_with("/d/f"));
    std::fs::rename(place.path("t/d/d"), place.path("t/d/e")).unwrap();
    place.file("t/d/d/z", b"another");
    let (sent, not) = told(scan);
    assert!(!sent.iter().any(|to| to.ends_with("z")) && sent.last().unwrap() == "d/", "{sent:?}");
    assert!(not.len() == 1 && matches!(not[0].why, SkipReason::Moved) && not[0].is_failure(), "{not:?}");
    assert_eq!(not[0].path, place.path("t/d/d"));
}

#[test]
fn a_deep_tree_keeps_few_directories_open_and_ends_where_paths_become_too_long() {
    let place = Place::new();
    let top = place.path("t");
    std::fs::create_dir(&top).unwrap();
    let open =
        |dir: BorrowedFd<'_>, at: &Path, flags| rustix::fs::openat(dir, at, flags, Mode::RWXU).unwrap();
    let mut dir = open(CWD, &top, OFlags::DIRECTORY);
    // 163 names of 24 bytes fit a path.
    let name = "d".repeat(24);
    for level in 0..200 {
        rustix::fs::mkdirat(&dir, &*name, Mode::RWXU).unwrap();
        if level % 20 == 10 {
            open(dir.as_fd(), Path::new("z"), OFlags::CREATE | OFlags::WRONLY);
        }
        dir = open(dir.as_fd(), Path::new(&name), OFlags::DIRECTORY);
    }
    drop(dir);
    let open_below = |top: &Path| {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        descriptors.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|path| path.starts_with(top))).count()
    };
    let (mut files, mut directories, mut too_long, mut most) = (0, 0, 0, 0);
    for item in scan(&place, &["t/"], Links::Skip) {
        match item {
            Ok(entry) if entry.what == What::File { len: 0 } => {
                files += 1;
                entry.open().unwrap();
            }
            Ok(_) => directories += 1,
            Err(Skipped { why: SkipReason::Name(NameError::PathTooLong(_)), .. }) => too_long += 1,
            Err(skipped) => panic!("{skipped}"),
        }
        most = most.max(open_below(&top));
    }
    assert_eq!((files, directories, too_long), (8, 163, 1));
    assert!((1..80).contains(&most), "{most} directories open");
}

#[test]
fn a_walk_holds_the_names_of_one_directory_and_no_more() {
    let place = Place::new();
    let first = place.file("t/000/first", b"x");
    for number in 0..30_000 {
        let dir = place.path(&format!("t/{:03}", number / 300));
        if number % 300 == 0 {
            std::fs::create_dir_all(&dir).unwrap();
        }
        std::fs::hard_link(&first, dir.join(format!("a file of a long name {number}"))).unwrap();
    }
    let mut count = 0;
    let memory = allocation_counter::measure(|| {
        count = scan(&place, &["t"], Links::Skip).map(Result::unwrap).count();
    });
    assert_eq!(count, 30_000 + 1 + 100 + 1);
    // Of all together it would be some MB.
    assert!(memory.bytes_max < 200_000, "{memory:?}");
}
