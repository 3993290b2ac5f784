//! Offers in numbers, numbers that come again, and what is said of transfers that have ended: harmless, and bounded.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wsferry::protocol::message::frame_of;

use crate::hostile::{finish, footprint, frame, frame_as, offer, offer_as};
use crate::support::{PATIENCE, Peer, Place, Receiver, Running, message, random, send_well, wsferry};

/// The offers of this kind with these numbers, as a peer's masked WebSocket frames; the mask is 0.
pub fn wire(numbers: std::ops::Range<u32>, make: impl Fn(u32) -> Vec<Value>) -> Vec<u8> {
    let mut wire = Vec::new();
    for message in numbers.flat_map(make) {
        let frame = frame_of(&message.to_string());
        match frame.len() {
            len @ ..126 => wire.extend([0x81, 0x80 | len as u8]),
            len => {
                wire.extend([0x81, 0x80 | 126]);
                wire.extend((len as u16).to_be_bytes());
            }
        }
        wire.extend([0; 4]);
        wire.extend(frame.as_bytes());
    }
    wire
}

/// In KiB.
pub fn peak_memory(receiver: &Receiver) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", receiver.running.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A stream to a receiver that greeted, both ways.
pub fn greeted(receiver: &Receiver) -> (Peer, TcpStream) {
    let mut peer = Peer::dial(&receiver.url);
    peer.hear_type("hello");
    let stream = peer.socket.get_mut().try_clone().unwrap();
    (peer, stream)
}

#[test]
fn a_peer_with_a_million_offers_harms_nobody_and_leaves_nothing_behind() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    send_well(&place.file("warm", b"warm"), &receiver.url, &[]);
    let before = footprint(receiver.running.pid());
    let (_peer, mut stream) = greeted(&receiver);
    let mut ear = stream.try_clone().unwrap();
    let listening = thread::spawn(move || std::io::copy(&mut ear, &mut std::io::sink()));
    let bytes = random(5_000_000, 1);
    let other = place.file("other", &bytes);
    let mut sender = Some(Running::start(wsferry().arg("send").arg(&other).arg(&receiver.url)));
    // Refused at once, or taken and given up.
    let refused = |number| vec![offer_as(number, "..", 3)];
    let given_up = |number: u32| {
        let cancel = json!({"type": "cancel", "transfer": number, "code": "source", "reason": ""});
        vec![offer_as(number, &format!("{number}"), 3), cancel]
    };
    for batch in 0..1000 {
        let numbers = batch * 1000..(batch + 1) * 1000;
        let wire = if batch % 100 == 99 { wire(numbers, given_up) } else { wire(numbers, refused) };
        stream.write_all(&wire).unwrap();
        if batch == 500 {
            assert_eq!(sender.take().unwrap().end().code(), 0);
        }
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    listening.join().unwrap().unwrap();
    assert!(place.received("other") == bytes);
    send_well(&place.file("after", b"after"), &receiver.url, &[]);
    let after = footprint(receiver.running.pid());
    println!("before {before:?}, after {after:?}, peak {} KiB", peak_memory(&receiver));
    assert!(after.0 <= before.0, "descriptors: {before:?}, {after:?}");
    assert!(peak_memory(&receiver) < before.2 + 24 * 1024, "memory: {before:?}, {after:?}");
    assert_eq!(place.listing(), ["after", "other", "warm"]);
}

#[test]
fn a_peer_that_offers_without_end_and_hears_nothing_waits_until_it_is_given_up() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--stall-timeout", "3s"]);
    let before = footprint(receiver.running.pid()).2;
    let (peer, mut stream) = greeted(&receiver);
    let offering = thread::spawn(move || {
        let refused = |number| vec![offer_as(number, "..", 3)];
        let started = Instant::now();
        for batch in 0.. {
            assert!(started.elapsed() < PATIENCE, "all of it is taken, for ever");
            if stream.write_all(&wire(batch * 1000..(batch + 1) * 1000, refused)).is_err() {
                return batch;
            }
        }
        unreachable!("it is given up before")
    });
    // Nobody waits for it.
    let bytes = random(5_000_000, 2);
    send_well(&place.file("f", &bytes), &receiver.url, &[]);
    assert!(place.received("f") == bytes);
    let batches = offering.join().unwrap();
    println!("{batches} batches, {before} KiB, peak {} KiB", peak_memory(&receiver));
    assert!(peak_memory(&receiver) < before + 32 * 1024);
    drop(peer);
}

#[test]
fn offers_that_are_open_have_a_bound_and_take_little() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let before = footprint(receiver.running.pid()).2;
    let mut peers = Vec::new();
    for number in 0..4 {
        let (mut peer, mut stream) = greeted(&receiver);
        let open = |transfer| vec![offer_as(transfer, &format!("{number} {transfer:0>200}"), 3)];
        // Those for which there is no place wait.
        stream.write_all(&wire(0..2048, open)).unwrap();
        peer.hear_type("accept");
        peers.push((peer, stream));
    }
    let bytes = random(5_000_000, 3);
    send_well(&place.file("f", &bytes), &receiver.url, &[]);
    for (peer, stream) in &mut peers {
        stream.write_all(&wire(2048..2049, |transfer| vec![offer_as(transfer, "one more", 3)])).unwrap();
        let error = peer.hear_type("error");
        assert!(error["reason"].as_str().unwrap().contains("open is 2049, expected at most 2048"), "{error}");
    }
    let peak = peak_memory(&receiver);
    println!("{before} KiB, peak {peak} KiB");
    // 6 KiB for each.
    assert!(peak < before + 48 * 1024, "{before} KiB, at peak {peak} KiB");
}

#[test]
fn what_is_said_of_a_transfer_that_has_ended_counts_and_means_nothing() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let mut peer = Peer::dial(&receiver.url);
    peer.tell(&offer("a", 10));
    peer.hear_type("accept");
    peer.say(frame(0, 0, b"abc"));
    peer.tell(&json!({"type": "cancel", "transfer": 0, "code": "source", "reason": "it is gone"}));
    peer.tell(&offer_as(1, "..", 3));
    peer.hear_type("reject");
    // Chunks that were on their way, also such as would have broken the protocol, and messages.
    for (number, transfer, bytes) in [(1, 0, &b"def"[..]), (2, 0, b"g"), (3, 1, b"abc"), (4, 0, b"abc")] {
        peer.say(frame_as(transfer, number, 0, bytes));
    }
    peer.tell(&finish(0, b"abc"));
    peer.tell(&json!({"type": "check", "transfer": 1, "first": 7, "count": 7}));
    peer.tell(&json!({"type": "cancel", "transfer": 0, "code": "source", "reason": "still"}));
    loop {
        if peer.hear_type("ack")["sequence"] == 5 {
            break;
        }
    }
    // Numbers may be left out, and the sequence goes on.
    peer.tell(&offer_as(7, "b", 3));
    peer.hear_type("accept");
    peer.say(frame_as(7, 5, 0, b"abc"));
    peer.tell(&finish(7, b"abc"));
    assert_eq!(peer.hear_type("receipt")["files"][0][0], 7);
    assert_eq!(place.received("b"), b"abc");
    drop(peer);
    receiver.running.signal("-TERM");
    let ended = receiver.running.end();
    // What was cancelled, and what was refused: nothing else failed.
    assert_eq!(ended.events("failed").len(), 2, "{ended:?}");
}

#[test]
fn a_transfer_that_is_given_up_at_its_end_is_whole_or_not_there() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    for number in 0..50 {
        let name = format!("f{number}");
        let mut peer = Peer::dial(&receiver.url);
        peer.tell(&offer(&name, 3));
        peer.hear_type("accept");
        peer.say(frame(0, 0, b"abc"));
        peer.tell(&finish(0, b"abc"));
        peer.tell(&json!({"type": "cancel", "transfer": 0, "code": "source", "reason": ""}));
        peer.tell(&offer_as(1, &name, 3));
        peer.hear_type("accept");
        if let Ok(bytes) = std::fs::read(place.inbox().join(&name)) {
            assert_eq!(bytes, b"abc", "{name}");
        }
        drop(peer);
    }
    send_well(&place.file("f0", b"abc"), &receiver.url, &[]);
}

#[test]
fn a_transfer_that_is_given_up_before_goodbye_has_failed_once() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let (mut peer, mut stream) = greeted(&receiver);
    peer.tell(&offer("f", 10));
    peer.hear_type("accept");
    let cancel = json!({"type": "cancel", "transfer": 0, "code": "source", "reason": "it is gone"});
    let mut wire = wire(0..1, |_| vec![cancel.clone()]);
    // Goodbye, in the same breath.
    wire.extend([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]);
    stream.write_all(&wire).unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
    drop(peer);
    receiver.running.signal("-TERM");
    let ended = receiver.running.end();
    let failed = ended.events("failed");
    assert_eq!((failed.len(), &failed[0]["name"]), (1, &"f".into()), "{ended:?}");
}

#[test]
fn a_sender_that_is_offered_something_ends_the_connection_and_says_so() {
    let place = Place::new();
    let file = place.file("f", &random(100_000, 4));
    for is_accepted in [false, true] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let sender = Running::start(wsferry().arg("send").arg(&file).arg(url).arg("--json"));
        let mut peer = Peer::receive(&listener, &json!({}));
        peer.hear_type("offer");
        if is_accepted {
            peer.tell(&json!({"type": "accept", "transfer": 0}));
        }
        peer.tell(&offer("g", 3));
        peer.say(frame(0, 0, b"abc"));
        assert_eq!(peer.hear_type("error")["code"], "protocol");
        sender.end().assert_error(1, &["broke the protocol", "`offer` came"]);
    }
}

fn receiver_with_descriptors(place: &Place, most: u64) -> Receiver {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {most}; exec \"$@\""), "sh"]).arg(wsferry().get_program());
    command.arg("receive").arg(place.inbox()).args(["--json", "--listen", "127.0.0.1:0"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Receiver::launch(&mut command)
}

#[test]
fn files_that_are_begun_and_not_ended_leave_others_the_descriptors_that_they_need() {
    let place = Place::new();
    let receiver = receiver_with_descriptors(&place, 256);
    let (mut peer, mut stream) = greeted(&receiver);
    stream
        .write_all(&wire(0..1000, |transfer| vec![offer_as(transfer, &format!("h{transfer}"), 30)]))
        .unwrap();
    // As many as are accepted are begun, in the order of the offers; the others wait.
    let mut accepted = 0;
    while let Some(text) = peer.hear_within(Duration::from_millis(500)) {
        let message = message(&text).unwrap();
        assert_ne!(message["type"], "reject", "{message}");
        if message["type"] == "accept" {
            peer.say(frame_as(accepted, accepted.into(), 0, b"abc"));
            accepted += 1;
        }
    }
    assert!((8..200).contains(&accepted), "{accepted}");
    let started = Instant::now();
    let bytes = random(5_000_000, 5);
    let finished = send_well(&place.file("f", &bytes), &receiver.url, &["--retry-for", "20s"]);
    assert!(place.received("f") == bytes);
    assert!(started.elapsed() < Duration::from_secs(15), "{finished}");
    // Also many small ones, of which one at a time has a place.
    let files: Vec<_> =
        (0..300).map(|number| place.file(&format!("s{number}"), &random(1000, number))).collect();
    let ended = Running::start(wsferry().arg("send").args(&files).arg(&receiver.url)).end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    // One that ends makes room for the next.
    for transfer in 0..accepted {
        let cancel = json!({"type": "cancel", "transfer": transfer, "code": "source", "reason": ""});
        peer.tell(&cancel);
    }
    peer.hear_type("accept");
}

#[test]
fn few_descriptors_make_many_small_files_wait_and_fail_none() {
    let place = Place::new();
    let receiver = receiver_with_descriptors(&place, 64);
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let file = |number| place.file(&format!("{sender} {number}"), &random(2000, number));
            let files: Vec<_> = (0..150).map(file).collect();
            Running::start(wsferry().arg("send").args(&files).arg(&receiver.url))
        })
        .collect();
    for sender in senders {
        let ended = sender.end();
        assert_eq!((ended.code(), ended.errors.as_str()), (0, ""), "{ended:?}");
    }
    receiver.running.signal("-TERM");
    let ended = receiver.running.end();
    assert_eq!(ended.events("failed"), [""; 0]);
    assert_eq!(ended.events("finished").len(), 600);
}
