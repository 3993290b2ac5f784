//! Peers that break the protocol on purpose, against the real receiver and the real sender.

use std::path::Path;

use serde_json::{Value, json};
use wsferry::protocol::chunk::{self, Header};
use wsferry::protocol::message::{frame_of, transfer_id};

use crate::support::{Peer, Place, Receiver, Running, hello, random, send_well, wsferry};

/// The first offer of a connection.
pub fn offer(name: &str, size: u64) -> Value {
    offer_as(0, name, size)
}

pub fn offer_as(transfer: u32, name: &str, size: u64) -> Value {
    json!({
        "type": "offer", "transfer": transfer, "id": transfer_id(name, size, 0, 0, None), "path": name,
        "size": size, "mtime": 0, "mtime_ns": 0,
    })
}

/// A chunk of what the first offer of a connection offered.
pub fn frame(sequence: u64, offset: u64, bytes: &[u8]) -> String {
    frame_as(0, sequence, offset, bytes)
}

pub fn frame_as(transfer: u32, sequence: u64, offset: u64, bytes: &[u8]) -> String {
    let mut frame = vec![0; chunk::frame_len(bytes.len())];
    chunk::encode(Header { transfer, sequence, offset }, bytes, &mut frame);
    String::from_utf8(frame).unwrap()
}

/// Says that a file is whole, which has these bytes.
pub fn finish(transfer: u32, bytes: &[u8]) -> Value {
    json!({"type": "finish", "transfer": transfer, "digest": blake3::hash(bytes).to_string()})
}

fn everything_below(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(everything_below(&path));
        }
        found.push(path.display().to_string());
    }
    found
}

#[test]
fn a_hostile_sender_gets_a_typed_error_and_the_receiver_goes_on() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let text = |message: Value| frame_of(&message.to_string());
    let changed = |mut message: Value, field: &str, value: Value| {
        message[field] = value;
        text(message)
    };
    let with = |field, value| vec![text(hello()), changed(offer("a", 10), field, value)];
    let greeting = |field, value| vec![changed(hello(), field, value)];
    let then = |size, frames: Vec<String>| [vec![text(hello()), text(offer("a", size))], frames].concat();
    let said = |json: &str| vec![text(hello()), frame_of(json)];
    let damaged = |sequence| frame(sequence, 0, b"abc").replace("YWJj", "YWJk");
    let unknown = json!({"type": "finish", "transfer": 7, "digest": "0".repeat(64)});
    let cases: Vec<(Vec<String>, &str)> = vec![
        (with("id", "00".into()), "offer.id"),
        (with("size", (-1).into()), "invalid"),
        (with("size", json!(1e30)), "invalid"),
        (with("size", u64::MAX.into()), "offer.size"),
        (with("transfer", (1u64 << 32).into()), "invalid"),
        (with("transfer", u32::MAX.into()), "offer.transfer is 4294967295, expected below"),
        (greeting("window", 0.into()), "hello.window"),
        (greeting("frame_limit", 5.into()), "hello.frame_limit"),
        (greeting("offers", 15.into()), "hello.offers"),
        (greeting("session", "x".into()), "hello.session"),
        (vec![text(hello()), text(hello())], "`hello` came while it had come"),
        // Before `hello` nothing has a meaning.
        (vec![text(offer("a", 10))], "`offer` came while `hello` had not come"),
        (vec![text(json!({"type": "ping", "token": 1}))], "`ping` came while `hello` had not come"),
        (vec![text(json!({"type": "unheard of"}))], "came while `hello` had not come"),
        (vec![frame(0, 0, b"abc")], "`chunk` came while `hello` had not come"),
        (vec![damaged(0)], "`chunk` came while nothing had been offered"),
        (vec![text(hello()), damaged(0)], "`chunk` came while nothing had been offered"),
        (vec![text(hello()), frame(0, 0, b"abc")], "transfer is 0, expected one that was offered, below 0"),
        // What was a name or a number may be another.
        (
            vec![text(hello()), text(offer("a", 10)).replace("\"a\"", "\"b\"")],
            "a control message came damaged",
        ),
        (vec![text(hello()), offer("a", 10).to_string()], "neither C, Z nor M"),
        (vec!["{".to_owned()], "no message of this protocol"),
        (said("[\"ping\",1]"), "a control message is a JSON object"),
        (said("{"), "no message of this protocol"),
        (vec![text(hello()), "x".repeat(70_000)], "at most 65536 bytes"),
        (said(r#"{"type":"receipt"}"#), "missing field"),
        (said(r#"{"type":"ack","sequence":1}"#), "ack.sequence is 1, expected from 0 to 0"),
        (said(r#"{"type":"nak","sequence":0}"#), "nak.sequence is 0"),
        (said(r#"{"type":"reject","transfer":0,"code":"busy","reason":""}"#), "transfer is 0, expected one"),
        (said(&unknown.to_string()), "transfer is 7, expected one"),
        // A number is used once, and the next is larger.
        (then(10, vec![text(offer("b", 10))]), "offer.transfer is 0, expected at least 1"),
        (
            then(10, vec![text(offer_as(5, "b", 10)), text(offer_as(3, "c", 10))]),
            "offer.transfer is 3, expected at least 6",
        ),
        (then(10, vec![text(unknown)]), "transfer is 7, expected one that was offered, below 1"),
        (then(10, vec![frame_as(1, 0, 0, b"abc")]), "transfer is 1, expected one that was offered, below 1"),
        (then(10, vec![frame(1, 0, b"abc")]), "chunk.sequence is 1, expected 0"),
        (then(10, vec![frame(0, 0, b"abc"), frame(0, 0, b"abc")]), "chunk.sequence is 0, expected 1"),
        (then(10, vec![frame(0, 12, b"abc")]), "chunk.offset is 12, expected below"),
        (then(10, vec![frame(0, 1 << 55, b"abc")]), "chunk.offset"),
        (then(10, vec![frame(0, 9, b"abc")]), "chunk length is 3, expected 1 to 1"),
        // An earlier case left the first three bytes.
        (then(10, vec![frame(0, 6, b"abc")]), "chunk.offset is 6, expected 3"),
        (then(10, vec![frame(0, 0, b"ab")]), "multiples of 3"),
        (then(10, vec![frame(0, 1, b"abc")]), "multiples of 3"),
        (then(4 << 20, vec![frame(0, (3 << 20) - 3, &random(6, 1))]), "chunk length is 6, expected 1 to 3"),
        (then(10, vec![frame_of(r#"{"type":"check","transfer":0,"first":0,"count":2}"#)]), "check is [0,2]"),
        (
            then(
                10,
                vec![frame_of(r#"{"type":"check","transfer":0,"first":18446744073709551615,"count":2}"#)],
            ),
            "check is",
        ),
        (
            then(10, vec![frame(0, 0, b"abc"); 150].iter().map(|f| f.replace('C', "D")).collect()),
            "no message",
        ),
        (then(10, (0..150).map(|_| damaged(9)).collect()), "101 chunk frames came damaged"),
        // One damaged chunk allows one gap: what would make two of it is refused.
        (
            then(30, vec![damaged(0), frame(1, 12, b"abc"), frame(2, 6, b"abc")]),
            "chunk.offset is 6, expected the first byte of a gap; 1 are open",
        ),
    ];
    for (frames, words) in cases {
        let mut peer = Peer::dial_silently(&receiver.url);
        let mut is_accepted = false;
        for (number, frame) in frames.iter().enumerate() {
            peer.say(frame.as_str());
            // Chunks come behind the answer.
            if number == 1 && frames.len() > 2 {
                peer.hear_type("accept");
                is_accepted = true;
            }
        }
        let error = peer.hear_type("error");
        assert_eq!(error["code"], "protocol", "{error}");
        assert!(error["reason"].as_str().unwrap().contains(words), "{words:?}: {error}");
        drop(peer);
        // What comes before an offer is a flood, told once and counted.
        if is_accepted {
            let failed =
                receiver.running.wait_for(|event| event["name"] == "a" && event["event"] == "failed");
            assert!(failed["reason"].as_str().unwrap().contains(words), "{failed}");
        }
    }
    for name in [
        "..",
        "../x",
        "/etc/x",
        "a\0b",
        "a/../b",
        "a//b",
        "a/.wsferry/b",
        "a\\b",
        "\u{1b}]0;x\u{7}",
        "a\u{61c}b",
        &"n".repeat(300),
        ".wsferry",
    ] {
        let mut peer = Peer::dial(&receiver.url);
        peer.tell(&offer(name, 3));
        assert_eq!(peer.hear_type("reject")["code"], "name");
        // The connection is still good for an offer that makes sense.
        peer.tell(&offer_as(1, "fine", 0));
        peer.hear_type("accept");
        drop(peer);
        receiver.running.wait_for(|event| event["event"] == "failed" && event["name"] == "fine");
    }
    // The largest size that can be said is answered as fast as any other.
    let mut peer = Peer::dial(&receiver.url);
    peer.tell(&offer("huge", (1 << 53) - 1));
    assert_eq!(peer.hear_type("reject")["code"], "too-large");
    drop(peer);
    let file = place.file("f", b"after all that");
    send_well(&file, &receiver.url, &[]);
    let outside: Vec<_> = everything_below(&place.path(""))
        .into_iter()
        .filter(|path| !path.starts_with(&*place.inbox().to_string_lossy()) && !path.ends_with("/f"))
        .collect();
    assert_eq!(outside, [""; 0]);
}

#[test]
fn giant_frames_and_broken_handshakes_end_that_connection_alone() {
    use std::io::Write;

    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    // A header that announces 2^62 bytes: refused before anything is reserved.
    let mut peer = Peer::dial(&receiver.url);
    peer.tell(&offer("b", 10));
    peer.hear_type("accept");
    let mut header = vec![0x81, 0xff];
    header.extend((1u64 << 62).to_be_bytes());
    header.extend([0; 4]);
    peer.socket.get_mut().write_all(&header).unwrap();
    receiver
        .running
        .wait_for(|event| event["reason"].as_str().is_some_and(|why| why.contains("at most 4194352")));

    for noise in [&b"\x16\x03\x01\x02\x00\x01\x00\x01"[..], b"GET / HTTP/9.9\r\n\r\n", &[b'a'; 40_000], b""] {
        let mut stream = std::net::TcpStream::connect(receiver.address()).unwrap();
        let _ = stream.write_all(noise);
        drop(stream);
    }
    send_well(&place.file("f", b"still there"), &receiver.url, &[]);
}

#[test]
fn what_a_peer_says_is_printed_short_in_one_line_and_without_escapes() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let long = "x".repeat(60_000);
    for kind in ["he\\u001b[31mllo\\n\\u202e", long.as_str()] {
        let mut peer = Peer::dial(&receiver.url);
        peer.tell(&offer("a", 10));
        peer.hear_type("accept");
        // An unknown type means nothing, whatever it is called; an unknown digest does.
        peer.say(frame_of(&format!(r#"{{"type":"{kind}"}}"#)));
        peer.say(frame_of(&format!(r#"{{"type":"finish","transfer":0,"digest":"{kind}"}}"#)));
        let error = peer.hear_type("error").to_string();
        assert!(error.len() < 2048, "{} bytes", error.len());
        receiver.running.wait_for(|event| event["event"] == "failed");
    }
    let mut peer = Peer::dial(&receiver.url);
    peer.tell(&offer("a", 10));
    peer.tell(&json!({"type": "error", "code": "x", "reason": "a\u{1b}[2J\nb\u{202e}c"}));
    receiver
        .running
        .wait_for(|event| event["reason"].as_str().is_some_and(|why| why.contains("ended the transfer")));
    receiver.running.signal("-TERM");
    let errors = receiver.running.end().errors;
    assert_eq!(errors.lines().count(), 3, "{errors}");
    assert!(errors.len() < 3000);
    assert!(!errors.contains('\u{1b}') && !errors.contains('\u{202e}'), "{errors}");
}

#[test]
fn strangers_do_not_end_a_receiver_that_waits_for_one_transfer() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--once"]);
    let gave_up = frame_of(r#"{"type":"error","code":"source","reason":"x"}"#);
    for noise in ["{", &gave_up, "C"] {
        let mut peer = Peer::dial(&receiver.url);
        peer.say(noise);
        while peer.hear().is_some() {}
    }
    send_well(&place.file("f", b"the one"), &receiver.url, &[]);
    assert_eq!(receiver.running.end().code(), 0);
}

/// Descriptors, threads and resident memory (in KiB) of a process.
pub fn footprint(pid: u32) -> (usize, usize, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let number = |field: &str| {
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    (descriptors, number("Threads:") as usize, number("VmRSS:"))
}

/// Opens a connection, takes it to the `state`th state and drops it there.
fn drop_in_state(receiver: &Receiver, state: usize, name: &str) {
    use std::io::Write;

    let mut stream = std::net::TcpStream::connect(receiver.address()).unwrap();
    match state {
        0 => return,
        1 => return stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").unwrap(),
        2 => return stream.write_all(b"\r\n\r\n").unwrap(),
        _ => drop(stream),
    }
    let mut peer = Peer::dial(&receiver.url);
    if state == 3 {
        return;
    }
    peer.tell(&offer(name, 12));
    if state == 4 {
        return;
    }
    peer.hear_type("accept");
    match state {
        5 => {}
        6 => peer.say(frame(5, 0, b"abc")),
        7 => peer.say(frame(0, 0, b"abc").replace("YWJj", "YWJk")),
        8 => peer.say("{"),
        _ => {
            peer.tell(&finish(0, b"whatever"));
            peer.hear_type("repair");
        }
    }
}

#[test]
fn a_thousand_connections_dropped_in_every_state_leave_nothing_behind() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let pid = receiver.running.pid();
    // The runtime's threads and buffers come with the first connections.
    for number in 0..100 {
        drop_in_state(&receiver, number % 10, &format!("{number}"));
    }
    send_well(&place.file("f", b"warm"), &receiver.url, &[]);
    let before = footprint(pid);
    for number in 0..1000 {
        drop_in_state(&receiver, number % 10, &format!("{number}"));
    }
    send_well(&place.file("g", b"after"), &receiver.url, &[]);
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    let after = loop {
        let after = footprint(pid);
        if (after.0 <= before.0 && place.listing() == ["f", "g"]) || std::time::Instant::now() > deadline {
            break after;
        }
        std::thread::yield_now();
    };
    println!("before {before:?}, after {after:?} (descriptors, threads, KiB)");
    assert_eq!(place.listing(), ["f", "g"]);
    assert!(after.0 <= before.0, "descriptors: {before:?}, {after:?}");
    // The pool of blocking threads may still be growing or shrinking; it is bounded by what runs at once.
    assert!(after.1 <= before.1 + 8, "threads: {before:?}, {after:?}");
    assert!(after.2 <= before.2 + 4096, "memory: {before:?}, {after:?}");
}

#[test]
fn a_receiver_is_told_nothing_of_the_url_that_was_dialled_nor_of_the_source() {
    let place = Place::new();
    let file = place.file("f", &random(100_000, 3));
    for (answer, words) in [
        (json!({"type": "receipt", "files": [[0, "0".repeat(64)]]}), "broke the protocol"),
        (json!({"type": "accept", "transfer": 0, "held": [[0, 9]], "received": 0}), "accept"),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}/inbox?token=SECRET", listener.local_addr().unwrap());
        let sender = Running::start(wsferry().arg("send").arg(&file).arg(url).arg("--json"));
        let mut peer = Peer::receive(&listener, &json!({}));
        peer.hear_type("offer");
        peer.tell(&answer);
        let error = peer.hear_type("error").to_string();
        assert!(error.contains(words), "{error}");
        for ours in ["SECRET", "ws:", "127.0.0.1", &*place.path("").to_string_lossy()] {
            assert!(!error.contains(ours), "{ours}: {error}");
        }
        let ended = sender.end();
        ended.assert_error(1, &["broke the protocol", "/inbox?token=***"]);
        assert!(!format!("{ended:?}").contains("SECRET"), "{ended:?}");
    }
}

/// Opens connections that announce the largest frame and send most of it, and keeps them open.
fn hold_memory(receiver: &Receiver, connections: usize) -> Vec<std::net::TcpStream> {
    use std::io::Write;

    let peers = (0..connections).map(|number| {
        let mut peer = Peer::dial(&receiver.url);
        peer.tell(&offer(&format!("hostile {number}"), 4 << 20));
        peer.hear_type("accept");
        let stream = peer.socket.get_mut().try_clone().unwrap();
        let mut writer = stream.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut wire = vec![0x81, 0xff];
            wire.extend(4_194_352u64.to_be_bytes());
            wire.extend([1, 2, 3, 4]);
            wire.extend(random(4_190_000, number as u64));
            // The receiver may have hung up by now.
            let _ = writer.write_all(&wire);
        });
        // Dropped, it would say goodbye.
        std::mem::forget(peer);
        stream
    });
    peers.collect()
}

#[test]
fn sixty_two_unfinished_frames_take_no_more_than_the_budget_and_harm_nobody() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let pid = receiver.running.pid();
    let file = place.file("f", &random(40 << 20, 1));
    let before = footprint(pid).2;
    let hostile = hold_memory(&receiver, 62);
    let started = std::time::Instant::now();
    let sent = send_well(&file, &receiver.url, &["--chunk-size", "3MiB"]);
    let took = started.elapsed();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("before {before} KiB, peak {peak} KiB, sent in {took:?}: {sent}");
    assert!(peak < before + 100 * 1024, "{before} KiB, at peak {peak} KiB");
    assert_eq!(sent["resent_bytes"], 0, "{sent}");
    assert!(took < std::time::Duration::from_secs(15), "{took:?}");
    assert!(place.received("f") == random(40 << 20, 1));
    // Who sends the frames that others have no room for is told so, in a way that makes a sender use smaller ones.
    receiver
        .running
        .wait_for(|event| event["reason"].as_str().is_some_and(|why| why.contains("than there is memory")));
    drop(hostile);
}

#[test]
fn a_connection_that_is_idle_gives_its_memory_back() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--stall-timeout", "10min"]);
    let pid = receiver.running.pid();
    let before = footprint(pid).2;
    // Frames of 4 MiB, each whole, on connections that stay open.
    let peers: Vec<Peer> = (0..36)
        .map(|number| {
            let mut peer = Peer::dial(&receiver.url);
            peer.tell(&offer(&number.to_string(), 3 << 20));
            peer.hear_type("accept");
            peer.say(frame(0, 0, &random(3 << 20, number)));
            peer.hear_type("ack");
            peer
        })
        .collect();
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    loop {
        let now = footprint(pid).2;
        // Each thread that takes chunks keeps one buffer, whatever it has to do with: a few of 4 MiB.
        if now < before + 20 * 1024 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{before} KiB became {now}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    drop(peers);
}
