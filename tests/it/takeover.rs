//! A name that is being received, and who else may have it.

use std::thread;

use serde_json::{Value, json};

use crate::support::{Peer, Place, Receiver, random, send, send_well};

/// A peer that holds a name and has sent nothing yet.
fn holder(receiver: &Receiver, name: &str, session: Option<&str>) -> Peer {
    let mut peer = Peer::dial(&receiver.url);
    peer.say(offer(name, session).to_string());
    peer.hear_type("accept");
    peer
}

fn offer(name: &str, session: Option<&str>) -> Value {
    let id = wsferry::protocol::message::transfer_id(name, 1000, 0, 0, None);
    json!({
        "type": "offer", "id": id, "name": name, "size": 1000, "mtime": 0, "mtime_ns": 0,
        "frame_limit": 40_000, "window": 1 << 20, "session": session,
    })
}

#[test]
fn a_holder_that_is_silent_loses_its_name_to_who_asks_for_it() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let bytes = random(100_000, 81);
    // Its machine is gone, and nobody told the receiver.
    let silent = holder(&receiver, "f", None);
    let finished = send_well(&place.file("f", &bytes), &receiver.url, &[]);
    assert!(finished["seconds"].as_f64() < Some(10.0), "{finished}");
    assert!(place.received("f") == bytes);
    drop(silent);
}

#[test]
fn a_holder_that_answers_keeps_its_name_whoever_asks_and_others_are_served_meanwhile() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let mut holder = holder(&receiver, "f", None);
    let answering = thread::spawn(move || {
        let ping = holder.hear_type("ping");
        holder.say(json!({"type": "pong", "token": ping["token"]}).to_string());
        holder
    });
    let file = place.file("f", &random(1000, 82));
    send(&file, &receiver.url, &[]).assert_error(4, &["another transfer is writing f"]);
    send_well(&place.file("other", &random(1000, 83)), &receiver.url, &[]);
    // It is where it was, and no violation was made of the question.
    let mut holder = answering.join().unwrap();
    holder.say(json!({"type": "ping", "token": 7}).to_string());
    assert_eq!(holder.hear_type("pong")["token"], 7);
}

#[test]
fn the_same_sender_takes_its_name_over_at_once() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let session = "0123456789abcdef0123456789abcdef";
    let mut before = holder(&receiver, "f", Some(session));
    let started = std::time::Instant::now();
    let _after = holder(&receiver, "f", Some(session));
    // Sooner than any answer is waited for.
    assert!(started.elapsed() < std::time::Duration::from_secs(3), "{:?}", started.elapsed());
    while before.hear().is_some() {}
    // Another run with the same file is a stranger.
    let mut stranger = Peer::dial(&receiver.url);
    stranger.say(offer("f", Some("ffffffffffffffffffffffffffffffff")).to_string());
    drop(_after);
    stranger.hear_type("accept");
}

#[test]
fn a_peer_that_gives_signs_of_life_alone_holds_no_name_for_ever() {
    let place = Place::new();
    // Ten times as long is the limit.
    let receiver = Receiver::start(&place, &["--stall-timeout", "300ms"]);
    let mut peer = holder(&receiver, "f", None);
    let mut pings = 0;
    while let Some(frame) = peer.hear() {
        let message: Value = serde_json::from_str(&frame).unwrap();
        if message["type"] == "ping" {
            pings += 1;
            peer.say(json!({"type": "pong", "token": message["token"]}).to_string());
        }
    }
    assert!(pings >= 5, "{pings}");
    send_well(&place.file("f", &random(1000, 84)), &receiver.url, &[]);
}
