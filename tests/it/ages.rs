//! Connections that are left before they are ended: the next is open, nothing is cut, nothing is sent twice.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wsferry::protocol::message::frame_of;
use wsferry::protocol::{HeartbeatConfig, Link, LinkConfig, Receiving, chunk};

use crate::gateway::{Busy, Gateway, Limits};
use crate::link::File;
use crate::support::{Ended, PATIENCE, Place, Receiver, Running, hello, random, send_well, wsferry};

const MB: u64 = 1_000_000;

/// Sends what is there through a gateway, on connections of at most a second. Gives how it ended, and the connections.
fn send(path: &Path, gateway: &Gateway, flags: &[&str]) -> (Ended, usize) {
    let mut command = wsferry();
    command.arg("send").arg(path).arg(gateway.url()).args(["--json", "--max-connection-age", "1s"]);
    let ended = Running::start(command.args(flags)).end_within(2 * PATIENCE);
    assert_eq!(ended.code(), 0, "{ended:?}");
    (ended, gateway.connections.load(Ordering::Relaxed))
}

/// The bytes that were sent twice, of all that was sent.
fn resent(ended: &Ended) -> u64 {
    ended.events("finished").iter().map(|event| event["resent_bytes"].as_u64().unwrap()).sum()
}

/// No more crossed than the files are, with what every frame has beside them.
fn assert_crossed_once(gateway: &Gateway, size: u64) {
    let crossed = gateway.read.load(Ordering::Relaxed) * 3 / 4;
    assert!(crossed < size + size / 100 + 100_000, "{crossed} bytes crossed, of {size}");
}

#[test]
fn a_file_goes_over_many_connections_and_no_byte_of_it_twice() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let bytes = random(64 << 20, 131);
    let file = place.file("f", &bytes);
    // Connections of more than three seconds would be cut.
    let limits = Limits { rate: Some(12 * MB), life: Some(Duration::from_secs(3)), ..Limits::default() };
    let gateway = Gateway::start(receiver.address(), limits);
    let (ended, connections) = send(&file, &gateway, &[]);
    println!("{connections} connections");
    assert!((4..=10).contains(&connections), "{connections} connections");
    assert_eq!((resent(&ended), ended.events("reconnecting").len()), (0, 0), "{ended:?}");
    assert_eq!(gateway.expired.load(Ordering::Relaxed), 0, "none was there to be cut");
    assert_crossed_once(&gateway, 64 << 20);
    assert!(place.received("f") == bytes);
}

#[test]
fn input_that_pauses_moves_to_the_next_connection_meanwhile() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let limits = Limits { life: Some(Duration::from_secs(4)), ..Limits::default() };
    let gateway = Gateway::start(receiver.address(), limits);
    let bytes = random(9 << 20, 132);
    let mut command = wsferry();
    command.args(["send", "-", "--name", "f", &gateway.url(), "--json", "--max-connection-age", "1s"]);
    let mut running = Running::start(command.stdin(Stdio::piped()));
    let mut input = running.input();
    // In the middle of a block, and of three bytes.
    input.write_all(&bytes[..(4 << 20) + 1]).unwrap();
    while gateway.connections.load(Ordering::Relaxed) < 4 {
        std::thread::yield_now();
    }
    input.write_all(&bytes[(4 << 20) + 1..]).unwrap();
    drop(input);
    let ended = running.end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert_eq!((resent(&ended), ended.events("reconnecting").len()), (0, 0), "{ended:?}");
    assert_eq!(gateway.expired.load(Ordering::Relaxed), 0, "none was there to be cut");
    assert!(place.received("f") == bytes);
}

#[test]
fn a_tree_goes_over_many_connections_and_no_file_of_it_twice() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    // Of less than a block, of a block and a part, of many; and what has no bytes.
    let sizes = [0, 1, 1000, 100_000, 3 << 20, (3 << 20) - 1, 5_000_000, 20 << 20];
    let mut total = 0;
    for (number, len) in sizes.iter().cycle().take(3 * sizes.len() / 2).chain(&[2_500_000; 4]).enumerate() {
        place.file(&format!("tree/{}/{number}", number % 3), &random(*len, number as u64));
        total += *len as u64;
    }
    let limits = Limits { rate: Some(12 * MB), delay: Some(Duration::from_millis(20)), ..Limits::default() };
    let gateway = Gateway::start(receiver.address(), limits);
    let (ended, connections) = send(&place.path("tree"), &gateway, &[]);
    println!("{connections} connections, {total} bytes");
    assert!(connections >= 4, "{connections} connections");
    assert_eq!((resent(&ended), ended.events("reconnecting").len()), (0, 0), "{ended:?}");
    assert_crossed_once(&gateway, total);
    for number in 0..3 * sizes.len() / 2 + 4 {
        let name = format!("tree/{}/{number}", number % 3);
        assert!(place.received(&name) == std::fs::read(place.path(&name)).unwrap(), "{name}");
    }
    assert_eq!(
        ended.events("finished").iter().filter(|event| event["kind"] == "file").count(),
        16,
        "{ended:?}"
    );
}

#[test]
fn a_connection_behind_which_there_is_none_yet_is_kept_and_dialling_tried_again() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let bytes = random(40 << 20, 132);
    let file = place.file("f", &bytes);
    let limits = Limits { rate: Some(12 * MB), busy: Some((Busy::Twice, 1)), ..Limits::default() };
    let gateway = Gateway::start(receiver.address(), limits);
    let (ended, connections) = send(&file, &gateway, &[]);
    assert!(connections >= 4, "{connections} connections");
    let notices = ended.events("notice");
    assert_eq!(notices.len(), 1, "the first of several is told: {ended:?}");
    assert!(notices[0]["reason"].as_str().unwrap().contains("429"), "{notices:?}");
    assert_eq!((resent(&ended), ended.events("reconnecting").len()), (0, 0), "{ended:?}");
    assert!(place.received("f") == bytes);
}

#[test]
fn an_age_that_no_clock_reaches_is_none() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let file = place.file("f", &random(10_000, 135));
    send_well(&file, &receiver.url, &["--max-connection-age", "500000000000years"]);
}

#[test]
fn a_receiver_of_one_sender_waits_for_it_on_all_its_connections() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--once"]);
    let bytes = random(24 << 20, 133);
    let file = place.file("f", &bytes);
    let gateway = Gateway::start(receiver.address(), Limits { rate: Some(12 * MB), ..Limits::default() });
    let (ended, connections) = send(&file, &gateway, &[]);
    assert!(connections >= 2, "{connections} connections");
    assert_eq!(resent(&ended), 0, "{ended:?}");
    assert_eq!(receiver.running.end().code(), 0);
    assert!(place.received("f") == bytes);
}

#[test]
fn a_connection_that_is_held_begins_nothing_and_is_drained_once_everything_has_arrived() {
    let now = Instant::now();
    let config = LinkConfig {
        hello: serde_json::from_value(hello()).unwrap(),
        path: wsferry::protocol::Path::default(),
        receiving: Receiving::default(),
        heartbeat: HeartbeatConfig::default(),
    };
    let mut link = Link::new(config, now);
    let hear = |link: &mut Link, message: Value| {
        link.handle_frame(frame_of(&message.to_string()).as_bytes(), &mut Vec::new(), now).unwrap();
    };
    hear(&mut link, hello());
    let file = File::new(random(5_000_000, 134));
    link.offer(file.offer(), file.sending(3 << 20)).unwrap();
    while link.poll_message(now).is_some() {}
    assert!(link.is_drained(), "an offer may be made again");
    hear(&mut link, json!({"type": "accept", "transfer": 0}));
    let due = link.next_chunk().unwrap();
    let mut frame = vec![0; chunk::frame_len(due.len)];
    link.encode_chunk(&file.bytes[..due.len], &mut frame, now);
    assert!(link.next_chunk().is_some() && !link.is_drained());
    link.hold(true);
    assert!(link.next_chunk().is_none() && !link.is_drained(), "a chunk is in flight");
    // What came damaged goes out again, whatever is held back.
    hear(&mut link, json!({"type": "nak", "sequence": 0}));
    hear(&mut link, json!({"type": "ack", "sequence": 1}));
    assert!(!link.is_drained(), "a chunk came damaged");
    // In smaller chunks than before.
    let (mut again, mut sequence) = (0, 1);
    while let Some(part) = link.next_chunk() {
        assert_eq!(part.offset, again as u64);
        let mut frame = vec![0; chunk::frame_len(part.len)];
        link.encode_chunk(&file.bytes[again..again + part.len], &mut frame, now);
        (again, sequence) = (again + part.len, sequence + 1);
    }
    assert_eq!(again, due.len);
    hear(&mut link, json!({"type": "ack", "sequence": sequence}));
    assert!(link.is_drained() && link.next_chunk().is_none());
    // The next connection did not last: this one goes on.
    link.hold(false);
    assert_eq!(link.next_chunk().unwrap().offset, due.len as u64);
}
