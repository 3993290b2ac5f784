//! What is partial in a directory, and what `--prune` leaves of it.

use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::proxy::{Plan, Proxy};
use crate::support::{Ended, PATIENCE, Place, Receiver, Running, random, send_well, wsferry};

fn status(place: &Place, flags: &[&str]) -> Ended {
    Running::start(wsferry().arg("status").arg(place.inbox()).args(flags)).end()
}

fn partial(place: &Place) -> Value {
    let ended = status(place, &["--json"]);
    assert_eq!((ended.code(), ended.lines.len()), (0, 1), "{ended:?}");
    ended.event("partial")
}

/// A transfer of 20 MB that stands still behind its first blocks.
fn stalled(place: &Place) -> (Receiver, Proxy, Running) {
    let patient = ["--stall-timeout", "10min"];
    let receiver = Receiver::start(place, &patient);
    let plan = Plan { stall_after: Some(12_000_000), ..Plan::default() };
    let proxy = Proxy::start(receiver.address(), move |_| (plan.clone(), Plan::default()));
    let file = place.file("big.bin", &random(20_000_000, 1));
    let mut command = wsferry();
    command.arg("send").arg(&file).arg(proxy.url()).arg("--json").args(patient);
    let sender = Running::start(&mut command);
    let deadline = Instant::now() + PATIENCE;
    let is_durable = |ended: &Ended| {
        ended.events("partial").first().is_some_and(|partial| partial["durable"].as_u64() >= Some(3 << 20))
    };
    // The directory may not be there yet.
    while !is_durable(&status(place, &["--json"])) {
        assert!(Instant::now() < deadline, "nothing becomes durable");
    }
    (receiver, proxy, sender)
}

#[test]
fn a_partial_file_is_told_with_how_far_how_old_and_whether_it_is_being_written() {
    let place = Place::new();
    let (mut receiver, _proxy, mut sender) = stalled(&place);
    let now = partial(&place);
    assert_eq!((&now["name"], &now["size"]), (&"big.bin".into(), &20_000_000.into()), "{now}");
    assert_eq!(now["being_written"], true, "{now}");
    assert!(now["age_seconds"].as_u64().unwrap() < 60, "{now}");
    let ended = status(&place, &[]);
    assert!(ended.lines[0].contains("big.bin: ") && ended.lines[0].ends_with("being written"), "{ended:?}");

    sender.kill();
    receiver.running.kill();
    let then = partial(&place);
    let (received, durable) = (then["received"].as_u64().unwrap(), then["durable"].as_u64().unwrap());
    assert_eq!(then["being_written"], false, "{then}");
    assert!(durable >= 3 << 20 && durable.is_multiple_of(3 << 20), "{then}");
    assert!(received >= durable && received < 20_000_000, "{then}");
    let ended = status(&place, &[]);
    let percent = received * 100 / 20_000_000;
    assert!(ended.lines[0].starts_with(&format!("big.bin: {percent}%, ")), "{ended:?}");
    assert!(ended.lines[0].contains(" of 20.0 MB, last moved ") && ended.lines[0].ends_with(" ago"));
    // Looking changes nothing: the same command goes on with it.
    let receiver = Receiver::start(&place, &[]);
    let finished = send_well(&place.path("big.bin"), &receiver.url, &[]);
    assert!(finished["resumed_at"].as_u64().unwrap() >= durable, "{finished}");
    assert!(place.received("big.bin") == random(20_000_000, 1));
}

#[test]
fn what_is_being_written_is_not_pruned_and_what_is_not_goes_but_for_what_is_not_ours() {
    let place = Place::new();
    let (mut receiver, _proxy, mut sender) = stalled(&place);
    let strange = place.file("inbox/.wsferry/notes.txt", b"not ours");
    let ended = status(&place, &["--prune", "--older-than", "0s", "--json"]);
    assert_eq!((ended.code(), ended.events("pruned").len(), ended.events("partial").len()), (0, 0, 1));
    assert_eq!(ended.event("partial")["being_written"], true);

    sender.kill();
    receiver.running.kill();
    let ended = status(&place, &["--prune", "--json"]);
    assert_eq!((ended.code(), ended.events("pruned").len(), ended.events("partial").len()), (0, 0, 1));
    // A file system says when it was touched.
    let part = std::fs::read_dir(place.path("inbox/.wsferry")).unwrap().map(|entry| entry.unwrap().path());
    let ours: Vec<_> = part.filter(|path| *path != strange).collect();
    assert!(Command::new("touch").args(["-d", "2 hours ago"]).args(&ours).status().unwrap().success());
    assert!(partial(&place)["age_seconds"].as_u64().unwrap() >= 7200);
    let ended = status(&place, &["--prune", "--older-than", "1h"]);
    assert!(ended.lines[0].starts_with("removed big.bin: "), "{ended:?}");
    assert!(ended.lines[1].starts_with("nothing is partial in "), "{ended:?}");
    assert_eq!(std::fs::read(&strange).unwrap(), b"not ours");
    assert!(ours.iter().all(|path| !path.exists()), "{ours:?}");
}

#[test]
fn what_is_of_any_age_is_pruned_if_that_is_said_and_no_litter_is_left() {
    let place = Place::new();
    let (mut receiver, _proxy, mut sender) = stalled(&place);
    sender.kill();
    receiver.running.kill();
    let ended = status(&place, &["--prune"]);
    assert!(ended.errors.contains("in the last 30 d is kept"), "{ended:?}");
    let ended = status(&place, &["--prune", "--older-than", "0s", "--json"]);
    let pruned = ended.event("pruned");
    assert_eq!(pruned["name"], "big.bin");
    assert!(pruned["received"].as_u64().unwrap() >= 3 << 20, "{pruned}");
    assert_eq!(place.listing(), [""; 0]);
}

#[test]
fn a_directory_with_nothing_in_it_is_well_and_one_that_is_not_there_is_an_error() {
    let place = Place::new();
    status(&place, &[]).assert_error(1, &["inbox is not there"]);
    std::fs::create_dir(place.inbox()).unwrap();
    let ended = status(&place, &["--prune"]);
    assert_eq!((ended.code(), ended.lines.len()), (0, 1));
    assert!(ended.lines[0].starts_with("nothing is partial in "), "{ended:?}");
    assert_eq!(status(&place, &["--json"]).lines, [""; 0]);
    assert_eq!(place.listing(), [""; 0]);
    let file = place.file("file", b"a file");
    let ended = Running::start(wsferry().arg("status").arg(&file)).end();
    ended.assert_error(1, &["cannot look into", "Not a directory"]);
    status(&place, &["--older-than", "1h"]);
}
