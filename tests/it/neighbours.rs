//! Other programs, other users and ordinary habits beside a receiver: nothing wrong is called right, nothing is lost.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::hostile::{finish, offer};
use crate::proxy::{Plan, Proxy};
use crate::support::{Peer, Place, Receiver, Running, message, random, send, send_well, wsferry};

const B: usize = 3 << 20;

/// A proxy whose first connection is held after so many bytes while `act` acts.
fn held_at(receiver: &Receiver, bytes: u64, act: impl Fn() + Send + Sync + 'static) -> Proxy {
    let act: Arc<dyn Fn() + Send + Sync> = Arc::new(act);
    Proxy::start(receiver.address(), move |number| {
        let pause = (number == 0).then(|| (bytes, act.clone()));
        (Plan { pause, ..Plan::default() }, Plan::default())
    })
}

/// Sends a file over a connection that is cut after so many bytes, and waits until the receiver has noticed.
fn begin(receiver: &Receiver, file: &Path, bytes: u64) {
    let proxy = Proxy::start(receiver.address(), move |_| {
        (Plan { cut_after: Some(bytes), ..Plan::default() }, Plan::default())
    });
    assert_eq!(send(file, &proxy.url(), &["--retry-for", "0s"]).code(), 3);
    receiver.running.wait_for(|event| event["event"] == "failed");
}

/// The file of `.wsferry` with this ending.
fn partial(place: &Place, ending: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(place.inbox().join(".wsferry")).ok()?;
    let mut paths = entries.map(|entry| entry.unwrap().path());
    paths.find(|path| path.extension().is_some_and(|extension| extension == ending))
}

/// An offer of this file, as a peer of its own makes it.
#[test]
fn a_cleaner_that_removes_the_partial_files_costs_neither_the_content_nor_the_name() {
    for flags in [&[][..], &["--overwrite"]] {
        let place = Place::new();
        let receiver = Receiver::start(&place, flags);
        let (bytes, others) = (random(7 * B + 5, 1), random(7 * B + 5, 2));
        let file = place.file("f", &bytes);
        let other = place.file("other", &others);
        let (hidden, url) = (place.inbox().join(".wsferry"), receiver.url.clone());
        let address = receiver.address();
        let proxy = held_at(&receiver, 10_000_000, move || {
            std::fs::remove_dir_all(&hidden).unwrap();
            // A second sender of that name, whose connection is cut.
            let cut = Proxy::start(address, |_| {
                (Plan { cut_after: Some(15_000_000), ..Plan::default() }, Plan::default())
            });
            let _ = send(&other, &cut.url(), &["--name", "f", "--retry-for", "0s"]);
            let _ = &url;
        });
        let finished = send_well(&file, &proxy.url(), &["--window", "1MiB"]);
        assert_eq!(finished["resumed_at"], 0, "{finished}");
        assert!(place.received("f") == bytes, "another file was called right");
        assert_eq!(place.listing(), ["f"]);
    }
}

#[test]
fn two_receivers_of_one_directory_and_a_cleaner_never_mix_two_files_of_one_name() {
    let place = Place::new();
    let (one, two) = (Receiver::start(&place, &["--overwrite"]), Receiver::start(&place, &["--overwrite"]));
    let (bytes, others) = (random(7 * B + 5, 3), random(7 * B + 5, 4));
    let (file, other) = (place.file("f", &bytes), place.file("other", &others));
    let hidden = place.inbox().join(".wsferry");
    let second = two.url.clone();
    let address = two.address();
    let proxy = held_at(&one, 10_000_000, move || {
        std::fs::remove_dir_all(&hidden).unwrap();
        let cut = Proxy::start(address, |_| {
            (Plan { cut_after: Some(15_000_000), ..Plan::default() }, Plan::default())
        });
        let _ = send(&other, &cut.url(), &["--name", "f", "--retry-for", "0s"]);
        let _ = &second;
    });
    let ended = send(&file, &proxy.url(), &["--window", "1MiB", "--retry-for", "20s"]);
    if ended.code() != 0 {
        // The second one's receiver had the name for a moment longer.
        ended.assert_error(3, &["by another program", "same command"]);
        send_well(&file, &proxy.url(), &[]);
    }
    assert!(place.received("f") == bytes, "another file was called right");
}

#[test]
fn a_file_that_is_there_and_changes_before_the_receipt_gets_none_for_what_it_was() {
    let bytes = random(1_000_000, 5);
    let append = |path: &Path| {
        let file = std::fs::File::options().append(true).open(path).unwrap();
        std::io::Write::write_all(&mut &file, b"more").unwrap();
    };
    let remove = |path: &Path| std::fs::remove_file(path).unwrap();
    let replace = |path: &Path| {
        std::fs::write(path.with_extension("new"), random(1_000_000, 6)).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    };
    for act in [append as fn(&Path), remove, replace] {
        let place = Place::new();
        let receiver = Receiver::start(&place, &[]);
        let path = place.inbox().join("f");
        std::fs::write(&path, &bytes).unwrap();
        let mut peer = Peer::dial(&receiver.url);
        peer.tell(&offer("f", bytes.len() as u64));
        assert_eq!(peer.hear_type("accept")["complete"], true);
        act(&path);
        peer.tell(&finish(0, &bytes));
        // It is told of an end, or asked for the blocks.
        loop {
            let said = message(&peer.hear().expect("the connection is good for others")).unwrap();
            assert_ne!(said["type"], "receipt", "that file is not there any more");
            if said["type"] == "repair" || said["type"] == "reject" {
                break;
            }
        }
    }
}

#[test]
fn a_hidden_directory_that_is_not_ours_is_refused_at_the_start_and_left_alone() {
    let start = |place: &Place| {
        let mut command = wsferry();
        Running::start(command.arg("receive").arg(place.inbox()).args(["--listen", "127.0.0.1:0"])).end()
    };
    // A link to somewhere else.
    let place = Place::new();
    let victims = ["x.journal", "y.part", "y.bench-part", "y.bench-journal"];
    victims.iter().for_each(|name| drop(place.file(&format!("elsewhere/{name}"), b"theirs")));
    std::fs::create_dir(place.inbox()).unwrap();
    std::os::unix::fs::symlink(place.path("elsewhere"), place.inbox().join(".wsferry")).unwrap();
    start(&place).assert_error(1, &[".wsferry", "is not a directory"]);
    for name in victims {
        assert_eq!(std::fs::read(place.path("elsewhere").join(name)).unwrap(), b"theirs");
    }
    // Anyone could put files in.
    let place = Place::new();
    std::fs::create_dir_all(place.inbox().join(".wsferry")).unwrap();
    std::fs::set_permissions(place.inbox().join(".wsferry"), Permissions::from_mode(0o777)).unwrap();
    start(&place).assert_error(1, &[".wsferry", "others can write"]);
    // Another user's. Who is not root cannot give a directory away.
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        std::fs::set_permissions(place.inbox().join(".wsferry"), Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(place.inbox().join(".wsferry"), Some(65534), None).unwrap();
        start(&place).assert_error(1, &[".wsferry", "belongs to another user"]);
    }
}

#[test]
fn only_files_that_are_provably_ours_are_swept() {
    let place = Place::new();
    let hidden = place.inbox().join(".wsferry");
    std::fs::create_dir_all(&hidden).unwrap();
    std::fs::set_permissions(&hidden, Permissions::from_mode(0o700)).unwrap();
    let stem = &blake3::hash(b"f").to_hex()[..32];
    let theirs =
        ["notes.journal", "a.bench-part", "a.bench-journal", &format!("{stem}.journal"), "README.part"];
    for name in theirs {
        std::fs::write(hidden.join(name), b"theirs").unwrap();
    }
    drop(Receiver::start(&place, &[]));
    for name in theirs {
        assert_eq!(std::fs::read(hidden.join(name)).unwrap(), b"theirs", "{name}");
    }
}

#[test]
fn an_inbox_that_was_copied_by_links_resumes_where_it_was() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let bytes = random(7 * B + 5, 7);
    let file = place.file("f", &bytes);
    begin(&receiver, &file, 20_000_000);
    let copied = Command::new("cp").arg("-al").arg(place.inbox()).arg(place.path("copy")).status().unwrap();
    assert!(copied.success());
    drop(receiver);
    // Also what is swept at the start.
    let receiver = Receiver::start(&place, &[]);
    let finished = send_well(&file, &receiver.url, &[]);
    assert!(finished["resumed_at"].as_u64() >= Some(4 * B as u64), "{finished}");
    assert!(place.received("f") == bytes);
}

#[test]
fn an_offer_alone_changes_nothing() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--overwrite"]);
    let bytes = random(7 * B + 5, 8);
    let file = place.file("f", &bytes);
    begin(&receiver, &file, 20_000_000);
    let state = || std::fs::read(partial(&place, "part").unwrap()).unwrap();
    let before = state();
    for size in [0, 1, 5_000_000, 40_000_000] {
        let mut peer = Peer::dial(&receiver.url);
        peer.tell(&offer("f", size));
        peer.hear_type("accept");
        drop(peer);
        receiver.running.wait_for(|event| event["event"] == "failed");
        assert!(state() == before, "an offer of {size} bytes changed what was there");
    }
    let finished = send_well(&file, &receiver.url, &[]);
    assert!(finished["resumed_at"].as_u64() >= Some(4 * B as u64), "{finished}");
    // Where nothing is, nothing is left.
    let mut peer = Peer::dial(&receiver.url);
    peer.tell(&offer("g", 1000));
    peer.hear_type("accept");
    assert_eq!(place.listing(), ["f"]);
}

#[test]
fn a_repair_merges_with_the_partial_file_that_is_there() {
    let place = Place::new();
    let bytes = random(8 * B, 9);
    let file = place.file("f", &bytes);
    std::fs::create_dir_all(place.inbox()).unwrap();
    // The old file differs in two blocks.
    let mut old = bytes.clone();
    old[B + 7] ^= 1;
    old[6 * B + 7] ^= 1;
    std::fs::write(place.inbox().join("f"), &old).unwrap();
    let receiver = Receiver::start(&place, &["--overwrite"]);
    // A tiny partial file: a part of the first block.
    begin(&receiver, &file, 2_000_000);
    let finished = send_well(&file, &receiver.url, &["--repair"]);
    assert_eq!(finished["repaired_blocks"], 2, "{finished}");
    assert_eq!(finished["resent_bytes"], 2 * B, "{finished}");
    assert!(place.received("f") == bytes);
    assert_eq!(place.listing(), ["f"]);
}

#[test]
fn a_repair_of_a_file_with_the_same_time_sends_what_differs_alone() {
    let place = Place::new();
    let bytes = random(8 * B, 19);
    let file = place.file("f", &bytes);
    std::fs::create_dir_all(place.inbox()).unwrap();
    let mut old = bytes.clone();
    old[5 * B + 7] ^= 1;
    std::fs::write(place.inbox().join("f"), &old).unwrap();
    // As on file systems that keep few digits of it: it seems to be the same file until it was compared.
    let time = std::fs::metadata(&file).unwrap().modified().unwrap();
    std::fs::File::options().write(true).open(place.inbox().join("f")).unwrap().set_modified(time).unwrap();
    let receiver = Receiver::start(&place, &["--overwrite"]);
    let finished = send_well(&file, &receiver.url, &["--repair"]);
    assert_eq!(
        (&finished["repaired_blocks"], &finished["resent_bytes"]),
        (&1.into(), &B.into()),
        "{finished}"
    );
    let received = receiver.running.wait_for(|event| event["event"] == "finished");
    assert_eq!(
        (&received["size"], &received["already_there"]),
        (&(8 * B).into(), &false.into()),
        "{received}"
    );
    assert!(place.received("f") == bytes);
}

#[test]
fn what_cannot_be_replaced_is_said_before_the_first_byte() {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        println!("lacking: root, to mount, to make a file immutable, and to be two users");
        return;
    }
    let bytes = random(2 * B, 10);
    // A mount point.
    let place = Place::new();
    let file = place.file("f", &bytes);
    std::fs::create_dir_all(place.inbox()).unwrap();
    let old = place.inbox().join("f");
    std::fs::write(&old, b"old").unwrap();
    let elsewhere = place.file("mounted", b"mounted");
    let mounted = Command::new("mount").arg("--bind").arg(&elsewhere).arg(&old).status().unwrap();
    if mounted.success() {
        let receiver = Receiver::start(&place, &["--overwrite"]);
        let ended = send(&file, &receiver.url, &[]);
        assert!(Command::new("umount").arg(&old).status().unwrap().success());
        ended.assert_error(4, &["f", "mount point"]);
        assert!(ended.events("progress").is_empty(), "{ended:?}");
    } else {
        println!("lacking: bind mounts");
    }
    // Immutable.
    if Command::new("chattr").arg("+i").arg(&old).status().is_ok_and(|status| status.success()) {
        let receiver = Receiver::start(&place, &["--overwrite"]);
        let ended = send(&file, &receiver.url, &[]);
        assert!(Command::new("chattr").arg("-i").arg(&old).status().unwrap().success());
        ended.assert_error(4, &["f", "immutable"]);
        assert!(ended.events("progress").is_empty(), "{ended:?}");
    } else {
        println!("lacking: immutable files");
    }
}

#[test]
fn partial_files_that_nobody_goes_on_with_are_removed_in_time_and_no_others() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let bytes = random(4 * B, 11);
    let (old, new) = (place.file("old", &bytes), place.file("new", &bytes));
    begin(&receiver, &old, 8_000_000);
    drop(receiver);
    let entries =
        || std::fs::read_dir(place.inbox().join(".wsferry")).unwrap().map(|entry| entry.unwrap().path());
    let set_back = |days: u64| {
        let time = std::time::SystemTime::now() - std::time::Duration::from_secs(days * 24 * 60 * 60);
        for path in entries() {
            std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        }
    };
    // One day is left.
    set_back(29);
    drop(Receiver::start(&place, &[]));
    assert_eq!(entries().count(), 2);
    // And one more is over.
    set_back(31);
    let receiver = Receiver::start(&place, &["--keep-partial", "40days"]);
    begin(&receiver, &new, 8_000_000);
    assert_eq!(entries().count(), 4);
    drop(receiver);
    let receiver = Receiver::start(&place, &[]);
    assert_eq!(entries().count(), 2, "the new one stays");
    let finished = send_well(&new, &receiver.url, &[]);
    assert!(finished["resumed_at"].as_u64() > Some(0), "{finished}");
    assert_eq!(place.listing(), ["new"]);
}

#[test]
fn what_is_being_written_is_not_swept_however_old_its_times_are() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let bytes = random(7 * B, 12);
    let file = place.file("f", &bytes);
    let hidden = place.inbox().join(".wsferry");
    let inbox = place.inbox();
    let proxy = held_at(&receiver, 12_000_000, move || {
        for entry in std::fs::read_dir(&hidden).unwrap() {
            let file = std::fs::File::options().write(true).open(entry.unwrap().path()).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        }
        // Another receiver of the same directory looks around as it starts.
        let mut command = wsferry();
        command.arg("receive").arg(&inbox).args(["--json", "--listen", "127.0.0.1:0"]);
        drop(Receiver::launch(&mut command));
        assert_eq!(std::fs::read_dir(&hidden).unwrap().count(), 2);
    });
    let finished = send_well(&file, &proxy.url(), &["--window", "1MiB"]);
    assert_eq!(finished["resumed_at"], 0, "{finished}");
    assert!(place.received("f") == bytes);
}
