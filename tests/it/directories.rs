//! Directories over the real program: what arrives is what was there, and what may not arrive is told one by one.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::forest::{Forest, Grove, Kind, Weeds, assert_same, bytes_of, look};
use crate::offers::peak_memory;
use crate::support::{Ended, Receiver, Running, random, send, wsferry};

/// The events of a program that runs with `--json`, to its end however long that takes, and its exit code.
pub fn to_the_end(running: Running) -> (Vec<Value>, i32) {
    let events = std::iter::from_fn(|| running.try_event()).collect();
    (events, running.end().code())
}

fn start(path: &Path, url: &str) -> Running {
    Running::start(wsferry().arg("send").arg(path).arg(url).arg("--json"))
}

fn of_kind<'a>(events: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    events.iter().filter(move |event| event["event"] == kind)
}

/// The names of these events, each of which comes once.
fn names(ended: &Ended, kind: &str) -> BTreeSet<String> {
    let events = ended.events(kind);
    let names: BTreeSet<_> = events.iter().map(|event| event["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names.len(), events.len(), "each once: {events:?}");
    names
}

fn displayed(paths: &[PathBuf]) -> BTreeSet<String> {
    paths.iter().map(|path| path.display().to_string()).collect()
}

#[test]
fn a_tree_arrives_as_it_is_and_what_no_destination_takes_is_told_one_by_one() {
    let grove = Grove::new();
    let root = grove.path("t");
    let forest = Forest { seed: 1, directories: 50, files: 500, largest: 64 << 10 };
    let Weeds { refused, left_out } = forest.plant_with_weeds(&root);
    let mut expected = look(&root);
    let is_sent =
        |path: &Path| !refused.iter().chain(&left_out).any(|weed| root.join(path).starts_with(weed));
    expected.retain(|path, _| is_sent(path));
    let receiver = Receiver::start(&grove, &[]);
    for is_there in [false, true] {
        let ended = send(&root, &receiver.url, &[]);
        assert_eq!(ended.code(), 1, "{}", ended.errors);
        assert_eq!(names(&ended, "failed"), displayed(&refused));
        assert_eq!(names(&ended, "skipped"), displayed(&left_out));
        for event in ended.events("failed") {
            let reason = event["reason"].as_str().unwrap();
            assert!(reason.contains("its name cannot be used at the destination: it "), "{event}");
        }
        assert_eq!(ended.errors.lines().filter(|line| line.starts_with("wsferry: ")).count(), refused.len());
        let finished = ended.events("finished");
        assert_eq!(finished.len(), expected.len());
        // Of a directory it is not told whether it was there.
        for event in finished.iter().filter(|event| event["blake3"].is_string()) {
            assert_eq!(event["already_there"], is_there, "{event}");
        }
        let moved: u64 = finished.iter().map(|event| event["new_bytes"].as_u64().unwrap()).sum();
        assert_eq!(moved, if is_there { 0 } else { bytes_of(&expected) });
        assert_same(&expected, &look(&grove.inbox().join("t")));
    }
    assert_eq!(grove.listing(), ["t"]);
    receiver.running.signal("-TERM");
    let received = receiver.running.end();
    // What is not sent is not offered: of each run the receiver is told in the end that not all came.
    let failed = received.events("failed");
    assert_eq!(failed.len(), 2, "{failed:?}");
    for event in failed {
        assert_eq!(event["name"], Value::Null, "{event}");
        assert!(event["reason"].as_str().unwrap().contains("not all files could be sent"), "{event}");
    }
    assert_eq!(received.events("finished").len(), 2 * expected.len());
}

#[test]
fn what_is_in_a_directory_arrives_in_the_destination_itself() {
    let grove = Grove::new();
    let root = grove.path("t");
    Forest { seed: 2, directories: 8, files: 30, largest: 5000 }.plant(&root);
    let receiver = Receiver::start(&grove, &["--once"]);
    assert_eq!(send(&root.join(""), &receiver.url, &[]).code(), 0);
    assert_eq!(receiver.running.end().code(), 0);
    let (mut expected, mut found) = (look(&root), look(&grove.inbox()));
    // The destination is the receiver's own.
    for tree in [&mut expected, &mut found] {
        tree.remove(Path::new(""));
    }
    assert_same(&expected, &found);
}

/// What a program says on standard output.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} is needed: {error}"));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
#[ignore = "needs diff and rsync; ten thousand files, 330 MB"]
fn ten_thousand_files_in_five_hundred_directories_are_the_same_for_diff_and_rsync_too() {
    let grove = Grove::new();
    let (root, there) = (grove.path("t"), grove.inbox().join("t"));
    Forest { seed: 3, directories: 500, files: 10_000, largest: 64 << 10 }.plant(&root);
    let receiver = Receiver::start(&grove, &[]);
    let started = Instant::now();
    let (events, code) = to_the_end(start(&root, &receiver.url));
    println!("sent in {:?}", started.elapsed());
    assert_eq!((code, of_kind(&events, "finished").count()), (0, 10_500));
    assert_same(&look(&root), &look(&there));
    let differ = || output(Command::new("diff").arg("-r").arg(&root).arg(&there));
    let outdated = || {
        let flags = ["-an", "--checksum", "--delete", "--itemize-changes"];
        output(Command::new("rsync").args(flags).arg(root.join("")).arg(there.join("")))
    };
    assert_eq!((differ(), outdated()), (String::new(), String::new()));
    // And they would tell.
    std::fs::write(there.join("one more"), b"x").unwrap();
    assert!(differ().contains("one more") && outdated().contains("one more"));
}

/// Sends a tree of so many files of 1 KiB; gives the seconds that it took and the peak memory of both sides in bytes.
fn send_small_files(files: usize) -> (f64, u64, u64) {
    let grove = Grove::new();
    let root = grove.path("t");
    for number in 0..files {
        let directory = root.join(format!("{}", number / 200));
        if number % 200 == 0 {
            std::fs::create_dir_all(&directory).unwrap();
        }
        let bytes = random(1024, number as u64);
        std::fs::write(directory.join(format!("{number}")), bytes).unwrap();
    }
    let receiver = Receiver::start(&grove, &[]);
    let started = Instant::now();
    let (events, code) = to_the_end(start(&root, &receiver.url));
    let took = started.elapsed().as_secs_f64();
    let finished: Vec<_> = of_kind(&events, "finished").collect();
    assert_eq!((code, finished.len()), (0, files + files.div_ceil(200) + 1));
    let sender = finished.last().unwrap()["peak_memory"].as_u64().unwrap();
    let received = peak_memory(&receiver) * 1024;
    assert_same(&look(&root), &look(&grove.inbox().join("t")));
    (took, sender, received)
}

#[test]
#[ignore = "a hundred thousand files"]
fn a_hundred_thousand_small_files_take_no_more_memory_than_ten_thousand_nor_more_time_each() {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    for files in [10_000, 100_000] {
        let (took, sender, receiver) = send_small_files(files);
        println!(
            "{files} files: {took:.2} s, {:.0} a second; peak memory of the sender {:.1} MiB, of the receiver {:.1} MiB",
            files as f64 / took,
            mib(sender),
            mib(receiver),
        );
        assert!(sender < 64 << 20 && receiver < 64 << 20, "{} and {} MiB", mib(sender), mib(receiver));
    }
}

/// A tree with links, and what they lead to outside of it.
fn plant_links(grove: &Grove) -> PathBuf {
    grove.file("out/secret", b"outside");
    grove.file("t/d/f", b"inside");
    for (link, target) in
        [("t/in", "d/f"), ("t/d/dir", "../d"), ("t/out", "../../out/secret"), ("t/gone", "nothing")]
    {
        symlink(target, grove.path(link)).unwrap();
    }
    grove.path("t")
}

/// Flags, the exit code, files and links that arrive, and how many things are left out.
type Case =
    (&'static [&'static str], i32, &'static [&'static str], &'static [(&'static str, &'static str)], usize);

#[test]
fn links_are_left_out_kept_or_followed_as_the_flag_says() {
    let expected = |what: &[(&str, &str)]| {
        let link = |(path, target): &(&str, &str)| (PathBuf::from(path), PathBuf::from(target));
        what.iter().map(link).collect::<Vec<_>>()
    };
    const KEPT: &[(&str, &str)] = &[("d/dir", "../d"), ("gone", "nothing"), ("in", "d/f")];
    let cases: [Case; 4] = [
        (&[], 0, &["d/f"], &[], 4),
        (&["--links", "skip"], 0, &["d/f"], &[], 4),
        // The one that leads outside is left out.
        (&["--links", "keep"], 0, &["d/f"], KEPT, 1),
        // The one that leads nowhere is a failure: what it stands for was asked for.
        (&["--links", "follow"], 1, &["d/f", "in"], &[], 1),
    ];
    for (flags, code, files, links, skipped) in cases {
        let grove = Grove::new();
        let root = plant_links(&grove);
        // Where the links of the tree lead depends on where it is.
        if flags.contains(&"follow") {
            std::fs::remove_file(root.join("out")).unwrap();
            symlink("../out/secret", root.join("out")).unwrap();
        }
        let receiver = Receiver::start(&grove, &[]);
        let ended = send(&root, &receiver.url, flags);
        assert_eq!(ended.code(), code, "{flags:?}: {ended:?}");
        assert_eq!(ended.events("skipped").len(), skipped, "{flags:?}: {ended:?}");
        assert_eq!(ended.events("failed").len(), usize::from(code == 1), "{flags:?}: {ended:?}");
        let found = look(&grove.inbox().join("t"));
        let mut found_files: Vec<_> = found
            .iter()
            .filter(|(_, node)| matches!(node.what, Kind::File { .. }))
            .map(|(path, _)| path.to_str().unwrap())
            .collect();
        if code == 1 {
            assert_eq!(grove.received("t/out"), b"outside");
            found_files.retain(|path| *path != "out");
        }
        assert_eq!(found_files, files, "{flags:?}");
        let found_links = found.iter().filter_map(|(path, node)| match &node.what {
            Kind::Link(target) => Some((path.clone(), target.clone())),
            _ => None,
        });
        assert_eq!(found_links.collect::<Vec<_>>(), expected(links), "{flags:?}");
        // A link has a time of its own.
        let sent = look(&root);
        for (path, _) in links {
            assert_eq!(found[Path::new(path)], sent[Path::new(path)], "{path}");
        }
    }
}

#[test]
fn what_is_left_out_does_not_arrive_and_the_first_pattern_that_matches_decides() {
    let grove = Grove::new();
    for file in ["a.c", "a.o", "keep.o", "target/deep/x", "src/target", "src/b.o", "src/notes.txt", "top.txt"]
    {
        grove.file(&format!("t/{file}"), file.as_bytes());
    }
    let patterns = grove.file("patterns", b"# what is built\n*.o\n\n/src/*.txt\n");
    let receiver = Receiver::start(&grove, &[]);
    let patterns = patterns.to_str().unwrap();
    let flags =
        ["--exclude", "target/", "--include", "keep.*", "--exclude-from", patterns, "--include", "a.o"];
    let ended = send(&grove.path("t"), &receiver.url, &flags);
    assert_eq!((ended.code(), ended.events("failed").len()), (0, 0), "{ended:?}");
    let found: Vec<_> = look(&grove.inbox()).into_keys().collect();
    let expected = ["", "t", "t/a.c", "t/keep.o", "t/src", "t/src/target", "t/top.txt"].map(PathBuf::from);
    assert_eq!(found, expected);
}

#[test]
fn a_tree_that_is_compared_by_size_and_time_is_not_read() {
    let grove = Grove::new();
    let root = grove.path("t");
    Forest { seed: 4, directories: 10, files: 40, largest: 5000 }.plant(&root);
    let receiver = Receiver::start(&grove, &[]);
    assert_eq!(send(&root, &receiver.url, &[]).code(), 0);
    let sent = look(&root);
    // At the destination another content of the same size and time; at the source one more file, and a newer time.
    let mut large = sent.iter().filter(|(_, node)| matches!(node.what, Kind::File { len: 1000.., .. }));
    let (other, _) = large.next().unwrap();
    let (newer, _) = large.next().unwrap();
    let there = grove.inbox().join("t").join(other);
    let time = std::fs::metadata(&there).unwrap().modified().unwrap();
    let len = std::fs::metadata(&there).unwrap().len();
    std::fs::set_permissions(&there, PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::write(&there, random(len as usize, 5)).unwrap();
    File::open(&there).unwrap().set_modified(time).unwrap();
    File::open(root.join(newer)).unwrap().set_modified(time + Duration::from_nanos(1)).unwrap();
    std::fs::set_permissions(&root, PermissionsExt::from_mode(0o755)).unwrap();
    grove.file("t/one more", b"new");
    let damaged = std::fs::read(&there).unwrap();
    let quick = send(&root, &receiver.url, &["--quick"]);
    let of = |name: &Path| {
        let name = Path::new("t").join(name);
        let mut events = quick.events("finished").into_iter();
        events.find(|event| event["name"] == *name.to_str().unwrap()).unwrap()
    };
    assert_eq!(of(other)["already_there"], true);
    assert_eq!(of(other)["blake3"], Value::Null);
    assert!(std::fs::read(&there).unwrap() == damaged, "it was not looked at");
    assert_eq!(of(Path::new("one more"))["new_bytes"], 3);
    // The content is compared where the time is another.
    assert_eq!(of(newer)["already_there"], true);
    assert!(of(newer)["blake3"].is_string());
    assert_eq!(quick.code(), 0, "{quick:?}");
    // Without the flag the damage is found.
    let compared = send(&root, &receiver.url, &[]);
    compared.assert_error(4, &["already there"]);
}
