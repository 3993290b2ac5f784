//! A name that is being received, and who else may have it.

use std::thread;

use serde_json::json;

use crate::hostile::offer;
use crate::support::{Peer, Place, Receiver, hello, message, random, send, send_well};

/// A peer that holds a name and has sent nothing yet.
fn holder(receiver: &Receiver, name: &str, session: Option<&str>) -> Peer {
    let mut peer = dial(receiver, session);
    peer.tell(&offer(name, 1000));
    peer.hear_type("accept");
    peer
}

/// A peer that says which run of a sender it is.
fn dial(receiver: &Receiver, session: Option<&str>) -> Peer {
    let mut peer = Peer::dial_silently(&receiver.url);
    let mut hello = hello();
    hello["session"] = session.into();
    peer.tell(&hello);
    peer
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
        holder.tell(&json!({"type": "pong", "token": ping["token"]}));
        holder
    });
    let file = place.file("f", &random(1000, 82));
    send(&file, &receiver.url, &[]).assert_error(4, &["another transfer is writing f"]);
    send_well(&place.file("other", &random(1000, 83)), &receiver.url, &[]);
    // It is where it was, and no violation was made of the question.
    let mut holder = answering.join().unwrap();
    holder.tell(&json!({"type": "ping", "token": 7}));
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
    let mut stranger = dial(&receiver, Some("ffffffffffffffffffffffffffffffff"));
    stranger.tell(&offer("f", 1000));
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
        let message = message(&frame).expect("a receiver says messages");
        if message["type"] == "ping" {
            pings += 1;
            peer.tell(&json!({"type": "pong", "token": message["token"]}));
        }
    }
    assert!(pings >= 5, "{pings}");
    send_well(&place.file("f", &random(1000, 84)), &receiver.url, &[]);
}
