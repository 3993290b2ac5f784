//! `send --dry-run`: what would be sent is told, and nothing is.

use std::path::Path;

use serde_json::Value;

use crate::gateway::{Gateway, Limits};
use crate::support::{Place, Receiver, Running, random, send, send_well, wsferry};

/// Everything below a directory: paths, sizes, modification times.
fn listing(dir: &Path) -> Vec<(String, u64, std::time::SystemTime)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.metadata().unwrap();
        all.push((path.display().to_string(), metadata.len(), metadata.modified().unwrap()));
        if metadata.is_dir() {
            all.extend(listing(&path));
        }
    }
    all.sort();
    all
}

fn foreseen(events: &[Value], name: &str) -> Value {
    events.iter().find(|event| event["name"] == name).unwrap_or_else(|| panic!("{name}: {events:?}")).clone()
}

#[test]
fn a_dry_run_tells_what_becomes_of_each_file_and_changes_nothing() {
    let place = Place::new();
    let large = random(30_000_000, 1);
    let file = place.file("dir/partial", &large);
    place.file("dir/new", &random(1000, 2));
    place.file("dir/there", &random(2000, 3));
    place.file("dir/other", &random(3000, 4));
    for (name, bytes) in [("there", random(2000, 3)), ("other", random(5, 5))] {
        place.file(&format!("inbox/{name}"), &bytes);
    }
    let receiver = Receiver::start(&place, &[]);
    // A part of one is there.
    let limits = Limits { rate: Some(8_000_000), ..Limits::default() };
    let gateway = Gateway::start(receiver.address(), limits);
    let mut command = wsferry();
    let mut sender = Running::start(command.arg("send").arg(&file).args([&gateway.url(), "--json"]));
    sender.wait_for(|event| event["durable"].as_u64() >= Some(6 << 20));
    sender.kill();
    receiver.running.wait_for(|event| event["event"] == "failed");
    let before = listing(&place.inbox());
    assert!(before.len() > 3, "{before:?}");

    let dry = |flags: &[&str]| {
        let flags: Vec<&str> = ["--dry-run"].iter().chain(flags).copied().collect();
        // The slash: what is in it.
        send(&place.path("dir/"), &receiver.url, &flags)
    };
    let ended = dry(&[]);
    assert_eq!(ended.code(), 4, "{ended:?}");
    let events = ended.events("foreseen");
    assert_eq!(events.len(), 3, "{ended:?}");
    let partial = foreseen(&events, "partial");
    assert_eq!((&partial["would"], &partial["size"]), (&"resume".into(), &30_000_000.into()), "{partial}");
    assert!(partial["held"].as_u64() >= Some(6 << 20), "{partial}");
    assert_eq!(foreseen(&events, "new")["would"], "send");
    assert_eq!(foreseen(&events, "there")["would"], "compare");
    ended.assert_error(4, &["other", "already there"]);
    assert!(ended.events("finished").is_empty(), "{ended:?}");
    assert_eq!(listing(&place.inbox()), before);

    // And it comes to that.
    std::fs::remove_file(place.path("dir/other")).unwrap();
    assert_eq!(send(&place.path("dir/"), &receiver.url, &[]).code(), 0);
    assert!(place.received("partial") == large);
    let ended = dry(&["--quick"]);
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert_eq!(foreseen(&ended.events("foreseen"), "partial")["would"], "already_there");
}

#[test]
fn directories_are_not_made_by_a_dry_run_and_one_file_is_a_line_and_a_total() {
    let place = Place::new();
    place.file("tree/deep/f", &random(12_345, 1));
    let receiver = Receiver::start(&place, &["--once"]);
    let mut command = wsferry();
    let ended =
        Running::start(command.args(["send", "--dry-run"]).arg(place.path("tree")).arg(&receiver.url)).end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    let expected = [
        "would send tree/deep/f: 12.3 kB",
        "would make tree/deep",
        "would make tree",
        "would send 1 file, 12.3 kB, 2 directories",
    ];
    let mut lines = ended.lines.clone();
    lines.sort_by_key(|line| expected.iter().position(|expected| line == expected));
    assert_eq!(lines, expected);
    assert_eq!(place.listing(), [""; 0]);
    // Whoever waits for one sender has not had it.
    send_well(&place.path("tree/deep/f"), &receiver.url, &[]);
    assert_eq!(receiver.running.end().code(), 0);
}
