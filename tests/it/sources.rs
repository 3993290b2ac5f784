//! Files that live while they are sent: rotated, grown, touched, and two of one name.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::proxy::{Plan, Proxy};
use crate::support::{Ended, Place, Receiver, Running, random, send, wsferry};

/// Sends 30 MB, and calls `act` in mid-file, once.
fn send_while(
    place: &Place,
    flags: &[&str],
    act: impl Fn(&Path) + Send + Sync + 'static,
) -> (Vec<u8>, Ended) {
    let receiver = Receiver::start(place, &[]);
    let bytes = random(30_000_000, 2);
    let file = place.file("f", &bytes);
    let path = file.clone();
    let act: Arc<dyn Fn() + Send + Sync> = Arc::new(move || act(&path));
    let proxy = Proxy::start(receiver.address(), move |number| {
        let pause = (number == 0).then(|| (20_000_000, act.clone()));
        (Plan { pause, ..Plan::default() }, Plan::default())
    });
    let ended = send(&file, &proxy.url(), &[&["--window", "1MiB", "--retry-for", "20s"], flags].concat());
    (bytes, ended)
}

fn rotate(path: &Path) -> PathBuf {
    let old = path.with_extension("1");
    std::fs::rename(path, &old).unwrap();
    std::fs::write(path, random(1000, 9)).unwrap();
    old
}

fn append(path: &Path, bytes: &[u8]) {
    let mut file = std::fs::File::options().append(true).open(path).unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
}

#[test]
fn a_file_that_is_rotated_away_while_it_is_sent_is_finished_and_that_is_said() {
    let place = Place::new();
    let (bytes, ended) = send_while(&place, &[], |path| drop(rotate(path)));
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert!(place.received("f") == bytes, "the file that was begun is the one that arrives");
    assert_eq!(ended.events("started").len(), 1, "{ended:?}");
    let notice = ended.event("notice");
    assert!(notice["reason"].as_str().unwrap().contains("another file"), "{notice}");
}

#[test]
fn a_rotated_file_that_changed_too_is_not_mistaken_for_the_new_one() {
    let place = Place::new();
    let (_, ended) = send_while(&place, &[], |path| append(&rotate(path), b"more"));
    ended.assert_error(5, &["f", "was replaced"]);
    assert_eq!(place.listing(), [".wsferry"], "what arrived is kept");
}

#[test]
fn content_that_did_not_change_is_no_change() {
    let place = Place::new();
    let (bytes, ended) = send_while(&place, &[], |path| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::hard_link(path, path.with_extension("link")).unwrap();
    });
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert_eq!(ended.events("started").len(), 1, "sent once: {ended:?}");
    assert!(place.received("f") == bytes);
}

#[test]
fn a_file_that_never_stops_growing_is_sent_as_it_was_at_the_start() {
    let place = Place::new();
    let (bytes, ended) = send_while(&place, &["--growing"], |path| append(path, &random(5_000_000, 3)));
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert_eq!(ended.event("finished")["size"], bytes.len());
    assert!(place.received("f") == bytes);
}

#[test]
fn what_was_there_at_the_start_has_to_stay_also_of_a_file_that_grows() {
    let place = Place::new();
    let (_, ended) = send_while(&place, &["--growing"], |path| {
        append(path, b"more");
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(b"another beginning", 7).unwrap();
    });
    // Taken up again as what it became, with its size then.
    assert_eq!(ended.code(), 0, "{ended:?}");
    let mut became = random(30_000_000, 2);
    became[7..24].copy_from_slice(b"another beginning");
    assert!(place.received("f").starts_with(&became));
}

#[test]
fn two_files_with_one_destination_name_are_refused_before_anything_is_sent() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--overwrite"]);
    let (a, b) = (place.file("a/r.csv", b"one"), place.file("b/r.csv", b"two"));
    let ended = Running::start(wsferry().arg("send").arg(&a).arg(&b).arg(&receiver.url)).end();
    ended.assert_error(2, &["a/r.csv", "b/r.csv", "r.csv"]);
    assert_eq!(place.listing(), [""; 0]);
    let ended = Running::start(wsferry().arg("send").arg(&a).arg(&a).arg(&receiver.url)).end();
    ended.assert_error(2, &["a/r.csv"]);
    // What is in a directory has names of its own.
    let url = receiver.url.as_str();
    let mut command = wsferry();
    command.current_dir(place.path("")).args(["send", "a/", "b/", "a/.", url]);
    let ended = Running::start(&mut command).end();
    assert_ne!(ended.code(), 2, "{ended:?}");
}
